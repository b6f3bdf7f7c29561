"""Bounds the body of every request, whether it says its length or comes in chunks.

Must never let the application see more than the bound. What is beyond it is thrown away by UnreadBodies.
"""

from collections.abc import Mapping
from http import HTTPStatus

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.runtime.http.problems import problem_response
from services.runtime.http.request_ids import request_id_of


class _TooLarge(Exception):
    """Ends the reading of a body. Whatever the application makes of it, the answer is 413."""


class BodyLimits:
    """ASGI middleware: 413 for a body of more than `bytes_max`, or of what `by_path` says for its path."""

    def __init__(self, app: ASGIApp, bytes_max: int, by_path: Mapping[str, int] = {}) -> None:
        self._app, self._bytes_max, self._by_path = app, bytes_max, by_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = _BoundedBody(receive, send, self._by_path.get(scope["path"], self._bytes_max))
        if _declared_bytes(scope) > body.bytes_max:
            body.too_large = True
        else:
            try:
                await self._app(scope, body.receive, body.send)
            except _TooLarge:
                if body.answered:
                    raise
        if body.too_large and not body.answered:
            answer = problem_response(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"the body is larger than {body.bytes_max} bytes: send it in several requests",
                request_id_of(Request(scope)),
            )
            await answer(scope, receive, send)


class _BoundedBody:
    """Between the server and the application, for one request."""

    def __init__(self, receive: Receive, send: Send, bytes_max: int) -> None:
        self._receive, self._send = receive, send
        self.bytes_max = bytes_max
        self.too_large = False
        self.answered = False
        self._read_bytes = 0

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._read_bytes += len(message.get("body", b""))
            if self._read_bytes > self.bytes_max:
                self.too_large = True
                raise _TooLarge
        return message

    async def send(self, message: Message) -> None:
        if self.too_large and not self.answered:
            return  # what the application makes of a body that broke off: 413 is sent in its place
        self.answered = True
        await self._send(message)


def _declared_bytes(scope: Scope) -> int:
    """Bytes of the body by Content-Length; 0 if it does not say."""
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value[:20])  # a server lets only one through
    return 0
