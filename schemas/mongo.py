"""MongoDB's collections: names, shape of the documents and indexes, declared once for the sink, the API and the CLI.

Pure declarations: must never talk to a server.
"""

from collections.abc import Mapping
from datetime import datetime
from hashlib import blake2b
from typing import Any, Final, NamedTuple, NotRequired, TypedDict

import msgspec

from schemas.customer_features import Values
from schemas.predictions import Prediction, PredictionHead
from schemas.topics import topic

CUSTOMERS: Final = "customers"
"""The newest prediction of each customer; `_id` is the customer."""
PREDICTION_HISTORY: Final = "prediction_history"
"""Every prediction, for a limited time; `_id` is the prediction_id."""

CUSTOMER_STATES: Final = "customer_states"
"""The state behind each customer's features, to train from; `_id` is the customer. Beside them, of each erased customer
a marker without anything personal: whoever reads customers goes by STATES_WITH_ROW."""
CHALLENGER_PREDICTIONS: Final = "challenger_predictions"
"""What each model on trial last said of each customer, for a limited time; `_id` is challenger_id(…)."""
MATURED_PREDICTIONS: Final = "matured_predictions"
"""Predictions held against what came, once their time was over, for a limited time; `_id` is the prediction_id."""
SINK_WORK: Final = "sink_work"
"""Where the sink's own work stands: how far time has come in each partition, and who compares predictions."""

WHAT_IF_PREDICTIONS: Final = "what_if_predictions"
"""What the API answered to forms, with all that led to it, for a limited time; `_id` is the prediction_id. Of nobody in
particular: a form names no customer."""

DEAD_LETTERS: Final = "dead_letters"
"""Messages that could not be used, as long as their topic keeps them; `_id` is the letter's record key."""
ERASURES: Final = "erasures"
"""Who was erased and when, for a limited time, so that letters which come late are removed too; `_id` is a hash."""

HISTORY_EXPIRY_FIELD: Final = "created_at"

TOP_FIELDS: Final = ("customer_id", "feature_version", "as_of")
"""Fields of a prediction that stand at the top of a document (customer_id as `_id` in `customers`)."""
OUTCOME_FIELDS: Final = tuple(name for name in PredictionHead.__struct_fields__ if name not in TOP_FIELDS)
"""Fields of a prediction that stand in the document's `prediction`."""


class _Stored(TypedDict):
    feature_version: int
    as_of: str
    """UTC date, YYYY-MM-DD, as in the message."""
    inputs: Values
    features: Values
    ledger: dict[str, int | float] | None
    """Every field of schemas.customer_features.Ledger, those that are 0 too; None where the message had none."""
    prediction: dict[str, Any]
    """OUTCOME_FIELDS as in the message."""


class CustomerDocument(_Stored):
    """A document of CUSTOMERS."""

    _id: str
    updated_at: datetime


class HistoryDocument(_Stored):
    """A document of PREDICTION_HISTORY."""

    _id: str
    customer_id: str
    created_at: datetime
    partition: int
    """Of the predictions topic, and so of every topic that the customer's state passes through."""
    due_on: NotRequired[str]
    """UTC date from which on the window of the prediction (domain.outcomes) is over. There until it was compared with
    what came."""


class ChallengerDocument(_Stored):
    """A document of CHALLENGER_PREDICTIONS."""

    _id: str
    customer_id: str
    updated_at: datetime


class StateDocument(TypedDict):
    """A document of CUSTOMER_STATES; a marker has no `row` and no `linked_ids`, but `erased_at`."""

    _id: str
    key: bytes
    """16 bytes of BLAKE2b of the customer's id, unique: while the marker of an erased customer is there, no older row
    of the customer can be."""
    events_applied: int
    """Of the row: only one with more may take its place."""
    row: NotRequired[bytes]
    """schemas.customer_rows.Row, encoded, byte for byte as in the changelog."""
    linked_ids: NotRequired[list[str]]
    """Other customers whom the row names, because they were merged; left out where there are none."""
    erased_at: NotRequired[datetime]
    """When the erasure happened, as its event says."""
    logged_at: datetime
    """Kafka timestamp of the changelog record."""
    updated_at: datetime


class MaturedDocument(TypedDict):
    """A document of MATURED_PREDICTIONS. Money in major units of `currency`."""

    _id: str
    customer_id: str
    model_version: str
    feature_version: int
    as_of: str
    week: int
    """as_of, days since 1970, ÷ 7: of a customer's predictions by one model in a week, the first is compared."""
    horizon_days: int
    window_from: str
    """First day of the window, UTC date."""
    window_until: str
    """The day after the window's last."""
    currency: str
    expected_value: float
    expected_orders: float
    p_active: float
    value_p10: float
    value_p50: float
    value_p90: float
    historical_value: float | None
    realised_value: float
    """What became of it: domain.outcomes."""
    realised_orders: int
    compared_at: datetime


