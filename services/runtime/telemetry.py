"""Every metric of the product: name, kind, unit, meaning and labels in one typed list, which the docs are made from.

A metric is registered with Prometheus at its first use, so that a service exposes its own metrics alone.
"""

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


METRICS: list[Metric] = []
"""All declared metrics, in the order of this file."""


def _declare(metric: Metric) -> Metric:
    METRICS.append(metric)
    return metric


UP = _declare(
    Metric("gauge", "all", "clv_service_info", "1", "Always 1; the labels say what runs.", ("service", "version"))
)
DEAD_LETTERS = _declare(
    Metric(
        "counter",
        "all",
        "clv_dead_letters_total",
        "messages",
        "Messages sent to the dead-letter topic.",
        ("service", "reason"),
    )
)
CONSUMER_LAG = _declare(
    Metric(
        "gauge",
        "all",
        "clv_consumer_lag_records",
        "records",
        "Records between the last processed and the end of the partition.",
        ("topic", "partition"),
    )
)
RECORDS_PROCESSED = _declare(
    Metric(
        "counter",
        "all",
        "clv_records_processed_total",
        "records",
        "Input records whose effects were acknowledged.",
        ("topic",),
    )
)
BATCH_SECONDS = _declare(
    Metric(
        "histogram",
        "all",
        "clv_batch_seconds",
        "seconds",
        "Time from fetching a batch to committing its offsets.",
        ("service",),
    )
)
COMMIT_FAILURES = _declare(
    Metric(
        "counter",
        "all",
        "clv_commit_failures_total",
        "commits",
        "Offset commits that failed because the group rebalanced; the records come again.",
        ("service",),
    )
)
INGEST_EVENTS = _declare(
    Metric(
        "counter",
        "ingest",
        "clv_ingest_events_total",
        "events",
        "Events judged valid and written to orders.",
        ("via", "event_type"),
    )
)
INGEST_HTTP_REQUESTS = _declare(
    Metric("counter", "ingest", "clv_ingest_http_requests_total", "requests", "HTTP requests answered.", ("status",))
)
INGEST_HTTP_SECONDS = _declare(
    Metric(
        "histogram",
        "ingest",
        "clv_ingest_http_seconds",
        "seconds",
        "Time to answer an HTTP request, Kafka acknowledgement included.",
    )
)
FEATURES_EMITTED = _declare(
    Metric(
        "counter",
        "features",
        "clv_features_emitted_total",
        "messages",
        "Feature messages acknowledged by Kafka.",
        ("cause",),
    )
)
FEATURES_REPLAYED = _declare(
    Metric(
        "counter",
        "features",
        "clv_features_replayed_total",
        "records",
        "Records at or below the replay guard: emitted again, not applied again.",
    )
)
FEATURES_HOLES = _declare(
    Metric(
        "counter",
        "features",
        "clv_features_holes_total",
        "chunks",
        "Chunks refused because they began after the next expected offset.",
        ("partition",),
    )
)
FEATURES_STALE_CHUNKS = _declare(
    Metric(
        "counter",
        "features",
        "clv_features_stale_chunks_total",
        "chunks",
        "Chunks dropped because their partition had been revoked.",
    )
)
FEATURES_FENCED = _declare(
    Metric(
        "counter",
        "features",
        "clv_features_fenced_total",
        "writes",
        "Chunks and refresh slices dropped because another worker had taken over the partition.",
        ("partition",),
    )
)
FEATURES_CUSTOMERS = _declare(
    Metric("gauge", "features", "clv_features_customers", "customers", "Customers in the local table.", ("partition",))
)
FEATURES_WATERMARK = _declare(
    Metric(
        "gauge",
        "features",
        "clv_features_watermark_seconds",
        "seconds",
        "Latest occurred_at seen, as Unix time.",
        ("partition",),
    )
)
FEATURES_RECOVERED = _declare(
    Metric(
        "counter",
        "features",
        "clv_features_recovered_rows_total",
        "rows",
        "Changelog rows read to recover local state.",
    )
)
FEATURES_STANDBY = _declare(
    Metric(
        "counter",
        "features",
        "clv_features_standby_rows_total",
        "rows",
        "Changelog rows read to keep copies of other workers' state.",
    )
)
FEATURES_REFUNDS_WAITING = _declare(
    Metric(
        "counter",
        "features",
        "clv_features_refunds_waiting_total",
        "refunds",
        "Refunds whose order was not known when they came; they wait for it.",
    )
)
FEATURES_REFUNDS_MATCHED = _declare(
    Metric(
        "counter",
        "features",
        "clv_features_refunds_matched_total",
        "refunds",
        "Refunds that had waited and whose order came.",
    )
)
FEATURES_REFUND_EXCESS = _declare(
    Metric(
        "counter",
        "features",
        "clv_features_refund_excess_total",
        "events",
        "Events by which more came to be refunded of an order than its amount.",
    )
)
FEATURES_REFRESH_AGE = _declare(
    Metric(
        "gauge",
        "features",
        "clv_features_refresh_age_seconds",
        "seconds",
        "Time since the running refresh sweep of the partition began.",
        ("partition",),
    )
)
PREDICTIONS_PUBLISHED = _declare(
    Metric(
        "counter",
        "scorer",
        "clv_predictions_published_total",
        "messages",
        "Predictions acknowledged by Kafka.",
        ("segment",),
    )
)
PREDICTION_LATENCY = _declare(
    Metric(
        "histogram",
        "scorer",
        "clv_prediction_latency_seconds",
        "seconds",
        "From the event's arrival in customer-events to the acknowledged prediction.",
    )
)
MODEL_SECONDS = _declare(
    Metric(
        "histogram",
        "scorer",
        "clv_model_seconds",
        "seconds",
        "Time of one call of the ONNX model.",
        buckets=(0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0),
    )
)
MODEL_INFO = _declare(
    Metric("gauge", "scorer", "clv_model_info", "1", "Always 1; the label is the model in use.", ("model_version",))
)
POPULATION = _declare(
    Metric("gauge", "scorer", "clv_population_customers", "customers", "Customers behind the segment thresholds.")
)
SEGMENT_THRESHOLD = _declare(
    Metric(
        "gauge",
        "scorer",
        "clv_segment_threshold",
        "currency",
        "expected_value at a percentile of the population.",
        ("percentile",),
    )
)
MONGO_WRITES = _declare(
    Metric(
        "counter",
        "sink",
        "clv_mongo_writes_total",
        "documents",
        "Documents written with majority acknowledgement.",
        ("collection",),
    )
)
MONGO_STALE = _declare(
    Metric(
        "counter",
        "sink",
        "clv_mongo_stale_writes_total",
        "documents",
        "Writes refused because MongoDB already held a newer version.",
    )
)
MONGO_RETRIES = _declare(
    Metric(
        "counter", "sink", "clv_mongo_retries_total", "batches", "Batches tried again because MongoDB did not answer."
    )
)
LETTERS_ERASED = _declare(
    Metric(
        "counter",
        "sink",
        "clv_letters_erased_total",
        "messages",
        "Dead letters taken back because a customer whom they name was erased.",
    )
)
STORED_LATENCY = _declare(
    Metric(
        "histogram",
        "sink",
        "clv_stored_latency_seconds",
        "seconds",
        "From the event's arrival in customer-events to the acknowledged MongoDB write.",
    )
)
