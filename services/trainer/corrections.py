"""Gradient-boosted trees on the ratio of what happened to what the structural model expected, shrunk by a weight that a
later window chose. They must never set the level: within each window the ratios are divided by the window's own ratio,
so that a season the trees have seen is not carried into one they have not.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingRegressor

from domain.features import ENGINEERED
from domain.metrics import mean_absolute_error, root_mean_squared_error
from services.trainer.history import TrainingSet
from services.trainer.structural import Expectation, Structural

Floats = NDArray[np.float64]

TARGETS = ("value", "orders", "p_active")
WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)
GAIN_MIN = 0.002
"""A weight must lower the loss of the later window by this share, or the structural model stands alone."""
RATIO_MAX = 4.0
"""Largest factor that trees may ask for."""
RATIO_MIN = 0.05
"""Smallest one. Below, the graph's 32-bit sums of leaves, which nearly cancel there, would differ visibly."""
TREES = 60
BINS = 200
"""Values of a feature that trees tell apart; scikit-learn's own limit is 255."""
FEATURE_MAX = 1e12
ACTIVE_ROWS_MIN = 300
"""Fewest customers who ordered in the windows that trees are fitted to: below, they learn noise."""
_EXPECTED_SHARE_MIN = 0.02
_INPUT_COLUMNS = len(ENGINEERED)


def tree_features(matrix: Floats) -> NDArray[np.float32]:
    """The features as the trees see them: float32, which is what the converted trees compare, and bounded."""
    return np.clip(matrix, -FEATURE_MAX, FEATURE_MAX).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Correction:
    """A factor on one of the structural expectations; weight 0 is the factor 1."""

    weight: float
    trees: HistGradientBoostingRegressor | None

    def factor(self, matrix: Floats) -> Floats:
        """1 + weight × (ratio − 1), shape (n,)."""
        if self.trees is None or self.weight == 0:
            return np.ones(len(matrix))
        ratio = np.clip(self.trees.predict(tree_features(matrix)), RATIO_MIN, RATIO_MAX)
        return np.asarray(1 + self.weight * (ratio - 1), dtype=np.float64)


NO_CORRECTION = Correction(0.0, None)


@dataclass(frozen=True, eq=False)
class Window:
    """A training set whose future is known, with what the structural model of its origin expected of it."""

    known: TrainingSet
    structural: Structural

    def __post_init__(self) -> None:
        assert self.known.targets is not None, "a window needs its targets"

    def expected(self, matrix: Floats | None = None) -> Expectation:
        """Of the window's own customers, or of the same customers with other features."""
        rows = self.known.features if matrix is None else matrix
        return self.structural.expect(rows, self.known.horizon_days)

    def happened(self, target: str) -> Floats:
        """The target of TARGETS as it came, shape (n,)."""
        targets = self.known.known_targets
        return {"value": np.maximum(targets.value, 0.0), "orders": targets.orders, "p_active": targets.active}[target]


def without_extras(matrix: Floats) -> Floats:
    """The rows as a what-if call gives them: all streaming extras missing."""
    masked = matrix.copy()
    masked[:, _INPUT_COLUMNS:] = np.nan
    return masked


def fit_trees(windows: Sequence[Window], target: str) -> HistGradientBoostingRegressor:
    """Trees on the ratio to the expectation. Every second customer is shown once more without streaming extras."""
    parts = [_ratios(window, target, rows) for window in windows for rows in _views(window)]
    matrix, ratio, weight = (np.concatenate(column) for column in zip(*parts, strict=True))
    return fit_exactly(new_trees(len(ratio)), matrix, ratio, weight)


def fit_exactly(
    trees: HistGradientBoostingRegressor, matrix: Floats, ratio: Floats, weight: Floats
) -> HistGradientBoostingRegressor:
    """Fit, and round each threshold to float32, as the converted trees have it: a value that lies between a threshold
    and its rounded self would take another branch in the graph than in scikit-learn."""
    trees.fit(fitting_features(matrix), ratio, sample_weight=weight)
    for (tree,) in trees._predictors:
        tree.nodes["num_threshold"] = tree.nodes["num_threshold"].astype(np.float32)
    return trees


