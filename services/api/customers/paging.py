"""Keyset paging: where a page ended, as an opaque cursor, and what comes after it, as filters of MongoDB.

Pure. A position is the last document's value of the field that is sorted by, and its `_id`, which breaks ties. What
does not change its value is therefore met exactly once, whatever is written meanwhile. Must never trust a cursor: it
comes from outside.
"""

import base64
import binascii
import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import msgspec

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS_MAX = 253_402_300_799_999  # 9999-12-31
_ID_LENGTH_MAX = 1024
_CURSOR_LENGTH_MAX = 4096
_CHARACTER_MAX = 0x10FFFF
_SURROGATES = range(0xD800, 0xE000)


class SortBy(NamedTuple):
    """An order of documents: a field that holds numbers, times or null, ascending or not; then `_id` likewise."""

    field: str
    descending: bool
    is_time: bool = False

    @property
    def order(self) -> list[tuple[str, int]]:
        """As MongoDB sorts. One index serves both directions, since the `_id` turns with the field."""
        direction = -1 if self.descending else 1
        return [(self.field, direction)] + ([] if self.field == "_id" else [("_id", direction)])


class Position(NamedTuple):
    """Where a page ended."""

    value: float | datetime | None
    """Of the field that is sorted by; None is null, and nothing where the order is that of `_id` alone."""
    id: str


class BadCursor(ValueError):
    """A cursor that this API did not make, or made for another question."""


class _Cursor(msgspec.Struct, array_like=True):
    question: str
    value: float | int | None
    id: str


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(_Cursor)


def encode_cursor(question: str, position: Position) -> str:
    """The cursor of a position. question: what was asked for; a cursor is of use for the same question alone."""
    value = position.value
    if isinstance(value, datetime):
        value = (value - _EPOCH) // timedelta(milliseconds=1)
    content = _encoder.encode(_Cursor(question, value, position.id))
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def decode_cursor(question: str, cursor: str, *, is_time: bool = False) -> Position:
    """The position in a cursor. Raises BadCursor if it is none of this question."""
    try:
        if len(cursor) > _CURSOR_LENGTH_MAX:
            raise BadCursor("it is too long")
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        found = _decoder.decode(base64.b64decode(padded, altchars=b"-_", validate=True))
        found.id.encode()  # a lone surrogate is no text that MongoDB could be asked for
    except (UnicodeError, binascii.Error, msgspec.DecodeError, RecursionError):
        raise BadCursor("it is none that this API gave") from None
    if found.question != question:
        raise BadCursor("it belongs to another question: give it with the same sort and filters as the page before")
    if len(found.id) > _ID_LENGTH_MAX:
        raise BadCursor("it is none that this API gave")
    return Position(_value(found.value, is_time=is_time), found.id)


def _value(value: float | None, *, is_time: bool) -> float | datetime | None:
    if value is None:
        return None
    if not is_time:
        if not math.isfinite(value) or (isinstance(value, int) and abs(value) >= 2**63):  # BSON has 64 bits
            raise BadCursor("it is none that this API gave")
        return value
    if not isinstance(value, int) or not 0 <= value <= _MS_MAX:
        raise BadCursor("it is none that this API gave")
    return _EPOCH + timedelta(milliseconds=value)


def position_in(document: Mapping[str, Any], by: SortBy) -> Position:
    """Where the document stands in the order."""
    value: Any = None
    if by.field != "_id":
        value = document
        for part in by.field.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
    return Position(value, str(document["_id"]))


class Part(NamedTuple):
    """Some of what comes after a position."""

    wanted: dict[str, Any]
    order: list[tuple[str, int]]


def parts_after(by: SortBy, position: Position | None) -> list[Part]:
    """What comes after the position, in parts to ask for one after the other.

    Several, since MongoDB finds in an index what has one value, or what is beyond one, but not both at once; and since
    null is beyond no number: it comes before all of them. Where all have one value the order is that of `_id`, or
    MongoDB would sort.
    """
    if position is None:
        return [Part({}, by.order)]
    beyond = "$lt" if by.descending else "$gt"
    if by.field == "_id":
        return [Part({"_id": {beyond: position.id}}, by.order)]
    by_id = [("_id", -1 if by.descending else 1)]
    ties = Part({by.field: position.value, "_id": {beyond: position.id}}, by_id)
    if position.value is None:
        return [ties] if by.descending else [ties, Part({by.field: {"$ne": None}}, by.order)]
    greater = Part({by.field: {beyond: position.value}}, by.order)
    return [ties, greater, Part({by.field: None}, by_id)] if by.descending else [ties, greater]


def begins_with(prefix: str) -> dict[str, str]:
    """The condition of MongoDB that a text begins so; the whole range in an index. The prefix must not be empty."""
    end = _after_all_that_begin_with(prefix)
    return {"$gte": prefix} if end is None else {"$gte": prefix, "$lt": end}


def _after_all_that_begin_with(prefix: str) -> str | None:
    """The least text that is greater than all that begin so (by code points, as UTF-8's bytes sort); None: nothing."""
    kept = prefix.rstrip(chr(_CHARACTER_MAX))
    if not kept:
        return None
    following = ord(kept[-1]) + 1
    if following in _SURROGATES:  # no characters of their own, and not to be written as UTF-8
        following = _SURROGATES.stop
    return kept[:-1] + chr(following)
