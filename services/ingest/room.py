"""How much of HTTP requests is held in memory at a time: while Kafka is slow, requests wait, and clients send more.

Must never let the requests that wait outgrow their bound: what is beyond it is refused, to be sent again.
"""

REQUEST_BYTES = 16 * 1024
"""What a request costs beside its body: connection, task, headers."""


class Room:
    """The bytes that requests may take up together. A request takes a share, and gives all of it back at its end."""

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.taken_bytes = 0

    def share(self) -> "Share":
        """A share of nothing yet, for one request; a context manager."""
        return Share(self)


class Share:
    """What one request has taken."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._bytes = 0

    def take(self, count_bytes: int) -> bool:
        """Take so much more; False if there is no room for it. What was taken before stays taken."""
        if self._room.taken_bytes + count_bytes > self._room.bytes_max:
            return False
        self._room.taken_bytes += count_bytes
        self._bytes += count_bytes
        return True

    def give_back(self) -> None:
        """Return all of it."""
        self._room.taken_bytes -= self._bytes
        self._bytes = 0

    def __enter__(self) -> "Share":
        return self

    def __exit__(self, *_: object) -> None:
        self.give_back()
