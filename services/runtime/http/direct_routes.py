"""Answers a few paths without the framework, whose way from the last middleware to a route and back takes longer than
some answers.

Must never answer what the framework's own route of the same path would not: that route stays, for the document and for
other methods, and a test compares the two.
"""

from collections.abc import Awaitable, Callable, Mapping
from types import SimpleNamespace

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from services.runtime.http.problems import answer_to

Handler = Callable[[Request], Awaitable[Response]]
"""Answers a request, or raises HTTPException."""


class DirectRoutes:
    """ASGI middleware, the innermost one: POST requests to paths that it knows go to their handler."""

    def __init__(self, app: ASGIApp, handlers: Mapping[str, Handler]) -> None:
        """handlers: by path, without parameters in it."""
        self._app, self._handlers = app, handlers
        self._routes = {path: SimpleNamespace(path=path) for path in handlers}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        handler = self._handlers.get(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        if handler is None:
            await self._app(scope, receive, send)
            return
        scope["route"] = self._routes[scope["path"]]  # where the framework tells of its own, for Measured
        request = Request(scope, receive)
        try:
            answer = await handler(request)
        except HTTPException as error:
            answer = answer_to(request, error)
        await answer(scope, receive, send)
