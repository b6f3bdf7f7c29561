"""The `orders` topic: validated events in the reporting currency, keyed by customer. Written by ingest.

Two kinds of record come from the feature worker instead, so that one partition's one order of records decides what its
customers' rows are: Absorbed, and the Erased that follow an erasure to the customers merged with the erased one.
Decoded once per event by the feature worker, hence msgspec structs: one tagged union, checked on decoding.
"""

from typing import Annotated

import msgspec
from msgspec import Meta

from domain.customer import DAY_MS, Event, OrderCancelled, OrderPlaced, OrderRefunded, ProfileUpdated
from domain.money import AMOUNT_MINOR_MAX
from schemas.customer_events import EventType
from schemas.customer_features import FEATURE_VERSION_DAYS

ABSORBED = "customer.absorbed"

CustomerId = Annotated[str, Meta(min_length=1, max_length=256, description="The customer, as the shop knows it")]
Id = Annotated[str, Meta(min_length=1, max_length=256)]
Minor = Annotated[int, Meta(gt=0, le=AMOUNT_MINOR_MAX, description="Minor units of the reporting currency")]
EpochMs = Annotated[
    int, Meta(ge=0, lt=FEATURE_VERSION_DAYS * DAY_MS, description="When it happened: milliseconds since 1970, UTC")
]


class _Record(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag_field="event_type"):
    event_id: Annotated[str, Meta(min_length=1, max_length=256, description="Id of the event it was made from")]
    customer_id: CustomerId
    occurred_at_ms: EpochMs
    source: Annotated[str, Meta(description="The system that said so")] = ""


class Placed(_Record, frozen=True, kw_only=True, gc=False, tag=EventType.ORDER_PLACED.value):
    """An order."""

    order_id: Id
    amount_minor: Minor
    original_amount: Annotated[str, Meta(description="As it was sent, decimal string")]
    original_currency: Annotated[str, Meta(description="ISO 4217 code it was sent in")]


class Refunded(_Record, frozen=True, kw_only=True, gc=False, tag=EventType.ORDER_REFUNDED.value):
    """Money given back."""

    refund_id: Id
    order_id: Annotated[str | None, Meta(description="The order, or null: counts against the customer")] = None
    amount_minor: Minor
    original_amount: Annotated[str, Meta(description="As it was sent, decimal string")]
    original_currency: Annotated[str, Meta(description="ISO 4217 code it was sent in")]


class Cancelled(_Record, frozen=True, kw_only=True, gc=False, tag=EventType.ORDER_CANCELLED.value):
    """An order that no longer counts."""

    order_id: Id


class Updated(_Record, frozen=True, kw_only=True, gc=False, tag=EventType.CUSTOMER_UPDATED.value):
    """The customer's profile."""

    birth_year: Annotated[int, Meta(ge=1880, le=2200)] | None = None


class Erased(_Record, frozen=True, kw_only=True, gc=False, tag=EventType.CUSTOMER_ERASED.value):
    """The customer is to be forgotten."""


class Merged(_Record, frozen=True, kw_only=True, gc=False, tag=EventType.CUSTOMER_MERGED.value):
    """Two customers are one."""

    merged_into: CustomerId


class Absorbed(_Record, frozen=True, kw_only=True, gc=False, tag=ABSORBED):
    """All that is known of a customer who was merged into this one. Written by the feature worker; private.

    occurred_at_ms is the latest time in it. Sent again whenever that customer's own events go on; the highest version
    stands.
    """

    origin: Annotated[CustomerId, Meta(description="The customer who was merged away")]
    version: Annotated[int, Meta(ge=0, lt=2**53, description="Own events of `origin` behind the state")]
    merged_into: Annotated[CustomerId | None, Meta(description="Whom `origin` itself was merged into")]
    merged_at_ms: EpochMs
    state: Annotated[bytes, Meta(description="domain.customer.CustomerState as MessagePack")]


OrderRecord = Placed | Refunded | Cancelled | Updated | Erased | Merged | Absorbed

_decoder: msgspec.json.Decoder[OrderRecord] = msgspec.json.Decoder(OrderRecord)
_encoder = msgspec.json.Encoder()


def encode_order(record: OrderRecord) -> bytes:
    """The record as the value of an `orders` message."""
    return _encoder.encode(record)


def decode_order(value: bytes) -> OrderRecord:
    """The record in the value of an `orders` message. Raises msgspec.DecodeError (a ValueError) if it is none."""
    try:
        return _decoder.decode(value)
    except (UnicodeDecodeError, RecursionError) as error:  # msgspec lets these through: bad UTF-8, deep nesting
        raise msgspec.DecodeError(str(error)) from None


def domain_event(record: OrderRecord) -> Event | None:
    """What the record means to a customer's state; None for erasing and merging, which are about whole customers."""
    match record:
        case Placed():
            return OrderPlaced(record.order_id, record.amount_minor, record.occurred_at_ms)
        case Refunded():
            return OrderRefunded(record.refund_id, record.order_id, record.amount_minor, record.occurred_at_ms)
        case Cancelled():
            return OrderCancelled(record.order_id, record.occurred_at_ms)
        case Updated():
            return ProfileUpdated(record.birth_year, record.occurred_at_ms)
    return None
