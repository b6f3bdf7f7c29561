"""MongoDB's collections: names, shape of the documents and indexes, declared once for the sink, the API and the CLI.

Pure declarations: must never talk to a server.
"""

from collections.abc import Mapping
from datetime import datetime
from hashlib import blake2b
from typing import Any, Final, NamedTuple, TypedDict

import msgspec

from schemas.customer_features import Values
from schemas.predictions import Prediction, PredictionHead
from schemas.topics import topic

CUSTOMERS: Final = "customers"
"""The newest prediction of each customer; `_id` is the customer."""
PREDICTION_HISTORY: Final = "prediction_history"
"""Every prediction, for a limited time; `_id` is the prediction_id."""

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


class IndexSpec(NamedTuple):
    """A declared index: its collection, keys with direction (1 or −1), and when documents expire, if they do."""

    collection: str
    name: str
    keys: tuple[tuple[str, int], ...]
    expires: bool = False
    """Documents are deleted `sink_history_days` after the date in the key."""
    expires_days: int | None = None
    """Documents are deleted so many days after the date in the key."""


DAY_MS: Final = 86_400_000
_LETTERS = topic("dead-letters").config
LETTERS_DAYS: Final = -(-(int(_LETTERS["retention.ms"]) + int(_LETTERS["segment.ms"])) // DAY_MS) + 1
"""A little longer than the topic keeps a letter: as long as it does, it must be found here."""
ERASURES_DAYS: Final = LETTERS_DAYS + -(-int(topic("orders").config["retention.ms"]) // DAY_MS)
"""Until a letter can no longer come whose event arrived before the erasure."""

INDEXES: Final = (
    IndexSpec(CUSTOMERS, "segment_by_value", (("prediction.segment", 1), ("prediction.expected_value", -1))),
    IndexSpec(PREDICTION_HISTORY, "customer_by_version", (("customer_id", 1), ("feature_version", -1))),
    IndexSpec(PREDICTION_HISTORY, "expiry", ((HISTORY_EXPIRY_FIELD, 1),), expires=True),
    IndexSpec(DEAD_LETTERS, "customers", (("customer_ids", 1),)),
    IndexSpec(DEAD_LETTERS, "to_search", (("clear", 1), ("arrived_at", 1))),
    IndexSpec(DEAD_LETTERS, "expiry", (("rejected_at", 1),), expires_days=LETTERS_DAYS),
    IndexSpec(ERASURES, "expiry", (("erased_at", 1),), expires_days=ERASURES_DAYS),
)
COLLECTIONS: Final = (CUSTOMERS, PREDICTION_HISTORY, DEAD_LETTERS, ERASURES)


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
