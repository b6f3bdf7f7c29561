"""Ridge regressions of what came on signals without a unit, with the structural expectation as offset: what a few
hundred customers can teach, where trees learn noise. They must never set the level: every window has an intercept of
its own, and it is forgotten."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

Floats = NDArray[np.float64]

RIDGE = {"orders": 100.0, "p_active": 100.0, "value": 1000.0}
"""Penalty on squared coefficients of standardised signals, in units of log-likelihood. Money is noisier than counts."""
SIGNAL_MAX = 4.0
"""Standard deviations beyond which a signal says no more."""
LINEAR_MAX = 30.0
PROBABILITY_EDGE = 1e-7
"""Probabilities lie this far from 0 and 1 where their log odds are taken."""
_ITERATIONS_MAX = 200
_SPREAD_MIN = 1e-6


class Lesson(NamedTuple):
    """A window of the past for n customers: their signals (n, k), what was expected and what came, by target (n,)."""

    signals: Floats
    expected: dict[str, Floats]
    happened: dict[str, Floats]


@dataclass(frozen=True, eq=False)
class Regression:
    """Coefficients for each target on signals that are standardised by `mean` and `spread`, all of shape (k,)."""

    mean: Floats
    spread: Floats
    coefficients: dict[str, Floats]

    def standardised(self, signals: Floats) -> Floats:
        """(n, k) → (n, k): mean 0, spread 1, bounded by SIGNAL_MAX; what is unknown is 0."""
        found = np.clip((signals - self.mean) / self.spread, -SIGNAL_MAX, SIGNAL_MAX)
        return np.where(np.isnan(found), 0.0, found)

    def linear(self, signals: Floats, target: str) -> Floats:
        """What is to be added to the log (p_active: log odds) of the expectation, (n,)."""
        return np.asarray((self.standardised(signals) * self.coefficients[target]).sum(axis=1), dtype=np.float64)


def log_odds(probability: Floats) -> Floats:
    """ln p / (1 − p), finite."""
    p = np.clip(probability, PROBABILITY_EDGE, 1.0 - PROBABILITY_EDGE)
    return np.asarray(np.log(p / (1.0 - p)), dtype=np.float64)


def fit_regression(lessons: Sequence[Lesson], targets: Sequence[str]) -> Regression:
    """Logistic regression for p_active, quasi-Poisson with a log link for orders and value (McCullagh & Nelder 1989,
    §4.3, §9.2), ridge-penalised, over all windows. Needs a window in which somebody ordered."""
    stacked = np.concatenate([lesson.signals for lesson in lessons])
    there = ~np.isnan(stacked)
    count = np.maximum(there.sum(axis=0), 1)
    mean = np.where(there, stacked, 0.0).sum(axis=0) / count
    spread = np.sqrt(np.where(there, (stacked - mean) ** 2, 0.0).sum(axis=0) / count)
    plain = Regression(mean, np.where(spread > _SPREAD_MIN, spread, 1.0 / _SPREAD_MIN), {})
    x = plain.standardised(stacked)
    window = np.concatenate([np.full(len(lesson.signals), place) for place, lesson in enumerate(lessons)])
    found = {target: _fit(x, window, lessons, target) for target in targets}
    return Regression(plain.mean, plain.spread, found)


def _fit(x: Floats, window: NDArray[np.int64], lessons: Sequence[Lesson], target: str) -> Floats:
    happened = np.concatenate([lesson.happened[target] for lesson in lessons])
    windows, logistic = len(lessons), target == "p_active"
    if logistic:
        offset, dispersion = log_odds(np.concatenate([lesson.expected[target] for lesson in lessons])), 1.0
    else:
        # In units of customers who ordered, whatever the currency: the penalty weighs the same for orders and money.
        active = sum(float((lesson.happened["p_active"] > 0).sum()) for lesson in lessons) / windows
        came = np.array([max(float(lesson.happened[target].sum()), 1e-9) for lesson in lessons])
        total = np.array([max(float(lesson.expected[target].sum()), 1e-9) for lesson in lessons])
        expected = np.concatenate([lesson.expected[target] for lesson in lessons]) / total[window] * active
        expected = np.maximum(expected, 1e-12)
        happened = happened / came[window] * active
        offset = np.log(expected)
        dispersion = max(1.0, float(np.mean((happened - expected) ** 2 / np.maximum(expected, 1e-3))))

    def loss(parameters: Floats) -> tuple[float, Floats]:
        slopes, levels = parameters[: x.shape[1]], parameters[x.shape[1] :]
        linear = np.clip(offset + x @ slopes + levels[window], -LINEAR_MAX, LINEAR_MAX / 3)
        if logistic:
            fitted = 1.0 / (1.0 + np.exp(-linear))
            value = float(np.sum(np.logaddexp(0.0, linear) - happened * linear))
        else:
            fitted = np.exp(linear)
            value = float(np.sum(fitted - happened * linear)) / dispersion
        error = (fitted - happened) / dispersion
        slope = np.concatenate([x.T @ error + RIDGE[target] * slopes, np.bincount(window, error, windows)])
        return value + 0.5 * RIDGE[target] * float(slopes @ slopes), slope

    start = np.zeros(x.shape[1] + windows)
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": _ITERATIONS_MAX})
    return np.asarray(found.x[: x.shape[1]], dtype=np.float64)
