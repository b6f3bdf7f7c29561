"""The `segment-thresholds` topic: the population's distribution of expected value, one mergeable sketch a partition.

Keyed by partition number, compacted. Each scorer publishes the sketches of its partitions and merges everyone's.
"""

from typing import Annotated

import msgspec
from msgspec import Meta


class PopulationSketch(msgspec.Struct, frozen=True, kw_only=True):
    """The expected values of one partition's customers, each customer once."""

    partition: Annotated[int, Meta(ge=0, description="Partition of customer-features the customers are in")]
    model_version: Annotated[str, Meta(description="Model that made the values")]
    customers: Annotated[int, Meta(ge=0, description="Customers in the sketch")]
    made_at_ms: Annotated[int, Meta(description="When it was made, milliseconds since 1970, UTC")]
    sketch: Annotated[bytes, Meta(description="Apache DataSketches KLL doubles sketch, base64 in JSON")]


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(PopulationSketch)


def encode_sketch(message: PopulationSketch) -> bytes:
    """The message as a Kafka value."""
    return _encoder.encode(message)


def decode_sketch(value: bytes) -> PopulationSketch:
    """The message in a Kafka value. Raises msgspec.DecodeError (a ValueError) if it is none."""
    return _decoder.decode(value)
