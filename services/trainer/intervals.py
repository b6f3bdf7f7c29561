"""Quantiles of a customer's value: nothing with the probability of no order, else the expectation given an order times
the spread that was seen around it. It must never give a quantile below 0 or two quantiles in the wrong order.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingRegressor

from services.trainer.corrections import (
    WEIGHTS,
    Window,
    fit_exactly,
    new_trees,
    shown,
    tree_features,
)

Floats = NDArray[np.float64]

LEVELS = (0.1, 0.5, 0.9)
SPREAD_LEVELS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 1.0)
PROBABILITY_MIN = 1e-6
QUANTILE_RATIO_MAX = 50.0
ACTIVE_ROWS_MIN = 30


@dataclass(frozen=True, eq=False)
class Intervals:
    """`spread`: quantiles, at SPREAD_LEVELS, of value ÷ expected value among customers who ordered; ascending, ≥ 0.

    `trees` by level give quantiles of value ÷ expectation; they count with `weight`, the spread with 1 − weight.
    """

    spread: tuple[float, ...]
    weight: float = 0.0
    trees: Mapping[float, HistGradientBoostingRegressor] | None = None

    def quantiles(self, matrix: Floats, value: Floats, p_active: Floats) -> Floats:
        """Shape (n, len(LEVELS)), ascending in each row, for expectations of shape (n,)."""
        p = np.maximum(p_active, PROBABILITY_MIN)
        found = np.column_stack([self._by_spread(level, value, p) for level in LEVELS])
        if self.trees is not None and self.weight > 0:
            rows = tree_features(matrix)
            ratios = np.column_stack([self.trees[level].predict(rows) for level in LEVELS])
            bounded = np.clip(ratios, 0.0, QUANTILE_RATIO_MAX)
            found = (1 - self.weight) * found + self.weight * (value[:, None] * bounded)
        return np.sort(found, axis=1)

    def _by_spread(self, level: float, value: Floats, p: Floats) -> Floats:
        among_active = (level - (1 - p)) / p
        ratio = np.interp(among_active, SPREAD_LEVELS, self.spread)
        return np.where(among_active > 0, value / p * ratio, 0.0)


def fit_spread(windows: Sequence[Window]) -> tuple[float, ...] | None:
    """The spread over all windows; None if too few customers ordered in them."""
    ratios = []
    for window in windows:
        expected, active = window.expected, window.happened("p_active") > 0
        if_active = expected.value / np.maximum(expected.p_active, PROBABILITY_MIN)
        usable = active & (if_active > 0)
        ratios.append(window.happened("value")[usable] / if_active[usable])
    pooled = np.concatenate(ratios) if ratios else np.empty(0)
    if len(pooled) < ACTIVE_ROWS_MIN:
        return None
    return rising_from_nothing(np.quantile(pooled, SPREAD_LEVELS))


def rising_from_nothing(spread: Floats) -> tuple[float, ...]:
    """The spread with 0 at level 0, so that a quantile rises steadily from the 0 of not ordering at all: a jump there
    would make a last bit of p_active decide between nothing and much."""
    return (0.0, *(float(each) for each in spread[1:]))


def fit_quantile_trees(windows: Sequence[Window]) -> dict[float, HistGradientBoostingRegressor]:
    """Trees for each level on value ÷ expectation, weighted by the expectation."""
    views, rows, rows_whole = shown(windows)
    ratios, weights = [], []
    for window, view in views:
        expected = np.maximum(view.expected.value, 1e-9)
        ratios.append(np.minimum(window.happened("value")[view.rows] / expected, QUANTILE_RATIO_MAX))
        weights.append(expected / expected.mean())
    ratio, weight = np.concatenate(ratios), np.concatenate(weights)
    return {
        level: fit_exactly(new_trees(rows_whole, loss="quantile", quantile=level), rows, ratio, weight)
        for level in LEVELS
    }


def choose_interval_weight(
    spread: tuple[float, ...], trees: Mapping[float, HistGradientBoostingRegressor], later: Window
) -> tuple[float, dict[str, float]]:
    """The weight of the trees with the lowest pinball loss on a window they have not seen, and all losses."""
    expected, happened = later.expected, later.happened("value")
    losses = {}
    for weight in WEIGHTS:
        found = Intervals(spread, weight, trees).quantiles(later.known.features, expected.value, expected.p_active)
        losses[weight] = pinball(happened, found)
    base = losses[0.0] or 1.0
    best = min(WEIGHTS, key=lambda weight: losses[weight])
    return best, {f"{weight:g}": round(loss / base, 6) for weight, loss in losses.items()}


def pinball(happened: Floats, quantiles: Floats) -> float:
    """Mean pinball loss over LEVELS, in the unit of the values (Koenker & Bassett 1978)."""
    errors = happened[:, None] - quantiles
    levels = np.array(LEVELS)
    return float(np.mean(np.maximum(levels * errors, (levels - 1) * errors)))
