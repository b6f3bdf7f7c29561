"""What became of customers, against a walk over their events one by one."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.customer import DAY_MS, CustomerState, Event, OrderCancelled, OrderPlaced, OrderRefunded, fold
from domain.outcomes import outcomes, window


@dataclass
class Told:
    orders: int
    minor: int


def told(events: list[Event], begin: int, end: int) -> Told:
    """By the definition, slowly: each id once, nothing from `end` on is known."""
    seen = [each for each in events if each.occurred_at_ms < end * DAY_MS]
    placed = {each.order_id: each for each in seen if isinstance(each, OrderPlaced)}
    refunds = {each.refund_id: each for each in seen if isinstance(each, OrderRefunded)}
    cancelled = {each.order_id for each in seen if isinstance(each, OrderCancelled)}
    result = Told(0, 0)
    for order in placed.values():
        if order.occurred_at_ms >= begin * DAY_MS and order.order_id not in cancelled:
            back = sum(each.amount_minor for each in refunds.values() if each.order_id == order.order_id)
            result.orders += 1
            result.minor += max(0, order.amount_minor - back)
    for refund in refunds.values():
        if refund.order_id is None and refund.occurred_at_ms >= begin * DAY_MS:
            result.minor -= refund.amount_minor
    return result


def event(kind: str, number: int, day: int, part: int, minor: int) -> Event:
    at_ms = day * DAY_MS + part
    if kind == "order":  # an order's id fixes its content here: which of two stands is the state's affair
        return OrderPlaced(f"o{number}", 1000 + number, number % 20 * DAY_MS + number)
    if kind == "cancel":
        return OrderCancelled(f"o{number}", at_ms)
    of = None if kind == "loose" else f"o{number}"
    return OrderRefunded(f"r{number}-{day}-{part}-{minor}-{kind}", of, minor, at_ms)


kinds = st.sampled_from(["order", "order", "order", "refund", "loose", "cancel"])
events = st.builds(
    event, kinds, st.integers(0, 40), st.integers(0, 25), st.sampled_from([0, DAY_MS - 1]), st.integers(1, 900)
)
customers = st.lists(st.tuples(st.lists(events, max_size=12), st.integers(0, 20), st.integers(1, 10)), max_size=6)


@given(customers)
def test_outcomes_are_those_of_a_walk_over_the_events(found):
    states = [fold(each) for each, _, _ in found]
    got = outcomes(states, [begin for _, begin, _ in found], [begin + days for _, begin, days in found])
    expected = [told(each, begin, begin + days) for each, begin, days in found]
    assert got.orders.tolist() == [each.orders for each in expected]
    assert got.minor.tolist() == [each.minor for each in expected]
    assert got.minor.dtype == np.int64


def test_adjacent_windows_without_refunds_add_up():
    state = fold(OrderPlaced(f"o{day}", 100 + day, day * DAY_MS + day) for day in range(40))
    parts = outcomes([state] * 4, [0, 10, 20, 30], [10, 20, 30, 40])
    whole = outcomes([state], [0], [40])
    assert parts.orders.sum() == whole.orders[0] == 40
    assert parts.minor.sum() == whole.minor[0]


def test_nobody_and_nothing_come_to_nothing():
    assert outcomes([], [], []).orders.shape == (0,)
    got = outcomes([CustomerState()], [5], [6])
    assert (got.orders.tolist(), got.minor.tolist()) == ([0], [0])


def test_an_order_that_is_in_a_days_total_counts_on_its_day():
    orders = [OrderPlaced(f"o{number}", 100, number // 30 * DAY_MS) for number in range(1500)]
    state = fold(orders)
    assert state.folded, "the oldest are folded"
    got = outcomes([state, state], [0, 3], [3, 50])
    assert got.orders.tolist() == [90, 1410]
    assert got.minor.tolist() == [9000, 141_000]


@pytest.mark.parametrize(("knew", "expected"), [(False, (100, 190)), (True, (101, 191))])
def test_a_window_begins_on_the_first_day_of_which_nothing_was_known(knew: bool, expected: tuple[int, int]):
    assert window(100, 90, knew_the_day=knew) == expected
