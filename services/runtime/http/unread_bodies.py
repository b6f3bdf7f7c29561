"""Reads to its end, and throws away, the body of a request that is answered without it.

Many clients read no answer before they have sent everything, and would see a broken connection in its place.
"""

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

DISCARDED_BYTES_MAX = 64 * 1024 * 1024
_DISCARD_SECONDS = 30.0


class UnreadBodies:
    """ASGI middleware. Outside of all that may refuse a request before its body was read."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or not _has_body(scope):
            await self._app(scope, receive, send)
            return
        unread = True

        async def receive_seen() -> Message:
            nonlocal unread
            message = await receive()
            unread = message["type"] == "http.request" and message.get("more_body", False)
            return message

        async def send_after_body(message: Message) -> None:
            nonlocal unread
            if unread and message["type"] == "http.response.start":
                unread = False
                await _discard(receive)
            await send(message)

        await self._app(scope, receive_seen, send_after_body)


def _has_body(scope: Scope) -> bool:
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value != b"0")
        for name, value in scope["headers"]
    )


async def _discard(receive: Receive) -> None:
    left_bytes = DISCARDED_BYTES_MAX
    try:
        async with asyncio.timeout(_DISCARD_SECONDS):
            while left_bytes > 0:
                message = await receive()
                if message["type"] != "http.request" or not message.get("more_body", False):
                    return
                left_bytes -= len(message.get("body", b""))
    except TimeoutError:
        return
