"""Which customers a stability index is about, against a naive dictionary; and which column has which reference."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.drift import BINS_MAX, reference
from domain.features import FEATURE_NAMES
from services.inference.model import Outcomes
from services.scorer.drift import COLUMNS, References, Window, with_an_order

rows = st.integers(0, 40)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.lists(rows, min_size=1, max_size=6, unique=True), st.integers(0, BINS_MAX - 1)),
        st.tuples(st.just("forget"), rows, st.none()),
        st.tuples(st.just("swap"), st.sampled_from(["m1", "m2"]), st.none()),
    ),
    max_size=30,
)


@settings(deadline=None)
@given(steps, st.integers(0, 30))
def test_each_customer_counts_once_with_what_was_last_said_by_this_model(made: list, since: int) -> None:
    window, model, naive = Window(), "m1", {}
    put_by = ""
    for now, (kind, what, value) in enumerate(made):
        if kind == "swap":
            model = what
        elif kind == "forget":
            window.forget(what)
            naive.pop(what, None)
        else:
            if put_by != model:
                naive, put_by = {}, model
            bins = np.full((len(what), len(COLUMNS)), value, dtype=np.uint8)
            window.put(what, bins, float(now), model)
            naive.update(dict.fromkeys(what, (value, now)))
    if put_by == model:
        expected = [sum(value == each and at >= since for value, at in naive.values()) for each in range(BINS_MAX)]
        assert (window.counts(float(since), model) == expected).all()
    assert not window.counts(float(since), "another").any()


def test_a_window_grows_with_its_population() -> None:
    window = Window()
    for first in range(0, 5000, 500):
        bins = np.full((500, len(COLUMNS)), first // 500, dtype=np.uint8)
        window.put(range(first, first + 500), bins, 1.0, "m")
    assert window.counts(0.0, "m")[0].tolist() == [500] * 10 + [0] * (BINS_MAX - 10)


def population(count: int, shift: float = 0.0) -> tuple[Any, Outcomes]:
    chance = np.random.default_rng(1)
    matrix = chance.gamma(2.0, 10.0, (count, len(FEATURE_NAMES))) + shift * np.arange(len(FEATURE_NAMES))
    matrix[chance.random(matrix.shape) < 0.2] = math.nan
    value = chance.gamma(2.0, 50.0, count)
    return matrix, Outcomes(value, value / 50, value / value.max(), value, value, value, value)


def facts(values: Any) -> dict[str, Any]:
    found = reference(values)
    return {"edges": list(found.edges), "shares": list(found.shares), "missing_share": found.missing_share}


def metadata(matrix: Any, outcomes: Outcomes) -> dict[str, Any]:
    return {
        "reference": {name: facts(matrix[:, at]) for at, name in enumerate(FEATURE_NAMES)},
        "reference_outcomes": {"expected_value": facts(outcomes.expected_value), "p_active": facts(outcomes.p_active)},
    }


def test_bins_are_those_of_each_reference_alone() -> None:
    matrix, outcomes = population(400)
    matrix[3, 3] = math.inf
    known = References(metadata(matrix[:350], outcomes))
    found = known.bins(matrix, outcomes)
    for at, (name, column) in enumerate(
        zip(COLUMNS, [*matrix.T, outcomes.expected_value, outcomes.p_active], strict=True)
    ):
        if name not in known.unknown:
            assert (found[:, at] == known.columns[at].bins(column)).all(), name


def test_the_training_population_itself_shows_no_drift_in_any_column_and_another_does() -> None:
    matrix, outcomes = population(3000)
    known = References(metadata(matrix, outcomes))
    assert set(known.unknown) <= {"as_of_year_day"}
    window = Window()
    window.put(range(3000), known.bins(matrix, outcomes), 1.0, "m")
    found = known.indices(window.counts(0.0, "m"))
    assert found.keys() == set(COLUMNS) - set(known.unknown)
    assert max(found.values()) == pytest.approx(0.0, abs=1e-12)
    moved, _ = population(3000, shift=1.0)
    window.put(range(3000), known.bins(moved, outcomes), 2.0, "m")
    found = known.indices(window.counts(0.0, "m"))
    values = [found[name] for name in FEATURE_NAMES if name in found]
    assert values[0] == pytest.approx(0.0, abs=1e-12), "the first column was not moved"
    assert values[5] < values[15] < values[-1]
    assert found["expected_value"] == pytest.approx(0.0, abs=1e-12)


def test_a_bundle_that_tells_little_is_compared_by_what_it_tells() -> None:
    matrix, outcomes = population(500)
    deciles = np.nanquantile(matrix[:, 0], np.linspace(0, 1, 11)).tolist()
    told = {
        "reference": {FEATURE_NAMES[0]: {"deciles": deciles, "missing_share": 0.2}, FEATURE_NAMES[1]: {"deciles": "?"}},
        "value_quantiles": np.quantile(outcomes.expected_value, np.linspace(0, 1, 101)).tolist(),
    }
    known = References(told)
    window = Window()
    window.put(range(500), known.bins(matrix, outcomes), 1.0, "m")
    found = known.indices(window.counts(0.0, "m"))
    assert set(found) == {FEATURE_NAMES[0], "expected_value"}
    assert max(found.values()) < 0.02
    assert set(known.unknown) == set(COLUMNS) - set(found)
    assert len(References({}).unknown) == len(COLUMNS)


def test_customers_without_an_order_are_in_no_training_population() -> None:
    matrix, _ = population(50)
    assert (with_an_order(matrix) == ~np.isnan(matrix[:, FEATURE_NAMES.index("monetary")])).all()
