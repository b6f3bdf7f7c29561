"""Changelog records to documents and plans: what a row is, and what is left of an erased customer."""

from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b

import bson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.customer import DAY_MS, OrderPlaced, fold
from schemas.customer_rows import PROGRESS_KEY, Links, Part, Progress, Row, encode, erased_key, stored
from schemas.dead_letters import Reason
from services.sink.documents import Refusal
from services.sink.states import Clock, Gone, StateWrite, judge_row, marker_id, parts_of, plan_states, state_key

NOW = datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)
STATE = fold([OrderPlaced("o1", 1250, DAY_MS)])


@dataclass
class FakeRecord:
    key: bytes | None
    value: bytes | None
    timestamp: int = 1_700_000_000_123
    partition: int = 2
    offset: int = 5


def judged(key: bytes, value: bytes | None, timestamp: int = 1_700_000_000_123) -> StateWrite | Gone | Clock:
    verdict = judge_row(FakeRecord(key, value, timestamp), NOW)
    assert isinstance(verdict, StateWrite | Gone | Clock), verdict
    return verdict


def row_of(events: int, links: Links | None = None) -> bytes:
    return encode(Row(events, 0, 9, STATE, links))


def erased(customer: bytes, events: int, at_ms: int = 77_000) -> tuple[bytes, bytes]:
    """What the feature worker logs beside the tombstone."""
    (gone, _), (key, value) = stored(
        customer, Row(events, 0, 9, fold([]), Links(1, erased_at_ms=at_ms, forgotten=True))
    )
    assert gone == customer
    assert value is not None
    return key, value


def test_a_row_is_kept_byte_for_byte():
    value = row_of(2**40)
    write = judged("zoë".encode(), value)
    assert isinstance(write, StateWrite)
    document = bson.decode(write.document.raw)
    assert document == {
        "_id": "zoë",
        "key": blake2b("zoë".encode(), digest_size=16).digest(),
        "events_applied": 2**40,
        "row": value,
        "logged_at": datetime(2023, 11, 14, 22, 13, 20, 123_000),  # noqa: DTZ001 - as BSON gives it back
        "updated_at": NOW.replace(tzinfo=None),
    }
    assert bson.decode(judged(b"a", row_of(1)).document.raw)["events_applied"] == 1
    assert write.key == state_key("zoë")
    assert (write.id, write.is_marker, write.events_applied) == ("zoë", False, 2**40)


def test_events_applied_is_64_bits_however_small():
    raw = judged(b"a", row_of(1)).document.raw
    assert b"\x12events_applied\x00" in raw


def test_a_row_names_the_customers_it_was_merged_with():
    links = Links(5, "into", 0, {"part": Part(1, "via", 0, STATE), "other": Part(1, "a", 0, STATE)})
    document = bson.decode(judged(b"a", row_of(5, links)).document.raw)
    assert document["linked_ids"] == ["into", "other", "part", "via"]


def test_the_memory_of_an_erasure_becomes_a_marker_without_the_customer():
    key, value = erased(b"gone", 7)
    write = judged(key, value)
    assert isinstance(write, StateWrite)
    document = bson.decode(write.document.raw)
    assert document["_id"] == marker_id(state_key("gone")) == write.id
    assert document["key"] == state_key("gone") == write.key
    assert document["erased_at"].timestamp() is not None
    assert document["events_applied"] == 7
    assert write.is_marker
    assert "row" not in document
    assert b"gone" not in write.document.raw


def test_a_partitions_own_row_tells_how_far_time_has_come():
    progress = Progress(3, 0, 8, watermark_ms=500, sweep_started_ms=400, sweep_cursor=None, sweep_done=0)
    assert judge_row(FakeRecord(PROGRESS_KEY, encode(progress)), NOW) == Clock(2, 500)
    progress.sweep_started_ms = 900
    assert judge_row(FakeRecord(PROGRESS_KEY, encode(progress)), NOW) == Clock(2, 900)


@pytest.mark.parametrize("key", [PROGRESS_KEY, erased_key(b"a"), b"\0else"])
def test_nothing_is_left_of_an_own_row_that_was_deleted(key: bytes):
    assert judge_row(FakeRecord(key, None), NOW) is None


def test_an_unknown_own_row_is_not_a_customers():
    assert judge_row(FakeRecord(b"\0else", b"x"), NOW) is None


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        (None, b"x", Reason.EMPTY_KEY),
        (b"", b"x", Reason.EMPTY_KEY),
        (b"a", b"", Reason.INVALID_FIELD),
        (b"a", b"\xc1", Reason.INVALID_FIELD),
        (b"a", row_of(3)[:-4], Reason.INVALID_FIELD),
        (b"\xff", row_of(3), Reason.INVALID_FIELD),
        (PROGRESS_KEY, b"\xc1", Reason.INVALID_FIELD),
    ],
)
def test_what_is_no_row_is_refused(key: bytes | None, value: bytes, reason: Reason):
    verdict = judge_row(FakeRecord(key, value), NOW)
    assert isinstance(verdict, Refusal)
    assert verdict.reason is reason


@given(st.binary(max_size=60), st.binary(max_size=60) | st.none(), st.integers(-(2**63), 2**63 - 1))
def test_no_record_whatever_breaks_the_sink(key: bytes, value: bytes | None, timestamp: int):
    judge_row(FakeRecord(key, value, timestamp), NOW)


def test_of_a_batch_the_row_that_knows_most_stands_whenever_it_came():
    plan = plan_states([judged(b"a", row_of(4)), judged(b"b", row_of(1)), judged(b"a", row_of(3))])
    assert {each.id: each.events_applied for each in plan.rows} == {"a": 4, "b": 1}
    assert plan.gone == []


def test_what_came_before_a_tombstone_is_not_written():
    plan = plan_states([judged(b"a", row_of(4)), judged(b"a", None), judged(*erased(b"a", 5))])
    assert [(each.is_marker, each.events_applied) for each in plan.rows] == [(True, 5)]
    assert [each.customer_id for each in plan.gone] == ["a"]


def test_an_old_row_after_the_erasure_loses_against_its_memory():
    plan = plan_states([judged(b"a", None), judged(*erased(b"a", 5)), judged(b"a", row_of(4))])
    assert [each.is_marker for each in plan.rows] == [True]


def test_who_comes_back_is_written():
    plan = plan_states([judged(b"a", None), judged(*erased(b"a", 5)), judged(b"a", row_of(6))])
    assert [(each.id, each.events_applied) for each in plan.rows] == [("a", 6)]
    assert [each.customer_id for each in plan.gone] == ["a"]


def test_the_latest_time_of_each_partition_stands():
    assert plan_states([Clock(0, 5), Clock(1, 9), Clock(0, 3)]).clocks == {0: 5, 1: 9}


@given(st.lists(st.integers(1, 30), max_size=30), st.integers(1, 7), st.integers(1, 3000))
def test_parts_hold_every_row_once_and_no_more_than_fits(sizes: list[int], documents_max: int, bytes_max: int):
    writes = [judged(f"{number}".encode(), row_of(size)) for number, size in enumerate(sizes)]
    parts = list(parts_of(writes, documents_max, bytes_max))
    assert [each for part in parts for each in part] == writes
    for part in parts:
        assert 0 < len(part) <= documents_max
        assert len(part) == 1 or sum(len(each.document.raw) for each in part) <= bytes_max
