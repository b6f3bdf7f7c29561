"""How long work says how far it has come. It must never change what the work does."""

from typing import Protocol


class Progress(Protocol):
    """Told what is being done; with a total, how much of it is done."""

    def __call__(self, what: str, done: int = 0, total: int | None = None) -> None:
        """what: in a few words, the same words for the same piece of work. done, total: of the things it counts."""


def silent(what: str, done: int = 0, total: int | None = None) -> None:
    """Nobody is told."""
