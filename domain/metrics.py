"""How good predictions of customer value are on customers whose future is known: errors, ranking, calibration,
coverage. It must never let the order of the rows, or how equal predictions happen to be sorted, change a figure."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class CalibrationBand:
    """One tenth (by default) of the customers in the order of their predictions, lowest first."""

    band: int  # 1 = lowest predictions
    customers: float  # may be a fraction: a tie across a border is shared
    predicted_mean: float
    actual_mean: float


@dataclass(frozen=True, slots=True)
class IntervalCoverage:
    """Shares of the customers; `below` + `covered` + `above` = 1."""

    covered: float  # low ≤ actual ≤ high
    below: float  # actual < low
    above: float  # actual > high
    width_mean: float


def _pair(actual: ArrayLike, predicted: ArrayLike) -> tuple[FloatArray, FloatArray]:
    pair = [np.asarray(values, dtype=np.float64) for values in (actual, predicted)]
    if pair[0].ndim != 1 or pair[0].shape != pair[1].shape:
        raise ValueError(
            f"need two equally long one-dimensional arrays, got shapes {pair[0].shape} and {pair[1].shape}"
        )
    if pair[0].size == 0:
        raise ValueError("no customers to measure")
    if not all(np.isfinite(values).all() for values in pair):
        raise ValueError("actual and predicted values must be finite")
    return pair[0], pair[1]


def mean_absolute_error(actual: ArrayLike, predicted: ArrayLike) -> float:
    """Mean of |predicted − actual|, in the unit of the values."""
    truth, guess = _pair(actual, predicted)
    return float(np.mean(np.abs(guess - truth)))


def root_mean_squared_error(actual: ArrayLike, predicted: ArrayLike) -> float:
    """√ mean of (predicted − actual)², in the unit of the values."""
    truth, guess = _pair(actual, predicted)
    return float(np.sqrt(np.mean((guess - truth) ** 2)))


def total_bias(actual: ArrayLike, predicted: ArrayLike) -> float:
    """Σ predicted / Σ actual − 1: −0.2 means a fifth too low in total. NaN where the actual total is 0 or less."""
    truth, guess = _pair(actual, predicted)
    total = float(truth.sum())
    return float(guess.sum()) / total - 1 if total > 0 else math.nan


def midranks(values: ArrayLike) -> FloatArray:
    """Ranks from 1; equal values share the mean of their ranks."""
    array = np.asarray(values, dtype=np.float64)
    _, group, size = np.unique(array, return_inverse=True, return_counts=True)
    last = np.cumsum(size)
    return np.asarray((last - (size - 1) / 2)[group], dtype=np.float64)


def band_of(predicted: ArrayLike, bands: int = 10) -> NDArray[np.int64]:
    """Which of `bands` equally large parts of the customers, by rising prediction, each is in: from 0, shape (n,).

    Customers with one prediction are in one band together."""
    ranks = midranks(predicted)
    return np.minimum(((ranks - 0.5) / len(ranks) * bands).astype(np.int64), bands - 1)


def spearman(actual: ArrayLike, predicted: ArrayLike) -> float:
    """Pearson correlation of midranks: ties share their mean rank. NaN where one side is constant."""
    truth, guess = _pair(actual, predicted)
    a, b = (ranks - ranks.mean() for ranks in (midranks(truth), midranks(guess)))
    spread = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / spread if spread > 0 else math.nan


def area_under_roc(is_active: ArrayLike, score: ArrayLike) -> float:
    """P(an active customer scores above an inactive one), a tie counting one half. NaN where one class is absent.

    `is_active` is boolean or 0/1. Mann–Whitney U by midranks.
    """
    truth, guess = _pair(np.asarray(is_active, dtype=np.float64), score)
    if not np.isin(truth, (0.0, 1.0)).all():
        raise ValueError("is_active must hold only true and false")
    positives = float(truth.sum())
    negatives = truth.size - positives
    if positives == 0 or negatives == 0:
        return math.nan
    rank_sum = float(midranks(guess)[truth == 1].sum())
    return (rank_sum - positives * (positives + 1) / 2) / (positives * negatives)


def _gain_curve(values: FloatArray, key: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Cumulative (customers, Σ values) by rising key, from (0, 0). Equal keys are one straight step: what any one order
    of the tied rows would give on average."""
    _, group, size = np.unique(key, return_inverse=True, return_counts=True)
    sums = np.bincount(group, weights=values)
    return np.concatenate(([0.0], np.cumsum(size))), np.concatenate(([0.0], np.cumsum(sums)))


def gini(actual: ArrayLike, predicted: ArrayLike) -> float:
    """Gini index of the actual values in the order of the predictions: 1 − 2 × area under the normalised gain curve.

    Tied predictions share their actual values evenly (the mean over all orders of the ties), so a constant prediction
    has 0. NaN where the actual total is 0 or less.
    """
    truth, guess = _pair(actual, predicted)
    customers, gained = _gain_curve(truth, guess)
    if gained[-1] <= 0:
        return math.nan
    return float(1 - 2 * np.trapezoid(gained, customers) / (customers[-1] * gained[-1]))


def normalised_gini(actual: ArrayLike, predicted: ArrayLike) -> float:
    """`gini` divided by that of a perfect ranking: 1 is perfect, 0 random, −1 upside down. NaN where all are equal."""
    best = gini(actual, actual)
    return gini(actual, predicted) / best if not math.isnan(best) and best > 0 else math.nan


