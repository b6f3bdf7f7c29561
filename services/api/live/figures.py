"""What has come lately: rates, segments and freshness of predictions, as counts in memory.

Plain state; the clock is an argument. Holds no customer. Must never grow beyond its windows.
"""

import math
from collections import Counter, deque
from collections.abc import Sequence
from typing import NamedTuple

from schemas.http_api.live import RatePoint
from schemas.http_api.outlook import SEGMENT_NAMES, SegmentName

RATES_SECONDS = 300
LATELY_SECONDS = 60
FRESHNESS_KEPT = 1_000


class _Second(NamedTuple):
    at: int
    by_segment: Counter[SegmentName]


class Figures(NamedTuple):
    """What is known at a time."""

    predictions_total: int
    predictions_per_second: float
    rates: list[RatePoint]
    by_segment: dict[SegmentName, int]
    freshness_seconds_p50: float | None
    freshness_seconds_p99: float | None
    newest_prediction_seconds: float | None


class Arrivals:
    """Counts predictions as they arrive."""

    def __init__(self) -> None:
        self._total = 0
        self._seconds: deque[_Second] = deque()
        self._freshness: deque[float] = deque(maxlen=FRESHNESS_KEPT)
        self._newest: float | None = None

    def take(self, segment: SegmentName, event_seconds: float, now_seconds: float) -> None:
        """One prediction came. event_seconds: when the event behind it arrived, or the sweep began with it; both clocks
        in seconds since 1970, and not of one machine: what seems to come before its event is as fresh as can be."""
        self._total += 1
        self._newest = now_seconds
        at = math.floor(now_seconds)
        if not self._seconds or self._seconds[-1].at < at:
            self._seconds.append(_Second(at, Counter()))
            self._forget(at)
        self._seconds[-1].by_segment[segment] += 1
        self._freshness.append(max(0.0, now_seconds - event_seconds))

    def figures(self, now_seconds: float) -> Figures:
        """The figures as of now."""
        at = math.floor(now_seconds)
        self._forget(at)
        lately: Counter[SegmentName] = Counter()
        for second in self._seconds:
            if second.at > at - LATELY_SECONDS:
                lately.update(second.by_segment)
        return Figures(
            predictions_total=self._total,
            predictions_per_second=lately.total() / LATELY_SECONDS,
            rates=[RatePoint(second=each.at, predictions=each.by_segment.total()) for each in self._seconds],
            by_segment={name: lately[name] for name in SEGMENT_NAMES},
            freshness_seconds_p50=_rank(self._freshness, 0.5),
            freshness_seconds_p99=_rank(self._freshness, 0.99),
            newest_prediction_seconds=None if self._newest is None else max(0.0, now_seconds - self._newest),
        )

    def _forget(self, at: int) -> None:
        while self._seconds and self._seconds[0].at <= at - RATES_SECONDS:
            self._seconds.popleft()


def _rank(values: Sequence[float], share: float) -> float | None:
    """The least value that at least this share of the values does not exceed."""
    if not values:
        return None
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]
