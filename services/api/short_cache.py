"""Answers that may be a little old: worked out once for all who ask within a short time, and at once for nobody twice.

An answer that was dear is kept longer, so that asking without pause takes a fifth of the server's time at most. Must
never keep a failure, nor grow without bound.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")

_DEAR_FACTOR = 4.0


class ShortCache(Generic[T]):
    """Answers by key."""

    def __init__(self, seconds: float, keys_max: int = 256, now: Callable[[], float] = time.monotonic) -> None:
        """seconds: how long an answer stands, at least. keys_max: answers kept, the oldest goes first."""
        self._seconds, self._keys_max, self._now = seconds, keys_max, now
        self._answers: dict[object, tuple[float, T]] = {}
        """Until when each stands."""
        self._running: dict[object, asyncio.Task[T]] = {}

    async def get(self, key: object, make: Callable[[], Awaitable[T]]) -> T:
        """The answer that stands, or what `make` gives now. What it raises is raised for all who wait, and not kept."""
        known = self._answers.get(key)
        if known is not None and known[0] > self._now():
            return known[1]
        running = self._running.get(key)
        if running is None:
            running = asyncio.ensure_future(self._make(key, make))
            self._running[key] = running
            running.add_done_callback(lambda done: self._over(key, done))
        return await asyncio.shield(running)  # one who goes away does not take the answer from the others

    async def _make(self, key: object, make: Callable[[], Awaitable[T]]) -> T:
        began = self._now()
        answer = await make()
        now = self._now()
        self._answers.pop(key, None)
        while len(self._answers) >= self._keys_max:
            del self._answers[next(iter(self._answers))]
        self._answers[key] = (now + max(self._seconds, _DEAR_FACTOR * (now - began)), answer)
        return answer

    def _over(self, key: object, done: "asyncio.Task[T]") -> None:
        self._running.pop(key, None)
        if not done.cancelled():
            done.exception()  # looked at, in case nobody waits any more
