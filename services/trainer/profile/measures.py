"""How far predictions of a profile model are from the truth, and which of its columns they rest on. Pure; must never
look at anything but the rows that it is given.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from domain.metrics import mean_absolute_error, root_mean_squared_error

Floats = NDArray[np.float64]

SHUFFLES = 3


def r_squared(actual: Floats, predicted: Floats) -> float:
    """1 − squared errors ÷ squared deviations from the mean of `actual`; NaN where all actual values are one."""
    deviations = float(((actual - actual.mean()) ** 2).sum())
    return 1.0 - float(((predicted - actual) ** 2).sum()) / deviations if deviations > 0 else float("nan")


def measure(actual: Floats, predicted: Floats) -> dict[str, float]:
    """r2; mae and rmse in money; mape, the mean relative error over the rows that are above nothing."""
    spent = actual > 0
    mape = np.abs(predicted[spent] / actual[spent] - 1.0).mean() if spent.any() else np.nan
    return {
        "r2": r_squared(actual, predicted),
        "mae": mean_absolute_error(actual, predicted),
        "mape": float(mape),
        "rmse": root_mean_squared_error(actual, predicted),
    }


def importance(
    predict: Callable[[Floats], Floats], rows: Floats, actual: Floats, names: tuple[str, ...], seed: int
) -> dict[str, float]:
    """R² lost when a column is shuffled among the rows, the mean of a few shuffles (Breiman, Random Forests, 2001)."""
    random = np.random.default_rng(seed)
    whole = r_squared(actual, predict(rows))
    found = {}
    for place, name in enumerate(names):
        lost = []
        for _ in range(SHUFFLES):
            shuffled = rows.copy()
            shuffled[:, place] = random.permutation(rows[:, place])
            lost.append(whole - r_squared(actual, predict(shuffled)))
        found[name] = float(np.mean(lost))
    return found
