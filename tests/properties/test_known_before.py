"""A state as it was before a day is what the events before that day make; states packed by the column are fold's."""

import random
from itertools import combinations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from domain import customer as customer_module
from domain import packing
from domain.customer import (
    DAY_MS,
    NO_ORDER,
    ORDERS_KEPT,
    CustomerState,
    OrderPlaced,
    OrderRefunded,
    apply,
    canonical,
    fold,
    id_key,
    known_before,
)
from domain.features import FEATURE_NAMES, features
from domain.packing import OrderColumns, RefundColumns, keys_of, packed_states
from domain.purchases import purchases
from tests.effort import tries
from tests.properties.oracle import naive_features
from tests.properties.test_customer_state import FIRST_DAY, LAST_DAY, QUINTILES, event_of, facts

days = st.integers(FIRST_DAY - 1, LAST_DAY + 2)


def is_past(fact: dict[str, object], day: int) -> bool:
    return fact["kind"] == "profile" or fact["at_ms"] < day * DAY_MS  # type: ignore[operator]


@settings(max_examples=tries(300), deadline=None)
@given(facts, days)
def test_a_state_before_a_day_is_that_of_the_events_before_it(found, day):
    """Byte by byte: not as features see it alone."""
    known = known_before(fold(map(event_of, found)), day)
    assert canonical(known) == canonical(fold(event_of(fact) for fact in found if is_past(fact, day)))


@settings(max_examples=tries(200), deadline=None)
@given(facts, days, st.integers(0, 60))
def test_features_before_a_day_equal_the_oracle_on_the_events_before_it(found, day, later):
    known = known_before(fold(map(event_of, found)), day)
    row = features([known], [day + later], QUINTILES, 100).features[0]
    wanted = naive_features([fact for fact in found if is_past(fact, day)], day + later, QUINTILES)
    np.testing.assert_allclose(row, [wanted[name] for name in FEATURE_NAMES], rtol=1e-12, atol=1e-9)


@settings(max_examples=tries(100), deadline=None)
@given(facts, days, days)
def test_knowing_less_twice_is_knowing_the_least(found, one, other):
    state = fold(map(event_of, found))
    assert known_before(known_before(state, one), other) == known_before(state, min(one, other))


def test_the_state_itself_does_not_change():
    state = fold([OrderPlaced("a", 100, 5 * DAY_MS), OrderPlaced("b", 100, 9 * DAY_MS)])
    before = canonical(state)
    known_before(state, 7)
    assert canonical(state) == before


def test_day_totals_are_known_by_day():
    """More orders than are kept one by one: each day's orders and money are those of the events before it."""
    events = [OrderPlaced(f"o{n}", 100 + n, (10_000 + n // 7) * DAY_MS + n) for n in range(ORDERS_KEPT + 700)]
    state = fold(events)
    assert state.folded
    for day in (10_001, 10_050, max(state.folded) + 1, max(state.folded) + 2, 10_240):
        found, _ = purchases([known_before(state, day)], [20_000])
        wanted, _ = purchases([fold(each for each in events if each.occurred_at_ms < day * DAY_MS)], [20_000])
        for column in ("orders", "gross", "net"):
            sums = [np.bincount(p.day - 10_000, getattr(p, column), minlength=300) for p in (found, wanted)]
            np.testing.assert_array_equal(*sums)


def columns(events: list[tuple[int, OrderPlaced | OrderRefunded]]) -> tuple[OrderColumns, RefundColumns]:
    placed = [(owner, event) for owner, event in events if isinstance(event, OrderPlaced)]
    given_back = [(owner, event) for owner, event in events if isinstance(event, OrderRefunded)]

    def ints(values):
        return np.array(list(values), dtype=np.int64)

    return (
        OrderColumns(
            ints(owner for owner, _ in placed),
            keys_of([id_key(event.order_id) for _, event in placed]),
            ints(event.amount_minor for _, event in placed),
            ints(event.occurred_at_ms for _, event in placed),
        ),
        RefundColumns(
            ints(owner for owner, _ in given_back),
            keys_of([id_key(event.refund_id) for _, event in given_back]),
            keys_of([id_key(event.order_id) if event.order_id else NO_ORDER for _, event in given_back]),
            ints(event.amount_minor for _, event in given_back),
            ints(event.occurred_at_ms for _, event in given_back),
        ),
    )


few_ids, few_times, few_amounts = st.integers(0, 5), st.integers(0, 3 * DAY_MS), st.integers(1, 3)
# Ids that come again with the same content, and with another one.
events_of_some = st.lists(
    st.tuples(
        st.integers(0, 4),
        st.one_of(
            st.builds(lambda i, m, t: OrderPlaced(f"o{i}", m, t), few_ids, few_amounts, few_times),
            st.builds(
                lambda i, o, m, t: OrderRefunded(f"r{i}", None if o is None else f"o{o}", m, t),
                few_ids,
                st.one_of(st.none(), few_ids),
                few_amounts,
                few_times,
            ),
        ),
    ),
    max_size=60,
)


@settings(max_examples=tries(300), deadline=None)
@given(events_of_some, st.sampled_from([ORDERS_KEPT, 3]))
def test_states_packed_by_the_column_are_those_that_fold_makes(events, kept):
    """With a small bound those beyond it are folded event by event, and come out the same."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "ORDERS_KEPT", kept)
        found = list(packed_states(6, *columns(events)))
    wanted = [fold(event for owner, event in events if owner == number) for number in range(6)]
    assert [canonical(state) for state in found] == [canonical(state) for state in wanted]


def test_a_refund_sent_for_two_orders_stands_for_the_one_that_fold_chooses():
    """Same id, time and amount: what is left to choose by is the order's key, byte by byte."""
    for first, second in combinations([f"o{n}" for n in range(12)], 2):
        events = [(0, OrderRefunded("r", order, 5, 7)) for order in (first, second)]
        assert list(packed_states(1, *columns(events))) == [fold(event for _, event in events)]


@settings(max_examples=tries(25), deadline=None)
@given(st.integers(0, 2**32), st.integers(20, 200))
def test_customers_with_more_orders_than_are_kept_fold_as_in_the_order_of_time(seed, per_day):
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("ORDERS_KEPT", 40), ("FOLD_STEP", 10)):
            patch.setattr(customer_module, name, value)
        patch.setattr(packing, "ORDERS_KEPT", 40)
        rng = random.Random(seed)
        events = [(n % 3, OrderPlaced(f"o{n}", n, n * DAY_MS // per_day)) for n in range(600)]
        events += [(n % 3, OrderRefunded(f"r{n}", f"o{n}", 1, (n + 90) * DAY_MS // per_day)) for n in range(0, 600, 7)]
        in_time = sorted(events, key=lambda each: each[1].occurred_at_ms)
        rng.shuffle(events)
        found = list(packed_states(3, *columns(events)))
        wanted = [fold(event for owner, event in in_time if owner == number) for number in range(3)]
    assert any(state.folded for state in wanted)
    assert [canonical(state) for state in found] == [canonical(state) for state in wanted]


def test_nobody_and_nothing_can_be_packed():
    assert list(packed_states(0, *columns([]))) == []
    state = CustomerState()
    assert list(packed_states(2, *columns([]))) == [state, state]
    apply(state, OrderPlaced("o", 1, 0))
    assert list(packed_states(2, *columns([(1, OrderPlaced("o", 1, 0))]))) == [CustomerState(), state]
