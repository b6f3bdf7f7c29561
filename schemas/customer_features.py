"""The `customer-features` topic: one customer's features as of a day, keyed by customer. Written by features alone."""

from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from domain.features import CONTEXT, FEATURE_NAMES, INPUT_NAMES

FEATURE_VERSION_DAYS = 100_000
"""Days that fit into a feature_version beside the count of applied events (until the year 2243)."""

Values = dict[str, float | None]

InputValues = msgspec.defstruct("InputValues", [(name, float) for name in INPUT_NAMES], gc=False)
FeatureValues = msgspec.defstruct("FeatureValues", [(name, float) for name in FEATURE_NAMES], gc=False)
"""One row of each map, in order of the names: encoded like a map, at half the cost. NaN is written as null."""

NOTHING = 0.0
"""The default amount of a Ledger. Where it is this very object, it is left out of the message."""

_MONEY = {"x-unit": "currency"}


class Ledger(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """How the customer's money stands as of the day (domain.ledger). Money in major units of `currency`.

    What may be left out is 0 then. Every refund is in exactly one of the fields but `gross` and `net`.
    """

    orders_placed: Annotated[
        int, Meta(description="Orders placed, cancelled ones included", extra_json_schema={"x-unit": "orders"})
    ]
    gross: Annotated[float, Meta(description="Value of the orders that count", extra_json_schema=_MONEY)]
    net: Annotated[float, Meta(description="gross − refunded − loose_refunds", extra_json_schema=_MONEY)]
    orders_cancelled: Annotated[
        int, Meta(description="Orders cancelled, of those placed", extra_json_schema={"x-unit": "orders"})
    ] = 0
    refunded: Annotated[
        float,
        Meta(description="Refunds of the orders that count, up to each one's amount", extra_json_schema=_MONEY),
    ] = NOTHING
    loose_refunds: Annotated[float, Meta(description="Refunds that name no order", extra_json_schema=_MONEY)] = NOTHING
    cancelled_refunds: Annotated[
        float,
        Meta(
            description="Refunds of cancelled orders, up to each one's amount: both are gone", extra_json_schema=_MONEY
        ),
    ] = NOTHING
    refund_excess: Annotated[
        float,
        Meta(description="Refunds beyond the amounts of their orders, cancelled or not", extra_json_schema=_MONEY),
    ] = NOTHING
    waiting_refunds: Annotated[
        float,
        Meta(description="Refunds whose order is not known: they count once it comes", extra_json_schema=_MONEY),
    ] = NOTHING
    waiting_refund_count: Annotated[
        int, Meta(description="How many refunds wait for their order", extra_json_schema={"x-unit": "refunds"})
    ] = 0


LedgerOfCustomer = Annotated[
    Ledger | None, Meta(description="Gross, net and refunds; a field left out is 0; null in older messages")
]


class CustomerFeatures(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Features of one customer."""

    customer_id: Annotated[str, Meta(min_length=1, max_length=256)]
    feature_version: Annotated[
        int,
        Meta(description="Grows with each applied event and with as_of; the larger is the newer. Below 2^53."),
    ]
    as_of: Annotated[str, Meta(description="UTC date the features are as of, YYYY-MM-DD", pattern=r"^\d{4}-\d\d-\d\d$")]
    quintiles: Annotated[str, Meta(description="Fingerprint of the quintile borders behind the scores")]
    currency: Annotated[str, Meta(description="Reporting currency of all money, ISO 4217")]
    last_order_on: Annotated[str | None, Meta(description="UTC date of the last order that counts")]
    inputs: Annotated[Values, Meta(description="The seven inputs; null is unknown")]
    features: Annotated[Values, Meta(description="The engineered features and streaming extras; null is unknown")]
    ledger: LedgerOfCustomer = None


class FeaturesToSend(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The same message as the feature worker encodes it: `inputs` InputValues, `features` FeatureValues."""

    customer_id: str
    feature_version: int
    as_of: str
    quintiles: str
    currency: str
    last_order_on: str | None
    inputs: msgspec.Struct
    features: msgspec.Struct
    ledger: Ledger | None = None


class FeaturesView(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The same message with inputs and features left encoded, for those who pass them on (scorer, sink)."""

    customer_id: str
    feature_version: int
    as_of: str
    quintiles: str
    currency: str
    last_order_on: str | None
    inputs: msgspec.Raw
    features: msgspec.Raw
    ledger: Ledger | None = None


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(CustomerFeatures)
_view_decoder = msgspec.json.Decoder(FeaturesView)
_values_decoder = msgspec.json.Decoder(Values)


def feature_version(events_applied: int, as_of_day: int) -> int:
    """Order of two messages of one customer: more events first, then the later day."""
    return events_applied * FEATURE_VERSION_DAYS + as_of_day


def encode_features(message: CustomerFeatures | FeaturesToSend) -> bytes:
    """The message as a Kafka value. NaN is written as null."""
    return _encoder.encode(message)


def decode_features(value: bytes) -> CustomerFeatures:
    """The message in a Kafka value. Raises msgspec.DecodeError (a ValueError) if it is none."""
    return _decoder.decode(value)


def decode_features_view(value: bytes) -> FeaturesView:
    """The message with its two maps left encoded. Raises msgspec.DecodeError (a ValueError) if it is none."""
    return _view_decoder.decode(value)


def decode_values(raw: msgspec.Raw) -> Values:
    """One of the two maps of a FeaturesView."""
    return _values_decoder.decode(raw)


def feature_matrix(rows: list[Values]) -> NDArray[np.float64]:
    """Features of n messages as (n, len(FEATURE_NAMES)) in FEATURE_NAMES order; null becomes NaN.

    Raises KeyError if a feature but those of CONTEXT is missing: the message is of another version of the product.
    """
    matrix = [[row[name] if name not in CONTEXT else row.get(name) for name in FEATURE_NAMES] for row in rows]
    return np.array(matrix, dtype=np.float64).reshape(len(rows), len(FEATURE_NAMES))


def named_inputs(row: list[float]) -> dict[str, float]:
    """The seven inputs by name."""
    return dict(zip(INPUT_NAMES, row, strict=True))


def named_features(row: list[float]) -> dict[str, float]:
    """The features by name."""
    return dict(zip(FEATURE_NAMES, row, strict=True))
