"""What is learnt against the structural model: a ridge regression on signals without a unit, and gradient-boosted trees
on the ratio of what happened to what was expected, followed as far as later windows said. They must never set the
level: each window has its own, which is forgotten, so that a season that was seen is not carried into one that was not.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingRegressor

from domain.btyd import evenly
from domain.features import ENGINEERED, FEATURE_NAMES
from domain.metrics import (
    area_under_roc,
    mean_absolute_error,
    normalised_gini,
    root_mean_squared_error,
    spearman,
)
from services.trainer.history import TrainingSet
from services.trainer.regression import Lesson, Regression, fit_regression, log_odds
from services.trainer.signals import Scale, scale_of, signals
from services.trainer.structural import Expectation, Structural

Floats = NDArray[np.float64]

TARGETS = ("value", "orders", "p_active")
RATIO_MAX = 4.0
"""Largest factor that trees may ask for."""
RATIO_MIN = 0.05
"""Smallest one: no customer is written off by trees alone."""
LOG_FACTOR_MIN, LOG_FACTOR_MAX = float(np.log(RATIO_MIN)), float(np.log(RATIO_MAX))
"""What a regression may ask for, in logarithms (or log odds)."""
TREES_SHARE = 0.5
"""How much of what trees ask for counts as their opinion."""
LESSON_ROWS_MAX = 60_000
"""Rows of a window that a regression is shown: its two dozen coefficients need no more."""
TREES = 60
BINS = 200
"""Values of a feature that trees tell apart; scikit-learn's own limit is 255."""
FIT_ROWS_MAX = 60_000
"""Rows that trees are fitted to, evenly spread over the customers of all windows: 12 leaves need no more, and a large
shop does not wait for them."""
SUM_BITS = 24
"""Of a float32: whole multiples of a unit below 2^24 of it add up without rounding, in any order."""
FEATURE_MAX = 1e12
_EXPECTED_SHARE_MIN = 0.02
_INPUT_COLUMNS = len(ENGINEERED)
_YEAR_DAY = FEATURE_NAMES.index("as_of_year_day")


def tree_features(matrix: Floats) -> NDArray[np.float32]:
    """The features as the trees see them: float32, which is what the converted trees compare, and bounded."""
    return np.clip(matrix, -FEATURE_MAX, FEATURE_MAX).astype(np.float32)


def tree_ratio(trees: HistGradientBoostingRegressor, matrix: Floats) -> Floats:
    """What the trees make of each row, bounded, shape (n,)."""
    return np.asarray(np.clip(trees.predict(tree_features(matrix)), RATIO_MIN, RATIO_MAX), dtype=np.float64)


@dataclass(frozen=True, eq=False)
class Corrections:
    """What a regression and trees have to say against the structural expectations, and how far they are followed.

    `trees` and `weights` have one for each of TARGETS; with weight 0 an expectation stays as it is."""

    regression: Regression
    trees: Mapping[str, HistGradientBoostingRegressor]
    weights: Mapping[str, float]

    def opinions(self, matrix: Floats, expected: Expectation, horizon_days: int, scale: Scale) -> dict[str, Floats]:
        """What is to be added to the logarithm (p_active: to the log odds) of each expectation, by target, (n,).

        A mean of three opinions of which the structural model's is that nothing is: averages of unlike models err less
        than each of them (Bates & Granger 1969). What is said of orders is said of value too, whose own trees and
        regression, noisier as money is, are the other two opinions of it; that regression counts half. Of customers of
        whom more is expected than of the shop's signals.LARGEST_CUSTOMERS it counts the less, the more that is."""
        told = signals(matrix, expected, horizon_days, scale)
        linear = {
            target: np.clip(self.regression.linear(told, target), LOG_FACTOR_MIN, LOG_FACTOR_MAX) for target in TARGETS
        }
        factor = {target: 1.0 + TREES_SHARE * (tree_ratio(self.trees[target], matrix) - 1.0) for target in TARGETS}
        p_by_trees = np.minimum(expected.p_active * factor["p_active"], 1.0)
        orders = (linear["orders"] + np.log(factor["orders"])) / 3.0
        return {
            "value": (orders + np.log(factor["value"]) + 0.5 * linear["value"]) / 3.0 * known_share(expected, scale),
            "orders": orders,
            "p_active": (linear["p_active"] + log_odds(p_by_trees) - log_odds(expected.p_active)) / 3.0,
        }

    def corrected(self, matrix: Floats, expected: Expectation, horizon_days: int, scale: Scale) -> Expectation:
        """The expectations, each as far corrected as its weight says. The ONNX graph repeats it
        (corrections_graph.py)."""
        if not any(self.weights.values()):
            return expected
        return weighed(expected, self.opinions(matrix, expected, horizon_days, scale), self.weights)


def known_share(expected: Expectation, scale: Scale) -> Floats:
    """How much of an opinion of value counts, (n,): all of it among customers as there are many, less of it the larger
    the expectation is. Of the largest there is one each, and trees and regression would repeat what it did last."""
    return np.asarray(scale.large_value / np.maximum(expected.value, scale.large_value), dtype=np.float64)


def weighed(expected: Expectation, opinions: Mapping[str, Floats], weights: Mapping[str, float]) -> Expectation:
    """The expectations with opinions, each (n,), followed by these weights."""
    value, orders, p_active = expected
    if weights["value"]:
        value = value * np.exp(weights["value"] * opinions["value"])
    if weights["orders"]:
        orders = orders * np.exp(weights["orders"] * opinions["orders"])
    if weights["p_active"]:
        p_active = 1.0 / (1.0 + np.exp(-(log_odds(p_active) + weights["p_active"] * opinions["p_active"])))
    return Expectation(value, orders, p_active)


@dataclass(frozen=True, eq=False)
class Window:
    """A training set whose future is known, with what the structural model of its origin expected of it."""

    known: TrainingSet
    structural: Structural
    history_days: int
    """Before its origin, since the shop's first order."""

    def __post_init__(self) -> None:
        assert self.known.targets is not None, "a window needs its targets"

    @cached_property
    def expected(self) -> Expectation:
        """Of the window's own customers."""
        return self.structural.expect(self.known.features, self.known.horizon_days)

    @cached_property
    def scale(self) -> Scale:
        """What its customers were like."""
        return scale_of(self.known.features, self.expected, self.history_days)

    @cached_property
    def lesson(self) -> Lesson:
        """What a regression is shown of it: at most LESSON_ROWS_MAX rows, evenly spread."""
        told = signals(self.known.features, self.expected, self.known.horizon_days, self.scale)
        each = evenly(len(told), LESSON_ROWS_MAX)
        return Lesson(
            told[each],
            {target: getattr(self.expected, target)[each] for target in TARGETS},
            {target: self.happened(target)[each] for target in TARGETS},
        )

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


def fit_trees(windows: Sequence[Window]) -> dict[str, HistGradientBoostingRegressor]:
    """Trees for each target on the ratio to the expectation."""
    views, rows, rows_whole = shown(windows)
    found = {}
    for target in TARGETS:
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


def fit_corrections(windows: Sequence[Window], weights: Mapping[str, float]) -> Corrections:
    """Regression and trees for each target, fitted to these windows."""
    regression = fit_regression([window.lesson for window in windows], TARGETS)
    return Corrections(regression, fit_trees(windows), weights)


def log_measures(target: str, happened: Floats, guess: Floats) -> Floats:
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
