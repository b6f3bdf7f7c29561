"""What each event does to refunds, against the ledger before and after it."""

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given, settings

from domain.customer import (
    DAY_MS,
    ORDERS_KEPT,
    CustomerState,
    Event,
    OrderCancelled,
    OrderPlaced,
    OrderRefunded,
    ProfileUpdated,
    apply,
    canonical,
    fold,
)
from domain.ledger import ledger
from domain.refunds import NO_EFFECTS, RefundCounts, RefundEffects, refund_effects
from tests.effort import tries

LAST_DAY = 30_000
"""After everything: as of it, a refund waits only for an order that is not there."""

# Few ids, so that the same id comes again with the same and with other content.
order_ids = st.sampled_from("abc")
times = st.integers(0, 3).map(lambda day: day * DAY_MS)
amounts = st.integers(1, 9)
events = st.lists(
    st.one_of(
        st.builds(OrderPlaced, order_ids, amounts, times),
        st.builds(OrderRefunded, st.sampled_from("wxyz"), st.none() | order_ids, amounts, times),
        st.builds(OrderCancelled, order_ids, times),
        st.builds(ProfileUpdated, st.integers(1950, 2000), times),
    ),
    max_size=20,
)


def told(state: CustomerState) -> tuple[int, int]:
    """How many refunds wait, and what is refunded in excess."""
    found = ledger([state], [LAST_DAY])
    return int(found.waiting_refund_count[0]), int(found.refund_excess[0])


def order(identifier: str, minor: int) -> OrderPlaced:
    return OrderPlaced(identifier, minor, DAY_MS)


def refund(identifier: str, of: str | None, minor: int) -> OrderRefunded:
    return OrderRefunded(identifier, of, minor, 2 * DAY_MS)


@settings(max_examples=tries(400), deadline=None)
@given(events)
def test_effects_are_what_changes_in_the_ledger(found):
    state = CustomerState()
    for event in found:
        effects = refund_effects(state, event)
        (waiting, excess) = told(state)
        apply(state, event)
        (waiting_after, excess_after) = told(state)
        assert effects.waiting - effects.matched == waiting_after - waiting
        assert effects.waiting in (0, 1)
        assert effects.matched == 0 or effects.waiting == 0
        assert effects.excess == int(excess_after > excess)


@settings(max_examples=tries(200), deadline=None)
@given(events)
def test_an_event_that_is_known_does_nothing_again(found):
    state = fold(found)
    before = canonical(state)
    for event in found:
        assert refund_effects(state, event) == NO_EFFECTS
    assert canonical(state) == before


@settings(max_examples=tries(400), deadline=None)
@given(events)
def test_applying_and_counting_is_applying_and_adding_up_the_effects(found):
    state, counts, plain = CustomerState(), RefundCounts(), CustomerState()
    effects = []
    for event in found:
        effects.append(refund_effects(plain, event))
        apply(plain, event)
        counts.apply(state, event)
    assert state == plain
    for name in ("waiting", "matched", "excess"):
        assert getattr(counts, name) == sum(getattr(each, name) for each in effects)
    assert counts.waiting - counts.matched == told(state)[0]


def test_counting_survives_the_folding_of_old_orders():
    state, plain, counts, expected = CustomerState(), CustomerState(), RefundCounts(), [0, 0, 0]
    for n in range(2 * ORDERS_KEPT):
        at_ms = n // 10 * DAY_MS
        arrival = [OrderRefunded(f"r{n}", f"o{n}", 11, at_ms), OrderPlaced(f"o{n}", 10, at_ms)]
        for event in arrival[:: -1 if n % 3 else 1] if n % 2 else arrival[1:]:
            effects = refund_effects(plain, event)
            expected = [a + b for a, b in zip(expected, msgspec.structs.astuple(effects), strict=True)]
            apply(plain, event)
            counts.apply(state, event)
    assert state == plain
    assert state.folded
    assert list(msgspec.structs.astuple(counts)) == expected
    assert counts.waiting == counts.matched > 0
    assert counts.excess == ORDERS_KEPT


@pytest.mark.parametrize(
    ("before", "event", "expected"),
    [
        ([], refund("r", "a", 5), RefundEffects(waiting=1)),
        ([], refund("r", None, 5), NO_EFFECTS),
        ([order("a", 5)], refund("r", "a", 5), NO_EFFECTS),
        ([order("a", 5)], refund("r", "a", 6), RefundEffects(excess=1)),
        ([order("a", 5), refund("r", "a", 5)], refund("s", "a", 1), RefundEffects(excess=1)),
        ([refund("r", "a", 5), refund("s", "a", 1)], order("a", 6), RefundEffects(matched=2)),
        ([refund("r", "a", 5), refund("s", "a", 1)], order("a", 5), RefundEffects(matched=2, excess=1)),
        ([refund("r", "a", 5)], order("b", 5), NO_EFFECTS),
        ([order("a", 5)], OrderCancelled("a", 0), NO_EFFECTS),
    ],
)
def test_what_one_event_does(before: list[Event], event: Event, expected: RefundEffects):
    assert refund_effects(fold(before), event) == expected


def test_the_refunds_of_an_order_so_late_that_its_day_is_folded_match():
    state = fold(OrderPlaced(f"o{n}", 10, n // 10 * DAY_MS) for n in range(2 * ORDERS_KEPT))
    counts = RefundCounts()
    for event in (refund("r", "late", 5), refund("s", "late", 6), order("late", 5)):
        counts.apply(state, event)
    assert (counts.waiting, counts.matched, counts.excess) == (2, 2, 0)
    assert told(state) == (0, 0)


def test_a_refund_of_an_order_long_folded_counts_as_waiting():
    state = fold(OrderPlaced(f"o{n}", 10, n // 10 * DAY_MS) for n in range(2 * ORDERS_KEPT))
    assert refund_effects(state, OrderRefunded("r", "o0", 1, 900 * DAY_MS)) == RefundEffects(waiting=1)
    assert refund_effects(state, OrderRefunded("r", f"o{2 * ORDERS_KEPT - 1}", 1, 900 * DAY_MS)) == NO_EFFECTS
