"""Passes predictions on to whoever listens: a bounded queue a listener, of which the oldest go when it is full.

Plain state of one event loop, without IO. Must never wait for a listener: one that is slow loses its oldest, and is
told how many.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import NamedTuple


class Event(NamedTuple):
    """What a listener gets."""

    id: str
    """partition-offset of the predictions topic."""
    data: str
    """JSON."""


class Batch(NamedTuple):
    """What has come for a listener since it last asked."""

    dropped: int
    """Events that went for want of room, all older than `events`."""
    events: list[Event]


class Listener:
    """One listener's queue."""

    def __init__(self, segment: str | None, room: int) -> None:
        self.segment = segment
        self._queue: deque[Event] = deque(maxlen=room)
        self._dropped = 0
        self._something = asyncio.Event()
        self._closed = False

    def put(self, event: Event) -> None:
        """Add an event; if there is no room, the oldest goes."""
        if len(self._queue) == self._queue.maxlen:
            self._dropped += 1
        self._queue.append(event)
        self._something.set()

    def close(self) -> None:
        """Nothing comes any more."""
        self._closed = True
        self._something.set()

    async def take(self) -> Batch | None:
        """Wait until something has come, and take all of it; None once the fan-out is closed."""
        await self._something.wait()
        self._something.clear()
        if self._closed:
            return None
        batch = Batch(self._dropped, list(self._queue))
        self._queue.clear()
        self._dropped = 0
        return batch


class Fanout:
    """All listeners."""

    def __init__(self, listeners_max: int, room: int) -> None:
        """room: events that wait for one listener."""
        self._listeners: set[Listener] = set()
        self._listeners_max, self._room = listeners_max, room
        self.closed = False

    def __len__(self) -> int:
        """Listeners that there are."""
        return len(self._listeners)

    @property
    def full(self) -> bool:
        """Whether nobody else should listen."""
        return len(self._listeners) >= self._listeners_max

    def listen(self, segment: str | None) -> Listener:
        """A new listener to predictions of a segment, None of all. It must be given back with `leave`."""
        listener = Listener(segment, self._room)
        if self.closed:
            listener.close()
        self._listeners.add(listener)
        return listener

    def leave(self, listener: Listener) -> None:
        """Nobody reads this listener's queue any more."""
        self._listeners.discard(listener)

    def publish(self, segment: str, make: Callable[[], Event]) -> None:
        """Give an event to those who listen to its segment. make: called once, and only if there is somebody."""
        event = None
        for listener in self._listeners:
            if listener.segment in (None, segment):
                event = make() if event is None else event
                listener.put(event)

    def close(self) -> None:
        """End all listeners, now and later: the process ends."""
        self.closed = True
        for listener in self._listeners:
            listener.close()
