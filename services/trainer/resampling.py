"""How sure a figure of quality is: the same figures on customers drawn anew, with replacement, a few hundred times. It
must never draw at random without its seed, nor let a figure differ from domain.metrics on the same draw."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from services.trainer.evaluation import Guess
from services.trainer.history import Targets

Floats = NDArray[np.float64]

REPLICATES = 500
ROWS_MAX = 25_000
"""Customers that are drawn from; of more every k-th."""
LEVEL = 0.95
"""Of the percentile intervals (Efron & Tibshirani 1993, chapter 13)."""
BANDS = 10

ERRORS, RANKS = ("mae", "rmse", "bias"), ("spearman", "ngini", "decile_mape")
FIGURES = (*ERRORS, *RANKS, "auc_active")
HIGHER_IS_BETTER = frozenset({"spearman", "ngini", "auc_active"})
"""Of FIGURES; of the others less is better, of bias less in size."""


class _Ranking:
    """Customers by rising score, equal scores as one group: sums by group of any weights."""

    def __init__(self, score: Floats) -> None:
        self.scores, self.group = np.unique(score, return_inverse=True)

    def sums(self, values: Floats) -> Floats:
        """Of the values by group, ascending."""
        return np.asarray(np.bincount(self.group, values, minlength=len(self.scores)), dtype=np.float64)


def _from_zero(sums: Floats) -> Floats:
    """Running sums, shape (groups + 1,): each group goes from one entry to the next."""
    found = np.empty(len(sums) + 1)
    found[0] = 0.0
    np.cumsum(sums, out=found[1:])
    return found


def _halfway(running: Floats) -> Floats:
    """The running sum in the middle of each group: ties share evenly."""
    return np.asarray((running[:-1] + running[1:]) / 2, dtype=np.float64)


class Draw:
    """A draw of the customers, as how often each of them is in it, with what all guesses need of it."""

    def __init__(self, weights: Floats, targets: Targets, by_value: _Ranking) -> None:
        self.weights = weights
        self.count = float(weights.sum())
        self.values = weights * targets.value
        self.total = float(self.values.sum())
        self.active = weights * targets.active
        groups, sums = by_value.sums(weights), by_value.sums(self.values)
        # The midrank of a group is the middle of its running sum and a half, the mean rank half the count and a half.
        ranks = _halfway(_from_zero(groups)) - self.count / 2
        self.rank_squares = float(groups @ ranks**2)
        self.ranks = weights * ranks[by_value.group]
        self.gini_best = self.gini(groups, _from_zero(sums))

    def gini(self, groups: Floats, running: Floats) -> float:
        """Of domain.metrics, from the weights and the running sums of the values of groups by rising score."""
        if self.total <= 0:
            return math.nan
        return 1 - 2 * float(groups @ _halfway(running)) / (self.count * self.total)


class Judged:
    """A guess, sorted once, whose figures on any draw are quick."""

    def __init__(self, targets: Targets, guess: Guess) -> None:
        self.by_value, self.by_activity = _Ranking(guess.value), _Ranking(guess.activity)
        error = guess.value - targets.value
        columns = [np.abs(error), error**2, guess.value]
        if guess.low is not None and guess.high is not None:
            columns += [targets.value < guess.low, targets.value > guess.high]
        self.has_interval = len(columns) > 3
        self.columns: Floats = np.ascontiguousarray(np.array(columns, dtype=np.float64))

    def figures(self, draw: Draw) -> tuple[dict[str, float], Floats]:
        """FIGURES (and coverage, where there is an interval) and the mean actual value by band; NaN is undefined."""
        means = (self.columns @ draw.weights / draw.count).tolist()
        groups = self.by_value.sums(draw.weights)
        customers, happened = _from_zero(groups), _from_zero(self.by_value.sums(draw.values))
        said = _from_zero(groups * self.by_value.scores)
        predicted, actual = _bands(customers, said), _bands(customers, happened)
        known = actual != 0
        relative = np.abs(predicted - actual)[known] / np.abs(actual)[known]
        found = {
            "mae": means[0],
            "rmse": math.sqrt(means[1]),
            "bias": means[2] * draw.count / draw.total - 1 if draw.total > 0 else math.nan,
            "spearman": self._spearman(draw, groups, _halfway(customers) - draw.count / 2),
            "ngini": draw.gini(groups, happened) / draw.gini_best if draw.gini_best > 0 else math.nan,
            "auc_active": self._auc(draw),
            "decile_mape": float(relative.mean()) if known.any() else math.nan,
        }
        if self.has_interval:
            below, above = means[3:]
            found |= {"coverage_p10_p90": 1 - below - above, "share_below_p10": below, "share_above_p90": above}
        return found, actual

    def _spearman(self, draw: Draw, groups: Floats, ranks: Floats) -> float:
        spread = math.sqrt(float(groups @ ranks**2) * draw.rank_squares)
        return float(ranks @ self.by_value.sums(draw.ranks)) / spread if spread > 1e-6 else math.nan

    def _auc(self, draw: Draw) -> float:
        positive = self.by_activity.sums(draw.active)
        negative = self.by_activity.sums(draw.weights) - positive
        pairs = float(positive.sum() * negative.sum())
        return float(positive @ _halfway(_from_zero(negative))) / pairs if pairs > 0 else math.nan


def _bands(customers: Floats, running: Floats) -> Floats:
    """Means in BANDS equally large parts, both given as running sums; a group across a border is shared."""
    borders = np.arange(BANDS + 1) * (customers[-1] / BANDS)
    return np.asarray(np.diff(np.interp(borders, customers, running)) / (customers[-1] / BANDS), dtype=np.float64)


@dataclass(frozen=True, eq=False)
class Resampled:
    """Figures of each guess over all draws, arrays (replicates,); mean actual values by band, (replicates, 10)."""

    figures: Mapping[str, Mapping[str, Floats]]
    bands: Mapping[str, Floats]

    def interval(self, guess: str, figure: str) -> list[float] | None:
        """[low, high] of the figure at LEVEL; None if it is undefined in too many draws."""
        return percentile_interval(self.figures[guess][figure])

    def difference(self, guess: str, other: str, figure: str) -> list[float] | None:
        """[low, high] of the guess's figure less the other's on the same draws; of bias, in size."""
        pair = [self.figures[name][figure] for name in (guess, other)]
        if figure == "bias":
            pair = [np.abs(each) for each in pair]
        return percentile_interval(pair[0] - pair[1])

    @cached_property
    def band_intervals(self) -> dict[str, list[list[float]]]:
        """[low, high] of the mean actual value of each band, by guess."""
        tails = 50 * (1 - LEVEL)
        return {name: np.percentile(each, [tails, 100 - tails], axis=0).T.tolist() for name, each in self.bands.items()}

    def drawn_in(self, whole: "Resampled", sample: "Resampled", factor: float) -> "Resampled":
        """These draws, of a sample, as draws of the whole: their distance from the sample's figure times the factor."""
        return Resampled(
            {
                name: {key: whole.figures[name][key] + factor * (each - sample.figures[name][key])
                       for key, each in figures.items()}
                for name, figures in self.figures.items()
            },
            {name: whole.bands[name] + factor * (each - sample.bands[name]) for name, each in self.bands.items()},
        )  # fmt: skip


