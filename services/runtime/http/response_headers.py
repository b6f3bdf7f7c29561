"""Headers that every answer has, unless a route says otherwise: no guessing of types, no copies of personal data."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_HEADERS = ((b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store"))


class ResponseHeaders:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", ()))
                there = {name.lower() for name, _ in headers}
                message["headers"] = headers + [each for each in _HEADERS if each[0] not in there]
            await send(message)

        await self._app(scope, receive, send_with_headers)
