"""Two classes of customers against others: the likelihood of each customer worked out from drawn rates (Fader & Hardie
2005, eq. 7, and the density of a Gamma mean), and customers drawn from the model."""

from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import gammaln

from domain.btyd import (
    GammaGamma,
    ParetoNbd,
    SecondClass,
    SpendHistories,
    TwoClasses,
    TwoClockHistories,
    expected_spend,
    fit_two_classes,
    predict_two_classes,
    predict_two_clocks,
)
from domain.btyd.two_classes import BOUNDS, two_classes_loglik
from domain.season import NO_SEASON

Floats = NDArray[np.float64]
ORDERS, SPEND = ParetoNbd(0.8, 90.0, 0.9, 400.0), GammaGamma(5.0, 4.0, 25.0)
BULK = SecondClass(0.06, 9.0, 5.0)
HORIZON = 90.0


class Customers(NamedTuple):
    histories: TwoClockHistories
    spent: SpendHistories


def customers(rows: list[tuple[int, float, float, float]]) -> Customers:
    """rows: (x, t_x, T, mean spend); every day was paid."""
    x, t_x, age, mean = (np.array(each, dtype=np.float64) for each in zip(*rows, strict=True))
    ahead, now = np.full(len(x), HORIZON), np.full(len(x), 100.0)
    return Customers(TwoClockHistories(x, t_x, age, t_x, age, ahead, now), SpendHistories(x + 1, mean))


def predicted(found: Customers, second: SecondClass = BULK) -> tuple[Floats, Floats, Floats, Floats]:
    return predict_two_classes(TwoClasses(ORDERS, SPEND, second), NO_SEASON, *found, HORIZON)


ROWS = [
    (0, 0.0, 12.0, 400.0),
    (0, 0.0, 12.0, 30.0),
    (0, 0.0, 300.0, 400.0),
    (3, 60.0, 80.0, 150.0),
    (9, 200.0, 240.0, 35.0),
]


@pytest.mark.parametrize("row", ROWS)
def test_it_says_what_drawn_rates_say_of_each_customer(row: tuple[int, float, float, float]) -> None:
    x, t_x, age, mean = row
    chance, draws = np.random.default_rng(1), 3_000_000
    bulk = chance.random(draws) < BULK.share
    rate = chance.gamma(ORDERS.r, 1 / ORDERS.alpha_days, draws) * np.where(bulk, BULK.rate_factor, 1.0)
    leaving = chance.gamma(ORDERS.s, 1 / ORDERS.beta_days, draws)
    scale = chance.gamma(SPEND.q, 1 / SPEND.gamma_money, draws) / np.where(bulk, BULK.spend_factor, 1.0)
    both = rate + leaving
    silent = np.exp(-both * age)
    bought = rate**x * (leaving * np.exp(-both * t_x) + rate * silent) / both
    shape = SPEND.p * (x + 1)
    log_paid = shape * np.log((x + 1) * scale) + (shape - 1) * np.log(mean) - (x + 1) * scale * mean - gammaln(shape)
    likely = bought * np.exp(log_paid - log_paid.max())
    alive = rate**x * silent / np.maximum(bought, 1e-300)
    orders = alive * rate / leaving * -np.expm1(-leaving * HORIZON)

    def expected(of: Floats) -> float:
        return float((likely * of).sum() / likely.sum())

    (found,) = zip(*predicted(customers([row])), strict=True)
    assert found[0] == pytest.approx(expected(orders), rel=0.03)
    assert found[1] == pytest.approx(expected(alive * rate / both * -np.expm1(-both * HORIZON)), rel=0.03)
    assert found[2] == pytest.approx(expected(orders * SPEND.p / scale), rel=0.03)
    assert found[3] == pytest.approx(expected(bulk.astype(np.float64)), rel=0.05, abs=0.003)


def test_a_large_first_basket_is_a_sign_of_many_to_come() -> None:
    orders, _, spend, p_bulk = predicted(customers([(0, 0.0, 12.0, mean) for mean in (30.0, 100.0, 400.0)]))
    assert (np.diff(orders) > 0).all()
    assert p_bulk[0] < 0.05
    assert p_bulk[2] > 0.9
    one_class = predict_two_clocks(ORDERS, NO_SEASON, customers([(0, 0.0, 12.0, 400.0)]).histories).expected_orders[0]
    assert orders[2] > 2 * one_class
    assert spend[2] > 2 * one_class * expected_spend(SPEND, [1], [400.0])[0]


def drawn(count: int, seed: int, second: SecondClass = BULK) -> tuple[Customers, Floats, Floats, NDArray[np.bool_]]:
    """Customers of the model over up to two years; their orders and spend in the horizon; who is of the second."""
    chance = np.random.default_rng(seed)
    bulk = chance.random(count) < second.share
    rows, orders, spends = [], np.zeros(count), np.zeros(count)
    for each in range(count):
        age = chance.uniform(1.0, 730.0)
        rate = chance.gamma(ORDERS.r) / ORDERS.alpha_days * (second.rate_factor if bulk[each] else 1.0)
        leaves = chance.exponential() / (chance.gamma(ORDERS.s) / ORDERS.beta_days)
        until = min(leaves, age + HORIZON)
        times = np.sort(chance.uniform(0.0, until, chance.poisson(rate * until)))
        scale = chance.gamma(SPEND.q) / SPEND.gamma_money / (second.spend_factor if bulk[each] else 1.0)
        paid = chance.gamma(SPEND.p, 1 / scale, len(times) + 1)
        before = times[times <= age]
        rows.append((len(before), before[-1] if len(before) else 0.0, age, paid[: len(before) + 1].mean()))
        orders[each], spends[each] = len(times) - len(before), paid[len(before) + 1 :].sum()
    return customers(rows), orders, spends, bulk


