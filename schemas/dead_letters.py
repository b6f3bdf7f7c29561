"""The `dead-letters` topic: messages that could not be used, byte for byte, with the reason and where they came from.

The value and key are the original's; what went wrong is in headers. The origin headers carry the names that Kafka
Connect's dead-letter queues use (Kafka KIP-298), so that existing tools can read them.
"""

from enum import StrEnum

import msgspec


class Reason(StrEnum):
    """Why a message could not be used. A closed list: each is a label of a metric."""

    INVALID_UTF8 = "invalid_utf8"
    INVALID_JSON = "invalid_json"
    EMPTY_MESSAGE = "empty_message"
    NOT_AN_OBJECT = "not_an_object"
    MESSAGE_TOO_LARGE = "message_too_large"
    MISSING_FIELD = "missing_field"
    UNKNOWN_EVENT_TYPE = "unknown_event_type"
    UNSUPPORTED_SCHEMA_VERSION = "unsupported_schema_version"
    INVALID_FIELD = "invalid_field"
    EMPTY_CUSTOMER_ID = "empty_customer_id"
    EMPTY_KEY = "empty_key"
    KEY_MISMATCH = "key_mismatch"
    INVALID_TIMESTAMP = "invalid_timestamp"
    FUTURE_DATE = "future_date"
    INVALID_AMOUNT = "invalid_amount"
    NON_POSITIVE_AMOUNT = "non_positive_amount"
    AMOUNT_TOO_LARGE = "amount_too_large"
    UNKNOWN_CURRENCY = "unknown_currency"
    NOT_SUPPORTED_YET = "not_supported_yet"


HEADER_REASON = "clv.reason"
HEADER_SERVICE = "clv.service"
HEADER_REJECTED_AT_MS = "clv.rejected_at_ms"
HEADER_REPLAYED = "clv.replayed_from_offset"
HEADER_TOPIC = "__connect.errors.topic"
HEADER_PARTITION = "__connect.errors.partition"
HEADER_OFFSET = "__connect.errors.offset"
HEADER_STAGE = "__connect.errors.stage"
HEADER_MESSAGE = "__connect.errors.exception.message"

Headers = list[tuple[str, bytes]]


class Origin(msgspec.Struct, frozen=True):
    """Where the message came from. An HTTP request has topic 'http' and no partition or offset."""

    topic: str
    partition: int | None = None
    offset: int | None = None


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """One message that could not be used."""

    reason: Reason
    detail: str
    """One sentence for a person: what was wrong and where in the message."""
    service: str
    origin: Origin
    rejected_at_ms: int
    key: bytes | None
    value: bytes | None
    original_headers: Headers = []


def to_headers(letter: DeadLetter) -> Headers:
    """Kafka headers of a dead letter: the original's own first, then the reason and the origin."""
    found = [(name, value) for name, value in letter.original_headers if not _ours(name)]
    found += [
        (HEADER_REASON, letter.reason.value.encode()),
        (HEADER_SERVICE, letter.service.encode()),
        (HEADER_REJECTED_AT_MS, str(letter.rejected_at_ms).encode()),
        (HEADER_TOPIC, letter.origin.topic.encode()),
        (HEADER_STAGE, b"VALUE_CONVERTER"),
        (HEADER_MESSAGE, letter.detail.encode()),
    ]
    if letter.origin.partition is not None:
        found.append((HEADER_PARTITION, str(letter.origin.partition).encode()))
    if letter.origin.offset is not None:
        found.append((HEADER_OFFSET, str(letter.origin.offset).encode()))
    return found


def from_record(key: bytes | None, value: bytes | None, headers: Headers) -> DeadLetter:
    """The dead letter in a Kafka record. Raises ValueError if its headers are not those of a dead letter."""
    named = dict(headers)
    try:
        partition, offset = named.get(HEADER_PARTITION), named.get(HEADER_OFFSET)
        return DeadLetter(
            reason=Reason(named[HEADER_REASON].decode()),
            detail=named.get(HEADER_MESSAGE, b"").decode(),
            service=named.get(HEADER_SERVICE, b"").decode(),
            origin=Origin(
                named[HEADER_TOPIC].decode(),
                None if partition is None else int(partition),
                None if offset is None else int(offset),
            ),
            rejected_at_ms=int(named.get(HEADER_REJECTED_AT_MS, b"0")),
            key=key,
            value=value,
            original_headers=[(name, header) for name, header in headers if not _ours(name)],
        )
    except (KeyError, ValueError) as error:
        raise ValueError(f"not a dead letter of this product: {error!r}") from error


def _ours(name: str) -> bool:
    return name.startswith(("clv.", "__connect.errors."))
