"""What a customer's state amounts to as of a day: the orders that count, gross and net of refunds.

For many customers at a time, as arrays. Integers only, so that no sum depends on the order of its parts. Pure.

A refund lowers the order it names, down to nothing and never below, once its own day has come. A refund of an order
that has not arrived waits. A refund that names no order counts against the customer on its own day. A cancelled order
is gone from the day of its cancellation on.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from domain.customer import CANCELLATION, DAY_MS, NO_ORDER, ORDER, REFUND, CustomerState

Ints = NDArray[np.int64]

ORDER_DTYPE = np.dtype([("key", "<u8"), ("at_ms", "<i8"), ("minor", "<i8")])
REFUND_DTYPE = np.dtype([("key", "<u8"), ("order", "<u8"), ("at_ms", "<i8"), ("minor", "<i8")])
CANCELLATION_DTYPE = np.dtype([("order", "<u8"), ("at_ms", "<i8")])
_NO_ORDER = int.from_bytes(NO_ORDER, "little")


class Purchases(NamedTuple):
    """Orders that count, of all customers, sorted by owner (row of the batch), then day (since 1970, UTC).

    A row is one order, or one folded day of `orders` orders. Money in minor units.
    """

    owner: Ints
    day: Ints
    orders: Ints
    gross: Ints
    net: Ints


class LooseRefunds(NamedTuple):
    """Refunds that name no order."""

    owner: Ints
    day: Ints
    minor: Ints


class Amounts(NamedTuple):
    """Amounts in minor units, and the row of the batch that each belongs to."""

    owner: Ints
    minor: Ints


class Settled(NamedTuple):
    """Orders, refunds and cancellations of a batch joined: what counts, and what is only told (domain.ledger)."""

    found: Purchases
    loose: LooseRefunds
    cancelled: Amounts
    """A row a cancelled order: its refunds, up to its amount."""
    excess: Amounts
    """A row an order that was refunded beyond its amount, cancelled or not: what is beyond."""
    waiting: Amounts
    """A row a refund whose order is not known as of the day."""


def purchases(states: Sequence[CustomerState], as_of_days: Sequence[int]) -> tuple[Purchases, LooseRefunds]:
    """What counts of each state as of the end of its day (since 1970, UTC); what happened later is not seen."""
    settled = settle(states, as_of_days)
    return settled.found, settled.loose


def settle(states: Sequence[CustomerState], as_of_days: Sequence[int]) -> Settled:
    """The joined records of each state as of the end of its day (since 1970, UTC); what happened later is not seen."""
    end_ms = (np.asarray(as_of_days, dtype=np.int64) + 1) * DAY_MS
    orders, owner = _joined([state.orders for state in states], ORDER_DTYPE, ORDER.size)
    refunds, refund_owner = _joined([state.refunds for state in states], REFUND_DTYPE, REFUND.size)
    seen = refunds["at_ms"] < end_ms[refund_owner]
    refunds, refund_owner = refunds[seen], refund_owner[seen]
    loose = refunds["order"] == _NO_ORDER
    named, named_owner = refunds[~loose], refund_owner[~loose]
    known = orders["at_ms"] < end_ms[owner]
    counts, gross, net = known, orders["minor"], orders["minor"]
    cancelled = excess = waiting = _NONE
    if len(named):
        place = _place_of(orders["key"], owner, named["order"], named_owner)
        back = np.zeros(len(orders), dtype=np.int64)
        np.add.at(back, place[place >= 0], named["minor"][place >= 0])
        net = np.maximum(gross - back, 0)
        beyond = known & (back > gross)
        excess = Amounts(owner[beyond], (back - gross)[beyond])
        waits = place < 0
        waits[~waits] = ~known[place[~waits]]
        waiting = Amounts(named_owner[waits], named["minor"][waits])
    cancellations, canceller = _joined([state.cancelled for state in states], CANCELLATION_DTYPE, CANCELLATION.size)
    if len(cancellations):
        place = _place_of(orders["key"], owner, cancellations["order"], canceller)
        counts = known.copy()
        counts[place[(place >= 0) & (cancellations["at_ms"] < end_ms[canceller])]] = False
        gone = known & ~counts
        cancelled = Amounts(owner[gone], (gross - net)[gone])
    day = orders["at_ms"] // DAY_MS
    columns = (owner[counts], day[counts], np.ones(int(counts.sum()), np.int64), gross[counts], net[counts])
    found = _sorted(_with_folded(columns, states, as_of_days))
    on_day = LooseRefunds(refund_owner[loose], refunds["at_ms"][loose] // DAY_MS, refunds["minor"][loose])
    return Settled(found, on_day, cancelled, excess, waiting)


_NONE = Amounts(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))


def sum_by(owner: Ints, values: Ints, count: int) -> Ints:
    """Exact integer sums by owner, (count,). (np.bincount would go through floats.)"""
    sums = np.zeros(count, dtype=np.int64)
    if len(owner):
        np.add.at(sums, owner, values)
    return sums


def _joined(blobs: list[bytes], dtype: np.dtype[np.void], size: int) -> tuple[NDArray[np.void], Ints]:
    """All records of all customers as one array, and the row that each belongs to."""
    records = np.frombuffer(b"".join(blobs), dtype)
    return records, np.repeat(np.arange(len(blobs)), [len(blob) // size for blob in blobs])


def _place_of(keys: NDArray[np.uint64], owner: Ints, wanted: NDArray[np.uint64], wanted_owner: Ints) -> Ints:
    """Index of each wanted (owner, key) among (owner, keys); -1 where there is none."""
    if not len(keys):
        return np.full(len(wanted), -1, dtype=np.int64)
    # Keys are replaced by their rank, so that owner and key fit one exact integer.
    ranks = np.unique(np.concatenate([keys, wanted]), return_inverse=True)[1].astype(np.int64)
    span = len(ranks) + 1
    have = owner * span + ranks[: len(keys)]
    want = wanted_owner * span + ranks[len(keys) :]
    order = np.argsort(have)
    at = np.minimum(np.searchsorted(have[order], want), len(have) - 1)
    return np.where(have[order[at]] == want, order[at], -1)


Columns = tuple[Ints, Ints, Ints, Ints, Ints]


def _with_folded(columns: Columns, states: Sequence[CustomerState], as_of_days: Sequence[int]) -> Columns:
    rows = [
        (row, day, total.orders, total.gross_minor, total.net_minor)
        for row, state in enumerate(states)
        if state.folded
        for day, total in state.folded.items()
        if day <= as_of_days[row]
    ]
    if not rows:
        return columns
    more = np.array(rows, dtype=np.int64).T
    owner, day, orders, gross, net = (np.concatenate([a, b]) for a, b in zip(columns, more, strict=True))
    return owner, day, orders, gross, net


def _sorted(columns: Columns) -> Purchases:
    owner, day = columns[0], columns[1]
    # One integer for (owner, day): days fit 32 bits with room, and a batch has far fewer than 2^31 customers.
    order = np.argsort(owner * 2**32 + (day + 2**31), kind="stable")
    return Purchases(*(column[order] for column in columns))