class WhatIfDocument(TypedDict):
    """A document of WHAT_IF_PREDICTIONS."""

    _id: str
    created_at: datetime
    expires_at: datetime
    request_id: str
    key_id: str | None
    """Of the API key; None where none is asked for."""
    row: int | None
    """Place in the batch, from 0; None of a single form."""
    as_of: str
    inputs: Values
    features: Values
    """Those that the model was given and that were known: the engineered ones, and what the day implies."""
    outcomes: dict[str, float]
    """What the model said, by schemas.model_bundle.OUTPUT_NAMES."""
    ranking: dict[str, Any]
    """`thresholds`, and `customers` behind them; None where they are those of the bundle's reference population."""
    prediction: dict[str, Any]
    """The answer's other fields, as they were answered."""
    warnings: list[str]
    model_version: str


class DeadLetterDocument(TypedDict):
    """A document of DEAD_LETTERS."""

    _id: str
    reason: str
    service: str
    detail: str
    origin: dict[str, Any]
    """topic, partition, offset as in schemas.dead_letters.Origin."""
    rejected_at: datetime
    arrived_at: datetime
    """When the customer event behind it arrived; rejected_at where that is not known."""
    key: bytes | None
    value: bytes | None
    headers: list[dict[str, Any]]
    """The original's own: name, value."""
    customer_ids: list[str]
    """Customers that key, headers and fields of the value name."""
    clear: bool
    """Whether those are all: otherwise the value's bytes have to be searched."""
    partition: int
    """Of the dead-letter topic."""


class ErasureDocument(TypedDict):
    """A document of ERASURES: nothing personal."""

    _id: str
    erased_at: datetime
    """When the erasure arrived: what arrived until then must go."""
    challengers_erased_at: NotRequired[datetime]
    """The same, once it has been carried out in CHALLENGER_PREDICTIONS."""


class IndexSpec(NamedTuple):
    """A declared index: its collection, keys with direction (1 or −1), and when documents expire, if they do."""

    collection: str
    name: str
    keys: tuple[tuple[str, int], ...]
    expires: bool = False
    """Documents are deleted `sink_history_days` after the date in the key."""
    expires_days: int | None = None
    """Documents are deleted so many days after the date in the key."""
    unique: bool = False
    only_with: str | None = None
    """Only documents that have this field are in the index."""


