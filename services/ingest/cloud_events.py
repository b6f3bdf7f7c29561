"""CloudEvents 1.0 in binary mode (`ce_…` headers) and structured mode (one JSON object), turned into plain events.

Sources: CloudEvents 1.0.2 core specification §"Context Attributes", JSON format §3, Kafka protocol binding §3. Pure;
must never touch an event that is no CloudEvent.
"""

import base64
import binascii
from collections.abc import Callable, Mapping
from typing import Any

from schemas.dead_letters import Reason
from services.ingest.rejection import Refused, quote

STRUCTURED = "application/cloudevents+json"
_PREFIX = "ce_"
_FIELDS = {"id": "event_id", "type": "event_type", "source": "source", "time": "occurred_at"}
_REQUIRED = ("id", "source", "type")

Fields = dict[str, Any]


def attributes(headers: Mapping[str, bytes | None]) -> dict[str, str] | None:
    """Context attributes of a CloudEvent in binary mode; None if the headers are not those of one.

    Raises Refused if a value is not UTF-8.
    """
    if "ce_specversion" not in headers or is_structured(headers):
        return None
    found = {}
    for name, value in headers.items():
        if name.startswith(_PREFIX) and value is not None:
            try:
                found[name.removeprefix(_PREFIX)] = value.decode()
            except UnicodeDecodeError:
                raise Refused(Reason.INVALID_UTF8, f"header {quote(name)} is not UTF-8") from None
    return found


def is_structured(headers: Mapping[str, bytes | None]) -> bool:
    """Whether the headers say that the value is a CloudEvent in structured mode."""
    for name, value in headers.items():
        if name.lower() == "content-type" and value is not None:
            return value.decode("latin-1").split(";")[0].strip().lower() == STRUCTURED
    return False


def from_binary(context: Mapping[str, str], data: Fields) -> Fields:
    """The plain event of a CloudEvent in binary mode."""
    return _merge(context, data)


def from_structured(event: Fields, parse: Callable[[bytes], Fields]) -> Fields:
    """The plain event of a CloudEvent in structured mode. parse: bytes of a JSON object to the object, for data_base64.

    Raises Refused if an attribute is missing or the data cannot be read.
    """
    data = event.get("data")
    encoded = event.get("data_base64")
    if data is not None and encoded is not None:
        raise Refused(Reason.INVALID_FIELD, "a CloudEvent must not have both data and data_base64")
    if encoded is not None:
        data = parse(_decoded(encoded))
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise Refused(Reason.NOT_AN_OBJECT, f"data of the CloudEvent must be a JSON object, not {quote(data)}")
    return _merge(event, data)


def _decoded(encoded: object) -> bytes:
    if not isinstance(encoded, str):
        raise Refused(Reason.INVALID_FIELD, "data_base64 must be a string")
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise Refused(Reason.INVALID_FIELD, "data_base64 is not base 64") from None


def _merge(context: Mapping[str, Any], data: Fields) -> Fields:
    version = context.get("specversion")
    if version is None:
        raise Refused(Reason.MISSING_FIELD, "specversion is missing: a CloudEvent needs it")
    if version != "1.0":
        raise Refused(Reason.UNSUPPORTED_SCHEMA_VERSION, f"CloudEvents version {quote(version)} is not '1.0'")
    for name in _REQUIRED:
        if context.get(name) is None:
            raise Refused(Reason.MISSING_FIELD, f"{name} is missing: a CloudEvent needs it")
    merged = dict(data)
    for name, field in _FIELDS.items():
        if context.get(name) is not None:
            merged[field] = context[name]
    if context.get("subject") is not None:
        merged.setdefault("customer_id", context["subject"])
    return merged
