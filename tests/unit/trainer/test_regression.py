"""The ridge regressions: against scikit-learn's, on a truth that is known, and deaf to what they must not learn."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, PoissonRegressor

from services.trainer import regression
from services.trainer.regression import Lesson, fit_regression, log_odds

TRUTH = np.array([0.5, -0.3, 0.0])


def lesson(seed: int, level: float = 1.0, customers: int = 4000, gaps: bool = False) -> Lesson:
    """Orders that differ from what was expected by three signals, and by a level that all customers share."""
    chance = np.random.default_rng(seed)
    told = chance.normal(size=(customers, 3))
    expected = chance.gamma(1.0, 0.8, customers) + 0.01
    orders = chance.poisson(level * expected * np.exp(told @ TRUTH)).astype(float)
    p = 1 - np.exp(-expected)
    odds = log_odds(p) + told @ TRUTH + np.log(level)
    active = (chance.uniform(size=customers) < 1 / (1 + np.exp(-odds))).astype(float)
    told = np.where(gaps & (chance.uniform(size=told.shape) < 0.3), np.nan, told)
    return Lesson(
        told,
        {"orders": expected, "p_active": p, "value": expected * 30},
        {"orders": orders, "p_active": active, "value": orders * 30.0},
    )


def test_what_signals_say_is_found() -> None:
    found = fit_regression([lesson(1), lesson(2)], ("orders", "p_active"))
    np.testing.assert_allclose(found.coefficients["orders"] / found.spread, TRUTH, atol=0.05)
    np.testing.assert_allclose(found.coefficients["p_active"] / found.spread, TRUTH, atol=0.1)


def test_a_level_is_forgotten_even_where_windows_differ() -> None:
    alike = fit_regression([lesson(1), lesson(2)], ("orders",)).coefficients["orders"]
    unlike = fit_regression([lesson(1, 0.4), lesson(2, 2.5)], ("orders",)).coefficients["orders"]
    np.testing.assert_allclose(alike, unlike, atol=0.08)


def test_it_agrees_with_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    """One window, so that its level is the intercept that scikit-learn has, and no offset."""
    ridge = 50.0
    monkeypatch.setattr(regression, "RIDGE", dict.fromkeys(regression.RIDGE, ridge))
    plain = lesson(3)
    flat = Lesson(
        plain.signals,
        {"orders": np.ones(4000), "p_active": np.full(4000, 0.5), "value": np.ones(4000)},
        {**plain.happened, "orders": np.minimum(plain.happened["orders"], 3.0)},
    )
    found = fit_regression([flat], ("orders", "p_active"))
    x = found.standardised(flat.signals)
    logistic = LogisticRegression(C=1 / ridge, tol=1e-10).fit(x, flat.happened["p_active"])
    np.testing.assert_allclose(found.coefficients["p_active"], logistic.coef_[0], atol=1e-4)
    active = flat.happened["p_active"].sum()
    scaled = flat.happened["orders"] / flat.happened["orders"].sum() * active
    mean = active / 4000
    dispersion = max(1.0, float(np.mean((scaled - mean) ** 2 / mean)))
    poisson = PoissonRegressor(alpha=ridge * dispersion / 4000, tol=1e-10).fit(x, scaled)
    np.testing.assert_allclose(found.coefficients["orders"], poisson.coef_, atol=1e-4)


def test_few_customers_teach_little() -> None:
    few, many = (
        np.abs(fit_regression([lesson(4, customers=count)], ("p_active",)).coefficients["p_active"]).sum()
        for count in (60, 6000)
    )
    assert few < 0.4 * many


def test_unknown_signals_and_one_that_never_varies_do_no_harm() -> None:
    some = lesson(5, gaps=True)
    constant = np.column_stack([some.signals, np.full(4000, 7.0), np.full(4000, np.nan)])
    found = fit_regression([some._replace(signals=constant)], ("orders",))
    assert np.isfinite(found.coefficients["orders"]).all()
    np.testing.assert_allclose(found.coefficients["orders"][3:], 0.0, atol=1e-9)
    assert found.coefficients["orders"][0] > 0.2


def test_the_currency_does_not_matter() -> None:
    plain = lesson(6)
    cents = plain._replace(
        expected={**plain.expected, "value": plain.expected["value"] * 100},
        happened={**plain.happened, "value": plain.happened["value"] * 100},
    )
    one, other = (fit_regression([each], ("value",)).coefficients["value"] for each in (plain, cents))
    np.testing.assert_allclose(one, other, rtol=1e-6)
