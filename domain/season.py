"""The season of a shop: how much more or less its customers buy in each week of the year than on average, and the clock
that follows from it. It must never see a day from the cutoff on, nor call noise a season.

On that clock, called operational time, customers buy evenly: a month before Christmas is long, one in summer is short.
By the time change of inhomogeneous Poisson processes (Daley & Vere-Jones 2003, §7.4) the models of domain.btyd hold on
it as they do on the calendar, so a silent summer no longer looks like a lost customer, and a horizon over Christmas is
longer than one after it.
"""

from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

YEAR_DAYS = 365.25
BINS = 52
BIN_DAYS = YEAR_DAYS / BINS
LEADS = 1024
"""Places of Season.lead_days: one each third of an operational day."""

HISTORY_DAYS_MIN = 358
"""A year but for a week, which the weeks beside it tell of: a shop's first order comes some days after it opens."""
REPEATS_MIN = 300
"""Fewest repeat orders that a season is read from."""
AIC_GAIN_MIN = 6.0
"""A season must explain the weeks so much better than none (Akaike's criterion, quasi-likelihood)."""
ACCIDENT_GAIN = 30.0
"""What stands against a season's AIC gain, divided by the square of the years that were seen: in a single year, an
accident of that year looks like a season."""
MULTIPLIER_MIN, MULTIPLIER_MAX = 0.1, 10.0

_SPLINES = 26
_SMOOTHNESS = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
_EDF_WEIGHT = 1.4
"""Of each degree of freedom beyond one: what is usual against overfitting (Wood 2017, §6.2.8)."""
_RIDGE, _TREND_RIDGE, _LEVEL_RIDGE = 0.05, 4.0, 1e-6
_STEPS_MAX = 30


