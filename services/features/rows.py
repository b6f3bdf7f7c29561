"""Rows of the customer table: a customer's state with its replay guard, and one row a partition for its own progress.

Pure. A row is a deterministic function of the customer's events up to its offset, so of two rows of one customer the
one with more events applied is the better one, whoever wrote it and in whatever order they were written.
"""

import msgspec

from domain.customer import CustomerState

PROGRESS_KEY = b"\x00progress"
"""Key of the partition's own row. No customer has it: ids hold no control characters."""


class Row(msgspec.Struct, array_like=True):
    """A customer. events_applied stays first: recovery reads it alone."""

    events_applied: int
    incarnation: int
    """Incarnation of the source topic that `offset` counts in (see Progress)."""
    offset: int
    """Source offset last applied: the replay guard."""
    state: CustomerState


class Progress(msgspec.Struct, array_like=True):
    """How far a partition has come."""

    events_applied: int
    """Grows with every write of this row: newer wins, as with customers."""
    incarnation: int
    """Grows when the source topic was made anew, whose offsets then start over; older guards no longer hold."""
    next_offset: int
    watermark_ms: int
    """Latest occurred_at seen, epoch milliseconds."""
    sweep_started_ms: int
    """Clock time at which the running refresh sweep began; 0 before the first."""
    sweep_cursor: bytes | None
    """Last customer emitted by the running sweep; None when it is done or has not begun."""
    sweep_done: int
    """Customers emitted by the running sweep."""


class _Age(msgspec.Struct, array_like=True):
    events_applied: int


_encoder = msgspec.msgpack.Encoder()
_row_decoder = msgspec.msgpack.Decoder(Row)
_progress_decoder = msgspec.msgpack.Decoder(Progress)
_age_decoder = msgspec.msgpack.Decoder(_Age)


def new_row() -> Row:
    """The row of a customer never seen."""
    return Row(0, -1, -1, CustomerState())


def new_progress() -> Progress:
    """The progress of a partition never seen."""
    return Progress(0, 0, 0, 0, 0, None, 0)


def encode(row: Row | Progress) -> bytes:
    """The row as stored and logged."""
    return _encoder.encode(row)


def decode_row(value: bytes) -> Row:
    """A customer's row."""
    return _row_decoder.decode(value)


def decode_progress(value: bytes) -> Progress:
    """A partition's row."""
    return _progress_decoder.decode(value)


def events_applied(value: bytes) -> int:
    """Age of an encoded row of either kind: the larger is the better one."""
    return _age_decoder.decode(value).events_applied
