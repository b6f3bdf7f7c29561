"""What upstream teams publish: customer events, version 1, from any Kafka client or over HTTP.

The pydantic models are the contract; schemas/json/customer-events.schema.json is generated from them. Strict: a number
where a string belongs is refused, money is a decimal string. Unknown fields are ignored, so producers may add some.
"""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter


class EventType(StrEnum):
    """What happened."""

    ORDER_PLACED = "order.placed"
    ORDER_REFUNDED = "order.refunded"
    ORDER_CANCELLED = "order.cancelled"
    CUSTOMER_UPDATED = "customer.updated"
    CUSTOMER_ERASED = "customer.erased"
    CUSTOMER_MERGED = "customer.merged"


def _printable(text: str) -> str:
    if text.strip() == "":
        raise ValueError("must not be empty")
    if any(ord(char) < 32 for char in text):
        raise ValueError("must not hold control characters")
    return text


Identifier = Annotated[str, StringConstraints(max_length=256), AfterValidator(_printable)]
Amount = Annotated[
    str,
    StringConstraints(max_length=40),
    Field(description="Decimal string in units of the currency, greater than 0", examples=["12.34"]),
]
CurrencyCode = Annotated[str, Field(description="ISO 4217 code", examples=["USD"], max_length=16)]


class _Envelope(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")

    event_id: Annotated[
        Identifier, Field(description="Unique id of this event; a repeat with the same id has no effect")
    ]
    occurred_at: Annotated[AwareDatetime, Field(strict=False, description="RFC 3339 with a zone; when it happened")]
    customer_id: Annotated[Identifier, Field(description="The customer, as the shop knows it")]
    schema_version: Annotated[Literal[1], Field(description="Version of this contract")] = 1
    source: Annotated[str, StringConstraints(max_length=256), Field(description="The system that says so")] = ""


class OrderPlacedEvent(_Envelope):
    """A customer placed an order. Value without tax and shipping where the shop can tell them apart."""

    event_type: Literal[EventType.ORDER_PLACED]
    order_id: Identifier
    amount: Amount
    currency: CurrencyCode


class OrderRefundedEvent(_Envelope):
    """Money went back. Partial refunds of one order add up; without order_id it counts against the customer."""

    event_type: Literal[EventType.ORDER_REFUNDED]
    refund_id: Annotated[Identifier | None, Field(description="Id of the refund; the event's id if left out")] = None
    order_id: Annotated[Identifier | None, Field(description="The order it belongs to, if known")] = None
    amount: Amount
    currency: CurrencyCode


class OrderCancelledEvent(_Envelope):
    """The order no longer counts."""

    event_type: Literal[EventType.ORDER_CANCELLED]
    order_id: Identifier


class CustomerUpdatedEvent(_Envelope):
    """The profile changed; the event with the latest occurred_at stands."""

    event_type: Literal[EventType.CUSTOMER_UPDATED]
    birth_year: Annotated[int | None, Field(ge=1880, le=2200)] = None


class CustomerErasedEvent(_Envelope):
    """The customer asked to be forgotten."""

    event_type: Literal[EventType.CUSTOMER_ERASED]


class CustomerMergedEvent(_Envelope):
    """`customer_id` and `merged_into` are one person; the orders go to `merged_into`."""

    event_type: Literal[EventType.CUSTOMER_MERGED]
    merged_into: Identifier


CustomerEvent = Annotated[
    OrderPlacedEvent
    | OrderRefundedEvent
    | OrderCancelledEvent
    | CustomerUpdatedEvent
    | CustomerErasedEvent
    | CustomerMergedEvent,
    Field(discriminator="event_type"),
]

CUSTOMER_EVENT: TypeAdapter[CustomerEvent] = TypeAdapter(CustomerEvent)


def epoch_ms(at: datetime) -> int:
    """Whole milliseconds since 1970 of an instant with a zone."""
    return round(at.timestamp() * 1000)


def erased_event(customer_id: str, *, event_id: str, occurred_at: datetime, source: str) -> CustomerErasedEvent:
    """The event that has a customer forgotten. Raises ValidationError if an id is none."""
    return CustomerErasedEvent(
        event_id=event_id,
        event_type=EventType.CUSTOMER_ERASED,
        occurred_at=occurred_at,
        customer_id=customer_id,
        source=source,
    )