def fitting_features(matrix: Floats) -> NDArray[np.float32]:
    """tree_features() to fit to, each column brought down to at most BINS values, which is all that trees tell apart.

    Scikit-learn would find the bins itself, but needs seconds for it where rows have weights. A column without any
    value is a constant, so that no tree asks for it.
    """
    rows = tree_features(matrix)
    for place in range(rows.shape[1]):
        there = ~np.isnan(rows[:, place])
        values = rows[there, place]
        if not len(values):
            rows[:, place] = 0.0
            continue
        distinct = np.unique(values)
        if len(distinct) > BINS:
            levels = np.linspace(0, 1, BINS)
            distinct = np.unique(np.quantile(values, levels, method="lower"))
            rows[there, place] = distinct[np.searchsorted(distinct, values, side="right") - 1]
    return rows


def new_trees(rows: int, **settings: Any) -> HistGradientBoostingRegressor:
    """Small, slow-learning trees: of each ensemble the scorer pays for every tree on every row."""
    return HistGradientBoostingRegressor(
        **({"loss": "squared_error"} | settings),
        max_iter=TREES,
        learning_rate=0.06,
        max_leaf_nodes=12,
        min_samples_leaf=max(30, rows // 400),
        l2_regularization=1.0,
        early_stopping=False,
        random_state=0,
    )


def _views(window: Window) -> tuple[tuple[slice, Floats], tuple[slice, Floats]]:
    matrix = window.known.features
    every, second = slice(None), slice(None, None, 2)
    return (every, matrix), (second, without_extras(matrix[second]))


def _ratios(window: Window, target: str, view: tuple[slice, Floats]) -> tuple[Floats, Floats, Floats]:
    """(features, ratio, weight): weighted by the expectation, so that the mean of ratio × expectation is what came."""
    rows, matrix = view
    expected = getattr(window.expected(matrix), target)
    happened = window.happened(target)[rows]
    floor = max(_EXPECTED_SHARE_MIN * float(expected.mean()), 1e-9)
    expected = np.maximum(expected, floor)
    level = happened.sum() / expected.sum() if happened.sum() > 0 else 1.0
    return matrix, happened / expected / level, expected / expected.mean()


def choose_weight(trees: HistGradientBoostingRegressor, later: Window, target: str) -> tuple[float, dict[str, float]]:
    """The weight with the lowest loss on a window that the trees have not seen, and the loss of each relative to 0."""
    expected, happened = getattr(later.expected(), target), later.happened(target)
    losses = {}
    for weight in WEIGHTS:
        guess = expected * Correction(weight, trees).factor(later.known.features)
        losses[weight] = _loss(target, happened, guess)
    relative = {weight: _relative(loss, losses[0.0]) for weight, loss in losses.items()}
    best = min(WEIGHTS, key=lambda weight: relative[weight])
    chosen = best if relative[best] <= 1 - GAIN_MIN else 0.0
    return chosen, {f"{weight:g}": round(loss, 6) for weight, loss in relative.items()}


def _loss(target: str, happened: Floats, guess: Floats) -> tuple[float, ...]:
    if target == "p_active":
        return (log_loss(happened, guess),)
    return mean_absolute_error(happened, guess), root_mean_squared_error(happened, guess)


def log_loss(happened: Floats, probability: Floats) -> float:
    """Mean negative log probability of what happened (0 or 1), a proper score; certainty is bounded at 1e-6."""
    p = np.clip(probability, 1e-6, 1 - 1e-6)
    return -float(np.mean(happened * np.log(p) + (1 - happened) * np.log(1 - p)))


def _relative(loss: tuple[float, ...], base: tuple[float, ...]) -> float:
    return float(np.mean([part / whole if whole > 0 else 1.0 for part, whole in zip(loss, base, strict=True)]))