def test_what_it_expects_of_drawn_customers_is_what_they_do() -> None:
    found, orders, spends, bulk = drawn(30_000, 3)
    expected = predicted(found)
    assert expected[0].sum() == pytest.approx(orders.sum(), rel=0.04)
    assert expected[2].sum() == pytest.approx(spends.sum(), rel=0.08)
    new = found.histories.x == 0
    assert expected[2][new].sum() == pytest.approx(spends[new].sum(), rel=0.15)
    assert expected[3].sum() == pytest.approx(bulk.sum(), rel=0.05)
    for part in np.array_split(np.argsort(expected[1]), 4):
        assert expected[1][part].mean() == pytest.approx((orders[part] > 0).mean(), abs=0.02)


def test_the_gradient_is_that_of_the_likelihood() -> None:
    found = drawn(300, 5)[0]
    start = np.array([ORDERS.r, ORDERS.alpha_days, ORDERS.s, ORDERS.beta_days, SPEND.p, SPEND.q - 1, SPEND.gamma_money])
    start = np.append(start, [BULK.share / (1 - BULK.share), BULK.spend_factor, BULK.rate_factor])

    def at(theta: Floats) -> tuple[float, Floats]:
        second = SecondClass(theta[7] / (1 + theta[7]), theta[8], theta[9])
        spend = GammaGamma(theta[4], theta[5] + 1, theta[6])
        return two_classes_loglik(TwoClasses(ParetoNbd(*theta[:4].tolist()), spend, second), NO_SEASON, *found)

    for place, slope in enumerate(at(start)[1]):
        step = np.ones(10)
        step[place] = np.exp(1e-4)
        assert slope == pytest.approx((at(start * step)[0] - at(start / step)[0]) / 2e-4, rel=0.01, abs=0.05)


@pytest.mark.slow
def test_a_fit_recovers_what_customers_were_drawn_from() -> None:
    found = drawn(12_000, 7)[0]
    fit = fit_two_classes(
        found.histories, NO_SEASON, found.spent, ParetoNbd(0.5, 60.0, 0.5, 200.0), GammaGamma(4.0, 2.0, 15.0)
    )
    found_classes = fit.classes
    assert found_classes.second.share == pytest.approx(BULK.share, rel=0.15)
    assert found_classes.second.spend_factor == pytest.approx(BULK.spend_factor, rel=0.15)
    assert found_classes.second.rate_factor == pytest.approx(BULK.rate_factor, rel=0.2)
    assert found_classes.orders.r == pytest.approx(ORDERS.r, rel=0.15)
    assert found_classes.spend.q == pytest.approx(SPEND.q, rel=0.15)
    best = two_classes_loglik(found_classes, NO_SEASON, *found)[0]
    assert best >= two_classes_loglik(TwoClasses(ORDERS, SPEND, BULK), NO_SEASON, *found)[0]
    known = fit_two_classes(found.histories, NO_SEASON, found.spent, *found_classes[:2], BULK)
    assert known.classes.second == BULK
    assert known.classes.orders.r == pytest.approx(ORDERS.r, rel=0.15)


def test_an_absurd_customer_has_a_prediction() -> None:
    found = customers([(10_000, 100_000.0, 100_000.0, 1e11), (10_000, 1.0, 100_000.0, 0.0), (0, 0.0, 0.0, 0.0)])
    found.spent.paid_days[2] = 0.0
    for second in (BULK, SecondClass(*(low for low, _ in BOUNDS)), SecondClass(*(high for _, high in BOUNDS))):
        for orders in (ORDERS, ParetoNbd(1e-3, 1e-3, 1e-3, 1e-3), ParetoNbd(400.0, 1e4, 100.0, 5e4)):
            told = predict_two_classes(TwoClasses(orders, SPEND, second), NO_SEASON, *found, HORIZON)
            assert all(np.isfinite(each).all() and (each >= 0).all() for each in told)
            assert (told.p_order <= 1 + 1e-9).all()
            assert told.p_second[2] == pytest.approx(second.share, abs=0.5)


@pytest.mark.parametrize("wrong", [(0.0, 3.0, 2.0), (0.3, 3.0, 2.0), (0.1, 1.0, 2.0), (0.1, 3.0, 50.0)])
def test_what_is_no_second_class_is_refused(wrong: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="must be between"):
        SecondClass(*wrong)


def test_a_class_at_a_bound_is_told_from_one_within() -> None:
    found = drawn(200, 9)[0]

    def at_bounds(second: SecondClass) -> tuple[str, ...]:
        return fit_two_classes(found.histories, NO_SEASON, found.spent, ORDERS, SPEND, second).at_bounds

    assert not at_bounds(BULK)
    assert at_bounds(SecondClass(0.25, 3.0, 2.0)) == ("share",)
    assert at_bounds(SecondClass(0.1, 1.3, 2.0)) == ("spend_factor",)
