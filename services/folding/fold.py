"""One chunk of order records folded into rows. Pure: what to store, emit, pass on and reject is decided here.

A record at or below a row's replay guard changes nothing, but its customer is emitted and logged again, because the
first time may not have reached Kafka.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

import msgspec

from domain.customer import DAY_MS
from domain.refunds import RefundCounts
from schemas.customer_rows import OWN_PREFIX, Row, is_forgotten, new_row, survivor
from schemas.dead_letters import Reason
from schemas.orders import Absorbed, Erased, Merged, OrderRecord, decode_order, domain_event
from services.folding import links


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
    was_known: bool
    """Whether there was a customer (not erased) before the chunk."""
    erased: bool = False
    """Whether the chunk holds an erasure of the customer, who may have started anew since."""

    @property
    def is_known(self) -> bool:
        """Whether there is one after it."""
        return not is_forgotten(self.row)


class ToSend(NamedTuple):
    """A record for `orders`, about another customer than the one that caused it."""

    record: OrderRecord
    timestamp_ms: int


class Folded(NamedTuple):
    """What a chunk amounts to."""

    touched: dict[bytes, Touched]
    to_send: list[ToSend]
    """To be acknowledged by Kafka before any row of the chunk is logged."""
    rejected: list[Rejected]
    replayed: int
    watermark_ms: int
    refunds: RefundCounts


class _Refused(Exception):
    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


def keys_of(records: Iterable[SourceRecord]) -> list[bytes]:
    """The customers of a chunk, each once."""
    return list(dict.fromkeys(key for record in records if (key := record.key) and not key.startswith(OWN_PREFIX)))


def fold_chunk(
    records: Sequence[SourceRecord],
    rows: Mapping[bytes, Row],
    incarnation: int,
    watermark_ms: int,
    *,
    start_anew: bool = True,
) -> Folded:
    """Fold records, in offset order, into the rows of their customers (which are changed in place).

    rows: known rows of the chunk's customers, erased ones too. incarnation: of the source topic now. watermark_ms: so
    far. start_anew: whether events of an erased customer begin a new one; they are refused otherwise.
    """
    touched: dict[bytes, Touched] = {}
    to_send: list[ToSend] = []
    rejected: list[Rejected] = []
    replayed = 0
    refunds = RefundCounts()
    for record in records:
        try:
            decoded = _decoded(record)
        except _Refused as refused:
            rejected.append(Rejected(record, refused.reason, refused.detail))
            continue
        assert record.key is not None
        known = touched.get(record.key)
        row = known.row if known is not None else rows.get(record.key) or new_row()
        was_known = row.events_applied > 0 and not is_forgotten(row)
        if row.incarnation == incarnation and record.offset <= row.offset:
            replayed += 1
        else:
            try:
                sent = _apply(row, decoded, start_anew, refunds)
            except _Refused as refused:
                rejected.append(Rejected(record, refused.reason, refused.detail))
                continue
            if sent is None:
                continue
            to_send += [ToSend(each, record.timestamp) for each in sent]
            row.events_applied += 1
            row.incarnation, row.offset = incarnation, record.offset
        day = decoded.occurred_at_ms // DAY_MS
        watermark_ms = max(watermark_ms, decoded.occurred_at_ms)
        if known is None:
            known = touched[record.key] = Touched(row, record.timestamp, day, was_known)
        known.timestamp_ms, known.last_day = record.timestamp, max(known.last_day, day)
        known.erased |= isinstance(decoded, Erased)
    return Folded(touched, to_send + _parts(touched), rejected, replayed, watermark_ms, refunds)


def _decoded(record: SourceRecord) -> OrderRecord:
    if not record.key:
        raise _Refused(Reason.EMPTY_KEY, "an order record needs its customer_id as key")
    if record.key.startswith(OWN_PREFIX):
        raise _Refused(Reason.INVALID_FIELD, "a customer_id must not begin with a zero character")
    try:
        decoded = decode_order(record.value or b"")
    except msgspec.ValidationError as error:
        raise _Refused(Reason.INVALID_FIELD, str(error)) from None
    except msgspec.DecodeError as error:
        raise _Refused(Reason.INVALID_JSON, str(error)) from None
    if decoded.customer_id.encode() != record.key:
        detail = f"key {record.key[:80]!r} is not the customer_id of the value"
        raise _Refused(Reason.KEY_MISMATCH, detail)
    return decoded


def _apply(row: Row, record: OrderRecord, start_anew: bool, refunds: RefundCounts) -> Sequence[OrderRecord] | None:
    """Change the row as the record says; what to send to other customers' rows. None if nothing changes.

    Raises _Refused.
    """
    if isinstance(record, Absorbed):
        try:
            return () if links.absorb(row, record) else None
        except msgspec.DecodeError as error:
            raise _Refused(Reason.INVALID_FIELD, f"state: {error}") from None
    if isinstance(record, Erased):
        return links.erase(row, record)
    if not links.may_apply(row, record.occurred_at_ms, start_anew=start_anew):
        raise _Refused(Reason.CUSTOMER_ERASED, "the customer was erased; what came is not kept")
    if isinstance(record, Merged):
        try:
            links.merge(row, record)
        except links.Conflict as conflict:
            raise _Refused(Reason.MERGE_CONFLICT, str(conflict)) from None
    else:
        event = domain_event(record)
        assert event is not None
        refunds.apply(row.state, event)
    if row.links is not None:
        row.links.own_events += 1
        row.links.forgotten = False
    return ()


def _parts(touched: Mapping[bytes, Touched]) -> list[ToSend]:
    """What merged customers' rows send on, once a chunk."""
    found = []
    for key, each in touched.items():
        customer = key.decode()
        into = survivor(customer, each.row)
        if into is not None:
            found += [ToSend(part, each.timestamp_ms) for part in links.parts_to_send(customer, each.row, into)]
    return found
