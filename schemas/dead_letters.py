"""The `dead-letters` topic: messages that could not be used, byte for byte, with the reason and where they came from.

The value is the original's; what went wrong, and the original's key, are in headers. The record's own key names the
letter, each its own, so that a tombstone can take a single letter back. The origin headers carry the names that Kafka
Connect's dead-letter queues use (Kafka KIP-298), so that existing tools can read them.

Three kinds of record: a letter; a marker that a letter was replayed; a tombstone, after which its letter must no longer
be shown, stored or replayed, though the topic may hold it until it is compacted.
"""

from enum import StrEnum
from hashlib import blake2b

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
    CUSTOMER_ERASED = "customer_erased"
    MERGE_CONFLICT = "merge_conflict"
    NOT_SUPPORTED_YET = "not_supported_yet"
    """Of earlier releases; no longer given."""


HEADER_REASON = "clv.reason"
HEADER_SERVICE = "clv.service"
HEADER_REJECTED_AT_MS = "clv.rejected_at_ms"
HEADER_KEY = "clv.key"
"""The original's key; absent if it had none."""
HEADER_NO_VALUE = "clv.no_value"
"""Present if the original had no value: a letter without one would be a tombstone, so its value is empty."""
HEADER_ARRIVED_AT_MS = "clv.arrived_at_ms"
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
    arrived_at_ms: int | None = None
    """When the customer event behind it arrived, milliseconds since 1970: the original record's Kafka timestamp."""


def letter_key(letter: DeadLetter) -> bytes:
    """The record key of a letter: `<topic>/<partition>/<offset>` of its origin, so a redelivery is the same letter.

    What has no offset (HTTP) is named by a hash of what it is and when it was refused.
    """
    origin = letter.origin
    if origin.partition is not None and origin.offset is not None:
        return f"{origin.topic}/{origin.partition}/{origin.offset}".encode()
    digest = blake2b(f"{letter.rejected_at_ms}\0{letter.detail}\0".encode(), digest_size=16)
    digest.update(letter.value or b"")
    return f"{origin.topic}/{digest.hexdigest()}".encode()


def to_record(letter: DeadLetter) -> tuple[bytes, bytes, Headers]:
    """Key, value and headers of the Kafka record that holds the letter."""
    return letter_key(letter), letter.value or b"", to_headers(letter)


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
    if letter.arrived_at_ms is not None:
        found.append((HEADER_ARRIVED_AT_MS, str(letter.arrived_at_ms).encode()))
    if letter.key is not None:
        found.append((HEADER_KEY, letter.key))
    if letter.value is None:
        found.append((HEADER_NO_VALUE, b""))
    return found


def marker(letter: bytes, partition: int, offset: int) -> tuple[bytes, bytes, Headers]:
    """Key, value and headers of the record which says that a letter was replayed, and as of which place in the topic.

    letter: its record key. The marker must go into the letter's partition.
    """
    return _MARKER_PREFIX + letter, b"", [(HEADER_REPLAYED, f"{partition}:{offset}".encode())]


def marked(key: bytes | None, headers: Headers) -> tuple[bytes, int] | None:
    """The record key of the letter that a marker is about, and the last offset that it covers; None if it is none."""
    named = dict(headers)
    if HEADER_REASON in named or HEADER_REPLAYED not in named:
        return None
    if key is None or not key.startswith(_MARKER_PREFIX):
        return None
    try:
        return key.removeprefix(_MARKER_PREFIX), int(named[HEADER_REPLAYED].decode().split(":")[1])
    except (ValueError, IndexError):
        return None


_MARKER_PREFIX = b"replayed/"


def from_record(key: bytes | None, value: bytes | None, headers: Headers) -> DeadLetter:
    """The dead letter in a Kafka record. Raises ValueError if it is a tombstone or its headers are not a letter's."""
    named = dict(headers)
    try:
        if key is None or value is None:
            raise ValueError("a tombstone, or without a key")
        partition, offset, arrived = map(named.get, (HEADER_PARTITION, HEADER_OFFSET, HEADER_ARRIVED_AT_MS))
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
            key=named.get(HEADER_KEY),
            value=None if HEADER_NO_VALUE in named else value,
            original_headers=[(name, header) for name, header in headers if not _ours(name)],
            arrived_at_ms=None if arrived is None else int(arrived),
        )
    except (KeyError, ValueError) as error:
        raise ValueError(f"not a dead letter of this product: {error!r}") from error


def _ours(name: str) -> bool:
    return name.startswith(("clv.", "__connect.errors."))
