"""Streaming equals a naive batch oracle, on every prefix, for any permutation and any duplication of the events."""

import math
import random
from typing import Any

import hypothesis.strategies as st
from hypothesis import HealthCheck, given, settings

from domain.customer import (
    DAY_MS,
    ORDER,
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
    union,
)
from domain.features import FEATURE_NAMES, INPUT_NAMES, engineer, features
from domain.purchases import purchases
from domain.rfm_scores import Quintiles
from schemas.customer_rows import Row, decode_row, encode
from tests.effort import tries
from tests.properties.oracle import live_orders, naive_features

QUINTILES = Quintiles((5, 20, 60, 200), (0, 1, 3, 6), (10, 50, 100, 400))
FIRST_DAY, LAST_DAY = 10_000, 10_800

order_ids = st.sampled_from([f"o{n}" for n in range(8)])
refund_ids = st.sampled_from([f"r{n}" for n in range(6)])
times = st.integers(FIRST_DAY * DAY_MS, LAST_DAY * DAY_MS)
amounts = st.integers(1, 2_000_000)

# An id always means the same thing here; conflicting content for one id has a test of its own.
facts = st.lists(
    st.one_of(
        st.builds(lambda i, t, a: {"kind": "order", "order_id": i, "at_ms": t, "minor": a}, order_ids, times, amounts),
        st.builds(
            lambda r, i, t, a: {"kind": "refund", "refund_id": r, "order_id": i, "at_ms": t, "minor": a},
            refund_ids,
            st.one_of(st.none(), order_ids),
            times,
            amounts,
        ),
        st.builds(lambda i, t: {"kind": "cancel", "order_id": i, "at_ms": t}, order_ids, times),
        st.builds(lambda y, t: {"kind": "profile", "birth_year": y, "at_ms": t}, st.integers(1920, 2005), times),
    ),
    max_size=25,
).map(
    lambda found: list({(f["kind"], f.get("refund_id") or f.get("order_id") or f["at_ms"]): f for f in found}.values())
)


def event_of(fact: dict[str, Any]) -> Event:
    match fact["kind"]:
        case "order":
            return OrderPlaced(fact["order_id"], fact["minor"], fact["at_ms"])
        case "refund":
            return OrderRefunded(fact["refund_id"], fact["order_id"], fact["minor"], fact["at_ms"])
        case "cancel":
            return OrderCancelled(fact["order_id"], fact["at_ms"])
    return ProfileUpdated(fact["birth_year"], fact["at_ms"])


def rows(state: CustomerState, day: int) -> list[tuple[int, int, int]]:
    """(day, gross, net) of each order that counts, sorted."""
    found, _ = purchases([state], [day])
    return sorted(zip(found.day.tolist(), found.gross.tolist(), found.net.tolist(), strict=True))


def assert_equals_oracle(state: CustomerState, seen: list[dict[str, Any]], day: int) -> None:
    row = features([state], [day], QUINTILES, 100).features[0]
    wanted = naive_features(seen, day, QUINTILES)
    assert wanted.keys() == set(FEATURE_NAMES)
    for name, value in zip(FEATURE_NAMES, row.tolist(), strict=True):
        same = math.isclose(value, wanted[name], rel_tol=1e-12, abs_tol=1e-9)
        assert same or (math.isnan(value) and math.isnan(wanted[name])), (name, value, wanted[name])


