"""Gradient-boosted trees on the ratio of what happened to what the structural model expected, shrunk by a weight that a
later window chose. They must never set the level: within each window the ratios are divided by the window's own ratio,
so that a season the trees have seen is not carried into one they have not.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingRegressor

from domain.features import ENGINEERED, FEATURE_NAMES
from domain.metrics import (
    area_under_roc,
    mean_absolute_error,
    normalised_gini,
    root_mean_squared_error,
    spearman,
)
from services.trainer.history import TrainingSet
from services.trainer.structural import Expectation, Structural

Floats = NDArray[np.float64]

TARGETS = ("value", "orders", "p_active")
WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)
GAIN_MIN = 0.003
"""A weight must lower the measures of the later window by this share on average, or there are no trees."""
HARM_MAX = 0.001
"""What a single measure may grow by before it counts against a weight, HARM_WEIGHT times over."""
HARM_WEIGHT = 3.0
RATIO_MAX = 4.0
"""Largest factor that trees may ask for."""
RATIO_MIN = 0.05
"""Smallest one: no customer is written off by trees alone."""
TREES = 60
BINS = 200
"""Values of a feature that trees tell apart; scikit-learn's own limit is 255."""
FIT_ROWS_MAX = 60_000
"""Rows that trees are fitted to, evenly spread over the customers of all windows: 12 leaves need no more, and a large
shop does not wait for them."""
SUM_BITS = 24
"""Of a float32: whole multiples of a unit below 2^24 of it add up without rounding, in any order."""
FEATURE_MAX = 1e12
ACTIVE_ROWS_MIN = 300
"""Fewest customers who ordered in the windows that trees are fitted to: below, they learn noise."""
_EXPECTED_SHARE_MIN = 0.02
_INPUT_COLUMNS = len(ENGINEERED)
_YEAR_DAY = FEATURE_NAMES.index("as_of_year_day")


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
        return weighted(self.weight, tree_ratio(self.trees, matrix))


def tree_ratio(trees: HistGradientBoostingRegressor, matrix: Floats) -> Floats:
    """What the trees make of each row, bounded, shape (n,)."""
    return np.asarray(np.clip(trees.predict(tree_features(matrix)), RATIO_MIN, RATIO_MAX), dtype=np.float64)


def weighted(weight: float, ratio: Floats) -> Floats:
    """The factor that a ratio is at a weight, shape (n,)."""
    return np.asarray(1 + weight * (ratio - 1), dtype=np.float64)


NO_CORRECTION = Correction(0.0, None)


@dataclass(frozen=True, eq=False)
class Window:
    """A training set whose future is known, with what the structural model of its origin expected of it."""

    known: TrainingSet
    structural: Structural

    def __post_init__(self) -> None:
        assert self.known.targets is not None, "a window needs its targets"

    @cached_property
    def expected(self) -> Expectation:
        """Of the window's own customers."""
        return self.structural.expect(self.known.features, self.known.horizon_days)

    @cached_property
    def views(self) -> tuple["View", ...]:
        """The rows that trees are shown: each customer, and every second one once more without streaming extras."""
        every, second = slice(None), slice(None, None, 2)
        masked = without_extras(self.known.features[second])
        return (
            View(every, self.known.features, self.expected),
            View(second, masked, self.structural.expect(masked, self.known.horizon_days)),
        )

    def happened(self, target: str) -> Floats:
        """The target of TARGETS as it came, shape (n,)."""
        targets = self.known.known_targets
        return {"value": np.maximum(targets.value, 0.0), "orders": targets.orders, "p_active": targets.active}[target]


class View(NamedTuple):
    """Rows of a window as trees are shown them."""

    rows: slice
    """Whose rows of the window they are."""
    features: Floats
    expected: Expectation

    def thinned(self, step: int) -> "View":
        """Each step-th of them."""
        each = slice(None, None, step)
        place = slice(None, None, step * (self.rows.step or 1))
        return View(place, self.features[each], Expectation(*(column[each] for column in self.expected)))


class Shown(NamedTuple):
    """What trees are fitted to."""

    views: list[tuple[Window, View]]
    rows: NDArray[np.float32]
    """The fitting_features() of all views, one under the other."""
    rows_whole: int
    """How many they would be without the limit."""


