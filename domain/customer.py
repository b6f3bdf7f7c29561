"""One customer's state: the orders themselves, kept so that the order and number of deliveries cannot matter.

Placing, refunding and cancelling are set unions keyed by id: they commute and repeat harmlessly. What a customer is
worth is never stored; it is derived from the sets by domain.purchases, as of a day. Pure: no clock, no IO.
"""

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from struct import Struct

import msgspec

DAY_MS = 86_400_000
ORDERS_KEPT = 1000
"""Orders kept one by one; older ones fold into per-day totals, so that a row is bounded."""
FOLDED_IDS_KEPT = 8000
"""Ids of folded orders that are remembered, so that a repeat is known as one; the latest folded ones, 8 bytes each."""
FOLD_STEP = 100
"""Folding walks all kept orders, so it is tried only once in this many."""


class OrderPlaced(msgspec.Struct, frozen=True, gc=False):
    """An order in the reporting currency: minor units ≥ 0, epoch milliseconds (UTC)."""

    order_id: str
    amount_minor: int
    occurred_at_ms: int


class OrderRefunded(msgspec.Struct, frozen=True, gc=False):
    """Money given back. order_id None: it names no order and counts against the customer on its own day."""

    refund_id: str
    order_id: str | None
    amount_minor: int
    occurred_at_ms: int


class OrderCancelled(msgspec.Struct, frozen=True, gc=False):
    """The order no longer counts from the cancellation's day on."""

    order_id: str
    occurred_at_ms: int


class ProfileUpdated(msgspec.Struct, frozen=True, gc=False):
    """What the shop knows of the person. The latest by occurred_at_ms wins."""

    birth_year: int | None
    occurred_at_ms: int


Event = OrderPlaced | OrderRefunded | OrderCancelled | ProfileUpdated


