"""Dead letters to documents, and which of them an erasure concerns."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import bson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.dead_letters import DeadLetter, Headers, Origin, Reason, marker, to_record
from schemas.mongo import erasure_id
from services.sink.letters import (
    CLOCK_SKEW,
    VALUE_BYTES_MAX,
    Found,
    Kept,
    TakenBack,
    bulks,
    concerned,
    judge_letter,
    named_in_bytes,
    newest,
)

ARRIVED = datetime(2024, 1, 31, 12, tzinfo=UTC)
ARRIVED_MS = round(ARRIVED.timestamp() * 1000)


@dataclass
class FakeRecord:
    key: bytes | None
    value: bytes | None
    headers: Headers = field(default_factory=list)
    partition: int = 2
    offset: int = 5


def record(value: bytes | None, key: bytes | None = None, offset: int = 7, **changes: object) -> FakeRecord:
    fields = {
        "reason": Reason.INVALID_FIELD,
        "detail": "no",
        "service": "ingest",
        "origin": Origin("clv.customer-events.v1", 0, offset),
        "rejected_at_ms": ARRIVED_MS + 10,
        "arrived_at_ms": ARRIVED_MS,
    } | changes
    return FakeRecord(*to_record(DeadLetter(key=key, value=value, **fields)))


def kept(value: bytes | None, **changes: object) -> Kept:
    verdict = judge_letter(record(value, **changes))
    assert isinstance(verdict, Kept)
    return verdict


def test_a_letter_is_stored_whole_with_the_customers_it_names():
    found = kept(b'{"customer_id": "c", "merged_into": "d"}', key=b"k", original_headers=[("a", b"\xff"), ("n", None)])
    assert bson.decode(found.encoded.raw, bson.CodecOptions(tz_aware=True)) == {
        "_id": "clv.customer-events.v1/0/7",
        "reason": "invalid_field",
        "service": "ingest",
        "detail": "no",
        "origin": {"topic": "clv.customer-events.v1", "partition": 0, "offset": 7},
        "rejected_at": ARRIVED + timedelta(milliseconds=10),
        "arrived_at": ARRIVED,
        "key": b"k",
        "value": b'{"customer_id": "c", "merged_into": "d"}',
        "headers": [{"name": "a", "value": b"\xff"}, {"name": "n", "value": None}],
        "customer_ids": ["c", "d", "k"],
        "clear": True,
        "partition": 2,
    }


def test_what_does_not_fit_into_a_document_is_cut():
    found = kept(b"x" * (VALUE_BYTES_MAX + 5), original_headers=[("big", b"y" * 3_000_000)])
    assert len(found.encoded.raw) < 16 * 1024 * 1024
    assert not found.document["clear"]


@pytest.mark.parametrize(
    "other",
    [
        FakeRecord(*marker(b"clv.orders.v1/0/1", 0, 5)),
        FakeRecord(b"foreign", b"x"),
        FakeRecord(None, b"x"),
        FakeRecord(b"\xff", None),
        record(b"{", rejected_at_ms=10**20),
        record(b"{", origin=Origin("t", 0, 2**70)),
    ],
)
def test_what_is_no_letter_of_ours_is_left_alone(other: FakeRecord):
    assert judge_letter(other) is None


def test_of_one_letter_the_last_record_stands():
    first, again, other = kept(b"1"), kept(b"2"), kept(b"3", offset=8)
    gone = TakenBack(first.letter)
    assert newest([first, other, gone]) == ([other], [first.letter])
    assert newest([first, gone, again, other]) == ([again, other], [])


LATE = ARRIVED + timedelta(hours=1)
EARLY = ARRIVED - CLOCK_SKEW - timedelta(milliseconds=1)


@pytest.mark.parametrize(
    ("value", "customer", "at", "goes"),
    [
        (b'{"customer_id": "c"}', "c", LATE, True),
        (b'{"customer_id": "c"}', "c", ARRIVED, True),
        (b'{"customer_id": "c"}', "c", EARLY, False),
        (b'{"customer_id": "c"}', "d", LATE, False),
        (b'{"customer_id": "c", "note": "d"}', "d", LATE, False),
        (b'{"userId": "c"}', "c", LATE, True),
        (b'{"customer_id": "c 1", ', "c 1", LATE, True),
        (b"customer c-1, order 7", "c-1", LATE, True),
        (b"customer c-12, order 7", "c-1", LATE, False),
        (None, "c", LATE, False),
    ],
)
def test_an_erasure_concerns_letters_that_came_before_it(value: bytes | None, customer: str, at: datetime, goes: bool):
    letter = kept(value)
    found = concerned([letter], {erasure_id(customer): at})
    assert found == ([Found(letter.letter, 2)] if goes else [])


@given(
    st.none() | st.binary(max_size=10), st.none() | st.binary(max_size=30), st.lists(st.tuples(st.text(), st.binary()))
)
def test_no_bytes_ever_raise(key: bytes | None, value: bytes | None, headers: Headers):
    judge_letter(FakeRecord(key, value, headers))
    judge_letter(record(value, key, original_headers=headers))


@pytest.mark.parametrize("how_many", [3, 100])
def test_few_or_many_customers_are_found_in_a_letter_that_cannot_be_read(how_many: int):
    customers = {f"c-{number}": None for number in range(how_many)}
    assert sorted(named_in_bytes(b'{"userId": "c-1", c-2, "c-1000", c-3x', customers)) == ["c-1", "c-2"]


@given(st.lists(st.integers(0, 60), max_size=30), st.integers(1, 5), st.integers(1, 2000))
def test_letters_are_written_in_parts_that_hold_all_of_them_in_order(sizes: list[int], most: int, bytes_max: int):
    letters = [kept(b"x" * size, offset=at) for at, size in enumerate(sizes)]
    parts = list(bulks(letters, most, bytes_max))
    assert [each for part in parts for each in part] == letters
    for part in parts:
        assert 1 <= len(part) <= most
        assert len(part) == 1 or sum(len(each.encoded.raw) for each in part) <= bytes_max