def band_means(values: ArrayLike, predicted: ArrayLike, bands: int = 10) -> FloatArray:
    """Mean of the values in `bands` equally large parts of the customers, by rising prediction, shape (bands,).

    A border inside a group of tied predictions splits it in proportion, with its mean value on both sides.
    """
    truth, guess = _pair(values, predicted)
    if bands < 1:
        raise ValueError(f"bands must be ≥ 1, got {bands}")
    customers, summed = _gain_curve(truth, guess)
    means = np.diff(np.interp(np.linspace(0, truth.size, bands + 1), customers, summed)) / (truth.size / bands)
    return np.asarray(means, dtype=np.float64)


def calibration_table(actual: ArrayLike, predicted: ArrayLike, bands: int = 10) -> tuple[CalibrationBand, ...]:
    """Mean prediction and mean actual value in `bands` equally large parts of the customers, by rising prediction.

    Ties are shared as by band_means().
    """
    truth, guess = _pair(actual, predicted)
    rows = zip(band_means(guess, guess, bands).tolist(), band_means(truth, guess, bands).tolist(), strict=True)
    return tuple(
        CalibrationBand(band, truth.size / bands, guess_mean, truth_mean)
        for band, (guess_mean, truth_mean) in enumerate(rows, 1)
    )


def decile_mape(actual: ArrayLike, predicted: ArrayLike, bands: int = 10) -> float:
    """Mean over the bands of |predicted mean − actual mean| / |actual mean|.

    Bands whose actual mean is 0 have no relative error and are left out; NaN where no band is left.
    """
    errors = [
        abs(row.predicted_mean - row.actual_mean) / abs(row.actual_mean)
        for row in calibration_table(actual, predicted, bands)
        if row.actual_mean != 0
    ]
    return float(np.mean(errors)) if errors else math.nan


def interval_coverage(actual: ArrayLike, low: ArrayLike, high: ArrayLike) -> IntervalCoverage:
    """How often the closed interval [low, high] holds the actual value. Raises ValueError where low > high."""
    truth, bottom = _pair(actual, low)
    _, top = _pair(actual, high)
    if (bottom > top).any():
        raise ValueError(f"low > high in row {int(np.flatnonzero(bottom > top)[0])}: sort the quantiles first")
    below, above = float(np.mean(truth < bottom)), float(np.mean(truth > top))
    return IntervalCoverage(
        float(np.mean((truth >= bottom) & (truth <= top))), below, above, float(np.mean(top - bottom))
    )


@dataclass(frozen=True, slots=True)
class BandCoverage:
    """Shares of the customers of a band that lie outside their intervals."""

    band: int  # 1 = lowest predictions
    customers: float
    below: float  # actual < low
    above: float  # actual > high


def coverage_by_band(
    actual: ArrayLike, low: ArrayLike, high: ArrayLike, predicted: ArrayLike, bands: int = 10
) -> tuple[BandCoverage, ...]:
    """interval_coverage() in `bands` equally large parts of the customers, by rising prediction; ties are shared."""
    truth, bottom = _pair(actual, low)
    _, top = _pair(actual, high)
    shares = (band_means(outside, predicted, bands).tolist() for outside in (truth < bottom, truth > top))
    return tuple(
        BandCoverage(band, truth.size / bands, below, above)
        for band, (below, above) in enumerate(zip(*shares, strict=True), 1)
    )


def brier_score(is_active: ArrayLike, probability: ArrayLike) -> float:
    """Mean squared difference between a probability and what came, 0 or 1 (Brier 1950): lower is better."""
    return root_mean_squared_error(np.asarray(is_active, dtype=np.float64), probability) ** 2


def value_captured(actual: ArrayLike, predicted: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """The lift (gain, Lorenz) curve: the share of the actual total that the best-predicted share of customers brings.

    Points from (0, 0) to (1, 1), customers by falling prediction; a tie is one straight step. Empty arrays where the
    actual total is 0 or less.
    """
    truth, guess = _pair(actual, predicted)
    customers, gained = _gain_curve(truth, -guess)
    if gained[-1] <= 0:
        return np.empty(0), np.empty(0)
    return customers / customers[-1], gained / gained[-1]


def pit_histogram(below: ArrayLike, at_or_below: ArrayLike, borders: ArrayLike) -> FloatArray:
    """Share of the probability integral transform between neighbouring borders, shape (len(borders) − 1,).

    below, at_or_below: F(y−) and F(y) of each customer's forecast distribution at what came. Where they differ (a mass
    at 0: most customers spend nothing) the customer is spread evenly between them; a calibrated forecast has the width
    of each bin in it. Non-randomised PIT of Czado, Gneiting & Held (2009), equation 2.
    """
    lower, upper = _pair(below, at_or_below)
    edges = np.asarray(borders, dtype=np.float64)
    if (lower > upper).any() or (lower < 0).any() or (upper > 1).any():
        raise ValueError("F(y-) ≤ F(y) must hold, both from 0 to 1")
    width = upper - lower
    found = np.empty(edges.size)
    for place, edge in enumerate(edges):
        with np.errstate(over="ignore"):  # a width next to nothing: infinity is clipped as it should be
            spread = np.clip((edge - lower) / np.where(width > 0, width, 1.0), 0.0, 1.0)
        # A point without width lies in the bin that it closes, and at 0 in the first one.
        found[place] = np.mean(np.where(width > 0, spread, (lower <= edge) & (edge > 0)))
    return np.diff(found)