class DayTotal(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Orders of one day that are no longer kept one by one."""

    orders: int
    gross_minor: int
    net_minor: int


class Profile(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What is known of the person, as of an instant."""

    at_ms: int
    birth_year: int | None


ORDER = Struct("<8sqq")
"""key, at_ms, minor"""
REFUND = Struct("<8s8sqq")
"""key, key of the order (NO_ORDER for none), at_ms, minor"""
CANCELLATION = Struct("<8sq")
"""key of the order, at_ms of the earliest cancellation"""
NO_ORDER = bytes(8)


class CustomerState(msgspec.Struct, array_like=True):
    """All that is known of one customer.

    Orders, refunds and cancellations are packed records, one after the other: a state is read, written and copied as
    a few byte strings, and domain.purchases reads the records of thousands of customers as one array. Records stand
    in the order of their arrival, which means nothing: compare states by `canonical`.
    """

    orders: bytes = b""
    refunds: bytes = b""
    cancelled: bytes = b""
    profile: Profile | None = None
    folded: dict[int, DayTotal] = {}
    """Day → totals of orders that are no longer kept one by one."""
    folded_through_day: int = -(2**31)
    """Orders of this day or before live in `folded`."""
    folded_ids: bytes = b""
    """Keys of the last FOLDED_IDS_KEPT orders that live in `folded` (or were cancelled then), one after the other."""


def id_key(identifier: str) -> bytes:
    """A stable 8-byte key of an id, never NO_ORDER. Two ids of one customer collide with probability below 1e-13."""
    key = blake2b(identifier.encode(), digest_size=8).digest()
    return key if key != NO_ORDER else b"\x01" + key[1:]


def apply(state: CustomerState, event: Event) -> None:
    """Fold one event into the state. Any order, any number of repetitions of the same events gives the same state.

    Two orders with one id but different content: the later occurred_at (then the larger amount) stands, whichever
    arrives first.
    """
    match event:
        case OrderPlaced():
            place(state, id_key(event.order_id), event.amount_minor, event.occurred_at_ms)
        case OrderRefunded():
            order = id_key(event.order_id) if event.order_id else NO_ORDER
            refund(state, id_key(event.refund_id), order, event.amount_minor, event.occurred_at_ms)
        case OrderCancelled():
            _cancel(state, event)
        case ProfileUpdated():
            update = Profile(event.occurred_at_ms, event.birth_year)
            if state.profile is None or _profile_rank(update) > _profile_rank(state.profile):
                state.profile = update


def fold(events: Iterable[Event]) -> CustomerState:
    """The state of a customer from all of that customer's events, in any order."""
    state = CustomerState()
    for event in events:
        apply(state, event)
    return state


def union(states: Sequence[CustomerState]) -> CustomerState:
    """The state of one customer who was known as several: what folding all their events together gives.

    The same order, refund or cancellation in two of them counts once, by the rules of `apply`; an order that is in a
    day's total of one of them counts there. Day totals add up, since their orders are no longer known one by one.
    """
    if len(states) == 1:
        return states[0]
    orders: dict[bytes, tuple[int, int]] = {}
    refunds: dict[bytes, tuple[int, int, bytes]] = {}
    cancelled: dict[bytes, int] = {}
    folded: dict[int, DayTotal] = {}
    folded_ids = b"".join(state.folded_ids for state in states)
    known_folded = {folded_ids[at : at + len(NO_ORDER)] for at in range(0, len(folded_ids), len(NO_ORDER))}
    profiles = [state.profile for state in states if state.profile is not None]
    for state in states:
        for key, at_ms, minor in ORDER.iter_unpack(state.orders):
            if key in known_folded:
                continue
            orders[key] = max(orders.get(key, (at_ms, minor)), (at_ms, minor))
        for key, order, at_ms, minor in REFUND.iter_unpack(state.refunds):
            refunds[key] = max(refunds.get(key, (at_ms, minor, order)), (at_ms, minor, order))
        for order, at_ms in CANCELLATION.iter_unpack(state.cancelled):
            cancelled[order] = min(cancelled.get(order, at_ms), at_ms)
        for day, more in state.folded.items():
            known = folded.get(day, DayTotal(0, 0, 0))
            folded[day] = DayTotal(
                known.orders + more.orders, known.gross_minor + more.gross_minor, known.net_minor + more.net_minor
            )
    return CustomerState(
        b"".join(ORDER.pack(key, *rest) for key, rest in orders.items()),
        b"".join(REFUND.pack(key, order, at_ms, minor) for key, (at_ms, minor, order) in refunds.items()),
        b"".join(CANCELLATION.pack(*item) for item in cancelled.items()),
        max(profiles, key=_profile_rank, default=None),
        folded,
        max((state.folded_through_day for state in states), default=CustomerState().folded_through_day),
        b"".join(known_folded),
    )


def known_before(state: CustomerState, day: int) -> CustomerState:
    """The state from the events before a day (since 1970, UTC) alone: what `fold` makes of those, in the same terms.

    Some things have no past in a state, and are taken as they stand: the profile; of an id that was sent with
    different contents, the one that stands, from its own time on; orders that live in day totals, which are known by
    day, but with the refunds and without the cancellations that had come when they were folded.
    """
    end_ms = day * DAY_MS
    return CustomerState(
        _earlier(state.orders, ORDER, 1, end_ms),
        _earlier(state.refunds, REFUND, 2, end_ms),
        _earlier(state.cancelled, CANCELLATION, 1, end_ms),
        state.profile,
        {at: total for at, total in state.folded.items() if at < day},
        min(state.folded_through_day, day - 1),
        state.folded_ids,
    )


def _earlier(records: bytes, layout: Struct, at_ms_place: int, end_ms: int) -> bytes:
    found = list(layout.iter_unpack(records))
    kept = [record for record in found if record[at_ms_place] < end_ms]
    return records if len(kept) == len(found) else b"".join(layout.pack(*record) for record in kept)


def latest_ms(state: CustomerState) -> int:
    """When the last thing that the state knows of happened, epoch milliseconds; 0 for an empty state."""
    times = [at_ms for _, at_ms, _ in ORDER.iter_unpack(state.orders)]
    times += [at_ms for _, _, at_ms, _ in REFUND.iter_unpack(state.refunds)]
    times += [at_ms for _, at_ms in CANCELLATION.iter_unpack(state.cancelled)]
    times += [day * DAY_MS for day in state.folded]
    return max(times, default=0)


def _profile_rank(profile: Profile) -> tuple[int, int]:
    return profile.at_ms, profile.birth_year or 0


def place(state: CustomerState, key: bytes, minor: int, at_ms: int) -> None:
    """Fold an order in, by the key of its id; by `apply`'s rules."""
    day = at_ms // DAY_MS
    if is_folded(state, key):
        return
    at = _find(state.orders, key, ORDER.size)
    if at < 0 and day <= state.folded_through_day:
        _place_in_day(state, key, day, minor)
    elif at < 0:
        state.orders += ORDER.pack(key, at_ms, minor)
        count = len(state.orders) // ORDER.size
        if count > ORDERS_KEPT and count % FOLD_STEP == 1:
            _fold_oldest(state)
    elif (at_ms, minor) > ORDER.unpack_from(state.orders, at)[1:]:
        state.orders = _replaced(state.orders, at, ORDER.pack(key, at_ms, minor))


def _place_in_day(state: CustomerState, key: bytes, day: int, minor: int) -> None:
    """Add an order to the total of its day, with the refunds that waited for it. A cancelled one is gone already."""
    back = 0
    _remember_folded(state, [key])
    if key in state.refunds:
        refunds = list(REFUND.iter_unpack(state.refunds))
        back = sum(refund[3] for refund in refunds if refund[1] == key)
        state.refunds = b"".join(REFUND.pack(*refund) for refund in refunds if refund[1] != key)
    if _find(state.cancelled, key, CANCELLATION.size) < 0:
        _add_to_day(state, day, minor, minor - min(minor, back))


def refund(state: CustomerState, key: bytes, order: bytes, minor: int, at_ms: int) -> None:
    """Fold a refund in, by the keys of its id and of its order's (NO_ORDER if it names none); by `apply`'s rules."""
    record = REFUND.pack(key, order, at_ms, minor)
    at = _find(state.refunds, key, REFUND.size)
    if at < 0:
        state.refunds += record
    else:
        _, known_order, known_ms, known_minor = REFUND.unpack_from(state.refunds, at)
        if (at_ms, minor, order) > (known_ms, known_minor, known_order):
            state.refunds = _replaced(state.refunds, at, record)


def _cancel(state: CustomerState, event: OrderCancelled) -> None:
    record = CANCELLATION.pack(key := id_key(event.order_id), event.occurred_at_ms)
    at = _find(state.cancelled, key, CANCELLATION.size)
    if at < 0:
        state.cancelled += record
    elif event.occurred_at_ms < CANCELLATION.unpack_from(state.cancelled, at)[1]:
        state.cancelled = _replaced(state.cancelled, at, record)


def _find(records: bytes, key: bytes, size: int) -> int:
    """Where the record with this key begins, or -1."""
    at = records.find(key)
    while at > 0 and at % size:  # the same bytes by chance, across fields
        at = records.find(key, at + 1)
    return at


def _replaced(records: bytes, at: int, record: bytes) -> bytes:
    return records[:at] + record + records[at + len(record) :]


def _fold_oldest(state: CustomerState) -> None:
    """Fold whole days, oldest first, until a step's worth of the kept orders is free again.

    The newest day, where repeats are likeliest, stays unless it alone is several times the bound.
    """
    orders = {key: (at_ms, minor) for key, at_ms, minor in ORDER.iter_unpack(state.orders)}
    cancelled = dict(CANCELLATION.iter_unpack(state.cancelled))
    refunds = list(REFUND.iter_unpack(state.refunds))
    by_day: dict[int, list[bytes]] = {}
    for key, (at_ms, _) in orders.items():
        by_day.setdefault(at_ms // DAY_MS, []).append(key)
    back: dict[bytes, int] = {}
    for _, order, _, minor in refunds:
        back[order] = back.get(order, 0) + minor
    newest_day, surplus, kept = max(by_day), len(orders) - (ORDERS_KEPT - FOLD_STEP), len(orders)
    for day in sorted(by_day):
        if surplus <= 0 or (day == newest_day and kept <= 4 * ORDERS_KEPT):
            break
        for key in by_day[day]:
            _, minor = orders.pop(key)
            if cancelled.pop(key, None) is None:
                _add_to_day(state, day, minor, minor - min(minor, back.get(key, 0)))
        surplus -= len(by_day[day])
        kept -= len(by_day[day])
        state.folded_through_day = day
    folded_keys = {key for keys in by_day.values() for key in keys} - orders.keys()
    _remember_folded(state, [key for keys in by_day.values() for key in keys if key in folded_keys])
    state.orders = b"".join(ORDER.pack(key, *rest) for key, rest in orders.items())
    state.cancelled = b"".join(CANCELLATION.pack(*item) for item in cancelled.items())
    state.refunds = b"".join(REFUND.pack(*refund) for refund in refunds if refund[1] not in folded_keys)


def is_folded(state: CustomerState, key: bytes) -> bool:
    """Whether the order is known to be in a day's total."""
    return bool(state.folded_ids) and _find(state.folded_ids, key, len(key)) >= 0


def _remember_folded(state: CustomerState, keys: Iterable[bytes]) -> None:
    state.folded_ids = (state.folded_ids + b"".join(keys))[-FOLDED_IDS_KEPT * len(NO_ORDER) :]


def _add_to_day(state: CustomerState, day: int, gross_minor: int, net_minor: int) -> None:
    total = state.folded.get(day, DayTotal(0, 0, 0))
    state.folded[day] = DayTotal(total.orders + 1, total.gross_minor + gross_minor, total.net_minor + net_minor)


def has_ordered(state: CustomerState) -> bool:
    """Whether any order is known, cancelled or not: without one there is nothing to predict from."""
    return bool(state.orders or state.folded)


def canonical(state: CustomerState) -> CustomerState:
    """The same state with its records in order of their keys: equal for equal sets of events."""

    def ordered(records: bytes, size: int) -> bytes:
        return b"".join(sorted(records[at : at + size] for at in range(0, len(records), size)))

    return msgspec.structs.replace(
        state,
        orders=ordered(state.orders, ORDER.size),
        refunds=ordered(state.refunds, REFUND.size),
        cancelled=ordered(state.cancelled, CANCELLATION.size),
        folded_ids=ordered(state.folded_ids, len(NO_ORDER)),
    )
