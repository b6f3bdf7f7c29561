"""The histogram's edges, and the answer from sums by segment and bin."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.api.segments.sums import _Newest, bin_edges, segments_of

NEWEST = _Newest("2024-03-18", "USD", 90, (40.0, 90.0, 200.0))


@given(st.floats(0, 1e15, allow_nan=False))
def test_every_value_has_a_bin_and_edges_are_round(greatest: float) -> None:
    edges = bin_edges(greatest)
    assert edges[0] == 0.0
    assert edges[-1] > greatest
    assert edges == sorted(set(edges))
    assert 2 <= len(edges) <= 16
    for edge in edges[1:]:
        mantissa = edge / 10 ** math.floor(math.log10(edge) + 1e-9)
        assert min(abs(mantissa - each) for each in (1, 2, 5, 10)) < 1e-6


def group(segment: str, at: int, customers: int, value: float) -> dict[str, object]:
    return {
        "_id": {"segment": segment, "bin": at},
        "customers": customers,
        "value": value,
        "active": customers * 0.5,
        "historical": 10.0 * customers,
    }


def test_sums_become_shares_means_borders_and_a_distribution() -> None:
    edges = [0.0, 100.0, 200.0, 500.0]
    groups = [
        group("high_value", 2, 2, 700.0),
        group("at_risk", 0, 3, 30.0),
        group("medium_high_value", 1, 1, 150.0),
        group("medium_high_value", 0, 2, 180.0),
    ]
    found = segments_of(groups, edges, NEWEST, "2024-01-01")
    assert (found.customers, found.expected_value) == (8, 1060.0)
    assert [each.segment for each in found.segments] == ["high_value", "medium_high_value", "medium_value", "at_risk"]
    high, medium_high, medium, risk = found.segments
    assert (high.from_value, high.to_value) == (200.0, None)
    assert (medium_high.from_value, medium_high.to_value) == (90.0, 200.0)
    assert (medium.from_value, medium.to_value) == (40.0, 90.0)
    assert (risk.from_value, risk.to_value) == (None, 40.0)
    assert sum(each.share for each in found.segments) == pytest.approx(1.0)
    assert sum(each.value_share for each in found.segments) == pytest.approx(1.0)
    assert (medium_high.customers, medium_high.mean_expected_value) == (3, pytest.approx(110.0))
    assert [each.customers for each in medium_high.distribution] == [2, 1, 0]
    assert (medium.customers, medium.mean_expected_value, medium.mean_p_active) == (0, None, None)
    assert risk.mean_p_active == 0.5
    assert risk.historical_value == 30.0


def test_without_customers_all_is_nothing() -> None:
    found = segments_of([], [0.0, 1.0], _Newest(None, "EUR", None, None), None)
    assert (found.customers, found.thresholds, found.as_of, found.currency) == (0, None, None, "EUR")
    assert all(each.share == each.value_share == 0 for each in found.segments)