def percentile_interval(draws: Floats) -> list[float] | None:
    """The central LEVEL of the draws; None if a twentieth of them or more is undefined."""
    known = draws[np.isfinite(draws)]
    if len(known) <= LEVEL * len(draws):
        return None
    tails = 50 * (1 - LEVEL)
    return [float(each) for each in np.percentile(known, [tails, 100 - tails])]


def resample(
    targets: Targets,
    guesses: Mapping[str, Guess],
    seed: int,
    replicates: int = REPLICATES,
    rows_max: int = ROWS_MAX,
) -> Resampled:
    """Figures of all guesses on the same draws of customers, with replacement. Raises ValueError without a customer.

    Of more than rows_max customers every k-th is drawn from. What n customers would give varies less, by the root of
    how many more they are: draws are drawn in towards the figure of all of them (Politis, Romano & Wolf 1999, 2.2).
    """
    count = len(targets.value)
    if not count:
        raise ValueError("no customers to draw from")
    step = max(1, -(-count // rows_max))
    some = Targets(targets.orders[::step], targets.value[::step])
    judged = {name: Judged(some, _thinned(guess, step)) for name, guess in guesses.items()}
    found = _drawn(some, judged, seed, replicates)
    if step == 1:
        return found
    whole = _once(targets, {name: Judged(targets, guess) for name, guess in guesses.items()})
    return found.drawn_in(whole, _once(some, judged), math.sqrt(len(some.value) / count))


def _thinned(guess: Guess, step: int) -> Guess:
    return Guess(*(None if column is None else column[::step] for column in guess))  # type: ignore[arg-type]


def _drawn(targets: Targets, judged: Mapping[str, Judged], seed: int, replicates: int) -> Resampled:
    chance, count, by_value = np.random.default_rng(seed), len(targets.value), _Ranking(targets.value)
    draws = (
        Draw(
            np.bincount(chance.integers(0, count, count, dtype=np.int32), minlength=count).astype(np.float64),
            targets,
            by_value,
        )
        for _ in range(replicates)
    )
    return _collected(judged, draws)


def _once(targets: Targets, judged: Mapping[str, Judged]) -> Resampled:
    """The customers as they are, as the only draw."""
    return _collected(judged, [Draw(np.ones(len(targets.value)), targets, _Ranking(targets.value))])


def _collected(judged: Mapping[str, Judged], draws: Iterable[Draw]) -> Resampled:
    figures: dict[str, list[dict[str, float]]] = {name: [] for name in judged}
    bands: dict[str, list[Floats]] = {name: [] for name in judged}
    for draw in draws:
        for name, each in judged.items():
            found, actual = each.figures(draw)
            figures[name].append(found)
            bands[name].append(actual)
    return Resampled(
        {name: {key: np.array([each[key] for each in rows]) for key in rows[0]} for name, rows in figures.items()},
        {name: np.array(rows) for name, rows in bands.items()},
    )
