"""Predictions of the buy-till-you-die models against oracles that share no code with them: closed forms to 50 digits,
simulated customers. It must never take its values from the code."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import hyp2f1

from domain.btyd import (
    BgNbd,
    GammaGamma,
    MbgNbd,
    OrderModel,
    ParetoNbd,
    expected_orders_quadrature,
    expected_spend,
    order_model_from_json,
    predict,
    quadrature,
)
from tests.effort import tries
from tests.unit.domain.btyd_support import BG, MODELS, by_model, by_simulated_model, simulated

GOLDEN = Path(__file__).parents[2] / "golden"


# --- predictions ---------------------------------------------------------------------------------------------------


def test_predictions_equal_the_closed_forms_to_50_digits():
    """Includes x up to 10,000, dropout shapes a from .05 to 50, s = 1 exactly, T = 0 and t_x = T."""
    cases = json.loads((GOLDEN / "btyd_closed_form.json").read_text())["cases"]
    assert len(cases) > 250
    for case in cases:
        model = order_model_from_json(json.dumps(case["params"]))
        got = predict(model, [case["x"]], [case["t_x_days"]], [case["age_days"]], case["horizon_days"])
        for name in ("p_alive", "expected_orders", "p_order"):
            value = float(getattr(got, name)[0])
            assert value == pytest.approx(case[name], rel=2e-8, abs=1e-200), (name, case)


def test_the_quadrature_equals_the_hypergeometric_form_on_a_dense_realistic_grid():
    """Fader, Hardie & Lee (2005), eq. 10, where scipy's 2F1 is reliable."""
    t = 273.0
    for a in (0.05, 0.3, 0.793, 3.3, 20.0):
        for b in (0.4, 2.426, 12.0):
            x, age = (grid.ravel() for grid in np.meshgrid([0, 1, 2, 5, 13, 30], [10.0, 90.0, 365.0, 1500.0]))
            model = BgNbd(0.25, 31.0, a, b)
            n, base = model.r + x, model.alpha_days + age
            closed = hyp2f1(n, b + x, a + b + x - 1, t / (base + t))
            if_alive = (a + b + x - 1) / (a - 1) * (1 - (base / (base + t)) ** n * closed)
            got = predict(model, x, np.where(x > 0, age, 0), age, t)
            np.testing.assert_allclose(got.expected_orders / got.p_alive, if_alive, rtol=1e-7)


def test_a_tighter_tolerance_takes_more_nodes_and_agrees_with_the_default():
    x, age = np.array([0, 3, 1000]), np.array([30.0, 365.0, 2000.0])
    loose, default, tight = (quadrature(BG, 365, tolerance) for tolerance in (1e-4, 1e-8, 1e-11))
    assert loose.p.size < default.p.size < tight.p.size
    exact = expected_orders_quadrature(tight, x, age * (x > 0), age)
    np.testing.assert_allclose(expected_orders_quadrature(default, x, age * (x > 0), age), exact, rtol=2e-8)
    np.testing.assert_allclose(expected_orders_quadrature(loose, x, age * (x > 0), age), exact, rtol=2e-4)


@pytest.mark.parametrize("shape", [1e-3, 0.1, 1.0, 30.0, 1e3])
def test_the_number_of_nodes_stays_bounded_for_any_fitted_shape(shape):
    for other in (1e-3, 1.0, 1e3):
        assert quadrature(BgNbd(0.3, 30.0, shape, other), 365).p.size <= 700


parameters = st.floats(1e-6, 1e9) | st.floats(1e-3, 1e3) | st.sampled_from([1e-6, 1e-3, 1.0, 1e4, 1e9])
shapes = st.floats(1e-3, 1e4) | st.sampled_from([1e-3, 1.0, 1 + 1e-7, 1e4])


@st.composite
def any_model(draw) -> OrderModel:
    kind = draw(st.sampled_from([BgNbd, MbgNbd, ParetoNbd]))
    return kind(draw(parameters), draw(parameters), draw(shapes), draw(parameters if kind is ParetoNbd else shapes))


@st.composite
def any_history(draw) -> tuple[int, float, float]:
    age = draw(st.floats(0, 7300) | st.integers(0, 7300).map(float))
    x = draw(st.integers(0, 10_000) | st.integers(0, 3))
    return x, 0.0 if x == 0 else draw(st.floats(0, age) | st.just(age)), age


@settings(max_examples=tries(300), deadline=None)
@given(model=any_model(), history=any_history(), horizon=st.floats(1e-3, 10_000))
def test_predictions_are_finite_and_consistent_for_any_parameters_and_history(model, history, horizon):
    x, t_x, age = history
    got = predict(model, [x], [t_x], [age], horizon)
    values = np.array(got)
    assert np.isfinite(values).all(), got
    assert (values >= 0).all(), got
    assert got.p_alive[0] <= 1
    assert got.p_order[0] <= got.p_alive[0] * (1 + 1e-9)


