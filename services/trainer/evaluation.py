"""How good a model is on a later period that its training never saw, beside baselines fitted on the same past. It must
never fit anything to the period that it measures, except the one constant that is named as such.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from domain.btyd import NotEnoughRepeatBuyers
from domain.metrics import (
    area_under_roc,
    decile_mape,
    interval_coverage,
    mean_absolute_error,
    normalised_gini,
    root_mean_squared_error,
    spearman,
    total_bias,
)
from services.trainer.history import Targets, TrainingSet
from services.trainer.structural import FITS, column, fit_structural

Floats = NDArray[np.float64]

MODEL = "model"
MEAN = "mean"
SPEND_RATE = "past spend rate"


class Guess(NamedTuple):
    """A model's predictions for n customers, each array (n,); `activity` ranks by likeliness to order again."""

    value: Floats
    activity: Floats
    low: Floats | None = None
    high: Floats | None = None


@dataclass(frozen=True, eq=False)
class Backtest:
    """What the model, trained as of a past day alone, said of the days from then on, and what came: one rolling origin.

    n customers: those with an order before origin_day.
    """

    origin_day: int
    """Days since 1970, UTC. Nothing from this day on was seen in training."""
    days: int
    """Length of the period that was predicted."""
    customer_ids: tuple[str, ...]
    features: Floats
    """(n, len(FEATURE_NAMES)), as they were predicted from."""
    targets: Targets
    """What came, arrays (n,)."""
    outputs: Mapping[str, Floats]
    """By OUTPUT_NAMES, each (n,)."""
    baselines: Mapping[str, Guess]
    """By name: baselines() of the same customers."""
    choices: Mapping[str, Any] = field(default_factory=dict)
    fallbacks: tuple[str, ...] | list[str] = ()
    predict: Callable[[Floats], Mapping[str, Floats]] | None = None
    """Outputs by OUTPUT_NAMES from features of shape (m, len(FEATURE_NAMES)) by the same model: feature importance
    needs it, of the latest origin alone."""

    def __len__(self) -> int:
        return len(self.customer_ids)


def measure(targets: Targets, guess: Guess) -> dict[str, float | None]:
    """MAE, RMSE, Spearman, nGini, bias, decile MAPE, AUC and, with an interval, its coverage; None is undefined."""
    actual = targets.value
    figures = {
        "mae": mean_absolute_error(actual, guess.value),
        "rmse": root_mean_squared_error(actual, guess.value),
        "spearman": spearman(actual, guess.value),
        "ngini": normalised_gini(actual, guess.value),
        "bias": total_bias(actual, guess.value),
        "decile_mape": decile_mape(actual, guess.value),
        "auc_active": area_under_roc(targets.active, guess.activity),
    }
    if guess.low is not None and guess.high is not None:
        coverage = interval_coverage(actual, guess.low, guess.high)
        figures |= {
            "coverage_p10_p90": coverage.covered,
            "share_below_p10": coverage.below,
            "share_above_p90": coverage.above,
        }
    return {name: None if np.isnan(value) else float(value) for name, value in figures.items()}


def model_guess(outputs: Mapping[str, Floats]) -> Guess:
    """Of a model's outputs by schemas.model_bundle.OUTPUT_NAMES."""
    return Guess(outputs["expected_value"], outputs["p_active"], outputs["value_p10"], outputs["value_p90"])


def baselines(held_out: TrainingSet) -> dict[str, Guess]:
    """What simpler means say of the same customers from the same past.

    The mean is that of the held-out period itself: no other constant has a lower RMSE, so it flatters the baseline.
    """
    matrix, horizon = held_out.features, held_out.horizon_days
    nobody = np.zeros(len(held_out))
    found = {MEAN: Guess(np.full(len(held_out), float(held_out.known_targets.value.mean())), nobody)}
    days = np.maximum(column(matrix, "customer_lifetime_days"), 1.0)
    rate = np.maximum(column(matrix, "monetary"), 0.0) / days * horizon
    found[SPEND_RATE] = Guess(rate, rate)
    for name in FITS:
        try:
            expected = fit_structural(held_out, name).expect(matrix, horizon)
        except (NotEnoughRepeatBuyers, ValueError):
            continue
        # A purchase model ranks by expected orders or by P(order); the former told active customers apart better.
        found[f"{name} + Gamma-Gamma"] = Guess(expected.value, expected.orders)
    return found


def guesses(held_out: TrainingSet, outputs: Mapping[str, Floats]) -> dict[str, Guess]:
    """The model's and each baseline's, by name."""
    return {MODEL: model_guess(outputs), **baselines(held_out)}


def compare(held_out: TrainingSet, outputs: Mapping[str, Floats]) -> dict[str, Any]:
    """measure() of the model and of each baseline, by name."""
    return {name: measure(held_out.known_targets, guess) for name, guess in guesses(held_out, outputs).items()}
