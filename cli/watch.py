"""What the services do right now, read from their own /metrics as Prometheus would, and shown as a live table."""

import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

import httpx
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Group
from rich.progress import Progress
from rich.table import Table

RATE_WINDOW_SECONDS = 5.0
SEGMENTS = ("high_value", "medium_high_value", "medium_value", "at_risk")

Samples = dict[str, list[tuple[dict[str, str], float]]]


def read_metrics(url: str) -> Samples:
    """All samples of a service by name; empty if it does not answer."""
    try:
        text = httpx.get(f"{url}/metrics", timeout=2).text
    except httpx.HTTPError:
        return {}
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((dict(sample.labels), float(sample.value)))
    return found


def total(samples: Samples, name: str, **labels: str) -> float:
    """Sum of the samples that carry the labels."""
    return sum(value for found, value in samples.get(name, []) if labels.items() <= found.items())


def by_label(samples: Samples, name: str, label: str) -> dict[str, int]:
    """Sums by the value of one label."""
    sums: dict[str, int] = {}
    for found, value in samples.get(name, []):
        sums[found.get(label, "")] = sums.get(found.get(label, ""), 0) + int(value)
    return {key: value for key, value in sums.items() if value}


def quantile(samples: Samples, histogram: str, share: float) -> float | None:
    """Upper bound of the bucket in which the given share of observations lies; None without observations."""
    buckets = sorted((float(labels["le"]), value) for labels, value in samples.get(f"{histogram}_bucket", []))
    if not buckets or buckets[-1][1] == 0:
        return None
    return next(bound for bound, count in buckets if count >= share * buckets[-1][1])


@dataclass
class Rate:
    """A counter's growth per second over the last seconds."""

    seen: deque[tuple[float, float]] = field(default_factory=deque)

    def update(self, value: float) -> float:
        """Add a reading; returns the rate."""
        now = time.monotonic()
        self.seen.append((now, value))
        while self.seen[0][0] < now - RATE_WINDOW_SECONDS:
            self.seen.popleft()
        first_at, first = self.seen[0]
        return (value - first) / (now - first_at) if now > first_at else 0.0


COUNTERS = {
    "ingest": ("orders accepted", "clv_ingest_events_total"),
    "features": ("features emitted", "clv_features_emitted_total"),
    "scorer": ("predictions published", "clv_predictions_published_total"),
    "sink": ("predictions stored", "clv_mongo_writes_total"),
}


@dataclass
class Watch:
    """Reads all services and draws the table."""

    urls: Mapping[str, str]
    rates: dict[str, Rate] = field(default_factory=dict)
    samples: dict[str, Samples] = field(default_factory=dict)

    def read(self) -> None:
        """Read every service once."""
        self.samples = {name: read_metrics(url) for name, url in self.urls.items()}

    def count(self, service: str) -> int:
        """The service's main counter."""
        labels = {"collection": "customers"} if service == "sink" else {}
        return int(total(self.samples.get(service, {}), COUNTERS[service][1], **labels))

    def table(self) -> Table:
        """Rates, totals and lag by service."""
        drawn = Table(title=None, box=None, pad_edge=False, padding=(0, 2))
        for heading in ("service", "does", "total", "per second", "waiting", "latency p99"):
            drawn.add_column(heading, justify="left" if heading in {"service", "does"} else "right")
        for name, (what, _) in COUNTERS.items():
            samples = self.samples.get(name, {})
            count = self.count(name)
            rate = self.rates.setdefault(name, Rate()).update(count)
            histogram = {"scorer": "clv_prediction_latency_seconds", "sink": "clv_stored_latency_seconds"}.get(name)
            latency = quantile(samples, histogram, 0.99) if histogram else None
            drawn.add_row(
                name,
                what,
                f"{count:,}",
                f"{rate:,.0f}",
                f"{int(total(samples, 'clv_consumer_lag_records')):,}",
                "" if latency is None else f"≤ {latency:g} s",
            )
        return drawn

    def view(self, progress: Progress) -> Group:
        """The progress bar, the table, and the segments under it."""
        return Group(progress, self.table(), self.segments())

    def segments(self) -> str:
        """Predictions by segment so far, and the population that the borders come from."""
        samples = self.samples.get("scorer", {})
        published = by_label(samples, "clv_predictions_published_total", "segment")
        everybody = sum(published.values()) or 1
        shares = "   ".join(f"{name} {published.get(name, 0) / everybody:.0%}" for name in SEGMENTS)
        return f"\npredictions by segment   {shares}   (population {int(total(samples, 'clv_population_customers')):,})"
