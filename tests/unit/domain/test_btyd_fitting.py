"""Buy-till-you-die models, their likelihoods, fits and records, against oracles that share no code with them: published
estimates, the models' definitions integrated numerically, simulated customers. It must never take its values from the
code."""

import csv
import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import dblquad
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
    expected_spend,
    fit_bg_nbd,
    fit_gamma_gamma,
    fit_mbg_nbd,
    fit_pareto_nbd,
    order_model_from_json,
    predict,
    purchase_histories,
    spend_model_from_json,
    to_json,
)
from domain.btyd.fitting import gamma_gamma_loglik
from domain.btyd.likelihood import bg_loglik, mbg_loglik, pareto_loglik
from tests.effort import tries
from tests.unit.domain.btyd_support import MODELS, by_model, by_simulated_model, simulated

GOLDEN = Path(__file__).parents[2] / "golden"
WEEK = 7.0

LOGLIK = {BgNbd: bg_loglik, MbgNbd: mbg_loglik, ParetoNbd: pareto_loglik}
FIT = {BgNbd: fit_bg_nbd, MbgNbd: fit_mbg_nbd, ParetoNbd: fit_pareto_nbd}


def _golden_columns(name: str) -> dict[str, np.ndarray]:
    with (GOLDEN / name).open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {key: np.array([float(row[key]) for row in rows]) for key in rows[0]}


@cache
def cdnow_sample() -> PurchaseHistories:
    return purchase_histories(**_golden_columns("btyd_cdnow_sample.csv"))


@cache
def fit_of_sample(model: type[OrderModel]) -> OrderModelFit:
    return FIT[model](cdnow_sample())


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
    fit = fit_of_sample(BgNbd)
    assert (fit.customers, fit.repeat_buyers, fit.converged, fit.at_bounds) == (2357, 946, True, ())
    assert _theta_weeks(fit) == pytest.approx([0.243, 4.414, 0.793, 2.426], abs=6e-4)
    assert _loglik_weeks(fit, cdnow_sample()) == pytest.approx(-9582.4, abs=0.06)


def test_pareto_nbd_reproduces_the_published_cdnow_estimates():
    """Fader, Hardie & Lee (2005), table 2: r=.553 α=10.578 s=.606 β=11.669, LL −9,595.0."""
    fit = fit_of_sample(ParetoNbd)
    assert fit.converged
    assert _theta_weeks(fit) == pytest.approx([0.553, 10.578, 0.606, 11.669], abs=2e-3)
    assert _loglik_weeks(fit, cdnow_sample()) == pytest.approx(-9595.0, abs=0.06)


def test_mbg_nbd_fits_cdnow_no_worse_than_bg_nbd():
    fit = fit_of_sample(MbgNbd)
    assert fit.converged
    assert fit.log_likelihood >= fit_of_sample(BgNbd).log_likelihood


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


@pytest.mark.slow
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
@settings(max_examples=tries(25), deadline=None)
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
    gradient = gamma_gamma_loglik(*theta, n, mean)[1].sum(axis=1)
    for k in range(3):
        step = np.zeros(3)
        step[k] = 1e-6
        up, down = (gamma_gamma_loglik(*(theta + sign * step), n, mean)[0].sum() for sign in (1, -1))
        slope = (up - down) / 2e-6
        assert gradient[k] == pytest.approx(slope, rel=1e-5)


@by_model
def test_the_likelihood_of_very_long_histories_is_finite(model):
    histories = purchase_histories([10_000, 10_000, 0, 0], [7300.0, 9.0, 0, 0], [7300.0, 7300.0, 7300.0, 0.0])
    value, gradient = LOGLIK[type(model)](_theta(model), histories)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


# --- simulated customers -------------------------------------------------------------------------------------------


@pytest.mark.slow
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
    assert FIT[type(model)](again).params == fit_of_sample(type(model)).params


@by_model
@pytest.mark.parametrize("days_per_unit", [1 / 24, 365.25])
def test_a_fit_does_not_depend_on_the_unit_of_time(model, days_per_unit):
    days = fit_of_sample(type(model)).params
    other = FIT[type(model)](cdnow_sample().scaled(days_per_unit)).params
    for field in days.__struct_fields__:
        unit = days_per_unit if field.endswith("_days") else 1.0
        assert getattr(other, field) * unit == pytest.approx(getattr(days, field), rel=1e-4)


def test_a_spend_fit_is_a_stationary_point_of_the_likelihood():
    data = _golden_columns("btyd_cdnow_sample_spend.csv")
    params = fit_gamma_gamma(data["orders"], data["mean_spend"]).params
    theta = np.array([params.p, params.q, params.gamma_money])
    gradient = gamma_gamma_loglik(*theta, data["orders"], data["mean_spend"])[1].sum(axis=1)
    assert np.abs(gradient * theta).max() < 1e-5 * data["orders"].size


@by_model
def test_an_order_fit_is_a_stationary_point_of_the_likelihood(model):
    theta = _theta(fit_of_sample(type(model)).params)
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


# --- records -------------------------------------------------------------------------------------------------------


def test_records_survive_json_exactly():
    for model in MODELS:
        assert order_model_from_json(to_json(model)) == model
    spend = GammaGamma(6.25, 3.74, 15.44)
    assert spend_model_from_json(to_json(spend)) == spend
    fit = fit_of_sample(BgNbd)
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
