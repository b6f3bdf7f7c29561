"""Percentiles and thresholds against numpy's exact quantiles and brute-force ranks; agreement with segments."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.segments import ASCENDING, HYSTERESIS_SHARE, Segment, Thresholds, classify
from schemas.segment_thresholds import PopulationSketch, encode_sketch
from services.inference.ranking import Ranking, bundle_ranking, customers_in, merged_ranking, sketch_of
from services.inference.thresholds import Board
from tests.effort import tries

amounts = st.floats(0, 1e9, allow_nan=False) | st.sampled_from([0.0, 1.0, 1.0, 10.0])
ascending3 = st.lists(amounts, min_size=3, max_size=3).map(sorted)


def rank_error(values: np.ndarray, found: float, rank: float) -> float:
    """How far `found` is from being a `rank`-quantile: distance of rank from [share below, share at or below]."""
    low, high = np.mean(values < found), np.mean(values <= found)
    return float(max(low - rank, rank - high, 0.0))


@pytest.mark.parametrize("shape", ["lognormal", "many_zeros", "uniform"])
def test_merged_thresholds_are_within_one_percent_of_exact_ranks(shape: str) -> None:
    chance = np.random.default_rng(7)
    values = {
        "lognormal": chance.lognormal(3, 1.5, 200_000),
        "many_zeros": chance.lognormal(3, 1.5, 200_000) * (chance.random(200_000) < 0.6),
        "uniform": chance.random(200_000),
    }[shape]
    ranking = merged_ranking(sketch_of(part) for part in np.array_split(values, 8))
    for rank, found in zip((0.25, 0.5, 0.75), ranking.thresholds, strict=True):
        assert rank_error(values, found, rank) <= 0.01
    probe = chance.choice(values, 2000)
    exact_low = np.searchsorted(np.sort(values), probe, side="left") / len(values) * 100
    exact_high = np.searchsorted(np.sort(values), probe, side="right") / len(values) * 100
    got = ranking.percentile(probe)
    assert (got >= exact_low - 1.5).all()  # a percentage point of the sketch, half of one between quantiles
    assert (got <= exact_high + 1.5).all()


@given(st.lists(amounts, min_size=1, max_size=150))
def test_small_populations_are_exact(values: list[float]) -> None:
    thresholds = merged_ranking([sketch_of(np.array(values))]).thresholds
    assert set(thresholds) <= set(values)
    for rank, found in zip((0.25, 0.5, 0.75), thresholds, strict=True):
        assert rank_error(np.array(values), found, rank) <= 1e-9


def segment_of_percentile(percentile: float) -> Segment:
    return ASCENDING[min(3, int(percentile // 25))]


def agrees(ranking: Ranking, values: list[float]) -> None:
    for value, percentile in zip(values, ranking.percentile(np.array(values)), strict=True):
        assert 0 <= percentile <= 100
        assert segment_of_percentile(percentile) == classify(value, ranking.thresholds)


@settings(max_examples=tries(200))
@given(st.lists(amounts, min_size=1, max_size=80), st.lists(amounts, min_size=1, max_size=30))
def test_percentile_and_segment_agree_for_live_populations(population: list[float], values: list[float]) -> None:
    ranking = merged_ranking([sketch_of(np.array(population))])
    agrees(ranking, [*values, *population, *(np.nextafter(np.array(population), -1)).tolist()])


@settings(max_examples=tries(200))
@given(ascending3, st.lists(amounts, min_size=101, max_size=101).map(sorted) | st.none(), st.lists(amounts, min_size=1))
def test_percentile_and_segment_agree_for_bundles(
    thresholds: list[float], quantiles: list[float] | None, values: list[float]
) -> None:
    ranking = bundle_ranking(Thresholds(*thresholds), quantiles)
    assert ranking.thresholds == tuple(thresholds)
    agrees(ranking, [*values, *thresholds])


@given(st.lists(amounts, min_size=1, max_size=80), st.lists(amounts, min_size=2))
def test_a_larger_value_never_ranks_lower(population: list[float], values: list[float]) -> None:
    ranks = merged_ranking([sketch_of(np.array(population))]).percentile(np.array(sorted(values)))
    assert (np.diff(ranks) >= 0).all()


@given(amounts, ascending3, st.sampled_from(ASCENDING))
def test_segment_and_percentile_differ_only_within_the_hysteresis(
    value: float, thresholds: list[float], was: Segment
) -> None:
    plain, kept = classify(value, Thresholds(*thresholds)), classify(value, Thresholds(*thresholds), was)
    assert kept in (plain, was)
    if kept != plain:
        assert any(abs(value - each) <= HYSTERESIS_SHARE * abs(each) for each in thresholds)


def test_a_bundle_with_quantiles_ranks_by_them() -> None:
    quantiles = [float(each) for each in range(101)]
    ranking = bundle_ranking(Thresholds(25.0, 50.0, 75.0), quantiles)
    np.testing.assert_allclose(
        ranking.percentile(np.array([-1.0, 0, 12.5, 60.2, 100, 1e9])), [0, 0, 12.5, 60.2, 100, 100]
    )


def test_garbage_is_no_sketch() -> None:
    for garbage in (b"", b"x", b"\0" * 200):
        with pytest.raises(ValueError, match="not a KLL"):
            customers_in(garbage)
    assert customers_in(sketch_of(np.arange(1000.0))) == 1000


def message(partition: int, model: str, values: list[float]) -> PopulationSketch:
    sketch = sketch_of(np.array(values))
    return PopulationSketch(
        partition=partition, model_version=model, customers=len(values), made_at_ms=0, sketch=sketch
    )


def test_the_board_merges_all_partitions_of_one_model() -> None:
    board = Board()
    board.take_in(encode_sketch(message(0, "m", [1.0] * 10)))
    board.take_in(encode_sketch(message(1, "m", [2.0] * 10)))
    board.take_in(encode_sketch(message(2, "other", [999.0] * 1000)))
    board.take_in(encode_sketch(message(1, "m", [3.0] * 30)))  # the newer one of partition 1
    ranking, customers = board.ranking({}, "m", 40)
    assert customers == 40
    assert ranking is not None
    assert ranking.thresholds == (3.0, 3.0, 3.0)
    assert board.ranking({}, "m", 41) == (None, 40)
    ranking, customers = board.ranking({1: message(1, "m", [0.0])}, "m", 5)  # one's own sketch is the newest
    assert customers == 11
    assert ranking is not None
    assert ranking.thresholds == (1.0, 1.0, 1.0)


def test_the_board_refuses_a_sketch_that_lies() -> None:
    honest = message(0, "m", [1.0, 2.0])
    lie = PopulationSketch(partition=0, model_version="m", customers=3, made_at_ms=0, sketch=honest.sketch)
    with pytest.raises(ValueError, match="does not hold 3"):
        Board().take_in(encode_sketch(lie))
