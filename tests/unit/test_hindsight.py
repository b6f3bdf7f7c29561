"""What `./clv bench model` says of predictions in hindsight, against sums by hand."""

import numpy as np
import pytest

from benchmarks.model import in_hindsight
from domain.metrics import mean_absolute_error


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
