"""What an event does to refunds: whether one begins to wait for its order, stops waiting, or goes beyond its order.

To be counted: an event that the state knows already does nothing. Unlike the ledger it takes no day: an order that is
known is known, whenever it was placed. Pure: must never look at a clock, or at how an event came.
"""

from collections.abc import Iterator
from struct import Struct
from typing import Any

import msgspec

from domain.customer import (
    DAY_MS,
    NO_ORDER,
    ORDER,
    REFUND,
    CustomerState,
    Event,
    OrderPlaced,
    OrderRefunded,
    apply,
    id_key,
    is_folded,
)


class RefundEffects(msgspec.Struct, frozen=True, gc=False):
    """What one event does. waiting − matched, over all events of a customer, is how many refunds wait."""

    waiting: int = 0
    """Refunds that begin to wait, because their order is not known: 0 or 1."""
    matched: int = 0
    """Refunds that waited and no longer do, because their order came (or they were corrected to name another)."""
    excess: int = 0
    """1 if more is now refunded beyond orders' amounts than before, else 0."""


NO_EFFECTS = RefundEffects()


class RefundCounts(msgspec.Struct):
    """Effects of many events, added up."""

    waiting: int = 0
    matched: int = 0
    excess: int = 0

    def apply(self, state: CustomerState, event: Event) -> None:
        """Apply the event to the state (domain.customer.apply) and add what it did.

        The same as to add refund_effects() first, but hardly dearer than to apply alone: a state's records are
        immutable, so that what stands in them now says what happened, without hashing ids again.
        """
        orders, refunds, folded_through = state.orders, state.refunds, state.folded_through_day
        folded_ids = state.folded_ids
        apply(state, event)
        if state.refunds is refunds:
            if not refunds or state.orders is orders:
                return
            if len(state.orders) == len(orders) + ORDER.size and state.orders[_LAST_KEY] not in refunds:
                return
        before = CustomerState(orders, refunds, folded_through_day=folded_through, folded_ids=folded_ids)
        if state.orders is orders and len(state.refunds) == len(refunds) + REFUND.size:
            _, order, _, minor = REFUND.unpack_from(state.refunds, len(refunds))
            effects = _of_new_refund(before, order, minor)
        else:
            effects = refund_effects(before, event)
        self.waiting += effects.waiting
        self.matched += effects.matched
        self.excess += effects.excess


_LAST_KEY = slice(-ORDER.size, len(NO_ORDER) - ORDER.size)
"""Key of the last of some order records."""


def refund_effects(state: CustomerState, event: Event) -> RefundEffects:
    """What applying the event to the state would do to refunds; NO_EFFECTS if nothing."""
    if isinstance(event, OrderPlaced):
        return _of_order(state, event) if state.refunds else NO_EFFECTS
    if isinstance(event, OrderRefunded):
        return _of_refund(state, event)
    return NO_EFFECTS


def _of_order(state: CustomerState, event: OrderPlaced) -> RefundEffects:
    key = id_key(event.order_id)
    if key not in state.refunds or is_folded(state, key):
        return NO_EFFECTS  # of most orders, so it is asked in the cheapest way
    refunds = [minor for *_, minor in _records(state.refunds, REFUND, key, 8)]
    if not refunds:
        return NO_EFFECTS
    if event.occurred_at_ms // DAY_MS <= state.folded_through_day:
        return RefundEffects(matched=len(refunds))  # it goes into a day's total, where no excess is remembered
    back = sum(refunds)
    known = next(_records(state.orders, ORDER, key, 0), None)
    if known is None:
        return RefundEffects(matched=len(refunds), excess=int(back > event.amount_minor))
    _, known_ms, known_minor = known
    stands = (event.occurred_at_ms, event.amount_minor) > (known_ms, known_minor)
    return RefundEffects(excess=1) if stands and back > event.amount_minor < known_minor else NO_EFFECTS


def _of_refund(state: CustomerState, event: OrderRefunded) -> RefundEffects:
    key, order = id_key(event.refund_id), id_key(event.order_id) if event.order_id else NO_ORDER
    known = next(_records(state.refunds, REFUND, key, 0), None) if key in state.refunds else None
    if known is not None:
        return _of_correction(state, event, order, known)
    return _of_new_refund(state, order, event.amount_minor)


def _of_new_refund(state: CustomerState, order: bytes, minor: int) -> RefundEffects:
    if order == NO_ORDER:
        return NO_EFFECTS
    amount = _amount_of(state, order)
    if amount is None:
        return RefundEffects(waiting=1)
    back = _back_of(state, order) if order in state.refunds else 0
    return RefundEffects(excess=1) if back + minor > max(back, amount) else NO_EFFECTS


def _of_correction(
    state: CustomerState, event: OrderRefunded, order: bytes, known: tuple[bytes, bytes, int, int]
) -> RefundEffects:
    """Of a refund whose id the state knows: only other content that stands (domain.customer.apply) does something."""
    _, known_order, known_ms, known_minor = known
    if (event.occurred_at_ms, event.amount_minor, order) <= (known_ms, known_minor, known_order):
        return NO_EFFECTS
    waited, waits = (one != NO_ORDER and _amount_of(state, one) is None for one in (known_order, order))
    taken, given = {known_order: known_minor}, {order: event.amount_minor}
    change = sum(
        _excess(state, one, given.get(one, 0) - taken.get(one, 0)) - _excess(state, one, 0)
        for one in {known_order, order}
    )
    return RefundEffects(int(waits and not waited), int(waited and not waits), int(change > 0))


def _excess(state: CustomerState, order: bytes, more: int) -> int:
    """What is refunded beyond the order's amount, were `more` refunded of it."""
    amount = _amount_of(state, order)
    return 0 if amount is None else max(0, _back_of(state, order) + more - amount)


def _amount_of(state: CustomerState, order: bytes) -> int | None:
    """The order's amount; None if it is not known, as no order is."""
    if order == NO_ORDER or order not in state.orders:
        return None
    placed = next(_records(state.orders, ORDER, order, 0), None)
    return None if placed is None else int(placed[2])


def _back_of(state: CustomerState, order: bytes) -> int:
    return sum(minor for *_, minor in _records(state.refunds, REFUND, order, 8))


def _records(records: bytes, layout: Struct, key: bytes, field_at: int) -> Iterator[Any]:
    """The records, unpacked, that have this key in the field that begins `field_at` bytes into each."""
    at = records.find(key)
    while at >= 0:
        if at % layout.size == field_at:  # else the same bytes by chance, across fields
            yield layout.unpack_from(records, at - field_at)
        at = records.find(key, at + 1)
