"""Events, good and bad, and the outside world of the ingest service: librdkafka and plain HTTP."""

import http.client
import json
from collections.abc import Iterable
from typing import Any

from confluent_kafka import Message, Producer

from schemas.dead_letters import DeadLetter, Reason, from_record
from schemas.orders import decode_order
from schemas.topics import CUSTOMER_EVENTS, DEAD_LETTERS
from tests.conftest import Service
from tests.support import committed_lag, read_all

GROUP = "clv-ingest"


def event(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "event_id": f"e{number}",
        "event_type": "order.placed",
        "occurred_at": "2024-01-31T12:00:00Z",
        "customer_id": f"customer-{number % 50}",
        "order_id": f"o{number}",
        "amount": "12.34",
        "currency": "USD",
    } | changes


def encoded(number: int, **changes: Any) -> bytes:
    return json.dumps(event(number, **changes)).encode()


BAD: list[tuple[bytes | None, Reason]] = [
    (b"no json {", Reason.INVALID_JSON),
    (b'{"event_type": "order.placed"}', Reason.MISSING_FIELD),
    (encoded(901, event_type="order.eaten"), Reason.UNKNOWN_EVENT_TYPE),
    (encoded(902, amount="-5.00"), Reason.NON_POSITIVE_AMOUNT),
    (encoded(903, amount="9" * 30), Reason.AMOUNT_TOO_LARGE),
    (encoded(904, amount="NaN"), Reason.INVALID_AMOUNT),
    (encoded(905, occurred_at="2124-01-31T12:00:00Z"), Reason.FUTURE_DATE),
    (encoded(906, occurred_at="2024-01-31T12:00:00"), Reason.INVALID_TIMESTAMP),
    (encoded(907, currency="XYZ"), Reason.UNKNOWN_CURRENCY),
    (b'{"event_id": "\xff\xfe"}', Reason.INVALID_UTF8),
    (encoded(908, filler="x" * 5_000_000), Reason.MESSAGE_TOO_LARGE),
    (encoded(909, customer_id=""), Reason.EMPTY_CUSTOMER_ID),
    (encoded(910, schema_version=2), Reason.UNSUPPORTED_SCHEMA_VERSION),
    (encoded(911, event_type="customer.merged"), Reason.MISSING_FIELD),
    (b"[]", Reason.NOT_AN_OBJECT),
    (b'{"a":' * 200_000, Reason.INVALID_JSON),
    (b"", Reason.EMPTY_MESSAGE),
    (None, Reason.EMPTY_MESSAGE),
]

Headers = list[tuple[str, bytes | None]]


def publish(
    bootstrap: str, messages: Iterable[tuple[bytes | None, bytes | None, Headers]], **settings: Any
) -> list[Message]:
    """Publish to customer-events with librdkafka; the delivery reports in the order of the messages."""
    producer = Producer(
        {"bootstrap.servers": bootstrap, "message.max.bytes": 100_000_000, "acks": "all", "linger.ms": 5} | settings
    )
    sent: list[Any] = []

    def report(slot: list[Any]) -> Any:
        def delivered(error: Any, message: Message) -> None:
            assert error is None, error
            slot.append(message)

        return delivered

    for key, value, headers in messages:
        slot: list[Message] = []
        sent.append(slot)
        while True:
            try:
                producer.produce(CUSTOMER_EVENTS, key=key, value=value, headers=headers, on_delivery=report(slot))
                break
            except BufferError:
                producer.poll(0.1)
    assert producer.flush(60) == 0
    return [slot[0] for slot in sent]


def letters(bootstrap: str, at_least: int) -> list[DeadLetter]:
    found = read_all(bootstrap, DEAD_LETTERS, at_least)
    return [from_record(each.key(), each.value(), each.headers()) for each in found]


def order_ids(records: Iterable[Message]) -> set[str]:
    return {decode_order(record.value()).order_id for record in records}  # type: ignore[union-attr]


def start(service: Service, bootstrap: str, **env: str) -> Any:
    return service("ingest", env={"CLV_KAFKA_BOOTSTRAP_SERVERS": bootstrap, **env})


def post(
    process: Any, body: bytes, content_type: str | None = "application/json", **headers: str
) -> tuple[int, dict[str, Any], dict[str, str]]:
    """Status, decoded body and headers (small letters) of POST /v1/events."""
    connection = http.client.HTTPConnection("127.0.0.1", process.port, timeout=30)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        connection.request("POST", "/v1/events", body, named | ({"content-type": content_type} if content_type else {}))
        answer = connection.getresponse()
        text = answer.read()
        return answer.status, json.loads(text), {name.lower(): value for name, value in answer.getheaders()}
    finally:
        connection.close()


def lag(bootstrap: str) -> int:
    """Records of customer-events that the group has not committed."""
    return committed_lag(bootstrap, GROUP, CUSTOMER_EVENTS)
