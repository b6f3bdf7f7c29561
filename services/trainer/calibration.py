"""What the windows of the past say about the size of predictions: a factor on each, by how large it is, and how far the
totals may be moved. It must never believe more of a factor than the windows' own noise allows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from domain.metrics import band_of, mean_absolute_error, root_mean_squared_error

Floats = NDArray[np.float64]

BANDS = 10
"""Equally large groups of customers by prediction, each with a factor of its own: the deciles that are reported."""
PRIOR_CUSTOMERS = 12
"""A band's factor is drawn towards that of all as if so many more customers had ordered in it just as expected."""
PERSISTENCE = 0.5
"""How much of what earlier windows were too low or high by is expected of the days to come. Windows are of a younger
shop and of other seasons: over 42 simulated shops of all kinds the total erred by 17 % (mean) with all of it, 18 % with
none, and 13 % with half."""
SEASONS_SEEN_DAYS = 730
"""In a shorter history with a season, nothing is expected of the days to come: season and windows are of one and the
same year, and what came before Christmas would count twice. In five of five generated shops of one year the totals were
nearer without, in three of them by more than a tenth."""
SLOPE_MIN = 0.05
"""Of log(prediction × factor) by log(prediction): the factor never turns the order of two customers around."""
PREDICTION_MIN = 1e-12


class Sample(NamedTuple):
    """A window of the past: what was predicted for n customers, what came, and how much the window counts."""

    predicted: Floats
    happened: Floats
    weight: float


@dataclass(frozen=True)
class Curve:
    """A factor by size of the prediction: straight lines between BANDS points of (log prediction, log factor)."""

    log_predictions: tuple[float, ...]
    log_factors: tuple[float, ...]

    def __call__(self, predicted: Floats) -> Floats:
        """The predictions times their factors, (n,); 0 stays 0."""
        log = np.log(np.maximum(predicted, PREDICTION_MIN))
        factor = np.exp(np.interp(log, self.log_predictions, self.log_factors))
        return np.asarray(predicted * factor, dtype=np.float64)


class Level(NamedTuple):
    """How much larger what came was than what was predicted, over all windows."""

    log_ratio: float
    """Drawn towards 0 by the noise of the windows."""
    log_ratios: tuple[float, ...]
    """Of each window, as it was."""
    kept: float
    """Share of their mean that is believed."""


def level(samples: Sequence[Sample], persistence: float = PERSISTENCE) -> Level:
    """The ratio of totals, shrunk by the positive-part rule of James & Stein (1961) and by persistence.

    The weighted mean m of the windows' log ratios counts as persistence · m · max(0, 1 − se²/m²), where se² is the
    sampling error of a window's total over the number of windows that do not overlap (about half of them) and the
    spread between the windows over their number."""
    weights = _weights(samples)
    totals = np.array([max(float(each.happened.sum()), 1e-9) for each in samples])
    ratios = np.log(totals / np.array([max(float(each.predicted.sum()), 1e-9) for each in samples]))
    noise = np.array([float((each.happened**2).sum()) for each in samples]) / totals**2
    mean = float(weights @ ratios)
    between = float(weights @ (ratios - mean) ** 2) / max(len(ratios) - 1, 1)
    error = float(weights @ noise) / max(1.0, len(ratios) / 2) + between
    kept = persistence * max(0.0, 1.0 - error / mean**2) if mean else 0.0
    return Level(kept * mean, tuple(ratios.tolist()), kept)


def _weights(samples: Sequence[Sample]) -> Floats:
    weights = np.array([each.weight for each in samples], dtype=np.float64)
    return np.asarray(weights / weights.sum(), dtype=np.float64)


def fit_log_factors(samples: Sequence[Sample], persistence: float = PERSISTENCE) -> Floats:
    """Log factor of each band, (BANDS,), lowest predictions first; bands are those of each window's own customers.

    The total over all windows moves by level() alone; the bands differ by what they saw.
    """
    came, expected, customers = np.zeros(BANDS), np.zeros(BANDS), np.zeros(BANDS)
    for each, weight in zip(samples, _weights(samples) * len(samples), strict=True):
        band = band_of(each.predicted, BANDS)
        came += weight * np.bincount(band, each.happened, BANDS)
        expected += weight * np.bincount(band, each.predicted, BANDS)
        customers += np.bincount(band, each.happened > 0, BANDS)
    expected = np.maximum(expected, 1e-9)
    overall = came.sum() / expected.sum()
    prior = PRIOR_CUSTOMERS * expected / np.maximum(customers, 1.0)
    factor = (came + prior * overall) / (expected + prior)
    factor *= np.exp(level(samples, persistence).log_ratio) * expected.sum() / (factor * expected).sum()
    return np.asarray(np.log(np.maximum(factor, 1e-6)), dtype=np.float64)