DAY_MS: Final = 86_400_000
_LETTERS = topic("dead-letters").config
LETTERS_DAYS: Final = -(-(int(_LETTERS["retention.ms"]) + int(_LETTERS["segment.ms"])) // DAY_MS) + 1
"""A little longer than the topic keeps a letter: as long as it does, it must be found here."""
ERASURES_DAYS: Final = LETTERS_DAYS + -(-int(topic("orders").config["retention.ms"]) // DAY_MS)
"""Until a letter can no longer come whose event arrived before the erasure."""

SEGMENTS_BY_VALUE: Final = "segments_by_value"
"""Index of CUSTOMERS that sums by segment are read from alone."""
SEGMENTS_BY_ACTIVITY: Final = "segments_by_activity"
SEGMENTS_BY_HISTORY: Final = "segments_by_history"
SEGMENTS_BY_UPDATE: Final = "segments_by_update"
"""Indexes of CUSTOMERS that lists are read from."""
SEGMENTS_BY_DAY: Final = "segments_by_day"
"""Index of PREDICTION_HISTORY that moves between segments are read from alone."""
_SEGMENT = ("prediction.segment", 1)

INDEXES: Final = (
    # Lists of customers are sorted by a value, then `_id`, in either direction; within one segment, or merged from all.
    IndexSpec(
        CUSTOMERS,
        SEGMENTS_BY_VALUE,
        (
            _SEGMENT,
            ("prediction.expected_value", 1),
            ("_id", 1),
            ("prediction.p_active", 1),
            ("prediction.historical_value", 1),
        ),
    ),
    IndexSpec(CUSTOMERS, SEGMENTS_BY_ACTIVITY, (_SEGMENT, ("prediction.p_active", 1), ("_id", 1))),
    IndexSpec(CUSTOMERS, SEGMENTS_BY_HISTORY, (_SEGMENT, ("prediction.historical_value", 1), ("_id", 1))),
    IndexSpec(CUSTOMERS, SEGMENTS_BY_UPDATE, (_SEGMENT, ("updated_at", 1), ("_id", 1))),
    IndexSpec(
        PREDICTION_HISTORY,
        SEGMENTS_BY_DAY,
        (("as_of", 1), ("customer_id", 1), ("feature_version", 1), ("prediction.segment", 1)),
    ),
    IndexSpec(PREDICTION_HISTORY, "customer_by_version", (("customer_id", 1), ("feature_version", -1))),
    IndexSpec(PREDICTION_HISTORY, "expiry", ((HISTORY_EXPIRY_FIELD, 1),), expires=True),
    IndexSpec(PREDICTION_HISTORY, "due", (("partition", 1), ("due_on", 1), ("feature_version", 1)), only_with="due_on"),
    IndexSpec(CUSTOMER_STATES, "key", (("key", 1),), unique=True),
    IndexSpec(CUSTOMER_STATES, "linked", (("linked_ids", 1),), only_with="linked_ids"),
    IndexSpec(CHALLENGER_PREDICTIONS, "customer", (("customer_id", 1), ("prediction.model_version", 1))),
    IndexSpec(CHALLENGER_PREDICTIONS, "model", (("prediction.model_version", 1), ("customer_id", 1))),
    IndexSpec(CHALLENGER_PREDICTIONS, "expiry", (("updated_at", 1),), expires=True),
    IndexSpec(
        MATURED_PREDICTIONS,
        "once_a_week",
        (("customer_id", 1), ("model_version", 1), ("week", 1)),
        unique=True,
    ),
    IndexSpec(MATURED_PREDICTIONS, "model", (("model_version", 1), ("compared_at", -1))),
    IndexSpec(MATURED_PREDICTIONS, "expiry", (("compared_at", 1),), expires=True),
    IndexSpec(WHAT_IF_PREDICTIONS, "expiry", (("expires_at", 1),), expires_days=0),
    IndexSpec(DEAD_LETTERS, "customers", (("customer_ids", 1),)),
    IndexSpec(DEAD_LETTERS, "reasons", (("reason", 1), ("rejected_at", 1))),
    IndexSpec(DEAD_LETTERS, "to_search", (("clear", 1), ("arrived_at", 1))),
    IndexSpec(DEAD_LETTERS, "expiry", (("rejected_at", 1),), expires_days=LETTERS_DAYS),
    IndexSpec(ERASURES, "expiry", (("erased_at", 1),), expires_days=ERASURES_DAYS),
)
COLLECTIONS: Final = (
    CUSTOMERS,
    PREDICTION_HISTORY,
    CUSTOMER_STATES,
    CHALLENGER_PREDICTIONS,
    MATURED_PREDICTIONS,
    SINK_WORK,
    WHAT_IF_PREDICTIONS,
    DEAD_LETTERS,
    ERASURES,
)

RETIRED_INDEXES: Final = ((CUSTOMERS, "segment_by_value"),)
"""Collection and name of indexes that earlier versions made and nothing reads any more: they are dropped."""

STATES_WITH_ROW: Final[dict[str, Any]] = {"row": {"$exists": True}}
"""Filter of CUSTOMER_STATES: customers, without the markers of erased ones."""


def challenger_id(customer_id: str, model_version: str) -> str:
    """`_id` of what a model on trial says of a customer, 32 hexadecimal digits."""
    return blake2b(f"{customer_id}\0{model_version}".encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def realised_pipeline(since: datetime) -> list[dict[str, Any]]:
    """Aggregation of MATURED_PREDICTIONS that were compared since then: a document a model_version (`_id`).

    count; sums predicted, realised, absolute_error and active (customers with an order), above_p90 and below_p10
    (customers), squared_error (of p_active). Money in major units. Mixed currencies add up to nonsense: a product has
    one.
    """
    error = {"$subtract": ["$expected_value", "$realised_value"]}
    active = {"$cond": [{"$gt": ["$realised_orders", 0]}, 1, 0]}

    def count_if(condition: dict[str, Any]) -> dict[str, Any]:
        return {"$sum": {"$cond": [condition, 1, 0]}}

    return [
        {"$match": {"compared_at": {"$gte": since}}},
        {
            "$group": {
                "_id": "$model_version",
                "count": {"$sum": 1},
                "predicted": {"$sum": "$expected_value"},
                "realised": {"$sum": "$realised_value"},
                "absolute_error": {"$sum": {"$abs": error}},
                "active": {"$sum": active},
                "above_p90": count_if({"$gt": ["$realised_value", "$value_p90"]}),
                "below_p10": count_if({"$lt": ["$realised_value", "$value_p10"]}),
                "squared_error": {"$sum": {"$pow": [{"$subtract": ["$p_active", active]}, 2]}},
            }
        },
        {"$sort": {"_id": 1}},
    ]


def erasure_id(customer_id: str) -> str:
    """`_id` of an erasure: 16 bytes of BLAKE2b of the customer's id, hexadecimal."""
    return blake2b(customer_id.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def stored_prediction(document: Mapping[str, Any]) -> Prediction:
    """The prediction in a document of either collection. Raises msgspec.ValidationError if it holds none."""
    customer_id = document.get("customer_id", document.get("_id"))
    return msgspec.convert(
        {
            "customer_id": customer_id,
            "feature_version": document.get("feature_version"),
            "as_of": document.get("as_of"),
            "inputs": document.get("inputs"),
            "features": document.get("features"),
            "ledger": document.get("ledger"),
            **document.get("prediction", {}),
        },
        Prediction,
    )
