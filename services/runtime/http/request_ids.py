"""Gives every request an id: that of X-Request-Id if it is well-formed, else a new one.

It stands in the answer's header, in every problem's body and in every log line that is written for the request. Must
never let a client write into logs what is not an id.
"""

import os
import re

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bind_contextvars, reset_contextvars

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}\Z")
_SCOPE_KEY = "clv_request_id"


def request_id_of(request: HTTPConnection) -> str:
    """The request's id; empty where RequestIds is not installed."""
    found: str = request.scope.get(_SCOPE_KEY, "")
    return found


class RequestIds:
    """ASGI middleware. The outermost of those that answer, so that each answer carries the id."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = scope[_SCOPE_KEY] = _id_sent(scope) or os.urandom(16).hex()
        header = (b"x-request-id", request_id.encode())

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), header]
            await send(message)

        tokens = bind_contextvars(request_id=request_id)
        try:
            await self._app(scope, receive, send_with_id)
        finally:
            reset_contextvars(**tokens)


def _id_sent(scope: Scope) -> str | None:
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            return value.decode() if _REQUEST_ID.match(value) else None
    return None