def curve(log_factors: Floats, population: Floats) -> Curve:
    """The factors at the middles of the bands of a population's predictions, (n,); rising predictions stay rising."""
    places = np.quantile(population, (np.arange(BANDS) + 0.5) / BANDS)
    x = np.maximum.accumulate(np.log(np.maximum(places, PREDICTION_MIN))) + 1e-9 * np.arange(BANDS)
    rise = x + log_factors - SLOPE_MIN * x
    # Where it falls, half way between the highest before and the lowest after: that keeps the total about as it was.
    highest, lowest = np.maximum.accumulate(rise), np.minimum.accumulate(rise[::-1])[::-1]
    return Curve(tuple(x.tolist()), tuple(((highest + lowest) / 2 + SLOPE_MIN * x - x).tolist()))


# ---------------------------------------------------------------- totals against errors

MAE_GAIN = 0.003
"""By how much the mean absolute error should be below the baseline's."""
MAE_COST_MAX = 0.007
"""What may be paid in mean absolute error where the total would otherwise not be better than the baseline's."""
RMSE_COST_MAX = 0.0
TOTAL_GAIN = 0.02
"""Points of the total that make it better than the baseline's."""
SHARE_MIN = 0.75
"""Where more than a quarter of the total would have to be given up, it is not worth it: the total is predicted
whole."""
_STEPS = 41


class Trial(NamedTuple):
    """A window of the past for balance(): the baseline's prediction, the model's, and what came."""

    baseline: Floats
    predicted: Floats
    happened: Floats
    weight: float


class Balance(NamedTuple):
    """The share of the calibrated total that is predicted, and what it was expected to cost and win."""

    share: float
    mae_change: float
    rmse_change: float
    total_gain: float


def balance(trials: Sequence[Trial], above: float) -> Balance:
    """How much of a calibrated total to predict so that no measure falls behind the baseline's.

    above: calibrated total ÷ the baseline's at the cutoff. Where most customers buy nothing, a higher total costs mean
    absolute error even when it is right, because the median customer spends nothing. So with `above` > 1 each window is
    made alike (the model at the true total, the baseline below it by `above`), and the share is the largest whose MAE
    is below the baseline's by MAE_GAIN and whose RMSE is not above it; if that does not better the total by TOTAL_GAIN,
    the smallest that does, as far as MAE_COST_MAX allows. It is 1 where it would be below SHARE_MIN, and with
    `above` ≤ 1, when nothing speaks against the truth.
    """
    if above <= 1 or not trials:
        return Balance(1.0, 0.0, 0.0, max(0.0, 1 - above))
    shares = np.linspace(1 / above, 1.0, _STEPS)
    mae, rmse = np.zeros(_STEPS), np.zeros(_STEPS)
    weights = np.array([each.weight for each in trials]) / sum(each.weight for each in trials)
    for trial, weight in zip(trials, weights, strict=True):
        total = float(trial.happened.sum())
        model = trial.predicted * (total / max(float(trial.predicted.sum()), 1e-9))
        baseline = trial.baseline * (total / above / max(float(trial.baseline.sum()), 1e-9))
        for sums, measure in ((mae, mean_absolute_error), (rmse, root_mean_squared_error)):
            base = max(measure(trial.happened, baseline), 1e-9)
            sums[:] += weight * np.array([measure(trial.happened, model * share) / base - 1 for share in shares])
    gain = shares - 1 / above
    good = np.flatnonzero((mae <= -MAE_GAIN) & (rmse <= RMSE_COST_MAX) & (gain >= TOTAL_GAIN))
    if len(good):
        place = int(good[-1])
    else:
        wanted = int(np.searchsorted(gain, TOTAL_GAIN))
        affordable = np.flatnonzero(mae <= MAE_COST_MAX)
        place = min(wanted, int(affordable[-1]) if len(affordable) else 0, _STEPS - 1)
    if shares[place] < SHARE_MIN:
        place = _STEPS - 1
    return Balance(float(shares[place]), float(mae[place]), float(rmse[place]), float(gain[place]))
