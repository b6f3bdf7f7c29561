"""One customer's state: the orders themselves, kept so that the order and number of deliveries cannot matter.

Placing, refunding and cancelling are set unions keyed by id: they commute and repeat harmlessly. What a customer is
worth is never stored; it is derived from the sets by `purchases`, as of a day. Pure: no clock, no IO.
"""

from collections.abc import Iterable
from hashlib import blake2b

import msgspec

DAY_MS = 86_400_000
ORDERS_KEPT = 1000
"""Orders kept one by one; older ones fold into per-day totals, so that a row is bounded."""
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


class Order(msgspec.Struct, array_like=True, frozen=True, gc=False):
    at_ms: int
    minor: int


class Refund(msgspec.Struct, array_like=True, frozen=True, gc=False):
    order: int
    """Key of the order it belongs to; 0 for none."""
    at_ms: int
    minor: int


class DayTotal(msgspec.Struct, array_like=True, frozen=True, gc=False):
    orders: int
    gross_minor: int
    net_minor: int


class Profile(msgspec.Struct, array_like=True, frozen=True, gc=False):
    at_ms: int
    birth_year: int | None


class CustomerState(msgspec.Struct, array_like=True):
    """All that is known of one customer. Keys are 64-bit hashes of ids (see `id_key`)."""

    orders: dict[int, Order] = {}
    refunds: dict[int, Refund] = {}
    cancelled: dict[int, int] = {}
    """Order key → epoch ms of the earliest cancellation."""
    profile: Profile | None = None
    folded: dict[int, DayTotal] = {}
    """Day → totals of orders that are no longer kept one by one."""
    folded_through_day: int = -(2**31)
    """Orders of this day or before live in `folded`."""


