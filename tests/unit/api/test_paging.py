"""Positions and cursors: what comes after a page is all that comes after it, and nothing else; nothing is trusted."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.api.customers.paging import (
    BadCursor,
    Position,
    SortBy,
    begins_with,
    decode_cursor,
    encode_cursor,
    parts_after,
    position_in,
)

ids = st.text(max_size=4)
values = st.one_of(st.none(), st.floats(-1e6, 1e6), st.integers(-3, 3).map(float))
documents = st.dictionaries(ids, values, max_size=12)


def matches(document: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """MongoDB's meaning of the few conditions that are used: comparisons see their own type alone."""
    return all(
        meets(document[field], operator, bound)
        for field, condition in wanted.items()
        for operator, bound in (condition if isinstance(condition, dict) else {"$eq": condition}).items()
    )


def meets(value: Any, operator: str, bound: Any) -> bool:
    if operator in ("$eq", "$ne"):
        return (value == bound) == (operator == "$eq")
    if value is None or type(value) is not type(bound):
        return False
    return key_of(value) < key_of(bound) if operator == "$lt" else key_of(value) > key_of(bound)


def key_of(value: Any) -> Any:
    return value.encode() if isinstance(value, str) else value


@given(documents, st.booleans(), st.sampled_from(["value", "_id"]), st.integers(1, 5))
def test_pages_together_are_all_documents_once_and_in_order(
    found: dict[str, float | None], descending: bool, field: str, size: int
) -> None:
    by = SortBy(field, descending)
    stored = [{"_id": name, "value": value} for name, value in found.items()]

    def rank(document: dict[str, Any]) -> Any:
        value = document["value"]
        place = () if field == "_id" else (value is not None, value or 0.0)
        return (*place, document["_id"].encode())

    ordered = sorted(stored, key=rank, reverse=descending)
    position: Position | None = None
    seen: list[dict[str, Any]] = []
    while True:
        page: list[dict[str, Any]] = []
        for wanted, order in parts_after(by, position):
            part = [each for each in stored if matches(each, wanted)]
            if order == by.order:
                page += sorted(part, key=rank, reverse=descending)
            else:  # by `_id` alone
                assert order == by.order[-1:]
                page += sorted(part, key=lambda each: each["_id"].encode(), reverse=descending)
        seen += page[:size]
        if len(page) <= size:
            break
        position = decode_cursor("q", encode_cursor("q", position_in(page[size - 1], by)))
    assert seen == ordered


@given(st.text(max_size=5), ids, st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False, width=32)))
def test_a_cursor_keeps_its_position_to_the_last_bit(question: str, identity: str, value: float | None) -> None:
    assert decode_cursor(question, encode_cursor(question, Position(value, identity))) == Position(value, identity)


@given(st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1)), ids)  # noqa: DTZ001 - hypothesis wants it so
def test_a_time_is_kept_to_the_millisecond(at: datetime, identity: str) -> None:
    at = at.replace(tzinfo=UTC)
    kept = decode_cursor("q", encode_cursor("q", Position(at, identity)), is_time=True).value
    assert isinstance(kept, datetime)
    assert timedelta(0) <= at - kept < timedelta(milliseconds=1)


@given(st.one_of(st.text(), st.binary().map(lambda raw: raw.decode("latin-1"))), st.booleans())
def test_nonsense_is_no_cursor(text: str, is_time: bool) -> None:
    with pytest.raises(BadCursor):
        decode_cursor("q", text, is_time=is_time)


def test_a_cursor_of_a_time_is_none_of_a_number() -> None:
    number = encode_cursor("q", Position(1.5, "a"))
    with pytest.raises(BadCursor):
        decode_cursor("q", number, is_time=True)
    for beyond in (2**70, -1):
        with pytest.raises(BadCursor):
            decode_cursor("q", encode_cursor("q", Position(beyond, "a")), is_time=True)


@given(st.text(min_size=1, max_size=3), st.text(max_size=5))
def test_a_prefix_is_found_by_its_range_and_nothing_else(prefix: str, text: str) -> None:
    bounds = begins_with(prefix)
    inside = text.encode() >= bounds["$gte"].encode() and (
        "$lt" not in bounds or text.encode() < bounds["$lt"].encode()
    )
    assert inside == text.startswith(prefix)


@pytest.mark.parametrize("prefix", ["\U0010ffff", "a\U0010ffff", "\ud7ff", "z"])
def test_a_prefix_may_end_with_the_last_characters_there_are(prefix: str) -> None:
    bounds = begins_with(prefix)
    assert bounds["$gte"] == prefix
    if "$lt" in bounds:
        bounds["$lt"].encode()
        assert (prefix + "\U0010ffff").encode() < bounds["$lt"].encode()
