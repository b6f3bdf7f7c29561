"""The `customer-features` topic: one customer's features as of a day, keyed by customer. Written by features alone."""

from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from domain.features import FEATURE_NAMES, INPUT_NAMES

FEATURE_VERSION_DAYS = 100_000
"""Days that fit into a feature_version beside the count of applied events (until the year 2243)."""

Values = dict[str, float | None]

InputValues = msgspec.defstruct("InputValues", [(name, float) for name in INPUT_NAMES], gc=False)
FeatureValues = msgspec.defstruct("FeatureValues", [(name, float) for name in FEATURE_NAMES], gc=False)
"""One row of each map, in order of the names: encoded like a map, at half the cost. NaN is written as null."""


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

    Raises KeyError if a feature is missing: the message is of another version of the product.
    """
    return np.array([[row[name] for name in FEATURE_NAMES] for row in rows], dtype=np.float64).reshape(
        len(rows), len(FEATURE_NAMES)
    )


def named_inputs(row: list[float]) -> dict[str, float]:
    """The seven inputs by name."""
    return dict(zip(INPUT_NAMES, row, strict=True))


def named_features(row: list[float]) -> dict[str, float]:
    """The features by name."""
    return dict(zip(FEATURE_NAMES, row, strict=True))
