"""The season of a shop: found where there is one, not found in noise, and its clock against a walk day by day."""

from datetime import date

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.season import BIN_DAYS, BINS, YEAR_DAYS, Season, fit_season
from tests.effort import tries

FIRST_DAY = 19_000


def season_of(amplitude: float, peak: float) -> Season:
    wave = 1 + amplitude * np.cos(2 * np.pi * ((np.arange(BINS) + 0.5) / BINS - peak))
    return Season(tuple((wave / wave.mean()).tolist()))


def counts(days: int, amplitude: float, peak: float, per_day: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(repeat orders, what is expected without a season) of a growing shop."""
    day = np.arange(FIRST_DAY, FIRST_DAY + days).astype("datetime64[D]")
    share = (day - day.astype("datetime64[Y]").astype("datetime64[D]")).astype(float) / YEAR_DAYS
    expected = per_day * np.linspace(0.5, 1.5, days)
    mean = expected * (1 + amplitude * np.cos(2 * np.pi * (share - peak)))
    return np.random.default_rng(seed).poisson(mean), 0.7 * expected


@pytest.mark.parametrize("days", [400, 800, 1100])
def test_a_season_is_found_with_its_height_and_place(days: int) -> None:
    found = fit_season(FIRST_DAY, *counts(days, 0.5, 0.9, 30.0, days))
    assert found.season is not None
    truth = np.array(season_of(0.5, 0.9).multipliers)
    assert np.abs(np.array(found.season.multipliers) - truth).max() < 0.2
    assert np.corrcoef(found.season.multipliers, truth)[0, 1] > 0.97


def test_what_a_single_year_hardly_shows_is_believed_less_than_what_three_show() -> None:
    """The height of the season that is believed, by that of the truth."""
    heights = {}
    for days in (365, 1095):
        found = [fit_season(FIRST_DAY, *counts(days, 0.25, 0.9, 3.0, seed)) for seed in range(12)]
        there = [np.ptp(np.log(each.season.multipliers)) for each in found if each.season is not None]
        heights[days] = float(np.mean(there)) / float(np.ptp(np.log(season_of(0.25, 0.9).multipliers)))
    assert heights[365] < 0.85 * heights[1095]
    assert 0.8 < heights[1095] < 1.2


def test_noise_is_hardly_ever_taken_for_a_season() -> None:
    found = [fit_season(FIRST_DAY, *counts(730, 0.0, 0.0, 5.0, seed)).season for seed in range(40)]
    assert sum(each is not None for each in found) <= 1


def test_clumped_orders_are_noise_too() -> None:
    """Twenty at a time, as after a newsletter: the weeks differ, but not by the season."""
    chance = np.random.default_rng(3)
    found = [fit_season(FIRST_DAY, 20 * chance.poisson(0.3, 730), np.full(730, 6.0)).season for _ in range(20)]
    assert sum(each is not None for each in found) <= 1


@pytest.mark.parametrize(("days", "per_day"), [(357, 30.0), (700, 0.2)])
def test_too_little_history_or_too_few_orders_have_no_season(days: int, per_day: float) -> None:
    assert fit_season(FIRST_DAY, *counts(days, 0.5, 0.9, per_day, 1)).season is None


@settings(deadline=None, max_examples=tries(60))
@given(st.floats(0, 0.9), st.floats(0, 1), st.integers(0, 365), st.integers(-900, 1500))
def test_the_clock_is_the_sum_of_the_days_it_passes(amplitude: float, peak: float, end: int, days: int) -> None:
    season = season_of(amplitude, peak)
    low, high = sorted((end - days, end))
    # A walk in steps of a hundredth of a part, none of which crosses a border between two parts.
    borders = np.arange(np.floor(low / BIN_DAYS), np.ceil(high / BIN_DAYS) + 1) * BIN_DAYS
    places = np.unique(np.clip(np.concatenate([borders, [low, high]]), low, high))
    middles = (places[1:] + places[:-1]) / 2
    part = np.floor((middles % YEAR_DAYS) / BIN_DAYS).astype(int) % BINS
    walked = float((np.array(season.multipliers)[part] * np.diff(places)).sum())
    assert season.elapsed(end, days) == pytest.approx(np.sign(days) * walked, abs=1e-6)


def test_a_whole_year_is_a_year_on_both_clocks() -> None:
    season = season_of(0.8, 0.3)
    ends = np.arange(0.0, 366.0)
    np.testing.assert_allclose(season.elapsed(ends, YEAR_DAYS), YEAR_DAYS, rtol=1e-12)


def test_the_month_before_the_peak_is_longer_than_the_one_half_a_year_later() -> None:
    season = season_of(0.5, 0.95)
    christmas = (date(2023, 12, 25) - date(2023, 1, 1)).days
    assert season.elapsed(christmas, 30) > 2 * season.elapsed(christmas - 182, 30)


@pytest.mark.parametrize("multipliers", [(1.0,) * 51, (1.0,) * 51 + (1.5,), (0.0, 2.0) * 26, (float("nan"),) * 52])
def test_what_is_no_season_is_refused(multipliers: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="multipliers"):
        Season(multipliers)


@pytest.mark.parametrize("amplitude", [0.0, 0.5, 0.85])
def test_the_calendar_gives_back_the_day_that_the_seasons_clock_was_asked_about(amplitude: float) -> None:
    season = season_of(amplitude, 0.9)
    days = np.linspace(-900.0, 900.0, 3001)
    # Where it runs slowly, a third of an operational day is two of the calendar: a line between them is not exact.
    np.testing.assert_allclose(season.calendar(season.operational(days)), days, atol=0.3)
    assert (np.diff(season.calendar(np.linspace(0.0, 800.0, 5000))) > 0).all()