class Season(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Buying relative to the mean of the year in BINS equal parts of it, from 1 January on; their mean is 1."""

    multipliers: tuple[float, ...]

    def __post_init__(self) -> None:
        good = len(self.multipliers) == BINS and all(
            MULTIPLIER_MIN / 2 <= each <= MULTIPLIER_MAX * 2 for each in self.multipliers
        )
        if not good or abs(sum(self.multipliers) / BINS - 1) > 1e-6:
            raise ValueError(f"a season needs {BINS} multipliers around a mean of 1")

    @property
    def surplus_days(self) -> Floats:
        """Operational minus calendar days since 1 January at each border of the parts, (BINS + 1,); 0 at both ends."""
        gained = np.cumsum((np.array(self.multipliers) - 1.0) * BIN_DAYS)
        return np.concatenate(([0.0], gained[:-1], [0.0]))

    def elapsed(self, end_days: ArrayLike, days: ArrayLike) -> Floats:
        """Operational days in the `days` calendar days before `end_days` (since some 1 January); ahead of it where
        `days` is negative, as a negative number. Shape of the broadcast arguments."""
        end, length = np.asarray(end_days, dtype=np.float64), np.asarray(days, dtype=np.float64)
        return length + self._surplus(end) - self._surplus(end - length)

    def operational(self, calendar_days: ArrayLike) -> Floats:
        """Operational days since some 1 January at so many calendar days since it, of any shape."""
        position = np.asarray(calendar_days, dtype=np.float64)
        return position + self._surplus(position)

    @property
    def lead_days(self) -> Floats:
        """Calendar minus operational days since 1 January at LEADS + 1 equally distant operational days; 0 at both
        ends. Equally distant, so that a place among them is found by arithmetic."""
        calendar = np.arange(BINS + 1) * BIN_DAYS
        operational = np.arange(LEADS + 1) * (YEAR_DAYS / LEADS)
        return np.asarray(np.interp(operational, calendar + self.surplus_days, calendar) - operational)

    def calendar(self, operational_days: Floats) -> Floats:
        """Inverse of operational(), as straight lines between the places of lead_days. Same shape."""
        if self == NO_SEASON:
            return operational_days
        leads = self.lead_days
        years = operational_days / YEAR_DAYS
        place = (years - np.floor(years)) * LEADS
        before = np.minimum(np.floor(place), LEADS - 1.0)
        part = before.astype(np.int64)
        return operational_days + leads[part] + (place - before) * np.diff(leads)[part]

    def _surplus(self, position_days: Floats) -> Floats:
        years = position_days / YEAR_DAYS
        within = (years - np.floor(years)) * YEAR_DAYS
        return np.asarray(np.interp(within, np.arange(BINS + 1) * BIN_DAYS, self.surplus_days))


NO_SEASON = Season((1.0,) * BINS)
"""Every day is like every other: its clock is the calendar's."""


class WeeklyFit(NamedTuple):
    """What a fit says: `season` is None where none was found."""

    season: Season | None
    aic_gain: float
    """Akaike's criterion without a season minus that with the best one: what it explains beyond its parameters."""
    overdispersion: float
    """Pearson's χ² by degree of freedom; 1 is Poisson's noise."""


def fit_season(first_day: int, repeats: ArrayLike, expected: ArrayLike) -> WeeklyFit:
    """The season in the repeat orders of each day since first_day (days since 1970), arrays (n,).

    expected: what a purchase model without a season expects of each day, to a factor and a trend, which are fitted
    beside it. Quasi-Poisson regression of weeks on periodic P-splines (Eilers & Marx 1996), whose smoothness Akaike's
    criterion chooses; there is no season below HISTORY_DAYS_MIN days, REPEATS_MIN orders or AIC_GAIN_MIN, and its
    logarithm is believed by gain ÷ (gain + ACCIDENT_GAIN ÷ years²).
    """
    counts, means = np.asarray(repeats, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    if counts.shape != means.shape or counts.ndim != 1:
        raise ValueError(f"need two equally long arrays, got shapes {counts.shape} and {means.shape}")
    if len(counts) < HISTORY_DAYS_MIN or counts.sum() < REPEATS_MIN:
        return WeeklyFit(None, 0.0, 1.0)
    weeks = len(counts) // 7
    skipped = len(counts) - 7 * weeks
    middle = skipped + 7 * np.arange(weeks) + 3.5
    observed, mean = (each[skipped:].reshape(weeks, 7).sum(axis=1) for each in (counts, means))
    known = mean > 0.5
    if not known.any() or np.count_nonzero(known) * 7 < HISTORY_DAYS_MIN - 30:
        return WeeklyFit(None, 0.0, 1.0)
    middle, observed, mean = middle[known], observed[known], mean[known]
    basis = _basis(_year_share(first_day, middle))
    trend = (middle - middle.mean()) / YEAR_DAYS
    plain = np.column_stack([np.ones(len(middle)), trend])
    rough = _regress(np.column_stack([plain, basis]), observed, mean, _penalty(1.0), 1.0)
    freedom = max(len(observed) - rough.edf, 5.0)
    overdispersion = max(1.0, float(np.sum((observed - rough.mean) ** 2 / rough.mean)) / freedom)
    flat = _regress(plain, observed, mean, np.diag([_LEVEL_RIDGE, _TREND_RIDGE]), overdispersion)
    aic_flat = flat.deviance + 2 * plain.shape[1]
    fits = [
        _regress(np.column_stack([plain, basis]), observed, mean, _penalty(smoothness), overdispersion)
        for smoothness in _SMOOTHNESS
    ]
    best = min(fits, key=lambda fit: fit.deviance + 2 * _EDF_WEIGHT * fit.edf)
    gain = aic_flat - best.deviance - 2 * _EDF_WEIGHT * best.edf
    years = len(counts) / YEAR_DAYS
    believed = gain / (gain + ACCIDENT_GAIN / years**2)
    season = _season(believed * best.coefficients[2:]) if gain >= AIC_GAIN_MIN else None
    return WeeklyFit(season, float(gain), overdispersion)


def _year_share(first_day: int, offsets: Floats) -> Floats:
    """Position of each day in its year, 0 to 1."""
    days = (first_day + np.floor(offsets)).astype(np.int64).astype("datetime64[D]")
    since = (days - days.astype("datetime64[Y]").astype("datetime64[D]")).astype(np.int64)
    return np.asarray((since + 0.5) / YEAR_DAYS, dtype=np.float64)


def _basis(share: Floats) -> Floats:
    """Periodic cubic B-splines at positions in [0, 1), (n, _SPLINES)."""
    position = (share % 1.0) * _SPLINES
    left = np.floor(position).astype(np.int64)
    u = position - left
    weights = ((1 - u) ** 3, 3 * u**3 - 6 * u**2 + 4, -3 * u**3 + 3 * u**2 + 3 * u + 1, u**3)
    basis = np.zeros((len(share), _SPLINES))
    for step, weight in enumerate(weights):
        basis[np.arange(len(share)), (left + step - 1) % _SPLINES] += weight / 6
    return basis


def _penalty(smoothness: float) -> Floats:
    """Of second differences around the year, and a little of everything so that the level stays identified."""
    one = np.eye(_SPLINES)
    second = np.roll(one, 1, axis=0) - 2 * one + np.roll(one, -1, axis=0)
    whole = np.zeros((_SPLINES + 2, _SPLINES + 2))
    whole[0, 0], whole[1, 1] = _LEVEL_RIDGE, _TREND_RIDGE
    whole[2:, 2:] = smoothness * second.T @ second + _RIDGE * one
    return whole


class _Regression(NamedTuple):
    coefficients: Floats
    mean: Floats
    deviance: float
    edf: float


def _regress(x: Floats, observed: Floats, offset: Floats, penalty: Floats, overdispersion: float) -> _Regression:
    """Penalised quasi-Poisson regression with a log link, by iteratively reweighted least squares."""
    coefficients: Floats = np.zeros(x.shape[1])
    coefficients[0] = np.log(max(observed.sum(), 0.5) / offset.sum())
    for _ in range(_STEPS_MAX):
        linear = np.clip(x @ coefficients, -6.0, 6.0)
        mean = offset * np.exp(linear)
        weighted = x.T * (mean / overdispersion)
        target = linear + (observed - mean) / mean
        before = coefficients
        coefficients = np.asarray(np.linalg.solve(weighted @ x + penalty, weighted @ target), dtype=np.float64)
        if np.abs(coefficients - before).max() < 1e-8:
            break
    mean = offset * np.exp(np.clip(x @ coefficients, -6.0, 6.0))
    information = (x.T * (mean / overdispersion)) @ x
    edf = float(np.trace(np.linalg.solve(information + penalty, information)))
    logs = np.where(observed > 0, observed * np.log(np.maximum(observed, 1e-9) / mean), 0.0)
    return _Regression(coefficients, mean, float(2 * np.sum(logs - (observed - mean)) / overdispersion), edf)


def _season(coefficients: Floats) -> Season:
    fine = (np.arange(BINS * 7) + 0.5) / (BINS * 7)
    parts = np.exp(_basis(fine) @ coefficients).reshape(BINS, 7).mean(axis=1)
    parts = np.clip(parts / parts.mean(), MULTIPLIER_MIN, MULTIPLIER_MAX)
    return Season(tuple((parts / parts.mean()).tolist()))