@settings(max_examples=tries(150), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(facts, st.integers(FIRST_DAY - 1, LAST_DAY + 400))
def test_features_equal_the_oracle_on_every_prefix(found, day):
    state = CustomerState()
    for n, fact in enumerate(found, start=1):
        apply(state, event_of(fact))
        assert_equals_oracle(state, found[:n], day)


@settings(max_examples=tries(200), deadline=None)
@given(facts, st.randoms(use_true_random=False), st.integers(FIRST_DAY, LAST_DAY + 400))
def test_neither_order_nor_repetition_of_events_matters(found, rng, day):
    events = [event_of(fact) for fact in found]
    shuffled = events + rng.choices(events, k=len(events)) if events else []
    rng.shuffle(shuffled)
    before, after = fold(events), fold(shuffled)
    assert canonical(before) == canonical(after)
    one, two = (features([state], [day], QUINTILES, 100) for state in (before, after))
    assert one.features.tobytes() == two.features.tobytes()
    assert one.inputs.tobytes() == two.inputs.tobytes()


@settings(max_examples=tries(100), deadline=None)
@given(st.lists(facts, min_size=2, max_size=6), st.integers(FIRST_DAY, LAST_DAY + 400))
def test_a_row_of_features_does_not_depend_on_its_neighbours(customers, day):
    states = [fold(map(event_of, found)) for found in customers]
    together = features(states, [day] * len(states), QUINTILES, 100).features
    for row, state in enumerate(states):
        assert features([state], [day], QUINTILES, 100).features[0].tobytes() == together[row].tobytes()


@settings(max_examples=tries(100), deadline=None)
@given(facts, st.integers(FIRST_DAY, LAST_DAY))
def test_what_happens_after_the_day_is_not_seen(found, day):
    past = [fact for fact in found if fact["at_ms"] < (day + 1) * DAY_MS or fact["kind"] == "profile"]
    all_of_it, only_past = fold(map(event_of, found)), fold(map(event_of, past))
    both = (features([state], [day], QUINTILES, 100).features.tobytes() for state in (all_of_it, only_past))
    assert len(set(both)) == 1


@settings(max_examples=tries(100), deadline=None)
@given(st.permutations([(1, 500), (3, 200), (3, 900), (2, 100)]))
def test_of_two_orders_with_one_id_the_later_then_larger_stands(versions):
    state = fold(OrderPlaced("o", minor, day * DAY_MS) for day, minor in versions)
    assert rows(state, 10) == [(3, 900, 900)]


@settings(max_examples=tries(100), deadline=None)
@given(facts)
def test_a_row_survives_encoding(found):
    row = Row(7, 2, 41, fold(map(event_of, found)))
    assert decode_row(encode(row)) == row


@settings(max_examples=tries(100), deadline=None)
@given(facts, st.integers(FIRST_DAY, LAST_DAY))
def test_refunds_lower_an_order_to_nothing_and_never_below(found, day):
    state = fold(map(event_of, found))
    got = rows(state, day)
    assert got == sorted(live_orders(found, day))
    assert all(0 <= net <= gross for _, gross, net in got)


def test_beyond_the_bound_old_orders_fold_into_days_and_no_total_changes():
    rng = random.Random(1)
    placed = [
        OrderPlaced(f"o{n}", rng.randrange(1, 10_000), rng.randrange(900) * DAY_MS) for n in range(5 * ORDERS_KEPT)
    ]
    state = CustomerState()
    for event in placed:
        apply(state, event)
    assert len(state.orders) <= 2 * ORDERS_KEPT * ORDER.size
    found, _ = purchases([state], [1000])
    assert found.orders.sum() == len(placed)
    assert found.gross.sum() == sum(event.amount_minor for event in placed)
    assert set(found.day.tolist()) == {event.occurred_at_ms // DAY_MS for event in placed}


@settings(max_examples=tries(10), deadline=None)
@given(st.integers(0, 2**32).map(random.Random))
def test_beyond_the_bound_events_that_come_again_change_nothing(rng):
    """Ingest that is killed, and clients that try again, repeat events under new offsets."""
    events: list[Event] = [
        OrderPlaced(f"o{n}", rng.randrange(1, 10_000), rng.randrange(900) * DAY_MS) for n in range(3 * ORDERS_KEPT)
    ]
    state, repeated = CustomerState(), CustomerState()
    for at, event in enumerate(events):
        apply(state, event)
        apply(repeated, event)
        for again in rng.choices(events[: at + 1], k=rng.randrange(3)):
            apply(repeated, again)
    assert canonical(repeated) == canonical(state)
    found, _ = purchases([repeated], [1000])
    assert (found.orders.sum(), found.gross.sum()) == (len(events), sum(event.amount_minor for event in events))


def test_an_order_cancelled_before_it_was_folded_does_not_come_back_with_a_repeat():
    orders = [OrderPlaced(f"o{n}", 100, n * DAY_MS) for n in range(2 * ORDERS_KEPT)]
    state = fold([orders[0], OrderCancelled("o0", DAY_MS), *orders[1:], orders[0]])
    found, _ = purchases([state], [10_000])
    assert found.orders.sum() == len(orders) - 1


def test_merged_customers_who_share_an_order_that_one_has_folded_have_it_once():
    orders = [OrderPlaced(f"o{n}", 100, n * DAY_MS) for n in range(2 * ORDERS_KEPT)]
    found, _ = purchases([union([fold(orders), fold(orders[:10])])], [10_000])
    assert found.orders.sum() == len(orders)


@settings(max_examples=tries(200), deadline=None)
@given(
    st.floats(1, 1000),
    st.floats(0.01, 100_000),
    st.integers(0, 4000),
    st.integers(0, 4000),
)
def test_the_what_if_inputs_alone_give_the_eighteen_features(orders, value, lifetime, recency):
    recency = min(recency, lifetime)
    import numpy as np

    inputs = np.array([[40.0, 1.0, value, float(int(orders)), lifetime, recency, 3.0]])
    engineered = engineer(inputs, QUINTILES)
    assert engineered.shape == (1, 18)
    named = dict(zip(FEATURE_NAMES, engineered[0].tolist(), strict=False))
    assert named["monetary"] == named["total_spending"] == int(orders) * value
    assert named["frequency"] == int(orders) - 1
    assert len(INPUT_NAMES) == inputs.shape[1]
