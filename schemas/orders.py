"""The `orders` topic: validated events in the reporting currency, keyed by customer. Written by ingest alone.

Decoded once per event by the feature worker, hence msgspec structs: one tagged union, checked on decoding.
"""

from typing import Annotated

import msgspec
from msgspec import Meta

from domain.customer import Event, OrderCancelled, OrderPlaced, OrderRefunded, ProfileUpdated
from schemas.customer_events import EventType

CustomerId = Annotated[str, Meta(min_length=1, max_length=256, description="The customer, as the shop knows it")]
Id = Annotated[str, Meta(min_length=1, max_length=256)]
Minor = Annotated[int, Meta(gt=0, description="Minor units of the reporting currency")]
EpochMs = Annotated[int, Meta(description="When it happened: milliseconds since 1970, UTC")]


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

    birth_year: int | None = None


class Erased(_Record, frozen=True, kw_only=True, gc=False, tag=EventType.CUSTOMER_ERASED.value):
    """The customer is to be forgotten."""


class Merged(_Record, frozen=True, kw_only=True, gc=False, tag=EventType.CUSTOMER_MERGED.value):
    """Two customers are one."""

    merged_into: CustomerId


OrderRecord = Placed | Refunded | Cancelled | Updated | Erased | Merged

_decoder: msgspec.json.Decoder[OrderRecord] = msgspec.json.Decoder(OrderRecord)
_encoder = msgspec.json.Encoder()


def encode_order(record: OrderRecord) -> bytes:
    """The record as the value of an `orders` message."""
    return _encoder.encode(record)


def decode_order(value: bytes) -> OrderRecord:
    """The record in the value of an `orders` message. Raises msgspec.DecodeError (a ValueError) if it is none."""
    return _decoder.decode(value)


def domain_event(record: OrderRecord) -> Event | None:
    """What the record means to a customer's state; None for erasure and merging, which are not part of a state."""
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