def shown(windows: Sequence[Window]) -> Shown:
    """The views of all windows, with at most about FIT_ROWS_MAX rows."""
    views = [(window, view) for window in windows for view in window.views]
    whole = sum(len(view.features) for _, view in views)
    step = -(-whole // FIT_ROWS_MAX) or 1
    thinned = [(window, view.thinned(step)) for window, view in views]
    return Shown(thinned, fitting_features(np.concatenate([view.features for _, view in thinned])), whole)


def without_extras(matrix: Floats) -> Floats:
    """The rows as a what-if call gives them: all streaming extras missing."""
    masked = matrix.copy()
    masked[:, _INPUT_COLUMNS:] = np.nan
    return masked


def fit_trees(windows: Sequence[Window], targets: Sequence[str] = TARGETS) -> dict[str, HistGradientBoostingRegressor]:
    """Trees for each target on the ratio to the expectation."""
    if not targets:
        return {}
    views, rows, rows_whole = shown(windows)
    found = {}
    for target in targets:
        parts = [_ratios(window, target, view) for window, view in views]
        ratio, weight = (np.concatenate(column) for column in zip(*parts, strict=True))
        found[target] = fit_exactly(new_trees(rows_whole), rows, ratio, weight)
    return found


def fit_exactly(
    trees: HistGradientBoostingRegressor, rows: NDArray[np.float32], ratio: Floats, weight: Floats
) -> HistGradientBoostingRegressor:
    """Fit to fitting_features(), and make the trees say bit by bit what the converted ones say in 32 bits.

    Thresholds become float32: a value that lies between a threshold and its rounded self would take another branch.
    Leaves become multiples of one unit so large that no sum of them is ever rounded.
    """
    trees.fit(rows, ratio, sample_weight=weight)
    predictors = [tree for (tree,) in trees._predictors]
    bound = float(np.abs(trees._baseline_prediction).max())
    bound += sum(float(np.abs(tree.nodes["value"][tree.nodes["is_leaf"] > 0]).max()) for tree in predictors)
    unit = 2.0 ** (np.ceil(np.log2(max(bound, 1e-30))) + 1 - SUM_BITS)
    trees._baseline_prediction = np.round(trees._baseline_prediction / unit) * unit
    for tree in predictors:
        tree.nodes["num_threshold"] = tree.nodes["num_threshold"].astype(np.float32)
        tree.nodes["value"] = np.round(tree.nodes["value"] / unit) * unit
    return trees


def fitting_features(matrix: Floats) -> NDArray[np.float32]:
    """tree_features() to fit to, each column brought down to at most BINS values, which is all that trees tell apart.

    Scikit-learn would find the bins itself, but needs seconds for it where rows have weights. A column without any
    value is a constant, so that no tree asks for it; so is the day of the year, of which a few windows are no sample.
    """
    rows = tree_features(matrix)
    rows[:, _YEAR_DAY] = 0.0
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


def new_trees(rows_whole: int, **settings: Any) -> HistGradientBoostingRegressor:
    """Small, slow-learning trees: of each ensemble the scorer pays for every tree on every row.

    rows_whole: what there is to learn from, of which a leaf has a 400th or more, although not all may be shown."""
    return HistGradientBoostingRegressor(
        **({"loss": "squared_error"} | settings),
        max_iter=TREES,
        learning_rate=0.06,
        max_leaf_nodes=12,
        min_samples_leaf=max(30, rows_whole // 400),
        l2_regularization=1.0,
        early_stopping=False,
        random_state=0,
    )


def _ratios(window: Window, target: str, view: View) -> tuple[Floats, Floats]:
    """(ratio, weight): weighted by the expectation, so that the mean of ratio × expectation is what came."""
    expected = getattr(view.expected, target)
    happened = window.happened(target)[view.rows]
    floor = max(_EXPECTED_SHARE_MIN * float(expected.mean()), 1e-9)
    expected = np.maximum(expected, floor)
    level = happened.sum() / expected.sum() if happened.sum() > 0 else 1.0
    return happened / expected / level, expected / expected.mean()


def choose_weight(trees: HistGradientBoostingRegressor, later: Window, target: str) -> tuple[float, dict[str, float]]:
    """The weight with the most gain on a window that the trees have not seen, and the gain of each over weight 0.

    The gain is the mean fall of the logarithms of all measures, less what any one of them grows; totals are made equal
    first, since the trees do not set them."""
    expected, happened = getattr(later.expected, target), later.happened(target)
    ratio = tree_ratio(trees, later.known.features)
    base = _measures(target, happened, expected)
    gains = {}
    for weight in WEIGHTS:
        change = _measures(target, happened, expected * weighted(weight, ratio)) - base
        gains[weight] = float(-change.mean() - HARM_WEIGHT * max(0.0, change.max() - HARM_MAX))
    best = max(WEIGHTS, key=lambda weight: gains[weight])
    chosen = best if gains[best] >= GAIN_MIN else 0.0
    return chosen, {f"{weight:g}": round(gain, 6) for weight, gain in gains.items()}


def _measures(target: str, happened: Floats, guess: Floats) -> Floats:
    """Logarithms of what should be small, with the guess scaled to the right total."""
    guess = guess * (happened.sum() / max(float(guess.sum()), 1e-12))
    if target == "p_active":
        found = [log_loss(happened, guess), 1.0 - area_under_roc(happened, guess)]
    else:
        found = value_measures(happened, guess)
    return np.asarray(np.log(np.maximum(np.nan_to_num(np.array(found), nan=1.0), 1e-9)), dtype=np.float64)


def value_measures(happened: Floats, guess: Floats) -> list[float]:
    """MAE, RMSE, 1 − Spearman, 1 − nGini."""
    return [
        mean_absolute_error(happened, guess),
        root_mean_squared_error(happened, guess),
        1.0 - spearman(happened, guess),
        1.0 - normalised_gini(happened, guess),
    ]


def log_loss(happened: Floats, probability: Floats) -> float:
    """Mean negative log probability of what happened (0 or 1), a proper score; certainty is bounded at 1e-6."""
    p = np.clip(probability, 1e-6, 1 - 1e-6)
    return -float(np.mean(happened * np.log(p) + (1 - happened) * np.log(1 - p)))
