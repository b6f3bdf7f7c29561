"""Buy-till-you-die models against oracles that share no code with them: published estimates, closed forms to 50 digits,
the models' definitions integrated numerically, simulated customers. It must never take its values from the code."""

import csv
import json
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import dblquad
from scipy.special import hyp2f1
from scipy.stats import beta as beta_law
from scipy.stats import gamma as gamma_law

from domain.btyd import (
    REPEAT_BUYERS_MIN,
    BgNbd,
    GammaGamma,
    MbgNbd,
    NotEnoughRepeatBuyers,
    OrderModel,
    OrderModelFit,
    ParetoNbd,
    PurchaseHistories,
    expected_orders_quadrature,
    expected_spend,
    fit_bg_nbd,
    fit_gamma_gamma,
    fit_mbg_nbd,
    fit_pareto_nbd,
    order_model_from_json,
    predict,
    purchase_histories,
    quadrature,
    spend_model_from_json,
    to_json,
)
from domain.btyd.fitting import gamma_gamma_loglik
from domain.btyd.likelihood import bg_loglik, mbg_loglik, pareto_loglik

GOLDEN = Path(__file__).parents[2] / "golden"
WEEK = 7.0

BG = BgNbd(r=0.243, alpha_days=30.9, a=0.793, b=2.426)
MBG = MbgNbd(r=0.525, alpha_days=43.3, a=0.891, b=1.614)
PARETO = ParetoNbd(r=0.553, alpha_days=74.0, s=0.606, beta_days=81.7)
MODELS = (BG, MBG, PARETO)
LOGLIK = {BgNbd: bg_loglik, MbgNbd: mbg_loglik, ParetoNbd: pareto_loglik}
FIT = {BgNbd: fit_bg_nbd, MbgNbd: fit_mbg_nbd, ParetoNbd: fit_pareto_nbd}
by_model = pytest.mark.parametrize("model", MODELS, ids=lambda model: type(model).__name__)


def _golden_columns(name: str) -> dict[str, np.ndarray]:
    with (GOLDEN / name).open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {key: np.array([float(row[key]) for row in rows]) for key in rows[0]}


@cache
def cdnow_sample() -> PurchaseHistories:
    return purchase_histories(**_golden_columns("btyd_cdnow_sample.csv"))


def _theta(model: OrderModel) -> np.ndarray:
    return np.array([getattr(model, field) for field in model.__struct_fields__])


def _theta_weeks(fit: OrderModelFit) -> list[float]:
    return [
        getattr(fit.params, field) / (WEEK if field.endswith("_days") else 1) for field in fit.params.__struct_fields__
    ]


def _loglik_weeks(fit: OrderModelFit, histories: PurchaseHistories) -> float:
    """The density of each repeat purchase is per day; the papers' is per week."""
    return fit.log_likelihood + float(histories.x @ histories.customers) * np.log(WEEK)


# --- published estimates -------------------------------------------------------------------------------------------


def test_bg_nbd_reproduces_the_published_cdnow_estimates():
    """Fader, Hardie & Lee (2005), table 2: r=.243 α=4.414 a=.793 b=2.426, LL −9,582.4."""
    fit = fit_bg_nbd(cdnow_sample())
    assert (fit.customers, fit.repeat_buyers, fit.converged, fit.at_bounds) == (2357, 946, True, ())
    assert _theta_weeks(fit) == pytest.approx([0.243, 4.414, 0.793, 2.426], abs=6e-4)
    assert _loglik_weeks(fit, cdnow_sample()) == pytest.approx(-9582.4, abs=0.06)


def test_pareto_nbd_reproduces_the_published_cdnow_estimates():
    """Fader, Hardie & Lee (2005), table 2: r=.553 α=10.578 s=.606 β=11.669, LL −9,595.0."""
    fit = fit_pareto_nbd(cdnow_sample())
    assert fit.converged
    assert _theta_weeks(fit) == pytest.approx([0.553, 10.578, 0.606, 11.669], abs=2e-3)
    assert _loglik_weeks(fit, cdnow_sample()) == pytest.approx(-9595.0, abs=0.06)


def test_mbg_nbd_fits_cdnow_no_worse_than_bg_nbd():
    fit = fit_mbg_nbd(cdnow_sample())
    assert fit.converged
    assert fit.log_likelihood >= fit_bg_nbd(cdnow_sample()).log_likelihood


