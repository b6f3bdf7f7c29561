"""Live figures: windows that forget, ranks of freshness, and nothing that grows."""

import pytest

from schemas.http_api.live import RatePoint
from services.api.live.figures import FRESHNESS_KEPT, RATES_SECONDS, Arrivals


def test_nothing_has_come_yet() -> None:
    found = Arrivals().figures(1_000.0)
    assert (found.predictions_total, found.predictions_per_second, found.rates) == (0, 0.0, [])
    assert set(found.by_segment.values()) == {0}
    assert found.freshness_seconds_p50 is found.freshness_seconds_p99 is found.newest_prediction_seconds is None


def test_rates_and_segments_are_of_their_windows() -> None:
    arrivals = Arrivals()
    for second in range(1_000, 1_100):
        for _ in range(3):
            arrivals.take("at_risk" if second % 2 else "high_value", second - 0.5, second + 0.25)
    found = arrivals.figures(1_099.5)
    assert found.predictions_total == 300
    assert found.predictions_per_second == pytest.approx(3.0)
    assert found.by_segment == {"high_value": 90, "medium_high_value": 0, "medium_value": 0, "at_risk": 90}
    assert found.rates == [RatePoint(second=second, predictions=3) for second in range(1_000, 1_100)]
    assert found.newest_prediction_seconds == pytest.approx(0.25)
    later = arrivals.figures(1_099.5 + RATES_SECONDS)
    assert (later.rates, later.predictions_per_second, later.predictions_total) == ([], 0.0, 300)


def test_freshness_is_of_the_last_ones_and_never_negative() -> None:
    arrivals = Arrivals()
    for _ in range(FRESHNESS_KEPT):
        arrivals.take("at_risk", 0.0, 500.0)
    for number in range(1, FRESHNESS_KEPT + 1):
        arrivals.take("at_risk", 1_000.0 - number / 1_000, 1_000.0)
    found = arrivals.figures(1_000.0)
    assert found.freshness_seconds_p50 == pytest.approx(0.5)
    assert found.freshness_seconds_p99 == pytest.approx(0.99)
    arrivals.take("at_risk", 2_000.0, 1_000.0)
    assert (arrivals.figures(1_000.0).freshness_seconds_p50 or -1) >= 0
