"""Facts exchanged between customers: columns come back from facts, mixes could be customers, idle facts are idle."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from domain import facts
from domain.customer import DAY_MS, CustomerState, OrderPlaced, OrderRefunded, ProfileUpdated, fold
from domain.features import ENGINEERED, FEATURE_NAMES, INPUT_NAMES, WINDOWS_DAYS, engineer, features
from domain.rfm_scores import Quintiles

QUINTILES = Quintiles((10.0, 40.0, 90.0, 200.0), (0.0, 1.0, 2.0, 5.0), (20.0, 60.0, 120.0, 400.0))
AS_OF = 19_800
SLOW_MACHINE = settings(deadline=None)
PLAYERS = len(facts.FACT_NAMES)
ALL, NONE = np.ones((1, PLAYERS), dtype=bool), np.zeros((1, PLAYERS), dtype=bool)

purchases = st.lists(
    st.tuples(st.integers(0, 900), st.integers(1, 100_000), st.sampled_from([0.0, 0.0, 0.0, 0.3, 1.0])),
    min_size=1,
    max_size=12,
)
ages = st.none() | st.integers(1930, 2005)


@st.composite
def states(draw: st.DrawFn) -> CustomerState:
    """A customer with orders of the last 900 days, some refunded, and perhaps a year of birth."""
    events: list[object] = []
    for at, (days_ago, minor, back) in enumerate(draw(purchases)):
        when = (AS_OF - days_ago) * DAY_MS
        events.append(OrderPlaced(f"o{at}", minor, when))
        if back and round(back * minor):
            events.append(OrderRefunded(f"r{at}", f"o{at}", round(back * minor), when + 1))
    born = draw(ages)
    if born is not None:
        events.append(ProfileUpdated(born, DAY_MS))
    return fold(events)


def rows_of(*customers: CustomerState) -> np.ndarray:
    return features(customers, [AS_OF] * len(customers), QUINTILES, 100).features


def what_if(row: np.ndarray) -> np.ndarray:
    """The row as `engineer` makes it of the seven inputs alone."""
    named = dict(zip(FEATURE_NAMES, row, strict=True))
    inputs = [
        named["customer_age"], named["orders_per_month"], named["average_order_value"], named["frequency"] + 1,
        named["customer_lifetime_days"], named["recency_days"], named["frequency_score"],
    ]  # fmt: skip
    made = engineer(np.array([inputs]), QUINTILES)[0]
    return np.concatenate([made, np.full(len(FEATURE_NAMES) - len(ENGINEERED), np.nan)])


def same(one: np.ndarray, other: np.ndarray) -> bool:
    return bool(np.array_equal(one, other, equal_nan=True))


def mixed(row: np.ndarray, reference: np.ndarray, *theirs_from: str) -> dict[str, float]:
    """The customer who has these facts of `row`, and the others of the reference."""
    coalition = np.array([[fact in theirs_from for fact in facts.FACT_NAMES]])
    found = facts.mix(row, reference[np.newaxis], coalition, QUINTILES)
    return dict(zip(FEATURE_NAMES, found.rows[found.place[0, 0]].tolist(), strict=True))


def test_every_feature_is_made_of_facts():
    """A new feature belongs into domain.facts.columns; until then it is exchanged as it is, which fits nothing else."""
    assert facts.LITERAL == ()
    claimed = {*facts.EXTRAS_UNDERSTOOD, *facts.CONTEXT, *(each.name for each in ENGINEERED)}
    assert claimed == set(FEATURE_NAMES)


@SLOW_MACHINE
@given(states(), states(), st.lists(st.booleans(), min_size=PLAYERS, max_size=PLAYERS))
def test_the_day_is_the_customers_in_every_mix(one, other, taken):
    row = rows_of(one)[0]
    references = features([other], [AS_OF + 100], QUINTILES, 100).features
    found = facts.mix(row, references, np.array([taken]), QUINTILES)
    for name in facts.CONTEXT:
        assert set(found.rows[:, FEATURE_NAMES.index(name)]) == {row[FEATURE_NAMES.index(name)]}


@SLOW_MACHINE
@given(states())
def test_the_columns_are_what_the_facts_say(state):
    row = rows_of(state)
    again = facts.columns(facts.coordinates(row), QUINTILES)
    for name, was, now in zip(FEATURE_NAMES, row[0], again[0], strict=True):
        if name in facts.CONTEXT:
            continue
        assert now == pytest.approx(was, rel=1e-9, abs=1e-7, nan_ok=True), name


@SLOW_MACHINE
@given(st.lists(states(), min_size=2, max_size=4))
def test_with_all_facts_it_is_the_customer_and_with_none_the_reference(customers):
    rows = rows_of(*customers)
    row, references = rows[0], rows[1:]
    found = facts.mix(row, references, np.concatenate([NONE, ALL]), QUINTILES)
    for at, reference in enumerate(references):
        np.testing.assert_allclose(found.rows[found.place[0, at]], reference, rtol=1e-9, atol=1e-7)
        assert same(found.rows[found.place[1, at]], row)
    assert same(found.rows[0], row)


@SLOW_MACHINE
@given(states(), states(), st.lists(st.booleans(), min_size=PLAYERS, max_size=PLAYERS))
def test_every_mix_is_a_customer_that_could_be(one, other, taken):
    row, reference = rows_of(one, other)
    found = facts.mix(row, reference[np.newaxis], np.array([taken]), QUINTILES)
    c = dict(zip(FEATURE_NAMES, found.rows[found.place[0, 0]].tolist(), strict=True))
    n, x, tenure, recency = c["frequency"] + 1, c["btyd_x"], c["customer_lifetime_days"], c["recency_days"]
    assert 0 <= recency <= tenure
    assert 0 <= x <= n - 1
    assert (recency == tenure) == (x == 0)
    assert tenure - recency >= x
    assert (c["btyd_T"], c["btyd_t_x"], c["active_span_days"]) == (tenure, tenure - recency, tenure - recency)
    counts = [c[f"orders_{days}d"] for days in WINDOWS_DAYS]
    assert counts == sorted(counts)
    for days, count in zip(WINDOWS_DAYS, counts, strict=True):
        assert count == (n if tenure < days else count)
        assert (count > 0) == (recency < days)
        assert count <= n
        if count == n:
            assert c[f"net_spend_{days}d"] == pytest.approx(c["monetary"], abs=1e-6)
    slack = 1e-9 * c["largest_order_value"]
    assert c["average_order_value"] - slack <= c["largest_order_value"] <= c["total_spending"] + slack
    assert c["last_order_value"] <= c["largest_order_value"] + slack
    assert c["monetary"] == pytest.approx(c["total_spending"] * (1 - c["refund_share"]), abs=1e-6)
    assert 0 <= c["btyd_m_days"] <= x + 1
    if x >= 1:
        assert 1 <= c["last_gap_days"] <= tenure - recency
        assert 0 <= c["btyd_litt"] <= x * np.log((tenure - recency) / x) + 1e-9
    assert np.isnan(c["gap_std_days"]) == (x < 2)
    assert {c["recency_score"], c["frequency_score"], c["monetary_score"]} <= {1, 2, 3, 4, 5}
    assert c["rfm_score"] == 100 * c["recency_score"] + 10 * c["frequency_score"] + c["monetary_score"]


@SLOW_MACHINE
@given(states(), states(), st.lists(st.booleans(), min_size=PLAYERS, max_size=PLAYERS), st.data())
def test_a_fact_that_is_the_same_in_both_makes_no_difference(one, other, taken, data):
    row, reference = rows_of(one, other)
    fact = data.draw(st.sampled_from([facts.TENURE, facts.LAST_ORDER, facts.ORDER_VALUE, facts.AGE, facts.ORDERS]))
    swapped = mixed(row, reference, fact)  # the reference, but for this fact, which is now the customer's
    reference = np.array([swapped[name] for name in FEATURE_NAMES])
    own = dict(zip(FEATURE_NAMES, row.tolist(), strict=True))
    column = {facts.TENURE: "btyd_T", facts.LAST_ORDER: "recency_days", facts.ORDER_VALUE: "average_order_value",
              facts.AGE: "customer_age", facts.ORDERS: "frequency"}[fact]  # fmt: skip
    assume(np.array_equal(own[column], swapped[column], equal_nan=True) and own["btyd_x"] == swapped["btyd_x"])
    at = facts.FACT_NAMES.index(fact)
    coalitions = np.array([taken, taken])
    coalitions[:, at] = [False, True]
    found = facts.mix(row, reference[np.newaxis], coalitions, QUINTILES)
    assert found.place[0, 0] == found.place[1, 0] or fact == facts.ORDERS
    assert same(found.rows[found.place[0, 0]], found.rows[found.place[1, 0]])


@SLOW_MACHINE
@given(states(), states())
def test_a_column_that_no_exchanged_fact_touches_keeps_its_last_bit(one, other):
    row, reference = rows_of(one, other)
    found = mixed(row, reference, *(fact for fact in facts.FACT_NAMES if fact != facts.AGE))
    own = dict(zip(FEATURE_NAMES, row.tolist(), strict=True))
    for name in FEATURE_NAMES:
        if name != "customer_age":
            assert same(np.array(found[name]), np.array(own[name])), name


def test_the_reference_keeps_its_facts_where_they_can_be():
    regular = fold([OrderPlaced(f"o{at}", 1000 * (at + 1), (AS_OF - 20 - 30 * at) * DAY_MS) for at in range(8)])
    once = fold([OrderPlaced("o", 5000, (AS_OF - 400) * DAY_MS)])
    row, reference = rows_of(regular, once)
    found = mixed(row, reference, facts.ORDERS)
    # Eight orders from 400 days ago on; the only order was 400 days ago: all of them then, on a day each.
    assert (found["frequency"], found["btyd_x"], found["btyd_T"], found["recency_days"]) == (7, 7, 400, 393)
    assert found["average_order_value"] == 50
    found = mixed(row, reference, facts.ORDERS, facts.LAST_ORDER)
    assert (found["frequency"], found["btyd_T"], found["recency_days"]) == (7, 400, 20)
    assert found["overdue_ratio"] == pytest.approx(20 / (380 / 7))
    found = mixed(row, reference, facts.LAST_ORDER)
    # One order, and the last of it is the first.
    assert (found["frequency"], found["btyd_T"], found["recency_days"]) == (0, 400, 400)


def test_eight_orders_on_a_day_each_do_not_fit_into_three_days():
    regular = fold([OrderPlaced(f"o{at}", 1000, (AS_OF - 20 - 30 * at) * DAY_MS) for at in range(8)])
    new = fold([OrderPlaced("o", 5000, (AS_OF - 3) * DAY_MS)])
    found = mixed(*rows_of(regular, new), facts.ORDERS)
    assert (found["frequency"], found["btyd_x"], found["btyd_T"], found["recency_days"]) == (7, 3, 3, 0)
    assert (found["orders_30d"], found["net_spend_365d"]) == (8, 400)


def test_a_longer_window_has_no_fewer_orders_though_their_paces_come_from_two_customers():
    once = {name: np.array([np.nan]) for name in facts.coordinates(rows_of(CustomerState()))}
    told = {"n": 12, "x": 11, "T": 400, "r": 10, "aov": 30, "pace_90d": 0.01, "pace_180d": 50.0}
    row = facts.columns({**once, **{name: np.array([float(value)]) for name, value in told.items()}}, QUINTILES)[0]
    counts = [row[FEATURE_NAMES.index(f"orders_{days}d")] for days in WINDOWS_DAYS]
    assert counts == sorted(counts)
    assert counts[1] == counts[2] == 11


@SLOW_MACHINE
@given(states(), st.lists(states(), min_size=1, max_size=3))
def test_a_what_if_row_is_mixed_with_references_described_as_it_is(one, others):
    row, references = what_if(rows_of(one)[0]), rows_of(*others)
    rng = np.random.default_rng(1)
    coalitions = np.concatenate([NONE, ALL, rng.random((20, PLAYERS)) < 0.5])
    found = facts.mix(row, references, coalitions, QUINTILES)
    assert np.isnan(found.rows[:, len(ENGINEERED) :]).all()
    at = FEATURE_NAMES.index("monetary"), FEATURE_NAMES.index("total_spending")
    np.testing.assert_allclose(found.rows[:, at[0]], found.rows[:, at[1]], rtol=1e-12)  # no refunds are known
    assert same(found.rows[found.place[1, 0]], row)
    stripped = facts.without_extras(references)[:, [FEATURE_NAMES.index("recency_days"), at[0]]]
    np.testing.assert_allclose(
        found.rows[found.place[0]][:, [FEATURE_NAMES.index("recency_days"), at[0]]], stripped, rtol=1e-9
    )


def test_a_frequency_score_of_a_form_that_fits_no_order_count_is_a_fact_of_the_orders():
    once = rows_of(fold([OrderPlaced("o", 5000, (AS_OF - 40) * DAY_MS)]))[0]
    row = what_if(once)
    row[FEATURE_NAMES.index("frequency_score")] = 4.0
    assert mixed(row, once, facts.ORDERS)["frequency_score"] == 4.0
    assert mixed(row, once, facts.TENURE)["frequency_score"] == 1.0


@SLOW_MACHINE
@given(states(), st.lists(st.booleans(), min_size=PLAYERS, max_size=PLAYERS))
def test_who_has_no_order_differs_in_that_and_the_age_alone(other, taken):
    row, reference = rows_of(CustomerState(), other)
    own = np.array([fact in (facts.ORDERS, facts.AGE) and is_taken for fact, is_taken in
                    zip(facts.FACT_NAMES, taken, strict=True)])  # fmt: skip
    found = facts.mix(row, reference[np.newaxis], np.array([taken, own]), QUINTILES)
    assert found.place[0, 0] == found.place[1, 0]
    mix = found.rows[found.place[0, 0]]
    known = ~np.isnan(mix[[FEATURE_NAMES.index(name) for name in FEATURE_NAMES if name != "customer_age"]])
    assert known.any() == (not taken[facts.FACT_NAMES.index(facts.ORDERS)])


# ---------------------------------------------------------------- typical customers


def population(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    chance = np.random.default_rng(seed)
    customers = [
        fold(
            OrderPlaced(f"o{at}", int(chance.integers(100, 20_000)), int(AS_OF - chance.integers(0, 700)) * DAY_MS)
            for at in range(int(chance.integers(1, 9)))
        )
        for _ in range(count)
    ]
    rows = rows_of(*customers)
    return rows, rows[:, FEATURE_NAMES.index("orders_per_month")] + chance.random(count) * 1e-6


def test_typical_customers_are_ten_who_could_be_and_are_nobody():
    rows, values = population(300)
    found = facts.reference_rows(rows, values)
    assert found.shape == (10, len(FEATURE_NAMES))
    assert not any((np.nan_to_num(rows) == np.nan_to_num(typical)).all(axis=1).any() for typical in found)
    for typical in found:
        again = facts.columns(facts.coordinates(typical[np.newaxis]), QUINTILES)[0]
        kept = [name not in facts.CONTEXT and not name.endswith("_score") for name in FEATURE_NAMES]
        np.testing.assert_allclose(again[kept], typical[kept], rtol=1e-9, atol=1e-9)
    per_month = found[:, FEATURE_NAMES.index("orders_per_month")]
    assert per_month[-1] > 2 * per_month[0]
    for tenth in range(10):
        members = rows[np.argsort(values)[30 * tenth : 30 * (tenth + 1)]]
        for name in ("customer_lifetime_days", "frequency"):
            at = FEATURE_NAMES.index(name)
            assert found[tenth, at] == pytest.approx(np.median(members[:, at]), abs=0.5), name


def test_typical_customers_do_not_depend_on_the_order_of_the_rows():
    rows, values = population(123)
    values = np.round(values)  # ties too
    shuffled = np.random.default_rng(5).permutation(len(rows))
    assert same(facts.reference_rows(rows, values), facts.reference_rows(rows[shuffled], values[shuffled]))


@pytest.mark.parametrize(("customers", "rows"), [(1, 1), (5, 1), (14, 2), (49, 9), (50, 10), (200, 10)])
def test_a_typical_customer_stands_for_at_least_five(customers, rows):
    assert len(facts.reference_rows(*population(customers))) == rows


def test_nobody_is_not_typical():
    with pytest.raises(ValueError, match="at least"):
        facts.reference_rows(np.zeros((0, len(FEATURE_NAMES))), np.zeros(0))


def test_medians_of_columns_become_a_customer_who_could_be():
    rows, _ = population(300)
    medians = np.median(rows, axis=0)  # NaN where anybody has none
    (found,) = facts.of_medians(medians)
    c = dict(zip(FEATURE_NAMES, found.tolist(), strict=True))
    assert c["frequency"] == np.rint(np.median(rows[:, FEATURE_NAMES.index("frequency")]))
    assert c["btyd_t_x"] == c["customer_lifetime_days"] - c["recency_days"] > 0
    assert c["largest_order_value"] == c["average_order_value"]
    assert c["orders_365d"] <= c["frequency"] + 1


def test_the_inputs_are_those_that_facts_are_made_of():
    """What an input is added for has to be said here."""
    assert set(INPUT_NAMES) == {
        "customer_age", "purchase_frequency", "average_order_value", "total_orders", "customer_lifetime_days",
        "days_since_last_purchase", "frequency_score",
    }  # fmt: skip
