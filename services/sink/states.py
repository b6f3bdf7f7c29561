"""From records of the state changelog to MongoDB documents: judged one by one, then what stands of each customer.

Pure: bytes in, encoded documents out. A row is known by how many events it knows (events_applied), not by when it came:
a worker that had lost its partition may have written an old one late. Must never let an older row take the place of a
newer one, nor bring an erased customer back.

The changelog remembers an erasure as a row without a person, under a hash of the id. It becomes a marker: a document
with the same `key` as the customer's would have, which is unique, so that MongoDB itself refuses an older row.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, Protocol

import bson
import msgspec
from bson.binary import Binary
from bson.raw_bson import RawBSONDocument

from schemas.customer_rows import OWN_PREFIX, PROGRESS_KEY, Links, decode_progress, erased_key
from schemas.dead_letters import Reason
from services.sink.documents import Refusal

KEY_BYTES = 16
MARKER_PREFIX = "\0erased\0"
"""Begins the `_id` of markers: customer ids hold no control characters."""
_ERASED_PREFIX = erased_key(b"")[:-KEY_BYTES]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TIME_MS_MAX = 253_402_300_799_999  # 9999-12-31


class Record(Protocol):
    """A Kafka record, as far as it matters here."""

    key: bytes | None
    value: bytes | None
    timestamp: int
    partition: int
    offset: int


class _View(msgspec.Struct, array_like=True):
    """schemas.customer_rows.Row with the state left encoded."""

    events_applied: int
    incarnation: int
    offset: int
    state: msgspec.Raw
    links: Links | None = None


_decoder = msgspec.msgpack.Decoder(_View)


class StateWrite(msgspec.Struct, frozen=True, gc=False):
    """A row as it is stored (schemas.mongo.StateDocument)."""

    key: bytes
    """Of the customer, whether or not the id is known."""
    id: str
    """`_id` of the document."""
    events_applied: int
    document: RawBSONDocument
    is_marker: bool
    """Whether it is the memory of an erasure."""
    logged_at: datetime
    partition: int
    offset: int


class Gone(NamedTuple):
    """A tombstone: what was logged of the customer until then is deleted."""

    customer_id: str
    key: bytes
    logged_at: datetime


class Clock(NamedTuple):
    """How far time has come in a partition: what happened before it is in the rows before this record."""

    partition: int
    ms: int


class StatePlan(NamedTuple):
    """What one batch does to MongoDB, in this order."""

    gone: list[Gone]
    rows: list[StateWrite]
    """Of each key the one that knows most."""
    clocks: dict[int, int]
    """By partition, epoch milliseconds: to be stored after the rows."""


Judged = StateWrite | Gone | Clock


def judge_row(record: Record, now: datetime) -> Judged | Refusal | None:
    """What a record of the changelog is; None for what is the worker's own. now: UTC, becomes updated_at."""
    try:
        if not record.key:
            return Refusal(Reason.EMPTY_KEY, "the key must be the customer_id, and is empty")
        if record.key.startswith(OWN_PREFIX):
            return _own(record, record.key, now)
        customer_id = record.key.decode()
        key = _key_of(record.key)
        logged_at = _at(record.timestamp)
        if record.value is None:
            return Gone(customer_id, key, logged_at)
        row = _decoder.decode(record.value)
        document: dict[str, Any] = {"row": Binary(record.value)}
        linked = _linked_ids(row.links, customer_id)
        if linked:
            document["linked_ids"] = linked
        return _write(record, customer_id, key, row, document, now)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError, OverflowError) as error:
        return Refusal(Reason.INVALID_FIELD, f"not a row of the customer table: {error}")


def _own(record: Record, key: bytes, now: datetime) -> StateWrite | Clock | None:
    if record.value is None:
        return None
    if key == PROGRESS_KEY:
        progress = decode_progress(record.value)
        # A partition in which nothing happens still gets its daily sweep, by the clock that predictions are made by.
        return Clock(record.partition, max(progress.watermark_ms, progress.sweep_started_ms))
    if not key.startswith(_ERASED_PREFIX) or len(key) != len(_ERASED_PREFIX) + KEY_BYTES:
        return None
    row = _decoder.decode(record.value)
    erased_at_ms = 0 if row.links is None else row.links.erased_at_ms or 0
    of_customer = key[-KEY_BYTES:]
    return _write(record, marker_id(of_customer), of_customer, row, {"erased_at": _at(erased_at_ms)}, now)


def _write(record: Record, identifier: str, key: bytes, row: _View, more: dict[str, Any], now: datetime) -> StateWrite:
    document = {
        "_id": identifier,
        "key": Binary(key),
        "events_applied": bson.Int64(row.events_applied),
        **more,
        "logged_at": _at(record.timestamp),
        "updated_at": now,
    }
    return StateWrite(
        key,
        identifier,
        row.events_applied,
        RawBSONDocument(bson.encode(document)),
        identifier.startswith(MARKER_PREFIX),
        _at(record.timestamp),
        record.partition,
        record.offset,
    )


def _key_of(customer: bytes) -> bytes:
    return erased_key(customer)[-KEY_BYTES:]


def state_key(customer_id: str) -> bytes:
    """`key` of a customer's document or marker."""
    return _key_of(customer_id.encode())


def marker_id(key: bytes) -> str:
    """`_id` of the marker with this key."""
    return MARKER_PREFIX + key.hex()


def _linked_ids(links: Links | None, customer_id: str) -> list[str]:
    if links is None:
        return []
    found = {links.merged_into, *links.parts, *(part.merged_into for part in links.parts.values())}
    return sorted(each for each in found if each and each != customer_id)


def _at(epoch_ms: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=min(max(0, epoch_ms), _TIME_MS_MAX))


def plan_states(judged: Iterable[Judged]) -> StatePlan:
    """What a batch comes to. A customer's rows before a tombstone are not written at all.

    A tombstone that was logged before a row does not concern it, wherever it comes: as in the collection.
    """
    gone: dict[bytes, Gone] = {}
    rows: dict[bytes, StateWrite] = {}
    clocks: dict[int, int] = {}
    for each in judged:
        if isinstance(each, Clock):
            clocks[each.partition] = max(each.ms, clocks.get(each.partition, 0))
            continue
        known = rows.get(each.key)
        if isinstance(each, Gone):
            gone[each.key] = each
            if known is not None and not known.is_marker and known.logged_at <= each.logged_at:
                del rows[each.key]
        elif known is None or each.events_applied >= known.events_applied:
            rows[each.key] = each
    return StatePlan(list(gone.values()), list(rows.values()), clocks)


def parts_of(writes: Sequence[StateWrite], documents_max: int, bytes_max: int) -> Iterable[list[StateWrite]]:
    """The writes in parts that one command can carry: rows may be thousands of times larger than one another."""
    part: list[StateWrite] = []
    size = 0
    for each in writes:
        if part and (len(part) == documents_max or size + len(each.document.raw) > bytes_max):
            yield part
            part, size = [], 0
        part.append(each)
        size += len(each.document.raw)
    if part:
        yield part