def test_gamma_gamma_reproduces_the_published_cdnow_estimates():
    """Fader & Hardie (2013): p=6.25 q=3.74 γ=15.44 on the mean spend of repeat transactions."""
    data = _golden_columns("btyd_cdnow_sample_spend.csv")
    counts = data["customers"].astype(int)
    fit = fit_gamma_gamma(np.repeat(data["orders"], counts), np.repeat(data["mean_spend"], counts))
    assert (fit.customers, fit.converged) == (946, True)
    assert (fit.params.p, fit.params.q, fit.params.gamma_money) == pytest.approx((6.25, 3.74, 15.44), rel=2e-3)


# --- likelihood ----------------------------------------------------------------------------------------------------


def _individual(model: OrderModel, rate: float, drop: float, history: tuple[int, float, float]) -> tuple[float, float]:
    """(alive part, dead part) of the likelihood of one customer whose rate and dropout are known."""
    x, t_x, age = history
    if isinstance(model, ParetoNbd):
        alive = rate**x * np.exp(-(rate + drop) * age)
        return alive, drop / (rate + drop) * rate**x * (np.exp(-(rate + drop) * t_x) - np.exp(-(rate + drop) * age))
    draws = x + (1 if isinstance(model, MbgNbd) else 0)
    alive = (1 - drop) ** draws * rate**x * np.exp(-rate * age)
    return alive, drop * (1 - drop) ** (draws - 1) * rate**x * np.exp(-rate * t_x) if draws else 0.0


def _future(model: OrderModel, rate: float, drop: float, horizon: float) -> tuple[float, float]:
    """(expected purchases, P(at least one)) of a customer who is alive."""
    if isinstance(model, ParetoNbd):
        return rate / drop * -np.expm1(-drop * horizon), rate / (rate + drop) * -np.expm1(-(rate + drop) * horizon)
    return -np.expm1(-rate * drop * horizon) / drop, -np.expm1(-rate * horizon)


def _by_definition(model: OrderModel, x: int, t_x: float, age: float, horizon: float) -> dict[str, float]:
    """Everything from the model's definition: integrals over the mixing distributions, in quantiles of each."""
    rate_law = gamma_law(model.r, scale=1 / model.alpha_days)
    if isinstance(model, ParetoNbd):
        drop_law = gamma_law(model.s, scale=1 / model.beta_days)
    else:
        drop_law = beta_law(model.a, model.b)

    def integral(term) -> float:
        def integrand(v: float, u: float) -> float:
            # Quantiles squeezed at both ends, where a shape below 1 makes them steep.
            rate, drop = rate_law.ppf(u * u * (3 - 2 * u)), drop_law.ppf(v * v * (3 - 2 * v))
            return term(max(rate, 1e-300), max(drop, 1e-300)) * 36 * u * (1 - u) * v * (1 - v)

        return dblquad(integrand, 0, 1, 0, 1, epsabs=0, epsrel=1e-5)[0]

    alive = integral(lambda rate, drop: _individual(model, rate, drop, (x, t_x, age))[0])
    dead = integral(lambda rate, drop: _individual(model, rate, drop, (x, t_x, age))[1])
    orders, once = (
        integral(
            lambda rate, drop, k=k: (
                _individual(model, rate, drop, (x, t_x, age))[0] * _future(model, rate, drop, horizon)[k]
            )
        )
        for k in (0, 1)
    )
    total = alive + dead
    return {"loglik": np.log(total), "p_alive": alive / total, "orders": orders / total, "p_order": once / total}


@pytest.mark.parametrize(
    "model",
    [BgNbd(1.3, 40.0, 1.2, 2.4), MbgNbd(0.9, 25.0, 1.4, 1.9), ParetoNbd(1.1, 30.0, 1.5, 90.0)],
    ids=lambda model: type(model).__name__,
)
@pytest.mark.parametrize(("x", "t_x", "age"), [(0, 0.0, 50.0), (2, 30.0, 45.0)])
def test_likelihood_and_predictions_equal_the_definition_integrated_numerically(model, x, t_x, age):
    want = _by_definition(model, x, t_x, age, horizon=60.0)
    loglik, _ = LOGLIK[type(model)](_theta(model), purchase_histories([x], [t_x], [age]))
    got = predict(model, [x], [t_x], [age], 60.0)
    assert loglik == pytest.approx(want["loglik"], rel=2e-5)
    assert got.p_alive[0] == pytest.approx(want["p_alive"], rel=5e-5)
    assert got.expected_orders[0] == pytest.approx(want["orders"], rel=5e-5)
    assert got.p_order[0] == pytest.approx(want["p_order"], rel=5e-5)