@settings(max_examples=tries(100), deadline=None)
@given(history=any_history(), horizon=st.floats(1, 1000), kind=st.sampled_from(MODELS))
def test_a_longer_horizon_never_means_fewer_orders_and_one_order_is_at_least_as_likely_counted_as_expected(
    history, horizon, kind
):
    x, t_x, age = history
    near, far = (predict(kind, [x], [t_x], [age], t) for t in (horizon, horizon * 1.5))
    assert near.expected_orders[0] <= far.expected_orders[0] * (1 + 1e-7) + 1e-300
    assert near.p_order[0] <= far.p_order[0] * (1 + 1e-7) + 1e-300
    assert near.p_order[0] <= near.expected_orders[0] * (1 + 1e-7) + 1e-300


def test_a_huge_dropout_shape_does_not_underflow_to_no_orders():
    """s → ∞ with s/β fixed: everyone has the dropout rate μ = s/β, and E[orders | alive] = λ (1 − e^−μt)/μ."""
    got = predict(ParetoNbd(2.0, 10.0, 1e7, 1e7 / 0.05), [4], [30.0], [40.0], 20_000.0)
    rate, drop = 6 / 50, 0.05
    assert got.expected_orders[0] / got.p_alive[0] == pytest.approx(rate * -np.expm1(-drop * 20_000) / drop, rel=1e-3)


@by_model
def test_impossible_histories_are_bent_to_the_nearest_possible_one_not_to_nan(model):
    bent = predict(model, [-3, 2], [0, 500.0], [10.0, 100.0], 30)
    near = predict(model, [0, 2], [0, 100.0], [10.0, 100.0], 30)
    np.testing.assert_array_equal(bent, near)


@by_model
def test_predictions_do_not_depend_on_how_many_rows_come_together(model):
    x = np.arange(5000) % 37
    age = 40 + np.arange(5000) % 700
    t_x = np.where(x > 0, age * 0.7, 0)
    whole = predict(model, x, t_x, age, 90)
    for row in (0, 2047, 2048, 4999):
        np.testing.assert_allclose(
            np.array(predict(model, x[row : row + 1], t_x[row : row + 1], age[row : row + 1], 90))[:, 0],
            np.array(whole)[:, row],
            rtol=1e-12,
        )


@pytest.mark.parametrize("horizon", [0, -1, float("nan"), float("inf")])
def test_an_impossible_horizon_is_refused(horizon):
    with pytest.raises(ValueError, match="horizon_days"):
        predict(BG, [0], [0], [1], horizon)


def test_missing_statistics_are_refused_by_predict():
    with pytest.raises(ValueError, match="finite"):
        predict(BG, [np.nan], [0], [1], 30)


# --- simulated customers -------------------------------------------------------------------------------------------


@by_simulated_model
def test_predictions_agree_with_simulated_customers_in_every_group(model):
    people = simulated(model, 120_000, 7, 180.0)
    got = predict(model, people.x, people.t_x, people.age, 180.0)
    recent = people.age - people.t_x < 60
    groups = [people.x == 0, (people.x > 0) & recent, (people.x > 0) & ~recent, people.x >= 5, people.age < 200]
    for predicted, happened in (
        (got.p_alive, people.alive),
        (got.expected_orders, people.future),
        (got.p_order, people.future > 0),
    ):
        for group in groups:
            errors = happened[group].astype(float) - predicted[group]
            assert abs(errors.mean()) <= 4.5 * errors.std() / np.sqrt(group.sum()) + 1e-12


# --- spend ---------------------------------------------------------------------------------------------------------


def test_expected_spend_moves_from_the_population_mean_to_the_customers_own():
    model = GammaGamma(p=6.25, q=3.74, gamma_money=15.44)
    population = 6.25 * 15.44 / 2.74
    got = expected_spend(model, [0, 0, 1, 1_000_000], [np.nan, 50.0, 100.0, 100.0])
    assert got[0] == got[1] == pytest.approx(population)
    assert population < got[2] < 100
    assert got[3] == pytest.approx(100, rel=1e-4)


@given(
    st.lists(st.tuples(st.integers(0, 10_000), st.floats(-1e9, 1e9)), min_size=1),
    st.floats(1e-6, 1e9),
    st.floats(1.001, 1e6),
    st.floats(1e-6, 1e9),
)
def test_expected_spend_is_finite_and_never_negative(rows, p, q, gamma):
    orders, mean = (np.array(column) for column in zip(*rows, strict=True))
    got = expected_spend(GammaGamma(p, q, gamma), orders, mean)
    assert np.isfinite(got).all()
    assert (got >= 0).all()
