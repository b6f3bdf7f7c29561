"""What POST /v1/events takes and answers, as OpenAPI sees it: models, problem details (RFC 9457) and examples."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from schemas.customer_events import CUSTOMER_EVENT
from schemas.dead_letters import Reason
from schemas.http_api.problem import PROBLEM_JSON, Problem
from services.ingest.bodies import JSON, NDJSON, STRUCTURED_BATCH
from services.ingest.cloud_events import STRUCTURED

_ORDER = {
    "event_id": "evt-1001",
    "event_type": "order.placed",
    "occurred_at": "2026-01-31T12:00:00Z",
    "customer_id": "customer-7",
    "source": "shop",
    "order_id": "order-5001",
    "amount": "59.90",
    "currency": "USD",
}
_REFUND = {
    "event_id": "evt-1002",
    "event_type": "order.refunded",
    "occurred_at": "2026-02-03T09:30:00+01:00",
    "customer_id": "customer-7",
    "source": "shop",
    "refund_id": "refund-31",
    "order_id": "order-5001",
    "amount": "10.00",
    "currency": "USD",
}
_CLOUD_EVENT = {
    "specversion": "1.0",
    "id": "evt-1003",
    "source": "/shops/berlin",
    "type": "order.placed",
    "time": "2026-02-04T10:00:00Z",
    "subject": "customer-8",
    "datacontenttype": JSON,
    "data": {"order_id": "order-5002", "amount": "12.00", "currency": "USD"},
}


class RejectedEvent(BaseModel):
    """One event that was refused. It is kept as a dead letter."""

    index: int = Field(description="Position in the request, from 0; empty lines of NDJSON do not count", examples=[2])
    event_id: str | None = Field(default=None, description="The event's id, where it could be read")
    reason: Reason = Field(description="Why, from a closed list")
    detail: str = Field(description="The same for a person")


class EventsAccepted(BaseModel):
    """Kafka has acknowledged the accepted events, and the dead letters of the rejected ones."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"accepted": 2, "rejected": [], "request_id": "5f0c1d6e9b7a4f0e8f0f3f1b0a4c2d11"}]
        }
    )

    accepted: int = Field(description="Events that were accepted")
    rejected: list[RejectedEvent] = Field(description="Events that were not")
    request_id: str = Field(description="Names this request in logs; that of X-Request-Id if one was sent")


class EventsRefused(Problem):
    """None of the events was accepted."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "about:blank",
                    "title": "Bad Request",
                    "status": 400,
                    "detail": "none of the events was accepted: `rejected` says why",
                    "request_id": "5f0c1d6e9b7a4f0e8f0f3f1b0a4c2d11",
                    "accepted": 0,
                    "rejected": [
                        {
                            "index": 0,
                            "event_id": "evt-1001",
                            "reason": "non_positive_amount",
                            "detail": "amount must be more than 0",
                        }
                    ],
                }
            ]
        }
    )

    accepted: int = Field(default=0, description="Always 0")
    rejected: list[RejectedEvent] = Field(description="All of them")


def added_schemas() -> dict[str, Any]:
    """What #/components/schemas lacks without it: CustomerEvent, EventsRefused, and what they refer to."""
    template = "#/components/schemas/{model}"
    event = CUSTOMER_EVENT.json_schema(ref_template=template)
    refused = EventsRefused.model_json_schema(ref_template=template)
    parts: dict[str, Any] = {**event.pop("$defs"), **refused.pop("$defs")}
    return {"CustomerEvent": event, "EventsRefused": refused, **parts}


def refused_response() -> dict[str, Any]:
    """The OpenAPI response 400: with the events that were refused, where there are events."""
    either = [{"$ref": "#/components/schemas/EventsRefused"}, {"$ref": "#/components/schemas/Problem"}]
    return {"description": "No event was accepted", "content": {PROBLEM_JSON: {"schema": {"anyOf": either}}}}


def request_body() -> dict[str, Any]:
    """The OpenAPI request body of POST /v1/events."""
    one = {"$ref": "#/components/schemas/CustomerEvent"}
    cloud_event = {
        "type": "object",
        "required": ["specversion", "id", "source", "type"],
        "properties": {
            name: {"type": "string"}
            for name in ("specversion", "id", "source", "type", "time", "subject", "data_base64")
        }
        | {"data": {"type": "object", "description": "The event's other fields"}},
    }
    return {
        "required": True,
        "content": {
            JSON: {
                "schema": {"oneOf": [one, {"type": "array", "items": one}]},
                "examples": {"one": {"value": _ORDER}, "several": {"value": [_ORDER, _REFUND]}},
            },
            NDJSON: {"schema": {"type": "string", "description": "One event a line"}},
            STRUCTURED: {"schema": cloud_event, "examples": {"one": {"value": _CLOUD_EVENT}}},
            STRUCTURED_BATCH: {
                "schema": {"type": "array", "items": cloud_event},
                "examples": {"several": {"value": [_CLOUD_EVENT]}},
            },
        },
    }
