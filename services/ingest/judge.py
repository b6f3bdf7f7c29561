"""Judges one event: the record for `orders`, or why it cannot be one. Kafka and HTTP events meet the same judge.

Pure: bytes, headers and the time in, a verdict out. It must never raise, whatever the bytes are, and never round money
without saying so in the contract: amounts are exact in their own currency and rounded once, when they are converted.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import orjson
from pydantic import ValidationError

from domain.customer import DAY_MS
from domain.money import AMOUNT_MINOR_MAX, AmountError, AmountTooLarge, convert_minor, minor_units
from schemas.currencies import exponent_of
from schemas.customer_events import (
    CUSTOMER_EVENT,
    CustomerErasedEvent,
    CustomerEvent,
    CustomerMergedEvent,
    CustomerUpdatedEvent,
    EventType,
    OrderCancelledEvent,
    OrderPlacedEvent,
    OrderRefundedEvent,
    epoch_ms,
)
from schemas.dead_letters import Reason
from schemas.orders import Cancelled, Erased, Merged, OrderRecord, Placed, Refunded, Updated
from services.ingest import cloud_events
from services.ingest.rates import Rates
from services.ingest.rejection import Refused, Rejection, quote

Headers = Sequence[tuple[str, bytes | None]]

_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)\Z", re.ASCII)
_CODE = re.compile(r"[A-Z]{3}\Z", re.ASCII)
_PLAIN_DECIMAL = re.compile(r"[+-]?\d+(\.\d+)?\Z", re.ASCII)
_FIELD_REASONS = {
    "occurred_at": Reason.INVALID_TIMESTAMP,
    "amount": Reason.INVALID_AMOUNT,
    "currency": Reason.UNKNOWN_CURRENCY,
    "schema_version": Reason.UNSUPPORTED_SCHEMA_VERSION,
}


class Rules(msgspec.Struct, frozen=True):
    """What a judge goes by."""

    currency: str
    """Reporting currency, ISO 4217."""
    rates: Rates
    event_bytes_max: int = 1_000_000
    future_tolerance_ms: int = 300_000


def judge(value: bytes | None, headers: Headers, now_ms: int, rules: Rules) -> OrderRecord | Rejection:
    """The record that the event becomes, or the reason why it cannot.

    value, headers: as they came from Kafka (HTTP headers are given their Kafka names). now_ms: the clock, epoch
    milliseconds.
    """
    fields: dict[str, Any] = {}
    try:
        fields = _fields(value, headers, rules)
        return _record(_validated(fields), now_ms, rules)
    except Refused as refused:
        return Rejection(refused.reason, refused.detail, _event_id(fields))


def _fields(value: bytes | None, headers: Headers, rules: Rules) -> dict[str, Any]:
    """The event's fields, taken out of a CloudEvent if it is one."""
    if not value:
        raise Refused(Reason.EMPTY_MESSAGE, "the message has no value")
    if len(value) > rules.event_bytes_max:
        raise Refused(
            Reason.MESSAGE_TOO_LARGE, f"the event has {len(value)} bytes, at most {rules.event_bytes_max} are accepted"
        )
    named = dict(headers)
    context = cloud_events.attributes(named) if named else None
    fields = _object(value)
    if context is not None:
        return cloud_events.from_binary(context, fields)
    if "specversion" in fields or (named and cloud_events.is_structured(named)):
        return cloud_events.from_structured(fields, _object)
    return fields


def _object(value: bytes) -> dict[str, Any]:
    try:
        found = orjson.loads(value)
    except orjson.JSONDecodeError as error:
        raise _unreadable(value, error) from None
    if not isinstance(found, dict):
        raise Refused(Reason.NOT_AN_OBJECT, f"the event must be a JSON object, not {quote(found)}")
    return found


def _unreadable(value: bytes, error: orjson.JSONDecodeError) -> Refused:
    try:
        value.decode()
    except UnicodeDecodeError as wrong:
        return Refused(Reason.INVALID_UTF8, f"the event is not UTF-8: byte {wrong.start} cannot be decoded")
    return Refused(
        Reason.INVALID_JSON, f"the event is not JSON: {error.msg[:100]}, line {error.lineno}, column {error.colno}"
    )