@by_model
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_gradients_equal_finite_differences(model, seed):
    rng = np.random.default_rng(seed)
    theta = np.exp(rng.uniform(-1.5, 2.0, 4))
    x = rng.integers(0, 40, 30)
    age = rng.uniform(1, 100, 30)
    t_x = np.where(x > 0, age * rng.uniform(0.01, 1, 30), 0)
    histories = purchase_histories(x, t_x, age)
    loglik = LOGLIK[type(model)]
    value, gradient = loglik(theta, histories)
    for k in range(4):
        step = np.zeros(4)
        step[k] = 1e-5 * theta[k]
        slope = (loglik(theta + step, histories)[0] - loglik(theta - step, histories)[0]) / (2 * step[k])
        assert gradient[k] * theta[k] == pytest.approx(slope * theta[k], rel=1e-4, abs=1e-6 * abs(value))


def test_gamma_gamma_gradient_equals_finite_differences():
    rng = np.random.default_rng(3)
    n, mean = rng.integers(1, 9, 40).astype(float), rng.uniform(0.2, 5, 40)
    theta = np.array([4.0, 2.5, 1.7])
    _, gradient = gamma_gamma_loglik(*theta, n, mean)
    for k in range(3):
        step = np.zeros(3)
        step[k] = 1e-6
        slope = (
            gamma_gamma_loglik(*(theta + step), n, mean)[0] - gamma_gamma_loglik(*(theta - step), n, mean)[0]
        ) / 2e-6
        assert gradient[k] == pytest.approx(slope, rel=1e-5)


@by_model
def test_the_likelihood_of_very_long_histories_is_finite(model):
    histories = purchase_histories([10_000, 10_000, 0, 0], [7300.0, 9.0, 0, 0], [7300.0, 7300.0, 7300.0, 0.0])
    value, gradient = LOGLIK[type(model)](_theta(model), histories)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


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


@settings(max_examples=300, deadline=None)
@given(model=any_model(), history=any_history(), horizon=st.floats(1e-3, 10_000))
def test_predictions_are_finite_and_consistent_for_any_parameters_and_history(model, history, horizon):
    x, t_x, age = history
    got = predict(model, [x], [t_x], [age], horizon)
    values = np.array(got)
    assert np.isfinite(values).all(), got
    assert (values >= 0).all(), got
    assert got.p_alive[0] <= 1
    assert got.p_order[0] <= got.p_alive[0] * (1 + 1e-9)


@settings(max_examples=100, deadline=None)
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


class Simulated(NamedTuple):
    x: np.ndarray
    t_x: np.ndarray
    age: np.ndarray
    alive: np.ndarray
    future: np.ndarray


@cache
def simulated(model: OrderModel, customers: int, seed: int, horizon: float) -> Simulated:
    """Customers drawn from the model's story, purchase by purchase, over [0, age] and the horizon after it."""
    rng = np.random.default_rng(seed)
    age = rng.uniform(100, 500, customers)
    rate = rng.gamma(model.r, 1 / model.alpha_days, customers)
    clock, x, t_x, future = (np.zeros(customers) for _ in range(4))
    if isinstance(model, ParetoNbd):
        death = rng.exponential(1, customers) / rng.gamma(model.s, 1 / model.beta_days, customers)
        drop = np.zeros(customers)
    else:
        drop = rng.beta(model.a, model.b, customers)
        gone_at_once = rng.random(customers) < drop if isinstance(model, MbgNbd) else np.zeros(customers, dtype=bool)
        death = np.where(gone_at_once, 0.0, np.inf)
    active = np.ones(customers, dtype=bool)
    while active.any():
        clock[active] += rng.exponential(1, int(active.sum())) / rate[active]
        active &= (clock <= death) & (clock <= age + horizon)
        past = active & (clock <= age)
        x[past] += 1
        t_x[past] = clock[past]
        future[active & (clock > age)] += 1
        dropped = active & (rng.random(customers) < drop)
        death[dropped] = clock[dropped]
    return Simulated(x, t_x, age, death > age, future)


