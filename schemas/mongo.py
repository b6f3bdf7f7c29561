"""MongoDB's collections: names, shape of the documents and indexes, declared once for the sink, the API and the CLI.

Pure declarations: must never talk to a server.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple, TypedDict

import msgspec

from schemas.customer_features import Values
from schemas.predictions import Prediction, PredictionHead

CUSTOMERS: Final = "customers"
"""The newest prediction of each customer; `_id` is the customer."""
PREDICTION_HISTORY: Final = "prediction_history"
"""Every prediction, for a limited time; `_id` is the prediction_id."""

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


class IndexSpec(NamedTuple):
    """A declared index: its collection, keys with direction (1 or −1), and the days after which documents expire."""

    collection: str
    name: str
    keys: tuple[tuple[str, int], ...]
    expires: bool = False
    """Documents are deleted `sink_history_days` after the date in the key."""


INDEXES: Final = (
    IndexSpec(CUSTOMERS, "segment_by_value", (("prediction.segment", 1), ("prediction.expected_value", -1))),
    IndexSpec(PREDICTION_HISTORY, "customer_by_version", (("customer_id", 1), ("feature_version", -1))),
    IndexSpec(PREDICTION_HISTORY, "expiry", ((HISTORY_EXPIRY_FIELD, 1),), expires=True),
)
COLLECTIONS: Final = (CUSTOMERS, PREDICTION_HISTORY)


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
            **document.get("prediction", {}),
        },
        Prediction,
    )