def _validated(fields: dict[str, Any]) -> CustomerEvent:
    version = fields.get("schema_version", 1)
    if type(version) is not int or version != 1:  # pydantic would take true and 1.0 for 1
        raise Refused(Reason.UNSUPPORTED_SCHEMA_VERSION, f"schema_version is {quote(version)}; this release reads 1")
    at = fields.get("occurred_at")
    well_formed = isinstance(at, str) and _RFC3339.match(at) is not None  # pydantic would take numbers, too
    try:
        event = CUSTOMER_EVENT.validate_python(fields)
    except ValidationError as error:
        raise _refusal(error, fields) from None
    if not well_formed:
        raise _bad_timestamp(at)
    return event


def _refusal(error: ValidationError, fields: Mapping[str, Any]) -> Refused:
    """The first thing that is wrong, as a reason; how many more there are is in the detail."""
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    first = problems[0]
    more = f" ({len(problems) - 1} more problems)" if len(problems) > 1 else ""
    kind, path = first["type"], first["loc"]
    if kind == "union_tag_not_found":
        return Refused(Reason.MISSING_FIELD, "event_type is missing")
    if kind == "union_tag_invalid":
        known = ", ".join(EventType)
        return Refused(Reason.UNKNOWN_EVENT_TYPE, f"event_type {quote(fields.get('event_type'))} is none of {known}")
    field = str(path[1]) if len(path) > 1 else str(path)
    found = fields.get(field)
    if kind == "missing":
        return Refused(Reason.MISSING_FIELD, f"{field} is missing{more}")
    if field == "customer_id" and (found is None or (isinstance(found, str) and not found.strip())):
        return Refused(Reason.EMPTY_CUSTOMER_ID, f"customer_id is empty{more}")
    if field == "occurred_at":
        return _bad_timestamp(found)
    if field == "amount":
        return _bad_amount(found)
    if field == "currency":
        return _unknown_currency(found)
    message = first["msg"].removeprefix("Value error, ")
    return Refused(_FIELD_REASONS.get(field, Reason.INVALID_FIELD), f"{field} is {quote(found)}: {message[:120]}{more}")


def _bad_timestamp(found: object) -> Refused:
    return Refused(
        Reason.INVALID_TIMESTAMP,
        f"occurred_at {quote(found)} is not a time with a zone such as '2026-01-31T12:00:00Z' (RFC 3339)",
    )


def _unknown_currency(found: object) -> Refused:
    return Refused(Reason.UNKNOWN_CURRENCY, f"currency {quote(found)} is no currency of ISO 4217, such as 'USD'")


def _bad_amount(found: object) -> Refused:
    """Why something that is no amount of money is none."""
    if not isinstance(found, str):
        return Refused(Reason.INVALID_AMOUNT, f"amount must be a decimal string such as '12.34', not {quote(found)}")
    if _PLAIN_DECIMAL.match(found):
        if found.startswith("-"):
            return Refused(Reason.NON_POSITIVE_AMOUNT, f"amount {quote(found)} must be greater than 0")
        if len(found.lstrip("+0").split(".")[0]) > len(str(AMOUNT_MINOR_MAX)):
            return _too_large(found)
    return Refused(Reason.INVALID_AMOUNT, f"amount {quote(found)} is not a plain decimal such as '12.34'")


def _too_large(found: str) -> Refused:
    return Refused(Reason.AMOUNT_TOO_LARGE, f"amount {quote(found)} is larger than {AMOUNT_MINOR_MAX} minor units")


