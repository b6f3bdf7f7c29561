"""Predictions to documents and plans, against plain dictionaries that keep everything."""

from dataclasses import dataclass
from datetime import UTC, datetime

import bson
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.segments import ASCENDING
from schemas.customer_features import Ledger
from schemas.dead_letters import Reason
from schemas.mongo import COLLECTIONS, INDEXES, OUTCOME_FIELDS, TOP_FIELDS, stored_prediction
from schemas.predictions import Prediction, PredictionHead, encode_prediction
from services.sink.documents import Erased, Refusal, Write, erasures, judge, plan
from tests.unit.sink.examples import OUTCOMES, prediction

NOW = datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)
numbers = st.floats(allow_nan=False, allow_infinity=False)
names = st.text(min_size=1, max_size=20)
values = st.dictionaries(
    st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=10), st.none() | numbers
)
ledgers = st.builds(
    Ledger,
    orders_placed=st.integers(0, 2**53),
    gross=numbers,
    net=numbers,
    refund_excess=numbers,
    waiting_refunds=numbers,
    waiting_refund_count=st.integers(0, 2**53),
)
segments = st.sampled_from([each.value for each in ASCENDING])


@dataclass
class FakeRecord:
    key: bytes | None
    value: bytes | None
    timestamp: int = 7
    partition: int = 1
    offset: int = 5
    headers: tuple[tuple[str, bytes], ...] = ()


predictions_ = st.builds(
    Prediction,
    prediction_id=st.uuids().map(lambda each: each.hex),
    customer_id=names,
    feature_version=st.integers(0, 2**53 - 1),
    as_of=st.dates().map(str),
    horizon_days=st.integers(1, 1000),
    currency=st.just("USD"),
    **dict.fromkeys(OUTCOMES, numbers),
    historical_value=st.none() | numbers,
    expected_next_order_at=st.none() | st.dates().map(str),
    percentile=numbers,
    segment=segments,
    previous_segment=st.none() | segments,
    strategy=names,
    segment_thresholds=st.tuples(numbers, numbers, numbers),
    model_version=names,
    inputs=values,
    features=values,
    ledger=st.none() | ledgers,
)


def judged(message: Prediction, offset: int = 5) -> Write:
    verdict = judge(FakeRecord(message.customer_id.encode(), encode_prediction(message), offset=offset), NOW)
    assert isinstance(verdict, Write), verdict
    return verdict


@given(predictions_)
def test_both_documents_hold_the_whole_prediction(message: Prediction) -> None:
    write = judged(message)
    customer, history = bson.decode(write.customer.raw), bson.decode(write.history.raw)
    assert stored_prediction(customer) == message
    assert stored_prediction(history) == message
    assert customer["_id"] == message.customer_id == history["customer_id"]
    assert history["_id"] == message.prediction_id == write.prediction_id
    assert customer["updated_at"] == history["created_at"] == NOW.replace(tzinfo=None)
    assert set(customer["prediction"]) == set(OUTCOME_FIELDS)
    assert (write.customer_id, write.feature_version, write.timestamp_ms) == (
        message.customer_id,
        message.feature_version,
        7,
    )


def test_both_documents_hold_every_field_of_the_ledger_those_that_are_nothing_too() -> None:
    ledger = Ledger(2, 30.0, 20.0, refunded=10.0, refund_excess=2.5)
    write = judged(msgspec.structs.replace(prediction(), ledger=ledger))
    for raw in (write.customer.raw, write.history.raw):
        assert bson.decode(raw)["ledger"] == msgspec.structs.asdict(ledger)
        assert bson.decode(raw)["ledger"] | {"refund_excess": 2.5, "waiting_refunds": 0.0} == bson.decode(raw)["ledger"]


def test_a_document_from_before_there_was_a_ledger_is_read() -> None:
    document = bson.decode(judged(prediction()).customer.raw)
    assert document["ledger"] is None
    del document["ledger"]
    assert stored_prediction(document) == prediction()


