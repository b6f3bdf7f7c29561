"""Trying again until MongoDB has it, or the service is to end.

Must never give up while the service runs: offsets are committed only behind what was stored.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from services.runtime import telemetry
from services.runtime.logs import logger
from services.runtime.shutdown import unless_stopped
from services.sink.mongo import MongoAway

log = logger(__name__)

_RETRY_SECONDS_MIN = 0.1
_DRAIN_SECONDS = 4.0
_Done = TypeVar("_Done")


class Stopping(Exception):
    """The service is to end, and the batch in hand is not stored: it will be read again."""


class UntilDone:
    """Tries something until MongoDB has it. Every attempt does all of it: repeats must change nothing."""

    def __init__(self, stop: asyncio.Event, retry_seconds_max: float) -> None:
        self._stop, self._retry_seconds_max = stop, retry_seconds_max
        self.away: str | None = None
        """Why what is tried cannot be done at present."""

    async def __call__(self, attempt: Callable[[], Awaitable[_Done]]) -> _Done:
        """The result of the first attempt that succeeds. Raises Stopping."""
        pause_seconds = _RETRY_SECONDS_MIN
        while True:
            try:
                result = await self._attempt(attempt)
            except MongoAway as problem:
                telemetry.MONGO_RETRIES.inc()
                self.away = str(problem)
                log.warning("mongo_away", problem=str(problem), retry_seconds=pause_seconds)
            else:
                self.away = None
                return result
            if not await unless_stopped(self._stop, asyncio.sleep(pause_seconds)):
                raise Stopping
            pause_seconds = min(2 * pause_seconds, self._retry_seconds_max)

    async def _attempt(self, attempt_once: Callable[[], Awaitable[_Done]]) -> _Done:
        """One attempt. After `stop` it has a few seconds left, then is given up; whether it succeeded is not known."""
        attempt = asyncio.ensure_future(attempt_once())
        stopped = asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait({attempt, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if not attempt.done():
                await asyncio.wait({attempt}, timeout=_DRAIN_SECONDS)
            if not attempt.done():
                log.warning("batch_given_up", problem=f"not stored within {_DRAIN_SECONDS} s; it will be read again")
                raise Stopping
            return attempt.result()
        finally:
            stopped.cancel()
            attempt.cancel()
