"""Judging and coalescing feature messages: the newest of each customer, and a reason for whatever cannot be used."""

from dataclasses import dataclass

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.customer_features import encode_features
from schemas.dead_letters import Reason
from services.scorer.intake import Candidate, Erased, Refusal, coalesce, judge
from tests.bundles import feature_messages


@dataclass
class FakeRecord:
    key: bytes | None
    value: bytes | None
    timestamp: int = 7
    partition: int = 1
    offset: int = 5
    headers: tuple[tuple[str, bytes], ...] = ()


GOOD = msgspec.to_builtins(feature_messages(1)[0])


def changed(**changes: object) -> bytes:
    return msgspec.json.encode({name: value for name, value in {**GOOD, **changes}.items() if value is not ...})


def test_a_good_message_is_a_candidate_with_its_maps_untouched() -> None:
    message = feature_messages(1)[0]
    value = encode_features(message)
    verdict = judge(FakeRecord(b"c0", value), "USD")
    assert isinstance(verdict, Candidate)
    assert (verdict.timestamp_ms, verdict.partition, verdict.offset) == (7, 1, 5)
    assert verdict.features == message.features
    assert bytes(verdict.view.features) in value


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        (b"c0", b"", Reason.INVALID_JSON),
        (b"c0", b"{", Reason.INVALID_JSON),
        (b"c0", b"\xff", Reason.INVALID_JSON),
        (b"c0", b"[]", Reason.INVALID_FIELD),
        (b"c0", b"[" * 100_000, Reason.INVALID_FIELD),
        (b"c0", changed(features=...), Reason.MISSING_FIELD),
        (b"c0", changed(features={"frequency": 1.0}), Reason.MISSING_FIELD),
        (b"c0", changed(features=5), Reason.INVALID_FIELD),
        (b"c0", changed(features={**GOOD["features"], "frequency": "many"}), Reason.INVALID_FIELD),
        (b"c0", changed(features=msgspec.Raw(b'{"frequency":1e999}')), Reason.INVALID_FIELD),
        (b"c0", changed(features=msgspec.Raw(b'{"\xff":1}')), Reason.INVALID_UTF8),
        (b"c0", changed(inputs=[1]), Reason.INVALID_FIELD),
        (b"c0", changed(ledger={"gross": 1.0}), Reason.MISSING_FIELD),
        (b"c0", changed(ledger={"orders_placed": 1, "gross": "much", "net": 1.0}), Reason.INVALID_FIELD),
        (b"c0", changed(feature_version=-1), Reason.INVALID_FIELD),
        (b"c0", changed(feature_version=2**60), Reason.INVALID_FIELD),
        (b"c0", changed(feature_version="7"), Reason.INVALID_FIELD),
        (b"c0", changed(as_of="2024-02-30"), Reason.INVALID_FIELD),
        (b"c0", changed(as_of="20240229"), Reason.INVALID_FIELD),
        (b"c0", changed(currency="EUR"), Reason.INVALID_FIELD),
        (b"someone else", changed(), Reason.KEY_MISMATCH),
        (b"", changed(), Reason.EMPTY_KEY),
        (None, changed(), Reason.EMPTY_KEY),
        (b"\xff", changed(), Reason.INVALID_UTF8),
    ],
)
def test_what_cannot_be_used_says_why(key: bytes | None, value: bytes, reason: Reason) -> None:
    verdict = judge(FakeRecord(key, value), "USD")
    assert isinstance(verdict, Refusal), verdict
    assert verdict.reason == reason, verdict
    assert verdict.detail


@given(st.binary(max_size=60) | st.text().map(str.encode))
def test_no_bytes_ever_raise(value: bytes) -> None:
    assert isinstance(judge(FakeRecord(b"c0", value), "USD"), Refusal)


def test_a_tombstone_is_an_erasure() -> None:
    assert judge(FakeRecord(b"c0", None), "USD") == Erased("c0", 7)


def test_a_tombstone_keeps_the_headers_that_say_why() -> None:
    headers = (("clv.cause", b"erased"), ("traceparent", b"1"))
    assert judge(FakeRecord(b"c0", None, headers=headers), "USD") == Erased("c0", 7, headers)


def candidate(name: str, version: int, offset: int) -> Candidate:
    verdict = judge(FakeRecord(name.encode(), changed(customer_id=name, feature_version=version), offset=offset), "USD")
    assert isinstance(verdict, Candidate)
    return verdict


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 4) | st.none()), max_size=30))
def test_coalescing_equals_taking_the_records_one_by_one(entries: list[tuple[str, int | None]]) -> None:
    judged = [
        Erased(name, offset) if version is None else candidate(name, version, offset)
        for offset, (name, version) in enumerate(entries)
    ]
    naive: dict[str, tuple[int, int]] = {}
    erased = []
    for offset, (name, version) in enumerate(entries):
        if version is None:
            erased.append((name, offset))
            naive.pop(name, None)
        elif name not in naive or version >= naive[name][0]:
            naive[name] = (version, offset)
    found = coalesce(judged)
    assert [
        (each.customer_id, each.timestamp_ms) for each in found[: len(erased)] if isinstance(each, Erased)
    ] == erased
    assert {
        each.view.customer_id: (each.view.feature_version, each.offset)
        for each in found[len(erased) :]
        if isinstance(each, Candidate)
    } == naive
    assert len(found) == len(erased) + len(naive)