def test_every_field_of_a_prediction_has_a_place() -> None:
    assert set(TOP_FIELDS) | set(OUTCOME_FIELDS) == set(PredictionHead.__struct_fields__)
    assert {spec.collection for spec in INDEXES} <= set(COLLECTIONS)


def changed(**changes: object) -> bytes:
    fields = {**msgspec.to_builtins(prediction()), **changes}
    return msgspec.json.encode({name: value for name, value in fields.items() if value is not ...})


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        (b"a", b"", Reason.INVALID_JSON),
        (b"a", b"{", Reason.INVALID_JSON),
        (b"a", b"7", Reason.INVALID_FIELD),
        (b"a", changed(segment=...), Reason.MISSING_FIELD),
        (b"a", changed(segment="whale"), Reason.INVALID_FIELD),
        (b"a", changed(expected_value=None), Reason.INVALID_FIELD),
        (b"a", changed(feature_version=2**53), Reason.INVALID_FIELD),
        (b"a", changed(feature_version=-1), Reason.INVALID_FIELD),
        (b"a", changed(horizon_days=2**63), Reason.INVALID_FIELD),
        (b"a", changed(prediction_id=""), Reason.INVALID_FIELD),
        (b"a", changed(features={"a\0b": 1.0}), Reason.INVALID_FIELD),
        (b"a", changed(features=msgspec.Raw(b'{"\xff":1}')), Reason.INVALID_UTF8),
        (b"b", changed(), Reason.KEY_MISMATCH),
        (b"", changed(), Reason.EMPTY_KEY),
        (None, None, Reason.EMPTY_KEY),
        (b"\xff", changed(), Reason.INVALID_UTF8),
    ],
)
def test_what_cannot_be_stored_says_why(key: bytes | None, value: bytes | None, reason: Reason) -> None:
    verdict = judge(FakeRecord(key, value), NOW)
    assert isinstance(verdict, Refusal), verdict
    assert verdict.reason == reason, verdict


@given(st.binary(max_size=80))
def test_no_bytes_ever_raise(value: bytes) -> None:
    assert isinstance(judge(FakeRecord(b"a", value), NOW), Refusal)


def test_a_tombstone_is_an_erasure() -> None:
    assert judge(FakeRecord(b"a", None), NOW) == Erased("a", None, 7)


def test_only_who_asked_to_be_forgotten_is_erased_from_the_letters_too() -> None:
    asked = FakeRecord(b"a", None, headers=(("clv.cause", b"erased"),))
    again = FakeRecord(b"a", None, 3, headers=(("clv.cause", b"erased"),))
    merged = FakeRecord(b"b", None, headers=(("clv.cause", b"merged"),))
    verdicts = [judge(each, NOW) for each in (asked, again, merged, FakeRecord(b"c", None))]
    assert erasures(each for each in verdicts if not isinstance(each, Refusal)) == {
        "a": datetime(1970, 1, 1, 0, 0, 0, 7000, UTC)
    }


entries = st.tuples(st.sampled_from("abc"), st.integers(0, 3) | st.none(), st.sampled_from("mn"))


@given(st.lists(entries, max_size=30))
def test_a_plan_equals_storing_the_records_one_by_one(batch: list[tuple[str, int | None, str]]) -> None:
    work = []
    customers: dict[str, tuple[int, int]] = {}
    history: dict[str, int] = {}
    gone = set()
    for offset, (name, version, model) in enumerate(batch):
        identifier = f"{name}{version}{model}"
        if version is None:
            work.append(Erased(name))
            customers.pop(name, None)
            gone.add(name)
            history = {key: at for key, at in history.items() if key[0] != name}
            continue
        work.append(judged(prediction(name, version, identifier), offset))
        if name not in customers or version >= customers[name][0]:
            customers[name] = (version, offset)
        history.setdefault(identifier, offset)
    found = plan(work)
    assert {each.customer_id: (each.feature_version, each.offset) for each in found.customers} == customers
    assert {each.prediction_id: each.offset for each in found.history} == history
    assert len(found.history) == len(history)
    assert set(found.erased) == gone
