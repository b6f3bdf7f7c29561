"""Counts and times the requests of an HTTP side, by route and status.

Must never make a label of what a client chose: a path that is no route counts as `none`.
"""

import time
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.runtime import telemetry
from services.runtime.http.api_keys import OPEN_PATHS


class Measured:
    """ASGI middleware. Time is taken until the answer begins: a stream may go on for hours."""

    def __init__(self, app: ASGIApp, service: str) -> None:
        self._app, self._service = app, service
        self._known: dict[tuple[str, int], tuple[Callable[[], None], Callable[[float], None]]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()

        async def send_measured(message: Message) -> None:
            if message["type"] == "http.response.start":
                count, observe = self._metrics(getattr(scope.get("route"), "path", "none"), message["status"])
                count()
                observe(time.perf_counter() - began)
            await send(message)

        await self._app(scope, receive, send_measured)

    def _metrics(self, route: str, status: int) -> tuple[Callable[[], None], Callable[[float], None]]:
        found = self._known.get((route, status))
        if found is None:
            labels = {"service": self._service, "route": route}
            found = self._known[route, status] = (
                telemetry.HTTP_REQUESTS.increment(**labels, status=str(status)),
                telemetry.HTTP_SECONDS.observer(**labels),
            )
        return found