def _record(event: CustomerEvent, now_ms: int, rules: Rules) -> OrderRecord:
    at_ms = epoch_ms(event.occurred_at)
    _check_time(at_ms, event, now_ms, rules)
    match event:
        case OrderPlacedEvent():
            return Placed(
                event_id=event.event_id,
                customer_id=event.customer_id,
                occurred_at_ms=at_ms,
                source=event.source,
                order_id=event.order_id,
                amount_minor=_reporting_minor(event.amount, event.currency, at_ms, rules),
                original_amount=event.amount,
                original_currency=event.currency,
            )
        case OrderRefundedEvent():
            return Refunded(
                event_id=event.event_id,
                customer_id=event.customer_id,
                occurred_at_ms=at_ms,
                source=event.source,
                refund_id=event.refund_id or event.event_id,
                order_id=event.order_id,
                amount_minor=_reporting_minor(event.amount, event.currency, at_ms, rules),
                original_amount=event.amount,
                original_currency=event.currency,
            )
        case OrderCancelledEvent():
            return Cancelled(
                event_id=event.event_id,
                customer_id=event.customer_id,
                occurred_at_ms=at_ms,
                source=event.source,
                order_id=event.order_id,
            )
        case CustomerUpdatedEvent():
            return Updated(
                event_id=event.event_id,
                customer_id=event.customer_id,
                occurred_at_ms=at_ms,
                source=event.source,
                birth_year=event.birth_year,
            )
        case CustomerErasedEvent():
            return Erased(
                event_id=event.event_id, customer_id=event.customer_id, occurred_at_ms=at_ms, source=event.source
            )
        case CustomerMergedEvent():
            if event.merged_into == event.customer_id:
                raise Refused(Reason.INVALID_FIELD, "merged_into is the customer itself")
            return Merged(
                event_id=event.event_id,
                customer_id=event.customer_id,
                occurred_at_ms=at_ms,
                source=event.source,
                merged_into=event.merged_into,
            )


def _check_time(at_ms: int, event: CustomerEvent, now_ms: int, rules: Rules) -> None:
    if at_ms < 0:
        raise Refused(Reason.INVALID_TIMESTAMP, f"occurred_at {event.occurred_at.isoformat()} is before 1970")
    if at_ms > now_ms + rules.future_tolerance_ms:
        at, ahead_s = event.occurred_at.isoformat(), (at_ms - now_ms) // 1000
        raise Refused(
            Reason.FUTURE_DATE,
            f"occurred_at {at} is {ahead_s} s in the future; {rules.future_tolerance_ms / 1000:g} s are tolerated",
        )


def _reporting_minor(amount: str, currency: str, at_ms: int, rules: Rules) -> int:
    """Minor units of the reporting currency at the rate of the UTC day of at_ms."""
    exponent, own_exponent = _exponent(currency), _exponent(rules.currency)
    minor = _exact_minor(amount, exponent)
    if minor <= 0:
        raise Refused(Reason.NON_POSITIVE_AMOUNT, f"amount {quote(amount)} must be greater than 0")
    if currency == rules.currency:
        return minor
    rate = rules.rates.on(at_ms // DAY_MS, currency)
    if rate is None:
        raise Refused(
            Reason.UNKNOWN_CURRENCY,
            f"there is no rate from {currency} to {rules.currency} on or before the event's day",
        )
    converted = convert_minor(minor, exponent, own_exponent, rate)
    if converted > AMOUNT_MINOR_MAX:
        raise _too_large(amount)
    if converted <= 0:
        raise Refused(
            Reason.NON_POSITIVE_AMOUNT,
            f"amount {quote(amount)} {currency} is less than a minor unit of {rules.currency}",
        )
    return converted


def _exponent(currency: str) -> int:
    exponent = exponent_of(currency) if _CODE.match(currency) else None  # no other text may fill that function's cache
    if exponent is None:
        raise _unknown_currency(currency)
    return exponent


def _exact_minor(amount: str, exponent: int) -> int:
    try:
        return minor_units(amount, exponent)
    except AmountTooLarge:
        too_small = amount.startswith("-")
        raise (_bad_amount(amount) if too_small else _too_large(amount)) from None
    except AmountError as error:
        known = _bad_amount(amount)
        if known.reason is Reason.INVALID_AMOUNT and _PLAIN_DECIMAL.match(amount):
            raise Refused(Reason.INVALID_AMOUNT, str(error)[:200]) from None
        raise known from None


def _event_id(fields: Mapping[str, Any]) -> str | None:
    found = fields.get("event_id")
    return found if isinstance(found, str) and 0 < len(found) <= 256 else None
