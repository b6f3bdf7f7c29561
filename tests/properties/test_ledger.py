"""The ledger equals a naive one on every prefix, whatever the order of events, and loses or invents no money."""

import random
from itertools import permutations

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from domain.customer import (
    DAY_MS,
    ORDERS_KEPT,
    CustomerState,
    Event,
    OrderCancelled,
    OrderPlaced,
    OrderRefunded,
    apply,
    fold,
)
from domain.features import FEATURE_NAMES, INPUT_NAMES, features
from domain.ledger import Ledgers, ledger
from domain.purchases import settle
from tests.effort import tries
from tests.properties.oracle import naive_ledger
from tests.properties.test_customer_state import FIRST_DAY, LAST_DAY, QUINTILES, event_of, facts

DAY = 100
days = st.integers(FIRST_DAY - 1, LAST_DAY + 400)
# Few ids, days and small amounts, so that amounts just meet and refunds come before their orders' days.
near_times = st.integers(FIRST_DAY, FIRST_DAY + 3).map(lambda day: day * DAY_MS)
near_amounts = st.integers(1, 6)
near_ids = st.sampled_from("ab")
near_facts = st.lists(
    st.one_of(
        st.builds(
            lambda i, t, a: {"kind": "order", "order_id": i, "at_ms": t, "minor": a}, near_ids, near_times, near_amounts
        ),
        st.builds(
            lambda r, i, t, a: {"kind": "refund", "refund_id": r, "order_id": i, "at_ms": t, "minor": a},
            st.sampled_from("vwxyz"),
            st.none() | near_ids,
            near_times,
            near_amounts,
        ),
        st.builds(lambda i, t: {"kind": "cancel", "order_id": i, "at_ms": t}, near_ids, near_times),
    ),
    max_size=12,
).map(lambda found: list({(f["kind"], f.get("refund_id") or f["order_id"]): f for f in found}.values()))
EVERY_REFUND = ("refunded", "cancelled_refunds", "refund_excess", "loose_refunds", "waiting_refunds")


def ledger_at(state: CustomerState, day: int) -> dict[str, int]:
    """The ledger of one customer by name."""
    return {name: int(column[0]) for name, column in ledger([state], [day])._asdict().items()}


def ledger_after(*events: Event) -> dict[str, int]:
    """What is not 0 in the ledger after these events."""
    return {name: value for name, value in ledger_at(fold(events), DAY).items() if value}


def order(identifier: str, minor: int, day: int = 1) -> OrderPlaced:
    return OrderPlaced(identifier, minor, day * DAY_MS)


def refund(identifier: str, of: str | None, minor: int, day: int = 2) -> OrderRefunded:
    return OrderRefunded(identifier, of, minor, day * DAY_MS)


def cancellation(of: str, day: int = 3) -> OrderCancelled:
    return OrderCancelled(of, day * DAY_MS)


