"""What `./clv bench model` says of predictions in hindsight, against sums by hand."""

import numpy as np
import pytest

from benchmarks.model import in_hindsight, lowest_mae
from domain.metrics import band_of, mean_absolute_error, total_bias


def test_one_factor_makes_the_total_right_and_a_factor_for_each_decile_makes_those_right_too() -> None:
    rng = np.random.default_rng(1)
    predicted = np.sort(rng.gamma(1.0, 10.0, 2000))
    actual = predicted * np.repeat(np.linspace(0.5, 2.0, 10), 200)  # each decile is off by a factor of its own

    found = in_hindsight(actual, predicted)

    assert found["total"]["bias"] == pytest.approx(0.0, abs=1e-12)
    by_hand = predicted * actual.sum() / predicted.sum()
    assert found["total"]["mae"] == pytest.approx(mean_absolute_error(actual, by_hand))
    assert found["total"]["decile_mape"] > 0.1
    assert found["deciles"]["mae"] == pytest.approx(0.0, abs=1e-9)
    assert found["deciles"]["decile_mape"] == pytest.approx(0.0, abs=1e-9)


def test_predictions_of_nothing_stay_nothing() -> None:
    found = in_hindsight(np.array([0.0, 3.0] * 10), np.zeros(20))
    assert {name: each["mae"] for name, each in found.items()} == {"total": 1.5, "deciles": 1.5}


def test_no_ten_factors_within_the_bounds_have_a_lower_mae_than_the_lowest() -> None:
    rng = np.random.default_rng(2)
    predicted = rng.gamma(0.5, 10.0, 1000)
    actual = np.where(rng.random(1000) < 0.3, 4.0 * predicted * rng.random(1000), 0.0)
    tenth = band_of(predicted, 10)
    right = np.bincount(tenth, actual) / np.bincount(tenth, predicted)
    lowest = lowest_mae(actual, predicted, 0.05, 0.15)
    assert lowest is not None
    tried = []
    for sizes in rng.uniform(0.5, 1.2, (5_000, 10)):
        each = predicted * (right * sizes)[tenth]
        if abs(total_bias(actual, each)) <= 0.05 and np.abs(sizes - 1).mean() <= 0.15:
            tried.append(mean_absolute_error(actual, each))
    assert len(tried) > 50
    assert lowest <= min(tried)
    wider, widest = lowest_mae(actual, predicted, 1.0, 0.15), lowest_mae(actual, predicted, 1.0, 1.0)
    assert wider is not None
    assert widest is not None
    assert lowest > wider > widest


def test_the_lowest_mae_without_bounds_is_that_of_the_medians_by_tenth() -> None:
    predicted = np.repeat(np.arange(1.0, 11.0), 30)
    actual = np.tile(np.arange(1.0, 31.0), 10)
    lowest = lowest_mae(actual, predicted, 1.0, 1.0)
    assert lowest == pytest.approx(mean_absolute_error(actual, np.full(300, np.median(actual))), abs=1e-3)


def test_nothing_times_a_factor_reaches_no_goal() -> None:
    assert lowest_mae(np.array([0.0, 3.0] * 10), np.zeros(20), 0.05, 0.15) is None
