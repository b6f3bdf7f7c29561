"""Pareto/NBD on two clocks against three others: Pareto/NBD where both clocks are one, the integrals as Fader & Hardie
write them, done day by day on the calendar, and customers drawn from the model."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from domain.btyd import ParetoNbd, TwoClockHistories, fit_two_clocks, predict, predict_two_clocks
from domain.btyd.two_clocks import ROWS_AT_ONCE, two_clocks_loglik
from domain.season import BINS, YEAR_DAYS, Season

Floats = NDArray[np.float64]
PARAMS = ParetoNbd(0.7, 90.0, 0.9, 260.0)
FLAT = Season((1.0,) * BINS)
_WAVE = 0.15 + 5.0 * ((1 + np.cos(2 * np.pi * ((np.arange(BINS) + 0.5) / BINS - 0.93))) / 2) ** 12
GIFTS = Season(tuple((_WAVE / _WAVE.mean()).tolist()))
"""Most is bought before Christmas."""


def histories(season: Season, now: float, horizon: float, rows: list[tuple[int, float, float]]) -> TwoClockHistories:
    """rows: (x, t_x, T), in calendar days; now: of the year."""
    x, t_x, age = (np.array(each, dtype=np.float64) for each in zip(*rows, strict=True))
    return TwoClockHistories(
        x,
        t_x,
        age,
        season.elapsed(now, age) - season.elapsed(now, age - t_x),
        season.elapsed(now, age),
        np.full(len(x), -season.elapsed(now, -horizon)),
        np.full(len(x), season.operational(now)),
    )


ROWS = [(0, 0.0, 3.0), (0, 0.0, 700.0), (1, 20.0, 21.0), (2, 30.0, 400.0), (7, 500.0, 505.0), (40, 300.0, 330.0)]


def test_where_both_clocks_are_one_it_is_pareto_nbd() -> None:
    found = predict_two_clocks(PARAMS, FLAT, histories(FLAT, 100.0, 90.0, ROWS))
    usual = predict(PARAMS, *(np.array(each, dtype=float) for each in zip(*ROWS, strict=True)), 90.0)
    for two, one in zip(found, usual, strict=True):
        np.testing.assert_allclose(two, one, rtol=1e-5)


def integral(of: Callable[[Floats], Floats], low: float, high: float) -> float:
    """By Gauss-Legendre on each half day."""
    edges = np.linspace(low, high, 1 + int(np.ceil(2 * (high - low))))
    position, weight = np.polynomial.legendre.leggauss(4)
    width = np.diff(edges)[:, None]
    return float((of(edges[:-1, None] + width * (position + 1) / 2) * weight * width / 2).sum())


@pytest.mark.parametrize("now", [3.0, 200.0, 300.0, 350.0])
@pytest.mark.parametrize("row", ROWS)
def test_it_says_what_the_integrals_of_the_paper_say(now: float, row: tuple[int, float, float]) -> None:
    x, t_x, age = row
    horizon, k = 90.0, PARAMS.r + x

    def elapsed(tau: Floats) -> Floats:
        return GIFTS.elapsed(now, age) - GIFTS.elapsed(now, age - tau)

    def bought(tau: Floats) -> Floats:  # the law of purchases, up to a constant
        return ((PARAMS.alpha_days + elapsed(np.array(t_x))) / (PARAMS.alpha_days + elapsed(tau))) ** k

    def alive_at(tau: Floats) -> Floats:
        return (PARAMS.beta_days / (PARAMS.beta_days + tau)) ** PARAMS.s

    def leaving(tau: Floats) -> Floats:
        return bought(tau) * PARAMS.s * alive_at(tau) / (PARAMS.beta_days + tau)

    def buying(tau: Floats) -> Floats:  # operational days in a calendar one, of those who are alive
        step = 1e-3
        return (elapsed(tau + step) - elapsed(tau - step)) / (2 * step) * alive_at(tau)

    here, end = np.array(age), np.array(age + horizon)
    likelihood = bought(here) * alive_at(here) + integral(leaving, t_x, age)
    later = bought(end) * alive_at(end) + integral(leaving, t_x, age + horizon)
    orders = k / (PARAMS.alpha_days + elapsed(here)) * bought(here) * integral(buying, age, age + horizon) / likelihood
    (found,) = zip(*predict_two_clocks(PARAMS, GIFTS, histories(GIFTS, now, horizon, [row])), strict=True)
    assert found[0] == pytest.approx(bought(here) * alive_at(here) / likelihood, rel=5e-3)
    assert found[1] == pytest.approx(orders, rel=5e-3)
    assert found[2] == pytest.approx(1 - later / likelihood, rel=5e-3, abs=1e-6)


def drawn(customers: int, now: float, horizon: float, seed: int) -> tuple[TwoClockHistories, np.ndarray]:
    """Customers of the model, over up to three years until now, and their orders in the horizon."""
    chance = np.random.default_rng(seed)
    rows, orders = [], []
    for _ in range(customers):
        age = chance.uniform(1.0, 3 * YEAR_DAYS)
        rate = chance.gamma(PARAMS.r) / PARAMS.alpha_days
        leaves = chance.exponential() / (chance.gamma(PARAMS.s) / PARAMS.beta_days)
        began = float(GIFTS.operational(now - age))
        clock, days = began, []
        while True:
            clock += chance.exponential() / rate
            day = float(GIFTS.calendar(np.array(clock))) - (now - age)
            if day > min(leaves, age + horizon):
                break
            days.append(day)
        before = [day for day in days if day <= age]
        rows.append((len(before), before[-1] if before else 0.0, age))
        orders.append(len(days) - len(before))
    return histories(GIFTS, now, horizon, rows), np.array(orders)


@pytest.mark.parametrize(("now", "horizon"), [(1.0, 90.0), (275.0, 90.0), (150.0, 300.0)])
def test_what_it_expects_of_drawn_customers_is_what_they_do(now: float, horizon: float) -> None:
    rows, orders = drawn(6000, now, horizon, 5)
    found = predict_two_clocks(PARAMS, GIFTS, rows)
    assert found.expected_orders.sum() == pytest.approx(orders.sum(), rel=0.08)
    assert found.p_order.sum() == pytest.approx((orders > 0).sum(), rel=0.08)
    for part in np.array_split(np.argsort(found.p_order), 4):
        assert found.p_order[part].mean() == pytest.approx((orders[part] > 0).mean(), abs=0.035)


@pytest.mark.parametrize("params", [PARAMS, ParetoNbd(3.0, 20.0, 2.0, 900.0), ParetoNbd(0.2, 300.0, 0.1, 30.0)])
def test_the_gradient_is_that_of_the_likelihood(params: ParetoNbd) -> None:
    rows, _ = drawn(300, 275.0, 90.0, 4)
    theta = np.array([params.r, params.alpha_days, params.s, params.beta_days])
    for place, slope in enumerate(two_clocks_loglik(params, GIFTS, rows)[1].sum(axis=1)):
        step = np.zeros(4)
        step[place] = 1e-4 * theta[place]
        up, down = (two_clocks_loglik(ParetoNbd(*(theta + sign * step)), GIFTS, rows)[0].sum() for sign in (1, -1))
        assert slope * theta[place] == pytest.approx((up - down) / 2e-4, rel=0.02, abs=0.5)


@pytest.mark.slow
def test_a_fit_recovers_what_customers_were_drawn_from() -> None:
    rows, _ = drawn(3000, 275.0, 90.0, 7)
    found = fit_two_clocks(rows, GIFTS, ParetoNbd(1.0, 30.0, 0.3, 20.0))
    assert two_clocks_loglik(found, GIFTS, rows)[0].sum() >= two_clocks_loglik(PARAMS, GIFTS, rows)[0].sum()
    assert found.r == pytest.approx(PARAMS.r, rel=0.2)
    assert found.alpha_days == pytest.approx(PARAMS.alpha_days, rel=0.25)
    assert found.s / found.beta_days == pytest.approx(PARAMS.s / PARAMS.beta_days, rel=0.3)


def test_every_row_is_predicted_by_itself() -> None:
    rows, _ = drawn(50, 20.0, 60.0, 3)
    many = TwoClockHistories(*(np.resize(each, ROWS_AT_ONCE + 30) for each in rows))
    for whole, part in zip(
        predict_two_clocks(PARAMS, GIFTS, many), predict_two_clocks(PARAMS, GIFTS, rows), strict=True
    ):
        np.testing.assert_array_equal(whole, np.resize(part, ROWS_AT_ONCE + 30))


def test_an_absurd_history_has_a_prediction() -> None:
    rows = histories(GIFTS, 340.0, 365.0, [(10_000, 100_000.0, 100_000.0), (10_000, 1.0, 100_000.0), (0, 0.0, 0.0)])
    for params in (PARAMS, ParetoNbd(1e-3, 1e-3, 1e-3, 1e-3), ParetoNbd(400.0, 1e4, 100.0, 5e4)):
        found = predict_two_clocks(params, GIFTS, rows)
        assert all(np.isfinite(each).all() and (each >= 0).all() for each in found)
        assert (found.p_order <= 1 + 1e-9).all()
