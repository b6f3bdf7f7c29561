"""Factors on predictions: what windows agree on is believed, noise is not, and nobody overtakes anybody."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from domain.metrics import mean_absolute_error
from services.trainer.calibration import (
    BANDS,
    MAE_COST_MAX,
    PERSISTENCE,
    SHARE_MIN,
    Sample,
    Trial,
    balance,
    curve,
    fit_log_factors,
    level,
)
from tests.effort import tries

Floats = NDArray[np.float64]


def windows(factor: float, customers: int, seed: int, count: int = 3) -> list[Sample]:
    """Customers who mostly buy nothing, and `factor` times as much as predicted on average."""
    chance = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        predicted = chance.gamma(0.5, 20.0, customers) + 0.01
        active = chance.uniform(size=customers) < 0.2
        found.append(
            Sample(predicted, np.where(active, factor * 5 * predicted * chance.gamma(3, 1 / 3, customers), 0), 1)
        )
    return found


@pytest.mark.parametrize("factor", [0.6, 1.4, 2.0])
def test_what_many_customers_say_in_every_window_is_believed_as_far_as_it_lasts(factor: float) -> None:
    found = level(windows(factor, 20_000, 1))
    assert np.exp(found.log_ratio) == pytest.approx(factor**PERSISTENCE, rel=0.07)
    assert PERSISTENCE * 0.9 < found.kept <= PERSISTENCE


def test_nothing_is_expected_of_the_days_to_come_where_nothing_lasts() -> None:
    found = windows(1.5, 5000, 1)
    assert level(found, 0.0).log_ratio == 0.0
    factors = np.exp(fit_log_factors(found, 0.0))
    total = sum(float(curve(np.log(factors), each.predicted)(each.predicted).sum()) for each in found)
    assert total == pytest.approx(sum(float(each.predicted.sum()) for each in found), rel=0.02)


def test_noise_is_not_believed() -> None:
    kept = [abs(level(windows(1.0, 300, seed)).log_ratio) for seed in range(40)]
    raw = [abs(np.mean(level(windows(1.0, 300, seed)).log_ratios)) for seed in range(40)]
    assert np.mean(kept) < 0.6 * np.mean(raw)


def test_a_window_that_speaks_alone_is_believed_less_than_three_that_agree() -> None:
    three = windows(1.3, 3000, 5)
    apart = [
        Sample(each.predicted, each.happened * scale, 1) for each, scale in zip(three, (0.6, 1.0, 1.8), strict=True)
    ]
    assert level(apart).kept < level(three).kept


def test_bands_are_told_apart_and_the_total_is_that_of_the_level() -> None:
    chance = np.random.default_rng(2)
    predicted = chance.gamma(0.5, 20.0, 50_000) + 0.01
    low = predicted < np.median(predicted)
    happened = predicted * np.where(low, 3.0, 1.0) * chance.gamma(2, 0.5, len(predicted))
    samples = [Sample(predicted, happened, 1.0)] * 2
    factors = np.exp(fit_log_factors(samples))
    assert factors[: BANDS // 2] == pytest.approx(3.0, rel=0.1)
    assert factors[BANDS // 2 :] == pytest.approx(1.0, rel=0.1)
    calibrated = curve(np.log(factors), predicted)(predicted)
    assert calibrated.sum() == pytest.approx(predicted.sum() * np.exp(level(samples).log_ratio), rel=0.03)
    assert predicted.sum() * 1.03 < calibrated.sum() < happened.sum()


@settings(deadline=None, max_examples=tries(80))
@given(
    st.lists(st.floats(-3, 3), min_size=BANDS, max_size=BANDS),
    st.lists(st.floats(0, 1e6), min_size=1, max_size=60),
)
def test_calibration_never_turns_two_customers_around(log_factors: list[float], population: list[float]) -> None:
    values = np.array(population)
    found = curve(np.array(log_factors), values)
    grid = np.concatenate([[0.0], np.geomspace(1e-13, 1e9, 400)])
    calibrated = found(grid)
    assert (np.diff(calibrated) > 0).all()
    assert calibrated[0] == 0.0
    assert np.isfinite(calibrated).all()


def trials(above: float, seed: int) -> list[Trial]:
    """The baseline predicts the same customers, too little by `above`."""
    return [Trial(each.predicted / above, each.predicted, each.happened, 1.0) for each in windows(1.0, 4000, seed)]


def test_the_truth_is_told_where_it_is_below_the_baseline() -> None:
    assert balance(trials(0.7, 1), 0.7).share == 1.0


@pytest.mark.parametrize("above", [1.05, 1.15, 1.25])
def test_a_total_is_only_raised_as_far_as_the_absolute_error_allows(above: float) -> None:
    made = trials(above, 3)
    chosen = balance(made, above)
    assert max(SHARE_MIN, 1 / above) <= chosen.share <= 1.0
    change = np.mean(
        [
            mean_absolute_error(t.happened, t.predicted * t.happened.sum() / t.predicted.sum() * chosen.share)
            / mean_absolute_error(t.happened, t.baseline * t.happened.sum() / above / t.baseline.sum())
            - 1
            for t in made
        ]
    )
    assert chosen.mae_change == pytest.approx(change, abs=1e-9)
    assert change <= MAE_COST_MAX


def test_a_season_that_would_cost_a_third_of_the_total_is_told_whole() -> None:
    assert balance(trials(1.8, 4), 1.8).share == 1.0
