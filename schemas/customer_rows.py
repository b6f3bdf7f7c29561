"""Rows of the customer table: a customer's state with its replay guard, and one row a partition for its own progress;
how they are read and written, which of two is the better one, and what a row stands for.

Pure. A row is a deterministic function of the customer's events up to its offset, so of two rows of one customer the
one with more events applied is the better one, whoever wrote it and in whatever order they were written.

An erased customer has no row. What remains is a row without a person, under a hash of the id: how many events were
applied and up to which offset, so that events that come again are recognised, and when the customer was erased.
"""

from hashlib import blake2b
from struct import error as StructError  # noqa: N812

import msgspec

from domain.customer import CANCELLATION, DAY_MS, NO_ORDER, ORDER, REFUND, CustomerState, Profile, latest_ms, union
from domain.money import AMOUNT_MINOR_MAX
from schemas.customer_features import FEATURE_VERSION_DAYS

OWN_PREFIX = b"\x00"
"""Begins every key that is no customer's: customer ids hold no control characters."""
PROGRESS_KEY = OWN_PREFIX + b"progress"
"""Key of the partition's own row."""
_ERASED_PREFIX = OWN_PREFIX + b"erased\x00"


class Part(msgspec.Struct, array_like=True):
    """What a customer who was merged into another one brought along."""

    version: int
    """Own events of that customer behind the state: the larger is the newer."""
    merged_into: str | None
    """Whom that customer was merged into, when the state was sent."""
    merged_at_ms: int
    state: CustomerState


class Links(msgspec.Struct, array_like=True):
    """What makes a customer more than one id: merges, and an erasure. Most customers have none."""

    own_events: int
    """Events applied that are the customer's own: those of parts are not."""
    merged_into: str | None = None
    merged_at_ms: int = 0
    parts: dict[str, Part] = {}
    """By the id of the customer who was merged into this one, at first or second hand."""
    erased_at_ms: int | None = None
    """Nothing that happened until then may come back."""
    forgotten: bool = False
    """Erased, and nothing has come since: the row is kept under the hash of the id."""


class Row(msgspec.Struct, array_like=True):
    """A customer. events_applied stays first: recovery reads it alone."""

    events_applied: int
    incarnation: int
    """Incarnation of the source topic that `offset` counts in (see Progress)."""
    offset: int
    """Source offset last applied: the replay guard."""
    state: CustomerState
    links: Links | None = None


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
    sweep_asked_day: int | None = None
    """Set when the running sweep was asked for: the day (since 1970) that it is as of, at least; 0 is the clock's."""


class _Age(msgspec.Struct, array_like=True):
    events_applied: int


_encoder = msgspec.msgpack.Encoder()
_row_decoder = msgspec.msgpack.Decoder(Row)
_progress_decoder = msgspec.msgpack.Decoder(Progress)
_age_decoder = msgspec.msgpack.Decoder(_Age)
_state_decoder = msgspec.msgpack.Decoder(CustomerState)


def new_row() -> Row:
    """The row of a customer never seen."""
    return Row(0, -1, -1, CustomerState())


def new_progress() -> Progress:
    """The progress of a partition never seen."""
    return Progress(0, 0, 0, 0, 0, None, 0)


def erased_key(customer: bytes) -> bytes:
    """Key under which it is remembered that this customer (key of the topic) was erased: 16 bytes of BLAKE2b."""
    return _ERASED_PREFIX + blake2b(customer, digest_size=16).digest()


def encode(row: Row | Progress) -> bytes:
    """The row as stored and logged."""
    return _encoder.encode(row)


def encode_state(state: CustomerState) -> bytes:
    """A state alone, as one customer's row sends it to another's."""
    return _encoder.encode(state)


def decode_state(value: bytes) -> CustomerState:
    """A state alone. Raises msgspec.DecodeError if it is none, or none that orders could have made."""
    try:
        state = _state_decoder.decode(value)
        sound = _is_sound(state)
    except (RecursionError, UnicodeDecodeError, StructError) as error:
        raise msgspec.DecodeError(str(error)) from None
    if not sound:
        raise msgspec.DecodeError("amounts or times beyond what an order may have")
    return state


def _is_sound(state: CustomerState) -> bool:
    """Whether features can be made of it. Raises struct.error if its records are not whole."""
    times = [latest_ms(state)]
    minors = [1]
    for _, at_ms, minor in ORDER.iter_unpack(state.orders):
        times.append(at_ms)
        minors.append(minor)
    for _, _, at_ms, minor in REFUND.iter_unpack(state.refunds):
        times.append(at_ms)
        minors.append(minor)
    times += [at_ms for _, at_ms in CANCELLATION.iter_unpack(state.cancelled)]
    times += [day * DAY_MS for day in state.folded]
    totals = [size for total in state.folded.values() for size in (total.orders, total.gross_minor, total.net_minor)]
    profile = state.profile or Profile(0, None)
    times.append(profile.at_ms)
    return (
        0 <= min(times) <= max(times) < FEATURE_VERSION_DAYS * DAY_MS
        and 0 < min(minors) <= max(minors) <= AMOUNT_MINOR_MAX
        and -1 < min(totals, default=0) <= max(totals, default=0) < 2**53
        and -(2**31) <= state.folded_through_day < FEATURE_VERSION_DAYS
        and 0 <= (profile.birth_year or 0) < 10_000
        and len(state.folded_ids) % len(NO_ORDER) == 0
    )


def decode_row(value: bytes) -> Row:
    """A customer's row."""
    return _row_decoder.decode(value)


def decode_progress(value: bytes) -> Progress:
    """A partition's row."""
    return _progress_decoder.decode(value)


def events_applied(value: bytes) -> int:
    """Age of an encoded row of either kind: the larger is the better one."""
    return _age_decoder.decode(value).events_applied


def better(known: bytes | None, value: bytes | None) -> bytes | None:
    """Of two rows under one key, logged in this order, the one with more events applied; a deletion always counts."""
    if known is None or value is None:
        return value
    return value if events_applied(value) >= events_applied(known) else known


def stored(customer: bytes, row: Row) -> list[tuple[bytes, bytes | None]]:
    """What is written for a customer: keys with their values, None where a key is to be deleted."""
    if row.links is not None and row.links.forgotten:
        return [(customer, None), (erased_key(customer), encode(row))]
    return [(customer, encode(row))]


def is_forgotten(row: Row) -> bool:
    """Whether the customer was erased and has not come back."""
    return row.links is not None and row.links.forgotten


def known_state(row: Row) -> CustomerState:
    """All that is known of the customer, with what merged customers brought along."""
    if row.links is None or not row.links.parts:
        return row.state
    return union([row.state, *(part.state for part in row.links.parts.values())])


def survivor(customer: str, row: Row) -> str | None:
    """Whom the customer's row sends what it knows to; None if the customer stands for itself.

    Merges that lead round in a circle (one shop system says a into b, another b into a) leave the customer whose id
    sorts first.
    """
    links = row.links
    if links is None or links.merged_into is None:
        return None
    seen, at = [customer], links.merged_into
    while at not in seen:
        seen.append(at)
        part = links.parts.get(at)
        if part is None or part.merged_into is None:
            return links.merged_into
        at = part.merged_into
    if at == customer and customer == min(seen):
        return None
    return links.merged_into


def standing_state(customer: str, row: Row) -> CustomerState | None:
    """What the customer is predicted from; None for one who was erased, or who is part of another customer now."""
    if is_forgotten(row) or survivor(customer, row) is not None:
        return None
    return known_state(row)