@settings(max_examples=tries(300), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(facts | near_facts, days | st.integers(FIRST_DAY - 1, FIRST_DAY + 3))
def test_the_ledger_equals_the_oracle_on_every_prefix(found, day):
    state = CustomerState()
    for n, fact in enumerate(found, start=1):
        apply(state, event_of(fact))
        assert ledger_at(state, day) == naive_ledger(found[:n], day)


@settings(max_examples=tries(200), deadline=None)
@given(facts, st.randoms(use_true_random=False), days)
def test_neither_order_nor_repetition_of_events_changes_the_ledger(found, rng, day):
    events = [event_of(fact) for fact in found]
    shuffled = events + rng.choices(events, k=2 * len(events)) if events else []
    rng.shuffle(shuffled)
    assert ledger_at(fold(shuffled), day) == ledger_at(fold(events), day)


@settings(max_examples=tries(200), deadline=None)
@given(facts, days)
def test_every_refund_that_has_happened_is_in_exactly_one_place(found, day):
    got = ledger_at(fold(map(event_of, found)), day)
    happened = [fact["minor"] for fact in found if fact["kind"] == "refund" and fact["at_ms"] < (day + 1) * DAY_MS]
    assert sum(got[name] for name in EVERY_REFUND) == sum(happened)
    assert all(got[name] >= 0 for name in got if name != "net")


@settings(max_examples=tries(200), deadline=None)
@given(facts, days)
def test_the_ledger_adds_up_to_the_features(found, day):
    state = fold(map(event_of, found))
    got = ledger_at(state, day)
    rows = features([state], [day], QUINTILES, 100)
    named = dict(zip(FEATURE_NAMES, rows.features[0].tolist(), strict=True))
    orders = got["orders_placed"] - got["orders_cancelled"]
    assert dict(zip(INPUT_NAMES, rows.inputs[0].tolist(), strict=True))["total_orders"] == orders
    assert got["net"] == got["gross"] - got["refunded"] - got["loose_refunds"]
    if orders:
        assert named["total_spending"] == pytest.approx(got["gross"] / 100, rel=1e-12)
        assert named["monetary"] == got["net"] / 100


@settings(max_examples=tries(100), deadline=None)
@given(facts, st.integers(FIRST_DAY, LAST_DAY))
def test_the_ledger_does_not_see_what_happens_after_its_day(found, day):
    past = [fact for fact in found if fact["at_ms"] < (day + 1) * DAY_MS]
    assert ledger_at(fold(map(event_of, found)), day) == ledger_at(fold(map(event_of, past)), day)


@settings(max_examples=tries(100), deadline=None)
@given(st.lists(st.tuples(facts, days), min_size=2, max_size=6))
def test_a_ledger_does_not_depend_on_its_neighbours(customers):
    states = [fold(map(event_of, found)) for found, _ in customers]
    together = ledger(states, [day for _, day in customers])
    for row, (state, (_, day)) in enumerate(zip(states, customers, strict=True)):
        assert {name: int(column[row]) for name, column in together._asdict().items()} == ledger_at(state, day)


@settings(max_examples=tries(100), deadline=None)
@given(facts, days)
def test_features_from_joins_already_made_are_the_same(found, day):
    states = [fold(map(event_of, found))]
    made, anew = (features(states, [day], QUINTILES, 100, joined) for joined in (settle(states, [day]), None))
    assert made.features.tobytes() == anew.features.tobytes()


@settings(max_examples=tries(100), deadline=None)
@given(st.integers(1, 5000), st.lists(st.integers(1, 2000), min_size=1, max_size=8))
def test_partial_refunds_add_up_to_one_whole_refund(amount, parts):
    in_parts = ledger_after(order("a", amount), *(refund(f"r{n}", "a", part) for n, part in enumerate(parts)))
    assert in_parts == ledger_after(order("a", amount), refund("r", "a", sum(parts)))


@pytest.mark.parametrize("cancelled", [False, True])
def test_the_excess_is_the_same_in_whatever_order_refunds_and_order_come(cancelled: bool):
    events: list[Event] = [order("a", 100), refund("r1", "a", 60), refund("r2", "a", 70), refund("r3", "a", 5)]
    events += [cancellation("a")] * cancelled
    expected = {"orders_placed": 1, "refund_excess": 35}
    expected |= {"orders_cancelled": 1, "cancelled_refunds": 100} if cancelled else {"gross": 100, "refunded": 100}
    for arrival in permutations(events):
        assert ledger_after(*arrival) == expected


@pytest.mark.parametrize(("back", "refunded", "excess"), [(99, 99, 0), (100, 100, 0), (101, 100, 1)])
def test_an_order_takes_refunds_up_to_its_very_amount(back: int, refunded: int, excess: int):
    got = ledger_at(fold([order("a", 100), refund("r", "a", back)]), DAY)
    assert (got["refunded"], got["refund_excess"], got["net"]) == (refunded, excess, 100 - refunded)


def test_a_refund_before_its_order_waits_and_counts_once_the_order_is_there():
    early = [order("a", 500), refund("r", "b", 80), refund("s", "b", 10)]
    assert ledger_after(*early) == {
        "orders_placed": 1,
        "gross": 500,
        "net": 500,
        "waiting_refunds": 90,
        "waiting_refund_count": 2,
    }
    assert ledger_after(*early, order("b", 85)) == {
        "orders_placed": 2,
        "gross": 585,
        "net": 500,
        "refunded": 85,
        "refund_excess": 5,
    }


def test_as_of_a_day_before_its_order_a_refund_waits():
    state = fold([order("a", 50, day=9), refund("r", "a", 80, day=4)])
    nothing = dict.fromkeys(Ledgers._fields, 0)
    assert ledger_at(state, 5) == nothing | {"waiting_refunds": 80, "waiting_refund_count": 1}
    assert ledger_at(state, 9) == nothing | {"orders_placed": 1, "gross": 50, "refunded": 50, "refund_excess": 30}


def test_a_refund_that_names_no_order_lowers_net_alone():
    assert ledger_after(order("a", 50), refund("r", None, 70)) == {
        "orders_placed": 1,
        "gross": 50,
        "net": -20,
        "loose_refunds": 70,
    }


def test_no_customers_have_no_ledgers():
    assert all(column.shape == (0,) for column in ledger([], []))
    assert ledger_at(CustomerState(), DAY) == dict.fromkeys(Ledgers._fields, 0)


def test_orders_folded_into_days_stay_in_gross_refunded_and_net():
    rng = random.Random(3)
    state, gross, refunded = CustomerState(), 0, 0
    for n in range(3 * ORDERS_KEPT):
        minor = rng.randrange(1, 9000)
        apply(state, order(f"o{n}", minor, day=n // 10))
        gross += minor
        if n % 3 == 0:
            apply(state, refund(f"r{n}", f"o{n}", 100, day=n // 10))
            refunded += min(100, minor)
    assert sum(total.orders for total in state.folded.values()) > ORDERS_KEPT
    got = ledger_at(state, 400)
    assert got["orders_placed"] == 3 * ORDERS_KEPT
    assert (got["gross"], got["refunded"], got["net"]) == (gross, refunded, gross - refunded)


@pytest.mark.parametrize("cancelled", [False, True])
def test_refund_and_cancellation_of_an_order_so_late_that_its_day_is_folded_are_applied(cancelled: bool):
    state = fold(order(f"o{n}", 10, day=n // 10) for n in range(3 * ORDERS_KEPT))
    before = ledger_at(state, 400)
    for event in [refund("r", "late", 7), refund("s", "late", 9)] + [cancellation("late")] * cancelled:
        apply(state, event)
    apply(state, order("late", 12))
    gone = before | {"orders_placed": 3 * ORDERS_KEPT, "gross": before["gross"], "net": before["net"]}
    counted = before | {
        "orders_placed": 3 * ORDERS_KEPT + 1,
        "gross": before["gross"] + 12,
        "refunded": before["refunded"] + 12,
    }
    assert ledger_at(state, 400) == (gone if cancelled else counted)


def test_a_refund_of_an_order_long_folded_is_told_as_waiting():
    state = CustomerState()
    for n in range(3 * ORDERS_KEPT):
        apply(state, order(f"o{n}", 10, day=n // 10))
    before = ledger_at(state, 400)
    apply(state, refund("r", "o0", 7, day=390))
    assert ledger_at(state, 400) == before | {"waiting_refunds": 7, "waiting_refund_count": 1}