SIMULATED_MODELS = (BgNbd(0.6, 40.0, 0.9, 3.0), MbgNbd(0.8, 40.0, 0.9, 3.0), ParetoNbd(0.8, 40.0, 0.9, 150.0))
by_simulated_model = pytest.mark.parametrize("model", SIMULATED_MODELS, ids=lambda model: type(model).__name__)


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


@by_simulated_model
def test_fits_recover_the_parameters_that_made_the_customers(model):
    people = simulated(model, 120_000, 7, 180.0)
    histories = purchase_histories(people.x, people.t_x, people.age)
    fit = FIT[type(model)](histories)
    assert fit.converged
    np.testing.assert_allclose(_theta(fit.params), _theta(model), rtol=0.12)
    truth = LOGLIK[type(model)](_theta(model), histories)[0]
    # Wilks: twice the gain over the truth is χ² with 4 degrees of freedom (99.9th percentile 18.5).
    assert 0 <= 2 * (fit.log_likelihood - truth) < 18.5


def test_gamma_gamma_recovers_the_parameters_and_the_spend_of_each_customer():
    rng = np.random.default_rng(11)
    truth = GammaGamma(p=4.0, q=3.2, gamma_money=2500.0)
    own_scale = rng.gamma(truth.q, 1 / truth.gamma_money, 60_000)
    orders = rng.integers(1, 8, 60_000)
    mean = rng.gamma(truth.p * orders, 1 / own_scale) / orders
    fit = fit_gamma_gamma(orders, mean)
    assert (fit.params.p, fit.params.q, fit.params.gamma_money) == pytest.approx((4.0, 3.2, 2500.0), rel=0.06)
    true_mean = truth.p / own_scale
    for group in (orders == 1, orders == 7, mean > 5000):
        errors = expected_spend(truth, orders, mean)[group] - true_mean[group]
        assert abs(errors.mean()) < 4.5 * errors.std() / np.sqrt(group.sum())


# --- fitting: robustness -------------------------------------------------------------------------------------------


@by_model
def test_a_fit_depends_neither_on_row_order_nor_on_folding(model):
    sample = cdnow_sample()
    copies = sample.customers.astype(int)
    rows = np.column_stack([np.repeat(column, copies) for column in (sample.x, sample.t_x_days, sample.age_days)])
    shuffled = np.random.default_rng(5).permutation(rows)
    again = purchase_histories(*shuffled.T)
    assert again.x.size == sample.x.size
    assert FIT[type(model)](again).params == FIT[type(model)](sample).params


@by_model
@pytest.mark.parametrize("days_per_unit", [1 / 24, 365.25])
def test_a_fit_does_not_depend_on_the_unit_of_time(model, days_per_unit):
    days = FIT[type(model)](cdnow_sample()).params
    other = FIT[type(model)](cdnow_sample().scaled(days_per_unit)).params
    for field in days.__struct_fields__:
        unit = days_per_unit if field.endswith("_days") else 1.0
        assert getattr(other, field) * unit == pytest.approx(getattr(days, field), rel=1e-4)


def test_a_spend_fit_is_a_stationary_point_of_the_likelihood():
    data = _golden_columns("btyd_cdnow_sample_spend.csv")
    params = fit_gamma_gamma(data["orders"], data["mean_spend"]).params
    theta = np.array([params.p, params.q, params.gamma_money])
    _, gradient = gamma_gamma_loglik(*theta, data["orders"], data["mean_spend"])
    assert np.abs(gradient * theta).max() < 1e-5 * data["orders"].size


@by_model
def test_an_order_fit_is_a_stationary_point_of_the_likelihood(model):
    theta = _theta(FIT[type(model)](cdnow_sample()).params)
    _, gradient = LOGLIK[type(model)](theta, cdnow_sample())
    assert np.abs(gradient * theta).max() < 1e-5 * 2357


def test_a_spend_fit_does_not_depend_on_the_unit_of_money():
    data = _golden_columns("btyd_cdnow_sample_spend.csv")
    dollars = fit_gamma_gamma(data["orders"], data["mean_spend"])
    cents = fit_gamma_gamma(data["orders"], data["mean_spend"] * 100)
    assert cents.params.gamma_money == pytest.approx(dollars.params.gamma_money * 100, rel=1e-6)
    assert cents.log_likelihood == pytest.approx(dollars.log_likelihood - len(data["orders"]) * np.log(100), rel=1e-9)


