"""What a metric is: declared once, registered with Prometheus at its first use.

So a service exposes its own metrics alone. The metrics themselves are in services.runtime.telemetry.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from prometheus_client import Counter, Gauge, Histogram

LATENCY_BUCKETS_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


@dataclass(frozen=True)
class Metric:
    """A declared metric. `service` is where it is counted; "all" for every service."""

    kind: Literal["counter", "gauge", "histogram"]
    service: str
    name: str
    unit: str
    meaning: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = field(default=LATENCY_BUCKETS_SECONDS, repr=False)

    @cached_property
    def _collector(self) -> Counter | Gauge | Histogram:
        match self.kind:
            case "counter":
                return Counter(self.name, self.meaning, self.labels)
            case "gauge":
                return Gauge(self.name, self.meaning, self.labels)
        return Histogram(self.name, self.meaning, self.labels, buckets=self.buckets)

    def _child(self, labels: dict[str, str]) -> Counter | Gauge | Histogram:
        return self._collector.labels(**labels) if self.labels else self._collector

    def increment(self, **labels: str) -> Callable[[], None]:
        """What adds 1 to a counter under these labels, for where looking them up each time costs too much."""
        child = self._child(labels)
        assert isinstance(child, Counter), self.name
        return child.inc

    def observer(self, **labels: str) -> Callable[[float], None]:
        """What records an observation of a histogram under these labels, for the same."""
        child = self._child(labels)
        assert isinstance(child, Histogram), self.name
        return child.observe

    def inc(self, amount: float = 1.0, **labels: str) -> None:
        """Add to a counter or gauge."""
        child = self._child(labels)
        assert not isinstance(child, Histogram), self.name
        child.inc(amount)

    def set(self, value: float, **labels: str) -> None:
        """Set a gauge."""
        child = self._child(labels)
        assert isinstance(child, Gauge), self.name
        child.set(value)

    def observe(self, value: float, **labels: str) -> None:
        """Record one observation of a histogram."""
        child = self._child(labels)
        assert isinstance(child, Histogram), self.name
        child.observe(value)

    def forget(self) -> None:
        """Expose no sample any more, whatever its labels: for a gauge that another process exposes from now on."""
        if self.labels:
            self._collector.clear()


METRICS: list[Metric] = []
"""All declared metrics, in the order of services.runtime.telemetry."""


def declare(metric: Metric) -> Metric:
    """Add a metric to the list."""
    METRICS.append(metric)
    return metric
