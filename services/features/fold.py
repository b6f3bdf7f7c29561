"""One chunk of order records folded into customers' rows. Pure: what to store, emit and reject is decided here.

A record at or below a row's replay guard changes nothing, but its customer is emitted and logged again, because the
first time may not have reached Kafka.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

import msgspec

from domain.customer import DAY_MS, apply
from schemas.dead_letters import Reason
from schemas.orders import decode_order, domain_event
from services.features.rows import Row, new_row


class SourceRecord(Protocol):
    """What is read of a Kafka record."""

    key: bytes | None
    value: bytes | None
    offset: int
    timestamp: int


class Rejected(NamedTuple):
    """A record that could not be used."""

    record: SourceRecord
    reason: Reason
    detail: str


class Touched(msgspec.Struct):
    """A customer that the chunk concerns."""

    row: Row
    timestamp_ms: int
    """Kafka timestamp of the customer's last record in the chunk."""
    last_day: int
    """Latest day (since 1970) of the customer's records in the chunk."""


class Folded(NamedTuple):
    """What a chunk amounts to."""

    touched: dict[bytes, Touched]
    rejected: list[Rejected]
    replayed: int
    watermark_ms: int


def keys_of(records: Iterable[SourceRecord]) -> list[bytes]:
    """The customers of a chunk, each once."""
    return list(dict.fromkeys(record.key for record in records if record.key))


def fold_chunk(
    records: Sequence[SourceRecord], rows: Mapping[bytes, Row], incarnation: int, watermark_ms: int
) -> Folded:
    """Fold records, in offset order, into the rows of their customers (which are changed in place).

    rows: known rows of the chunk's customers. incarnation: of the source topic now. watermark_ms: so far.
    """
    touched: dict[bytes, Touched] = {}
    rejected: list[Rejected] = []
    replayed = 0
    for record in records:
        if not record.key:
            rejected.append(Rejected(record, Reason.EMPTY_KEY, "an order record needs its customer_id as key"))
            continue
        try:
            decoded = decode_order(record.value or b"")
        except msgspec.ValidationError as error:
            rejected.append(Rejected(record, Reason.INVALID_FIELD, str(error)))
            continue
        except msgspec.DecodeError as error:
            rejected.append(Rejected(record, Reason.INVALID_JSON, str(error)))
            continue
        if decoded.customer_id.encode() != record.key:
            detail = f"key {record.key[:80]!r} is not the customer_id of the value"
            rejected.append(Rejected(record, Reason.KEY_MISMATCH, detail))
            continue
        event = domain_event(decoded)
        if event is None:
            detail = f"{type(decoded).__name__.lower()} customers are handled by a later release"
            rejected.append(Rejected(record, Reason.NOT_SUPPORTED_YET, detail))
            continue
        known = touched.get(record.key)
        if known is None:
            row = rows.get(record.key) or new_row()
            known = touched[record.key] = Touched(row, record.timestamp, event.occurred_at_ms // DAY_MS)
        else:
            row = known.row
            known.timestamp_ms = record.timestamp
            known.last_day = max(known.last_day, event.occurred_at_ms // DAY_MS)
        watermark_ms = max(watermark_ms, event.occurred_at_ms)
        if row.incarnation == incarnation and record.offset <= row.offset:
            replayed += 1
            continue
        apply(row.state, event)
        row.events_applied += 1
        row.incarnation, row.offset = incarnation, record.offset
    return Folded(touched, rejected, replayed, watermark_ms)
