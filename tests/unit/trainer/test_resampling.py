"""Bootstrap figures against domain.metrics on rows that are really repeated, and intervals against known truths."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.trainer.evaluation import Guess, measure
from services.trainer.history import Targets
from services.trainer.resampling import (
    FIGURES,
    Draw,
    Judged,
    _Ranking,
    percentile_interval,
    resample,
)

tied = st.sampled_from([0.0, 0.0, 1.0, 2.5, 40.0, -3.0])
rows = st.lists(st.tuples(tied, st.integers(0, 3), tied, tied, st.integers(0, 4)), min_size=2, max_size=30)


def targets_of(value, orders) -> Targets:
    return Targets(np.asarray(orders, dtype=np.float64), np.asarray(value, dtype=np.float64))


@settings(deadline=None)
@given(rows)
def test_a_draw_has_the_figures_of_the_rows_it_repeats(drawn):
    value, orders, guess, activity, times = (np.array(column, dtype=np.float64) for column in zip(*drawn, strict=True))
    if times.sum() == 0:
        return
    low, high = guess - 2, guess + 2
    targets = targets_of(value, orders)
    draw = Draw(times, targets, _Ranking(value))
    found, _ = Judged(targets, Guess(guess, activity, low, high)).figures(draw)

    again = np.repeat(np.arange(len(value)), times.astype(int))
    repeated = Guess(guess[again], activity[again], low[again], high[again])
    expected = measure(targets_of(value[again], orders[again]), repeated)
    assert set(found) == set(expected)
    for name, figure in expected.items():
        if figure is None:
            assert math.isnan(found[name]), name
        else:
            assert found[name] == pytest.approx(figure, abs=1e-9), name


def shop(count: int, seed: int) -> tuple[Targets, Guess, Guess]:
    """A target, a guess that knows it roughly and one that knows it less."""
    chance = np.random.default_rng(seed)
    mean = chance.gamma(1.0, 20.0, count)
    orders = chance.poisson(mean / 20)
    value = orders * chance.gamma(4.0, 5.0, count)
    worse = mean * chance.lognormal(0, 1.0, count)
    return targets_of(value, orders), Guess(mean, mean), Guess(worse, worse)


def test_the_interval_of_the_mean_error_is_that_of_the_central_limit():
    targets, good, _ = shop(4000, 1)
    error = np.abs(good.value - targets.value)
    low, high = resample(targets, {"good": good}, seed=3).interval("good", "mae")
    assert (low + high) / 2 == pytest.approx(error.mean(), rel=0.01)
    assert high - low == pytest.approx(2 * 1.96 * error.std() / math.sqrt(len(error)), rel=0.15)


@pytest.mark.slow
def test_intervals_hold_the_truth_about_as_often_as_they_say():
    truth = np.mean([measure(*shop(20_000, 100 + seed)[:2])["ngini"] for seed in range(3)])
    held = 0
    for seed in range(60):
        targets, good, _ = shop(400, seed)
        low, high = resample(targets, {"good": good}, seed=seed, replicates=150).interval("good", "ngini")
        held += low <= truth <= high
    assert 48 <= held <= 60  # 57 expected; below 48 has a chance of one in 10,000


def test_a_difference_is_surer_than_the_two_figures_apart():
    targets, good, bad = shop(3000, 5)
    both = resample(targets, {"good": good, "bad": bad}, seed=1)
    apart = [np.diff(both.interval(name, "rmse"))[0] for name in ("good", "bad")]
    low, high = both.difference("good", "bad", "rmse")
    assert high < 0, "the better guess has the lower error"
    assert high - low < sum(apart)


@pytest.mark.slow
def test_a_sample_of_many_customers_gives_the_interval_of_all_of_them():
    targets, good, bad = shop(12_000, 4)
    guesses = {"good": good, "bad": bad}
    every, some = (resample(targets, guesses, seed=2, rows_max=rows) for rows in (12_000, 3_000))
    for figure in ("mae", "ngini", "spearman", "auc_active", "bias"):
        for pair in (
            [each.interval("good", figure) for each in (every, some)],
            [each.difference("good", "bad", figure) for each in (every, some)],
        ):
            (low, high), (other_low, other_high) = pair
            assert other_high - other_low == pytest.approx(high - low, rel=0.35), figure
            assert abs((other_low + other_high) - (low + high)) < high - low, figure
    widths = [np.diff(each.band_intervals["good"], axis=1).mean() for each in (every, some)]
    assert widths[1] == pytest.approx(widths[0], rel=0.3)


def test_the_same_seed_gives_the_same_intervals_and_another_one_others():
    targets, good, _ = shop(200, 2)
    first, again, other = (resample(targets, {"g": good}, seed=seed, replicates=50) for seed in (7, 7, 8))
    for figure in FIGURES:
        assert first.interval("g", figure) == again.interval("g", figure)
    assert first.interval("g", "mae") != other.interval("g", "mae")


def test_what_is_undefined_has_no_interval():
    targets = targets_of([0.0, 0.0, 0.0], [0, 0, 0])
    found = resample(targets, {"g": Guess(np.ones(3), np.ones(3))}, seed=1, replicates=20)
    assert found.interval("g", "mae") == [1.0, 1.0]
    for figure in ("bias", "ngini", "spearman", "auc_active", "decile_mape"):
        assert found.interval("g", figure) is None


def test_an_interval_is_not_made_of_the_few_draws_in_which_it_is_defined():
    draws = np.arange(100.0)
    assert percentile_interval(draws) == pytest.approx([2.475, 96.525])
    draws[:5] = np.nan
    assert percentile_interval(draws) is None


def test_nobody_cannot_be_drawn():
    with pytest.raises(ValueError, match="no customers"):
        resample(targets_of([], []), {}, seed=1)
