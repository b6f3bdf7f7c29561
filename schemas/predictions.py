"""The `predictions` topic: what a customer will be worth, keyed by customer, compacted. Written by the scorer alone."""

from collections.abc import Iterable
from hashlib import blake2b
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from schemas.customer_features import Ledger, LedgerOfCustomer, Values

SegmentName = Literal["high_value", "medium_high_value", "medium_value", "at_risk"]
Money = Annotated[float, Meta(description="Major units of `currency`")]


class PredictionHead(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A prediction without the features it was made from."""

    prediction_id: Annotated[str, Meta(description="The same customer, feature_version and model give the same id")]
    customer_id: Annotated[str, Meta(min_length=1, max_length=256)]
    feature_version: Annotated[int, Meta(description="Of the features it was made from; the larger is the newer")]
    as_of: Annotated[str, Meta(description="UTC date the prediction is as of", pattern=r"^\d{4}-\d\d-\d\d$")]
    horizon_days: Annotated[int, Meta(gt=0, description="Days from as_of that the prediction covers")]
    currency: Annotated[str, Meta(description="Of all money in the message, ISO 4217")]
    expected_value: Annotated[float, Meta(description="Expected net spend within the horizon")]
    expected_orders: Annotated[float, Meta(description="Expected number of orders within the horizon")]
    p_active: Annotated[float, Meta(description="Probability of at least one order within the horizon, 0 to 1")]
    value_p10: Annotated[float, Meta(description="10th percentile of net spend within the horizon")]
    value_p50: Annotated[float, Meta(description="Median of net spend within the horizon")]
    value_p90: Annotated[float, Meta(description="90th percentile of net spend within the horizon")]
    historical_value: Annotated[float | None, Meta(description="Net spend so far; null without an order")]
    expected_next_order_at: Annotated[
        str | None,
        Meta(
            description="UTC date of the next order, if it comes within the horizon; null below a chance of one in five"
        ),
    ]
    percentile: Annotated[float, Meta(description="Rank of expected_value among all customers, 0 to 100")]
    segment: SegmentName
    previous_segment: Annotated[SegmentName | None, Meta(description="Segment of the prediction before this one")]
    strategy: Annotated[str, Meta(description="What to do about a customer of this segment")]
    segment_thresholds: Annotated[
        tuple[float, float, float],
        Meta(description="expected_value at the population's 25th, 50th and 75th percentile behind `segment`"),
    ]
    model_version: Annotated[str, Meta(description="Content address of the model bundle")]


class Prediction(PredictionHead, frozen=True, kw_only=True, gc=False):
    """A prediction and what it was made from."""

    inputs: Annotated[Values, Meta(description="The seven inputs; null is unknown")]
    features: Annotated[Values, Meta(description="The features; null is unknown")]
    ledger: LedgerOfCustomer = None


class PredictionToSend(PredictionHead, frozen=True, kw_only=True, gc=False):
    """A Prediction whose maps are passed on still encoded."""

    inputs: msgspec.Raw
    features: msgspec.Raw
    ledger: Ledger | None = None


FEATURES_OFFSET_HEADER = "clv.features-offset"
"""Kafka header of a prediction: the offset, in decimal, of the customer-features record it was made from, which is in
the partition of the same number. A record that comes again is known by it."""


def origin_headers(features_offset: int) -> list[tuple[str, bytes]]:
    """The Kafka headers of a prediction."""
    return [(FEATURES_OFFSET_HEADER, str(features_offset).encode())]


def features_offset(headers: Iterable[tuple[str, bytes]]) -> int:
    """The offset that a prediction's headers state; −1 if they state none."""
    for name, value in headers:
        if name == FEATURES_OFFSET_HEADER and value.isdigit() and len(value) < 19:
            return int(value)
    return -1


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Prediction)
_head_decoder = msgspec.json.Decoder(PredictionHead)


def prediction_id(customer_id: str, feature_version: int, model_version: str) -> str:
    """Deterministic id, 32 hexadecimal digits: a redelivered prediction is the same prediction."""
    return blake2b(f"{customer_id}\0{feature_version}\0{model_version}".encode(), digest_size=16).hexdigest()


def encode_prediction(prediction: Prediction | PredictionToSend) -> bytes:
    """The prediction as a Kafka value."""
    return _encoder.encode(prediction)


def decode_prediction(value: bytes) -> Prediction:
    """The prediction in a Kafka value. Raises msgspec.DecodeError (a ValueError) if it is none."""
    return _decoder.decode(value)


def decode_prediction_head(value: bytes) -> PredictionHead:
    """The prediction without its features, for those who need only the outcome."""
    return _head_decoder.decode(value)