class Purchase(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One order (or one folded day) that counts: `orders` of them on `day`, gross and net of refunds, minor units."""

    day: int
    orders: int
    gross_minor: int
    net_minor: int


def id_key(identifier: str) -> int:
    """A stable 64-bit key of an id, never 0. Two ids of one customer collide with probability below 1e-13."""
    return int.from_bytes(blake2b(identifier.encode(), digest_size=8).digest(), "big") or 1


def apply(state: CustomerState, event: Event) -> None:
    """Fold one event into the state. Any order, any number of repetitions of the same events gives the same state.

    Two orders with one id but different content: the later occurred_at (then the larger amount) stands, whichever
    arrives first.
    """
    match event:
        case OrderPlaced():
            _place(state, event)
        case OrderRefunded():
            _refund(state, event)
        case OrderCancelled():
            key = id_key(event.order_id)
            known = state.cancelled.get(key)
            if known is None or event.occurred_at_ms < known:
                state.cancelled[key] = event.occurred_at_ms
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


def _profile_rank(profile: Profile) -> tuple[int, int]:
    return profile.at_ms, profile.birth_year or 0


def _place(state: CustomerState, event: OrderPlaced) -> None:
    at_ms, minor = event.occurred_at_ms, event.amount_minor
    day = at_ms // DAY_MS
    if day <= state.folded_through_day:
        # Its neighbours are day totals already, so its id can no longer be remembered: a repeat is then held off by
        # the source-offset guard alone.
        _add_to_day(state, day, minor, minor)
        return
    key = id_key(event.order_id)
    known = state.orders.get(key)
    if known is None or (at_ms, minor) > (known.at_ms, known.minor):
        state.orders[key] = Order(at_ms, minor)
        if len(state.orders) > ORDERS_KEPT and len(state.orders) % FOLD_STEP == 1 and known is None:
            _fold_oldest(state)


def _refund(state: CustomerState, event: OrderRefunded) -> None:
    key = id_key(event.refund_id)
    refund = Refund(id_key(event.order_id) if event.order_id else 0, event.occurred_at_ms, event.amount_minor)
    known = state.refunds.get(key)
    if known is None or _refund_rank(refund) > _refund_rank(known):
        state.refunds[key] = refund


def _refund_rank(refund: Refund) -> tuple[int, int, int]:
    return refund.at_ms, refund.minor, refund.order


def _fold_oldest(state: CustomerState) -> None:
    """Fold whole days, oldest first, until a step's worth of the kept orders is free again.

    The newest day, where repeats are likeliest, stays unless it alone is several times the bound.
    """
    by_day: dict[int, list[int]] = {}
    for key, order in state.orders.items():
        by_day.setdefault(order.at_ms // DAY_MS, []).append(key)
    newest_day = max(by_day)
    surplus = len(state.orders) - (ORDERS_KEPT - FOLD_STEP)
    refunds_of = _refunds_by_order(state)
    for day in sorted(by_day):
        if surplus <= 0 or (day == newest_day and len(state.orders) <= 4 * ORDERS_KEPT):
            break
        for key in by_day[day]:
            order = state.orders.pop(key)
            refunds = refunds_of.get(key, [])
            cancelled_ms = state.cancelled.pop(key, None)
            for refund_key, _ in refunds:
                del state.refunds[refund_key]
            if cancelled_ms is None:
                back = min(order.minor, sum(refund.minor for _, refund in refunds))
                _add_to_day(state, day, order.minor, order.minor - back)
            surplus -= 1
        state.folded_through_day = day


def _add_to_day(state: CustomerState, day: int, gross_minor: int, net_minor: int) -> None:
    total = state.folded.get(day, DayTotal(0, 0, 0))
    state.folded[day] = DayTotal(total.orders + 1, total.gross_minor + gross_minor, total.net_minor + net_minor)


def _refunds_by_order(state: CustomerState) -> dict[int, list[tuple[int, Refund]]]:
    grouped: dict[int, list[tuple[int, Refund]]] = {}
    for key, refund in state.refunds.items():
        grouped.setdefault(refund.order, []).append((key, refund))
    return grouped


class PurchaseColumns(msgspec.Struct):
    """Purchases of many customers as four columns of equal length; far cheaper to sum than a record each."""

    day: list[int] = []
    orders: list[int] = []
    gross_minor: list[int] = []
    net_minor: list[int] = []

    def add(self, state: CustomerState, as_of_day: int) -> int:
        """Append the orders that count as of the end of `as_of_day` (days since 1970, UTC), unsorted; how many rows.

        A refund lowers the order it names, down to nothing and never below, once its own day has come. A refund of an
        order that has not arrived waits. A cancelled order is gone from the day of its cancellation on.
        """
        before = len(self.day)
        end_ms = (as_of_day + 1) * DAY_MS
        if state.refunds or state.cancelled or state.folded:
            self._add_changed(state, as_of_day, end_ms)
        else:
            orders = [order for order in state.orders.values() if order.at_ms < end_ms]
            amounts = [order.minor for order in orders]
            self.day += [order.at_ms // DAY_MS for order in orders]
            self.orders += [1] * len(orders)
            self.gross_minor += amounts
            self.net_minor += amounts
        return len(self.day) - before

    def _add_changed(self, state: CustomerState, as_of_day: int, end_ms: int) -> None:
        folded = [(day, total) for day, total in state.folded.items() if day <= as_of_day]
        self.day += [day for day, _ in folded]
        self.orders += [total.orders for _, total in folded]
        self.gross_minor += [total.gross_minor for _, total in folded]
        self.net_minor += [total.net_minor for _, total in folded]
        back: dict[int, int] = {}
        for refund in state.refunds.values():
            if refund.at_ms < end_ms:
                back[refund.order] = back.get(refund.order, 0) + refund.minor
        gone = state.cancelled
        live = [(k, o) for k, o in state.orders.items() if o.at_ms < end_ms and gone.get(k, end_ms) >= end_ms]
        self.day += [order.at_ms // DAY_MS for _, order in live]
        self.orders += [1] * len(live)
        self.gross_minor += [order.minor for _, order in live]
        self.net_minor += [
            order.minor - min(order.minor, back[key]) if key in back else order.minor for key, order in live
        ]


def purchases(state: CustomerState, as_of_day: int) -> list[Purchase]:
    """The orders of one customer that count as of the end of `as_of_day`, unsorted; see PurchaseColumns.add."""
    columns = PurchaseColumns()
    columns.add(state, as_of_day)
    rows = zip(columns.day, columns.orders, columns.gross_minor, columns.net_minor, strict=True)
    return [Purchase(*row) for row in rows]


def unassigned_refunds(state: CustomerState, as_of_day: int) -> list[tuple[int, int]]:
    """(day, minor units) of refunds that name no order, and so count against the customer on their own day."""
    end_ms = (as_of_day + 1) * DAY_MS
    return [
        (refund.at_ms // DAY_MS, refund.minor)
        for refund in state.refunds.values()
        if refund.order == 0 and refund.at_ms < end_ms
    ]


def last_event_day(state: CustomerState) -> int | None:
    """The latest day anything was recorded for, or None for an empty state."""
    times = [order.at_ms for order in state.orders.values()]
    times += [refund.at_ms for refund in state.refunds.values()]
    times += state.cancelled.values()
    days = [at_ms // DAY_MS for at_ms in times] + list(state.folded)
    return max(days, default=None)
