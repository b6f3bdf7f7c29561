"""Every metric of the product: name, kind, unit, meaning and labels in one typed list, which the docs are made from.

A metric is registered with Prometheus at its first use, so that a service exposes its own metrics alone.
"""

from services.runtime.metric import METRICS, Metric
from services.runtime.metric import declare as _declare

__all__ = ["METRICS", "Metric"]

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
HTTP_REQUESTS = _declare(
    Metric(
        "counter",
        "all",
        "clv_http_requests_total",
        "requests",
        "HTTP requests answered, by the route's template; health and metrics are not counted.",
        ("service", "route", "status"),
    )
)
HTTP_SECONDS = _declare(
    Metric(
        "histogram",
        "all",
        "clv_http_seconds",
        "seconds",
        "Time from an HTTP request to the beginning of its answer.",
        ("service", "route"),
        (0.001, 0.0025, 0.005, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
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
MODEL_SWAPS = _declare(
    Metric("counter", "scorer", "clv_model_swaps_total", "models", "Times that another model was taken into use.")
)
REGISTRY_AWAY = _declare(
    Metric(
        "gauge",
        "scorer",
        "clv_registry_away",
        "1",
        "1 while the registry of models cannot be followed: the models at hand stay in use.",
    )
)
PREDICTIONS_KNOWN = _declare(
    Metric(
        "counter",
        "scorer",
        "clv_predictions_known_total",
        "messages",
        "Feature messages that came again after their prediction had been acknowledged: nothing is published.",
    )
)
CHALLENGER_INFO = _declare(
    Metric("gauge", "scorer", "clv_challenger_info", "1", "1 for the model on trial, if any.", ("model_version",))
)
CHALLENGER_PUBLISHED = _declare(
    Metric(
        "counter",
        "scorer",
        "clv_challenger_predictions_total",
        "messages",
        "Predictions of the model on trial that Kafka has acknowledged.",
    )
)
CHALLENGER_SKIPPED = _declare(
    Metric(
        "counter",
        "scorer",
        "clv_challenger_skipped_total",
        "messages",
        "Predictions that the model on trial did not make: it had used up its time, was set aside, or gave no number.",
        ("reason",),
    )
)
CHALLENGER_FAILURES = _declare(
    Metric(
        "counter",
        "scorer",
        "clv_challenger_failures_total",
        "failures",
        "Failures of the model on trial (set aside until there is another) or of sending its predictions.",
        ("reason",),
    )
)
DRIFT = _declare(
    Metric(
        "gauge",
        "scorer",
        "clv_feature_drift_psi",
        "1",
        "Population stability index of a feature against the training population; NaN while too few are known.",
        ("feature",),
    )
)
PREDICTION_DRIFT = _declare(
    Metric(
        "gauge",
        "scorer",
        "clv_prediction_drift_psi",
        "1",
        "Population stability index of predictions against those for the training population; NaN as above.",
        ("outcome",),
    )
)
DRIFT_CUSTOMERS = _declare(
    Metric(
        "gauge",
        "scorer",
        "clv_drift_customers",
        "customers",
        "Customers behind the stability indices: scored by the model in use within the window, each once.",
    )
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
REALISED_PREDICTIONS = _declare(
    Metric(
        "gauge",
        "sink",
        "clv_realised_predictions",
        "predictions",
        "Predictions behind the clv_realised_… figures (see CLV_SINK_OUTCOMES_WINDOW_DAYS).",
        ("model_version",),
    )
)
REALISED_BIAS = _declare(
    Metric(
        "gauge",
        "sink",
        "clv_realised_bias",
        "ratio",
        "Predicted total ÷ realised total − 1; −0.2 is a fifth too low. Missing where nothing was spent.",
        ("model_version",),
    )
)
REALISED_MAE = _declare(
    Metric(
        "gauge",
        "sink",
        "clv_realised_mae",
        "currency",
        "Mean |expected_value − realised value| of a customer.",
        ("model_version",),
    )
)
REALISED_ABOVE_P90 = _declare(
    Metric(
        "gauge",
        "sink",
        "clv_realised_above_p90_ratio",
        "ratio",
        "Share of customers who spent more than value_p90; 0.1 is right.",
        ("model_version",),
    )
)
REALISED_BELOW_P10 = _declare(
    Metric(
        "gauge",
        "sink",
        "clv_realised_below_p10_ratio",
        "ratio",
        "Share of customers who spent less than value_p10; 0.1 at most is right.",
        ("model_version",),
    )
)
REALISED_BRIER = _declare(
    Metric(
        "gauge",
        "sink",
        "clv_realised_brier",
        "1",
        "Mean (p_active − whether the customer ordered)²: 0 is perfect; always saying the share s gives s × (1 − s).",
        ("model_version",),
    )
)
REALISED_ACTIVE = _declare(
    Metric(
        "gauge",
        "sink",
        "clv_realised_active_ratio",
        "ratio",
        "Share of customers who ordered within the window.",
        ("model_version",),
    )
)
OUTCOMES_PENDING = _declare(
    Metric(
        "gauge",
        "sink",
        "clv_outcomes_pending_predictions",
        "predictions",
        "Predictions whose window is over and that are still to be compared, after the last round; up to 10,000.",
    )
)
OUTCOME_FAILURES = _declare(
    Metric(
        "counter",
        "sink",
        "clv_outcome_failures_total",
        "rounds",
        "Rounds of comparing predictions with what came that failed, and are tried again.",
    )
)
API_FRESHNESS_SECONDS = _declare(
    Metric(
        "histogram",
        "api",
        "clv_api_freshness_seconds",
        "seconds",
        "From when an order arrived in Kafka, or a sweep came to the customer, to when the API had the prediction.",
    )
)
API_STREAM_LISTENERS = _declare(
    Metric("gauge", "api", "clv_api_stream_listeners", "clients", "Clients that listen to the stream.")
)
API_STREAM_DROPPED = _declare(
    Metric(
        "counter",
        "api",
        "clv_api_stream_dropped_total",
        "predictions",
        "Predictions that slow clients of the stream did not get.",
    )
)
API_PREDICTIONS = _declare(
    Metric("counter", "api", "clv_api_predictions_total", "forms", "Forms answered: single or of a batch.", ("kind",))
)
API_MODEL_ROWS = _declare(
    Metric("histogram", "api", "clv_api_model_rows", "forms", "Forms of one call.", buckets=(1, 2, 4, 8, 16, 32, 64))
)
API_MODEL_INFO = _declare(
    Metric("gauge", "api", "clv_api_model_info", "1", "1 for the model that answers forms.", ("model_version",))
)
WHAT_IF_STORED = _declare(
    Metric("counter", "api", "clv_what_if_stored_total", "forms", "What became of answers to keep.", ("outcome",))
)
