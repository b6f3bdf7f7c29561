"""The stability index against an independent sum over plain Python lists, and what must hold of it for any population.

It must never use continuous data alone: most features have values that many customers share, and missing ones.
"""

import math
from collections import Counter

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.drift import (
    BINS_MAX,
    SMOOTHING,
    psi,
    reference,
    reference_in,
    reference_of_quantiles,
)

amounts = st.one_of(st.sampled_from([0.0, 0.0, 1.0, 2.5, math.nan]), st.floats(-50, 1e6, allow_nan=False))
populations = st.lists(amounts, min_size=1, max_size=60).map(lambda values: np.array(values, dtype=np.float64))


def counts_of(values, known):
    return np.bincount(known.bins(values), minlength=len(known.edges) + 2)


def plain_index(before: list[float], after: list[float], edges: list[float]) -> float:
    """The definition, value by value, without numpy: which bin is the first whose edge is not below the value."""

    def bin_of(value: float) -> int:
        if value != value:
            return len(edges) + 1
        return next((at for at, edge in enumerate(edges) if value <= edge), len(edges))

    was, now = Counter(map(bin_of, before)), Counter(map(bin_of, after))
    bins = len(edges) + 2
    total = 0.0
    for each in range(bins):
        e = (was[each] / len(before) + SMOOTHING) / (1 + bins * SMOOTHING)
        a = (now[each] / len(after) + SMOOTHING) / (1 + bins * SMOOTHING)
        total += (a - e) * math.log(a / e)
    return total


@given(populations, populations)
def test_the_index_equals_its_definition_over_single_customers(before, after):
    known = reference(before)
    assert psi(known.expected, counts_of(after, known)) == pytest.approx(
        plain_index(before.tolist(), after.tolist(), list(known.edges)), abs=1e-12
    )


@given(populations)
def test_a_population_does_not_differ_from_itself_however_many_share_a_value(values):
    known = reference(values)
    assert psi(known.expected, counts_of(values, known)) == pytest.approx(0.0, abs=1e-15)
    assert psi(known.expected, counts_of(np.tile(values, 7), known)) == pytest.approx(0.0, abs=1e-15)


@given(populations, populations)
def test_the_index_is_finite_and_never_negative(before, after):
    known = reference(before)
    found = psi(known.expected, counts_of(after, known))
    assert 0.0 <= found < 2 * math.log(1 / SMOOTHING + 1)


@given(st.lists(st.integers(1, 50), min_size=2, max_size=BINS_MAX), st.data())
def test_swapping_the_two_sides_changes_nothing(before, data):
    after = data.draw(st.lists(st.integers(1, 50), min_size=len(before), max_size=len(before)))
    one, other = np.array(before), np.array(after)
    assert psi(one / one.sum(), other) == pytest.approx(psi(other / other.sum(), one))


@given(populations)
def test_a_reference_accounts_for_every_customer_once(values):
    known = reference(values)
    assert known.expected.sum() == pytest.approx(1.0)
    assert len(known.expected) == len(known.edges) + 2 <= BINS_MAX
    assert (known.expected * len(values)).round(9).tolist() == counts_of(values, known).tolist()
    assert list(known.edges) == sorted(set(known.edges))


@given(populations)
def test_a_reference_survives_json(values):
    known = reference(values)
    assert reference_in(msgspec.json.decode(msgspec.json.encode(known))) == known


def test_published_example():
    """Two bins, 50:50 became 75:25: 0.25·ln 1.5 + (−0.25)·ln 0.5 = 0.2747 (before smoothing)."""
    assert psi(np.array([0.5, 0.5]), np.array([75, 25])) == pytest.approx(0.25 * math.log(3.0), rel=1e-3)


def test_without_change_the_index_is_as_small_as_chance_makes_it():
    chance = np.random.default_rng(5)
    known = reference(chance.lognormal(3, 1, 20_000))
    found = [psi(known.expected, counts_of(chance.lognormal(3, 1, 1000), known)) for _ in range(200)]
    assert np.mean(found) == pytest.approx(
        9 * (1 / 1000 + 1 / 20_000), rel=0.1
    )  # ten bins have values, none is missing


def test_a_shift_a_spread_and_missing_values_are_each_seen():
    chance = np.random.default_rng(6)
    before = chance.normal(size=20_000)
    known = reference(before)
    gone = np.where(np.arange(20_000) % 4 == 0, math.nan, before)
    for changed in (before + 1, before * 2.5, gone):
        assert psi(known.expected, counts_of(changed, known)) > 0.25
    assert psi(known.expected, counts_of(before + 0.05, known)) < 0.1


def test_deciles_alone_tell_the_shares_of_values_that_nobody_shares():
    values = np.random.default_rng(7).gamma(2, 10, 5000)
    values[::10] = math.nan
    deciles = np.nanquantile(values, np.linspace(0, 1, 11)).tolist()
    known = reference_in({"deciles": deciles, "missing_share": 0.1})
    assert known.expected == pytest.approx([0.09] * 10 + [0.1])
    assert psi(known.expected, counts_of(values, known)) < 1e-5


def test_percentiles_tell_it_to_a_percent():
    values = np.random.default_rng(8).gamma(2, 10, 5000)
    values[:2000] = 0.0
    known = reference_of_quantiles(np.quantile(values, np.linspace(0, 1, 101)).tolist())
    assert np.abs(known.expected - counts_of(values, known) / len(values)).max() < 0.011
    assert psi(known.expected, counts_of(values, known)) < 0.01


def test_a_feature_that_training_never_saw_a_value_of():
    known = reference(np.full(50, math.nan))
    assert known == reference_in({"deciles": [], "missing_share": 1.0})
    assert psi(known.expected, np.array([0, 40])) == pytest.approx(0.0)
    assert psi(known.expected, np.array([40, 0])) > 5


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"deciles": [3.0, 1.0], "missing_share": 0.0},
        {"deciles": [1.0, None], "missing_share": 0.0},
        {"deciles": [0.0, 0.0, 1.0, 4.0], "missing_share": 0.0},
        {"edges": [1.0, 1.0], "shares": [0.5, 0.3, 0.2], "missing_share": 0.0},
        {"edges": [1.0], "shares": [0.5, 0.4, 0.1], "missing_share": 0.0},
        {"edges": [1.0], "shares": [0.5, 0.4], "missing_share": 0.0},
        {"edges": [1.0], "shares": ["a", "b"], "missing_share": 0.0},
        {"edges": list(range(20)), "shares": [1 / 21] * 21, "missing_share": 0.0},
    ],
)
def test_numbers_that_make_no_reference_are_refused(wrong):
    with pytest.raises(ValueError, match=r"."):
        reference_in(wrong)


def test_nothing_is_compared_with_nobody():
    known = reference(np.array([1.0, 2.0]))
    with pytest.raises(ValueError, match="0 customers"):
        psi(known.expected, np.zeros(len(known.expected), dtype=np.int64))
    with pytest.raises(ValueError, match="customers in"):
        psi(known.expected, np.array([1, 2]))
    with pytest.raises(ValueError, match="at least one"):
        reference(np.empty(0))
