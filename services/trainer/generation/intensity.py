"""How much is going on on each day: the shop's season, week and trend as a rate that is constant within a day, and the
exact change of time between it and a steady rate. It must never be approximated: its integral is piecewise linear.

An inhomogeneous Poisson process of rate λ g(t) is a homogeneous one of rate λ on the clock Λ(t) = ∫ g: draw on that
clock and map back by Λ⁻¹ (time change: Çinlar 1975, Introduction to Stochastic Processes, ch. 4.7; Kingman 1993,
Poisson Processes, mapping theorem, ch. 2.3; Devroye 1986, Non-Uniform Random Variate Generation, ch. VI.1.3). Nothing
is rejected, so that there is one draw an order, and the law is exact.
"""

from math import comb

import numpy as np
from numpy.typing import NDArray

from domain.features import date_of
from services.trainer.generation.spec import DAYS_PER_YEAR, ShopSpec, peak_of

Floats = NDArray[np.float64]


class Intensity:
    """A rate of 1 on average, times what each day is; time in days since the shop's start."""

    def __init__(self, per_day: Floats) -> None:
        """per_day: the rate on each day, shape (days,), at least 0, not all 0."""
        self.per_day = per_day
        self._clock = np.concatenate([[0.0], np.cumsum(per_day)])
        self._days = np.arange(len(per_day) + 1, dtype=np.float64)

    @property
    def total(self) -> float:
        """The integral over the whole time."""
        return float(self._clock[-1])

    def elapsed(self, days: Floats) -> Floats:
        """Λ(t): the integral of the rate until t; t beyond the end counts as the end."""
        return np.asarray(np.interp(days, self._days, self._clock), dtype=np.float64)

    def when(self, elapsed: Floats) -> Floats:
        """Λ⁻¹: days since the start at which so much has elapsed. Never a day of rate 0, never the end itself."""
        day = np.searchsorted(self._clock, elapsed, side="right") - 1
        day = np.minimum(day, len(self.per_day) - 1)
        rate = self.per_day[day]
        with np.errstate(divide="ignore", invalid="ignore"):
            inside = np.where(rate > 0, (elapsed - self._clock[day]) / rate, 0.0)
        return np.asarray(np.minimum(day + np.clip(inside, 0.0, 1.0), np.nextafter(day + 1.0, 0.0)))


def season(spec: ShopSpec) -> Floats:
    """Season times week of each day; 1 on average over whole years.

    With amplitude A, sharpness k and the angle θ from the peak: 1 − A + A c ((1 + cos θ) / 2)^k, where
    c = 4^k / C(2k, k) makes the mean 1. With k = 1 that is 1 + A cos θ.
    """
    days = np.arange(spec.start_day, spec.end_day)
    first = np.array([date_of(day).timetuple().tm_yday for day in days.tolist()], dtype=np.float64) - 1
    angle = 2 * np.pi * (first - peak_of(spec)) / DAYS_PER_YEAR
    k = spec.season_sharpness
    wave = ((1 + np.cos(angle)) / 2) ** k * (4**k / comb(2 * k, k))
    weekly = np.array(spec.weekly) / np.mean(spec.weekly)
    monday_is_0 = (days + 3) % 7
    return np.asarray((1 - spec.season_amplitude + spec.season_amplitude * wave) * weekly[monday_is_0])


def order_intensity(spec: ShopSpec) -> Intensity:
    """What every customer's rate is multiplied with."""
    return Intensity(season(spec) * _trend(spec, spec.order_growth_per_year))


def arrival_intensity(spec: ShopSpec) -> Intensity:
    """When new customers arrive, up to a factor."""
    per_day = season(spec) * _trend(spec, spec.growth_per_year)
    if spec.acquisition_days:
        per_day[spec.acquisition_days :] = 0.0
    if not per_day.any():  # only days that the week leaves out
        per_day[: spec.acquisition_days or None] = 1.0
    return Intensity(per_day)


def _trend(spec: ShopSpec, growth_per_year: float) -> Floats:
    years = np.arange(spec.end_day - spec.start_day) / DAYS_PER_YEAR
    return np.asarray((1 + growth_per_year) ** years)
