"""Training sets see what was known then, and nothing else."""

from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.customer import DAY_MS, fold
from domain.features import FEATURE_NAMES, day_of, features
from domain.purchases import purchases
from services.trainer.history import History
from services.trainer.judged_rows import domain_events, judge
from tests.unit.trainer.shops import FIRST_DAY, order, shop, table

DAY_0 = day_of(FIRST_DAY)


def history(rows: list[dict[str, str]], before: int) -> History:
    return History(judge(table(rows), "USD"), DAY_0 + before, 100)


def refund(order_id: str, customer: str, day: int, amount: str) -> dict[str, str]:
    at = (FIRST_DAY + timedelta(days=day)).isoformat()
    return {"type": "refund", "order_id": order_id, "customer_id": customer, "occurred_at": at, "amount": amount}


def test_events_of_the_origin_day_and_later_change_no_feature() -> None:
    rows = shop(40, 120)
    later = [order("new", "c00001", 90, "999.00"), order("new2", "c00002", 95, "999.00"), refund("", "c00003", 90, "5")]
    later += [order("o0", "c00000", 100, "777.00"), order("nobody", "unseen", 91)]
    (plain,) = history(rows, 120).training_sets([(DAY_0 + 90, 30)])
    (planted,) = history(rows + later, 120).training_sets([(DAY_0 + 90, 30)])
    assert plain.customer_ids == planted.customer_ids
    np.testing.assert_array_equal(plain.features, planted.features)
    assert planted.known_targets.value.sum() > plain.known_targets.value.sum()


def test_a_history_until_a_day_does_not_reach_further() -> None:
    rows = shop(40, 120)
    earlier = history(rows, 120).until(DAY_0 + 60)
    assert earlier.fingerprint == history(rows, 60).fingerprint
    (whole,), (part,) = (each.training_sets([(DAY_0 + 30, 30)]) for each in (history(rows, 120), earlier))
    assert part.customer_ids == whole.customer_ids
    np.testing.assert_array_equal(part.features, whole.features)
    np.testing.assert_array_equal(part.known_targets.value, whole.known_targets.value)


def test_a_window_beyond_the_end_is_refused() -> None:
    with pytest.raises(ValueError, match="history's end"):
        history(shop(5, 60), 60).training_sets([(DAY_0 + 40, 21)])


def test_targets_count_the_windows_orders_less_refunds() -> None:
    rows = [
        order(1, "a", 0, "10.00"),
        order(2, "a", 50, "30.00"),
        order(3, "a", 59, "5.00"),
        order(4, "a", 60, "100.00"),
        refund("o2", "a", 55, "12.00"),
        refund("o2", "a", 60, "7.00"),
        refund("o1", "a", 51, "4.00"),
        refund("", "a", 52, "2.50"),
        order(5, "b", 49, "10.00"),
    ]
    (found,) = history(rows, 100).training_sets([(DAY_0 + 50, 10)])
    assert found.customer_ids == ("a", "b")
    assert found.known_targets.orders.tolist() == [2.0, 0.0]
    assert found.known_targets.value.tolist() == [30.0 - 12.0 + 5.0 - 2.5, 0.0]
    assert found.known_targets.active.tolist() == [1.0, 0.0]


events = st.builds(
    lambda kind, number, customer, day, cents: (
        order(number, customer, day, f"{cents / 100:.2f}")
        if kind
        else refund(f"o{number}" if number else "", str(customer), day, f"{cents / 100:.2f}")
    ),
    st.booleans(), st.integers(0, 6), st.integers(0, 3), st.integers(0, 59), st.integers(1, 5000),
)  # fmt: skip


@given(st.lists(events, min_size=1, max_size=40), st.integers(1, 40), st.integers(1, 20))
@settings(max_examples=150, deadline=None)
def test_a_training_set_equals_folding_each_customer(rows: list[dict[str, str]], origin: int, horizon: int) -> None:
    (found,) = history(rows, 60).training_sets([(DAY_0 + origin, horizon)])
    every, _ = domain_events(table(rows), "USD")
    start, end = (DAY_0 + origin) * DAY_MS, (DAY_0 + origin + horizon) * DAY_MS
    known, then = (
        {name: fold(e for e in mine if e.occurred_at_ms < limit) for name, mine in every.items()}
        for limit in (start, end)
    )
    buyers = sorted(name for name, state in known.items() if state.orders)
    assert found.customer_ids == tuple(buyers)
    if not buyers:
        return
    quintiles = found.fit_quintiles()
    states = [known[name] for name in buyers]
    expected = features(states, [DAY_0 + origin] * len(states), quintiles, 100)
    scored = found.with_quintiles(quintiles)
    np.testing.assert_array_equal(scored.features, expected.features)
    np.testing.assert_array_equal(scored.inputs, expected.inputs)
    last = DAY_0 + origin + horizon - 1
    for row, name in enumerate(buyers):
        bought, loose = purchases([then[name]], [last])
        inside, back = bought.day >= DAY_0 + origin, loose.minor[loose.day >= DAY_0 + origin].sum()
        assert found.known_targets.orders[row] == bought.orders[inside].sum()
        assert found.known_targets.value[row] == (bought.net[inside].sum() - back) / 100


@given(st.randoms())
@settings(max_examples=20, deadline=None)
def test_the_order_of_the_rows_does_not_matter(chance: object) -> None:
    rows = shop(15, 60)
    shuffled = rows.copy()
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    assert history(rows, 60).fingerprint == history(shuffled, 60).fingerprint
    (a,), (b,) = (history(each, 60).training_sets([(DAY_0 + 40, 20)]) for each in (rows, shuffled))
    np.testing.assert_array_equal(a.features, b.features)


def test_scores_are_missing_until_the_quintiles_are_known() -> None:
    (found,) = history(shop(40, 60), 60).training_sets([(DAY_0 + 60, 0)])
    assert found.targets is None
    scores = found.with_quintiles(found.fit_quintiles()).features[:, FEATURE_NAMES.index("recency_score")]
    assert set(scores) == {1.0, 2.0, 3.0, 4.0, 5.0}
