"""Who calls, by API key, and what that key may do. Without a keys file everybody may do everything.

A key is asked for at every path but the open ones, whether its route asks for a scope or not: what is forgotten is
closed. Must never say why a key was not accepted, nor compare keys in a time that depends on them.
"""

import stat
import time
from collections.abc import Callable
from hmac import compare_digest
from http import HTTPStatus
from pathlib import Path

from fastapi.openapi.models import APIKey as ApiKeyInHeader
from fastapi.openapi.models import APIKeyIn
from fastapi.security.base import SecurityBase
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as AsgiScope

from services.runtime.http.key_file import KeyFileError, KeyRecord, Scope, digest, parse_keys
from services.runtime.http.problems import Refused, problem_response
from services.runtime.http.request_ids import request_id_of
from services.runtime.logs import logger
from services.runtime.shutdown import KnownProblem

__all__ = ["OPEN_PATHS", "ApiKeys", "Identify", "KeysRequired", "Scope", "key_of", "requires"]

OPEN_PATHS = frozenset({"/healthz", "/readyz", "/metrics", "/openapi.json", "/docs", "/docs/oauth2-redirect"})
SECURITY_SCHEME = "ApiKey"
_CHECK_SECONDS = 1.0
_KEY_BYTES_MAX = 256
_SCOPE_KEY = "clv_api_key"
log = logger(__name__)


class ApiKeys:
    """The keys of a file, which is read again when it changes; a change counts after a second at most."""

    def __init__(self, path: Path | None, clock: Callable[[], float] = time.time) -> None:
        """clock: seconds since 1970. See from_file()."""
        self._path, self._clock = path, clock
        self._keys: list[tuple[bytes, KeyRecord]] = []
        self._ends: dict[str, float] = {}
        self._seen: tuple[int, ...] | None = None
        self._checked_seconds = 0.0
        self._problem = ""

    @classmethod
    def from_file(cls, path: Path | None, clock: Callable[[], float] = time.time) -> "ApiKeys":
        """The keys in `path`; without a path, none are asked for. Raises KnownProblem if the file cannot be used."""
        keys = cls(path, clock)
        if path is not None:
            try:
                keys._read()
            except (OSError, UnicodeDecodeError, KeyFileError) as error:
                raise KnownProblem(f"CLV_HTTP_KEYS_FILE={path}: {error}") from error
            if path.stat().st_mode & stat.S_IROTH:
                log.warning("keys_file_is_readable_by_all", file=str(path), remedy="chmod o-r")
        return keys

    @property
    def on(self) -> bool:
        """Whether keys are asked for at all."""
        return self._path is not None

    def find(self, presented: bytes) -> KeyRecord | None:
        """The key that was presented, if it is one and may be used now."""
        self._read_again()
        wanted = digest(presented[:_KEY_BYTES_MAX])
        found = None
        for known, record in self._keys:  # all of them, so that the time says nothing about which
            if compare_digest(known, wanted):
                found = record
        return found if found is not None and self._clock() < self._ends[found.id] else None

    def _read_again(self) -> None:
        now = time.monotonic()
        if now - self._checked_seconds < _CHECK_SECONDS:
            return
        self._checked_seconds = now
        try:
            if self._version() != self._seen:
                self._read()
                log.info("keys_file_read", file=str(self._path), keys=len(self._keys))
            self._problem = ""
        except (OSError, UnicodeDecodeError, KeyFileError) as error:
            if self._problem != str(error):  # once, not every second
                log.error("keys_file_unusable", problem=str(error), remedy="the keys read last stay in use")
            self._problem = str(error)

    def _version(self) -> tuple[int, ...]:
        assert self._path is not None
        found = self._path.stat()
        return found.st_mtime_ns, found.st_size, found.st_ino

    def _read(self) -> None:
        assert self._path is not None
        version = self._version()
        records = parse_keys(self._path.read_text())
        if not records:
            raise KeyFileError("it holds no key: make one with ./clv api-keys create")
        self._keys = [(bytes.fromhex(record.sha256), record) for record in records]
        self._ends = {record.id: record.ends_at() for record in records}
        self._seen = version


def key_of(scope: AsgiScope) -> KeyRecord | None:
    """The key that the request came with; None where no key is asked for, or it was none."""
    found: KeyRecord | None = scope.get(_SCOPE_KEY)
    return found


class Identify:
    """ASGI middleware: finds the key of each request, and refuses nobody."""

    def __init__(self, app: ASGIApp, keys: ApiKeys) -> None:
        """Called when the application serves for the first time: to say that it is open before would be noise."""
        self._app, self._keys = app, keys
        if not keys.on:
            log.warning("no_api_keys", consequence="everybody may call everything", remedy="set CLV_HTTP_KEYS_FILE")

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http" and self._keys.on and scope["path"] not in OPEN_PATHS:
            presented = _presented(scope)
            scope[_SCOPE_KEY] = self._keys.find(presented) if presented else None
        await self._app(scope, receive, send)


def _presented(scope: AsgiScope) -> bytes | None:
    """The key of `X-API-Key`, else of `Authorization: Bearer`."""
    bearer = None
    for name, value in scope["headers"]:
        if name == b"x-api-key":
            return bytes(value.strip())
        if name == b"authorization" and value[:7].lower() == b"bearer ":
            bearer = bytes(value[7:].strip())
    return bearer


class KeysRequired:
    """ASGI middleware: 401 for a request without a key that may be used, except at open paths."""

    def __init__(self, app: ASGIApp, keys: ApiKeys) -> None:
        self._app, self._keys = app, keys

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if (
            scope["type"] == "http"
            and self._keys.on
            and scope["path"] not in OPEN_PATHS
            and scope.get(_SCOPE_KEY) is None
        ):
            answer = problem_response(
                HTTPStatus.UNAUTHORIZED,
                "an API key that is valid is needed, in X-API-Key or as a bearer token in Authorization",
                request_id_of(Request(scope)),
                headers={"WWW-Authenticate": 'Bearer realm="clv"'},
            )
            await answer(scope, receive, send)
            return
        await self._app(scope, receive, send)


class _Requires(SecurityBase):
    """A dependency that the framework shows in OpenAPI as a security scheme: one call, no dependencies of its own."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.model = ApiKeyInHeader.model_validate({"in": APIKeyIn.header, "name": "X-API-Key"})
        self.scheme_name = f"{SECURITY_SCHEME}:{scope}"

    async def __call__(self, request: Request) -> KeyRecord | None:
        keys: ApiKeys = request.app.state.api_keys
        key = key_of(request.scope)
        if keys.on and (key is None or self.scope not in key.scopes):
            raise Refused(
                HTTPStatus.FORBIDDEN,
                f"this API key lacks the scope `{self.scope}`",
                headers={"WWW-Authenticate": f'Bearer realm="clv", error="insufficient_scope", scope="{self.scope}"'},
            )
        return key


def requires(scope: Scope) -> _Requires:
    """A dependency for FastAPI (`Depends(requires(Scope.READ))`): 403 unless the key has the scope.

    Its value is the key's record, or None where no keys are asked for.
    """
    return _Requires(scope)