@by_model
def test_too_few_repeat_buyers_is_a_clear_typed_error(model):
    x = np.concatenate([np.zeros(500), np.ones(REPEAT_BUYERS_MIN - 1)])
    with pytest.raises(
        NotEnoughRepeatBuyers, match=f"at least {REPEAT_BUYERS_MIN} .* got {REPEAT_BUYERS_MIN - 1}"
    ) as caught:
        FIT[type(model)](purchase_histories(x, x * 10, np.full(x.size, 90.0)))
    assert isinstance(caught.value, ValueError)
    assert caught.value.repeat_buyers == REPEAT_BUYERS_MIN - 1


def test_too_few_customers_with_two_orders_is_a_clear_typed_error_for_spend():
    with pytest.raises(NotEnoughRepeatBuyers, match="Gamma-Gamma"):
        fit_gamma_gamma(np.ones(400), np.linspace(1, 90, 400))


def test_parameters_that_the_data_do_not_identify_are_named():
    """Customers who buy like clockwork to the last day have neither spread nor dropout to estimate."""
    age = np.tile(np.arange(100.0, 400.0), 4)
    fit = fit_bg_nbd(purchase_histories(np.floor(age / 10), age, age))
    assert fit.at_bounds
    assert np.isfinite(np.array(predict(fit.params, [0, 20], [0, 200.0], [200.0, 200.0], 90))).all()


def test_customers_without_positive_spend_are_skipped_and_counted():
    data = _golden_columns("btyd_cdnow_sample_spend.csv")
    plain = fit_gamma_gamma(data["orders"], data["mean_spend"])
    refunded = fit_gamma_gamma(np.append(data["orders"], [2, 3]), np.append(data["mean_spend"], [0.0, -4.0]))
    assert refunded.customers_skipped == 2
    assert refunded.params.p == pytest.approx(plain.params.p, rel=1e-5)


@pytest.mark.parametrize(
    ("x", "t_x", "age", "message"),
    [
        ([1], [20.0], [10.0], "t_x"),
        ([0], [5.0], [10.0], "t_x must be 0"),
        ([1], [0.0], [10.0], "t_x must be 0"),
        ([1.5], [5.0], [10.0], "whole number"),
        ([-1], [0.0], [10.0], "whole number"),
        ([0], [0.0], [np.nan], "finite"),
        ([0, 1], [0.0], [1.0], "equally long"),
        ([], [], [], "no customers"),
    ],
)
def test_impossible_training_histories_are_refused_by_name(x, t_x, age, message):
    with pytest.raises(ValueError, match=message):
        purchase_histories(x, t_x, age)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 4), st.integers(4, 6), st.integers(1, 5)), min_size=1))
def test_folding_keeps_every_customer(rows):
    counts: dict[tuple[int, int, int], int] = {}
    for x, t_x, age, customers in rows:
        key = (x, t_x if x else 0, age)
        counts[key] = counts.get(key, 0) + customers
    keys = [(x, t_x if x else 0, age) for x, t_x, age, _ in rows]
    folded = purchase_histories(*(np.array(column) for column in zip(*keys, strict=True)), [row[3] for row in rows])
    got = dict(zip(zip(folded.x, folded.t_x_days, folded.age_days, strict=True), folded.customers, strict=True))
    assert got == counts
    assert folded.repeat_buyers == sum(n for (x, _, _), n in counts.items() if x)


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


# --- records -------------------------------------------------------------------------------------------------------


def test_records_survive_json_exactly():
    for model in MODELS:
        assert order_model_from_json(to_json(model)) == model
    spend = GammaGamma(6.25, 3.74, 15.44)
    assert spend_model_from_json(to_json(spend)) == spend
    fit = fit_bg_nbd(cdnow_sample())
    assert json.loads(to_json(fit))["params"]["model"] == "bg_nbd"


@pytest.mark.parametrize(
    "text",
    [
        '{"model":"bg_nbd","r":0,"alpha_days":1,"a":1,"b":1}',
        '{"model":"bg_nbd","r":1,"alpha_days":1,"a":1}',
        '{"model":"weibull","r":1}',
        '{"model":"pareto_nbd","r":1,"alpha_days":1,"s":1,"beta_days":-2}',
        '{"model":"bg_nbd","r":1,"alpha_days":1,"a":1,"b":1,"c":1}',
    ],
)
def test_records_that_cannot_be_a_model_are_refused(text):
    with pytest.raises(ValueError, match=r".+"):
        order_model_from_json(text)
