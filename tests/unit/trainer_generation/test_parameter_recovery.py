"""The fits of domain.btyd get back the parameters that made a shop, from its file's text to the features and the fit.

Tolerances come from 16 seeds (101 to 116) of these shops of 12,000 customers over three years: the bias is what days do
to instants (two orders of a day are one purchase day), the standard deviation what chance does.
"""

from functools import cache

import numpy as np
import pytest
from scipy.stats import chi2

from domain.btyd import PurchaseHistories, fit_bg_nbd, fit_gamma_gamma, fit_pareto_nbd, purchase_histories
from domain.btyd.likelihood import bg_loglik, pareto_loglik
from domain.customer import fold
from domain.features import FEATURE_NAMES, features
from domain.rfm_scores import Quintiles
from services.trainer.generation import Shop, generate, preset
from services.trainer.judged_rows import domain_events

pytestmark = [pytest.mark.slow, pytest.mark.long]

SEEDS = (1, 2, 3, 4)
FIT = {"pareto": fit_pareto_nbd, "bg": fit_bg_nbd}
LOGLIK = {"pareto": pareto_loglik, "bg": bg_loglik}
# Of the logarithm of estimate over truth.
ORDERS_BIAS = {"pareto": (0.019, 0.032, -0.042, -0.067), "bg": (0.013, 0.034, 0.010, 0.011)}
ORDERS_SD = {"pareto": (0.018, 0.016, 0.072, 0.132), "bg": (0.020, 0.025, 0.056, 0.076)}
SPEND_BIAS, SPEND_SD = (-0.023, 0.006, 0.036), (0.035, 0.017, 0.043)
QUINTILES = Quintiles((9.0, 9.0, 9.0, 9.0), (9.0, 9.0, 9.0, 9.0), (9.0, 9.0, 9.0, 9.0))


@cache
def shop_of(dropout: str, seed: int) -> Shop:
    return generate(preset("textbook", customers=12_000, years=3, seed=seed, dropout=dropout))


@cache
def known_by_features(dropout: str, seed: int) -> dict[str, np.ndarray]:
    """Feature columns as of the last day, through text, judge and fold."""
    made = shop_of(dropout, seed)
    events, rejected = domain_events(made.table, made.spec.currency)
    assert not rejected
    states = [fold(each) for each in events.values()]
    found = features(states, [made.end_day - 1] * len(states), QUINTILES, 100).features
    return dict(zip(FEATURE_NAMES, found.T, strict=True))


def log_errors(fitted: object, truth: object) -> np.ndarray:
    fields = truth.__struct_fields__
    return np.log([getattr(fitted, field) / getattr(truth, field) for field in fields])


def within_chance(errors: list[np.ndarray], bias: tuple[float, ...], sd: tuple[float, ...]) -> None:
    """The mean error of the seeds, less the known bias, is within four standard errors (the bias has one too)."""
    off = np.mean(errors, axis=0) - bias
    error_of_mean = np.array(sd) * np.sqrt(1 / len(errors) + 1 / 16)
    assert (np.abs(off) < 4 * error_of_mean).all(), (off, error_of_mean)


@pytest.mark.parametrize("dropout", ["pareto", "bg"])
def test_purchase_parameters_come_back_through_the_features(dropout: str):
    errors = []
    for seed in SEEDS:
        known = known_by_features(dropout, seed)
        fit = FIT[dropout](purchase_histories(known["btyd_x"], known["btyd_t_x"], known["btyd_T"]))
        assert fit.converged
        errors.append(log_errors(fit.params, shop_of(dropout, seed).spec.purchases))
    within_chance(errors, ORDERS_BIAS[dropout], ORDERS_SD[dropout])


def test_spend_parameters_come_back_through_the_features():
    errors = []
    for seed in SEEDS:
        known = known_by_features("pareto", seed)
        fit = fit_gamma_gamma(known["btyd_m_days"], known["btyd_m"])
        assert fit.converged
        errors.append(log_errors(fit.params, shop_of("pareto", seed).spec.spend))
    within_chance(errors, SPEND_BIAS, SPEND_SD)


def exact_histories(made: Shop) -> PurchaseHistories:
    """Every order at its instant, as the models suppose."""
    day = made.events.at_ms / 86_400_000
    customers = len(made.customers)
    orders = np.bincount(made.events.customer, minlength=customers)
    first, last = np.full(customers, np.inf), np.zeros(customers)
    np.minimum.at(first, made.events.customer, day)
    np.maximum.at(last, made.events.customer, day)
    return purchase_histories(orders - 1, last - first, made.end_day - first)


@pytest.mark.parametrize("dropout", ["pareto", "bg"])
def test_at_instants_the_truth_is_as_likely_as_a_fit_may_leave_it(dropout: str):
    """Wilks: twice the gain of a fit over the truth is χ² with four degrees of freedom, and over seeds they add up."""
    gain = 0.0
    for seed in SEEDS:
        made = shop_of(dropout, seed)
        histories = exact_histories(made)
        truth = made.spec.purchases
        theta = np.array([getattr(truth, field) for field in truth.__struct_fields__])
        gain += 2 * (FIT[dropout](histories).log_likelihood - LOGLIK[dropout](theta, histories)[0])
    assert 0 < gain < chi2(4 * len(SEEDS)).ppf(0.9999)


def test_the_wrong_parameters_would_be_noticed():
    """The same test with one parameter off by a tenth."""
    made = shop_of("pareto", 1)
    histories = exact_histories(made)
    truth = made.spec.purchases
    best = fit_pareto_nbd(histories).log_likelihood
    for place in range(2):
        theta = np.array([getattr(truth, field) for field in truth.__struct_fields__])
        theta[place] *= 1.1
        assert 2 * (best - pareto_loglik(theta, histories)[0]) > chi2(4).ppf(0.9999)
