"""Quantiles of value on customers of a known distribution: as often exceeded as they should be, in every group."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from services.trainer.intervals import (
    ACTIVE_ROWS_MIN,
    MISS_SHARE,
    UPPER_LEVEL_MIN,
    Seen,
    assumed_intervals,
    fit_intervals,
    upper_level,
)

Floats = NDArray[np.float64]


def customers(n: int, seed: int) -> Seen:
    """Poisson orders of gamma-distributed value: few orders spread widely, many average out."""
    chance = np.random.default_rng(seed)
    rate = chance.gamma(0.6, 2.0, n) + 0.05
    orders = chance.poisson(rate)
    basket = chance.lognormal(3.0, 0.5, n)
    value = np.array([chance.gamma(3.0 * k, b / 3.0) if k else 0.0 for k, b in zip(orders, basket, strict=True)])
    return Seen(rate * basket, rate, 1 - np.exp(-rate), value, (orders > 0).astype(float))


def test_quantiles_are_exceeded_as_often_as_they_say_for_rare_and_for_frequent_buyers() -> None:
    found = fit_intervals([customers(30_000, 1)])
    assert found is not None
    new = customers(30_000, 2)
    low, middle, high = found.quantiles(new.value, new.orders, new.p_active).T
    for lower, upper in ((0.25, 0.7), (0.7, 1.5), (1.5, 4.0), (4.0, 99.0)):
        group = (new.orders >= lower) & (new.orders < upper)
        assert group.sum() > 400
        assert np.mean(new.happened[group] > high[group]) == pytest.approx(0.1, abs=0.03)
        assert np.mean(new.happened[group] > middle[group]) <= 0.55
    certain = new.p_active >= 0.95
    assert np.mean(new.happened[certain] < low[certain]) == pytest.approx(0.1, abs=0.03)
    assert (low <= middle).all()
    assert (middle <= high).all()


def test_who_hardly_ever_buys_has_nothing_but_nothing_at_any_level() -> None:
    found = fit_intervals([customers(2000, 1)])
    assert found is not None
    assert found.quantiles(np.array([1.0]), np.array([0.05]), np.array([0.05])).tolist() == [[0.0, 0.0, 0.0]]


def test_too_few_buyers_have_no_spread_of_their_own() -> None:
    few = customers(ACTIVE_ROWS_MIN // 2, 1)
    assert fit_intervals([few]) is None
    assert fit_intervals([]) is None
    assert (np.diff(assumed_intervals().quantiles(few.value, few.orders, few.p_active), axis=1) >= 0).all()


def test_what_a_whole_window_missed_by_is_little_of_how_its_customers_differ() -> None:
    calm = customers(5000, 1)
    wild = calm._replace(happened=calm.happened * 2)
    narrow, wide = (fit_intervals([each]) for each in (calm, wild))
    assert narrow is not None
    assert wide is not None
    ask = (calm.value, calm.orders, calm.p_active)
    wider = wide.quantiles(*ask)[:, 2].sum() / narrow.quantiles(*ask)[:, 2].sum()
    assert wider == pytest.approx(2 ** (1 - MISS_SHARE), rel=0.01)


@pytest.mark.parametrize("gone_of_ten", [3, 5])
def test_in_a_shop_that_many_have_left_those_who_are_left_exceed_more_often(gone_of_ten: int) -> None:
    seen = customers(30_000, 3)
    gone = np.arange(30_000) % 10 < gone_of_ten
    p = np.where(gone, 0.001, seen.p_active)
    happened = np.where(gone, 0.0, seen.happened)
    found = fit_intervals([seen])
    assert found is not None
    level = upper_level(p)
    assert UPPER_LEVEL_MIN <= level < 0.9
    plain, lowered = (
        np.mean(happened > replace(found, upper_level=each).quantiles(seen.value, seen.orders, p)[:, 2])
        for each in (0.9, level)
    )
    assert plain < 0.08 < lowered < 0.12


def test_where_everybody_may_still_order_the_level_is_as_its_name_says() -> None:
    assert upper_level(np.full(10, 0.4)) == 0.9
    assert upper_level(np.full(10, 0.01)) == UPPER_LEVEL_MIN
