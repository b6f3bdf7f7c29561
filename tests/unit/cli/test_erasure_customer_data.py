"""How a customer is found in a record of each topic, and how what is found is shown."""

import json
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.customer_data import exported, readable, record_holds
from domain.customer import OrderCancelled, OrderPlaced, OrderRefunded, ProfileUpdated, fold, id_key
from schemas import topics
from schemas.customer_rows import PROGRESS_KEY, Links, Part, Row, encode, erased_key, new_progress
from schemas.dead_letters import DeadLetter, Headers, Origin, Reason, letter_key, marker, to_record

DAY_MS = 86_400_000


@dataclass
class FakeRecord:
    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers = field(default_factory=list)
    timestamp: int = 1_700_000_000_000
    partition: int = 0
    offset: int = 5


STATE = fold(
    [
        OrderPlaced("o1", 1250, DAY_MS),
        OrderRefunded("r1", "o1", 250, 2 * DAY_MS),
        OrderRefunded("r2", None, 50, 2 * DAY_MS),
        OrderCancelled("o2", 3 * DAY_MS),
        ProfileUpdated(1980, DAY_MS),
    ]
)
ROW = encode(Row(5, 0, 9, STATE, Links(5, "into", 0, {"part": Part(1, "via", 0, STATE)})))
LETTER = DeadLetter(
    reason=Reason.INVALID_FIELD,
    detail="",
    service="ingest",
    origin=Origin(topics.CUSTOMER_EVENTS, 0, 3),
    rejected_at_ms=1,
    key=b"a",
    value=b'{"customer_id": "b"}',
)


@pytest.mark.parametrize(
    ("topic", "key", "value", "headers", "customers"),
    [
        (topics.CUSTOMER_EVENTS, b"any", b'{"customer_id": "a"}', [], {"a", "any"}),
        (topics.CUSTOMER_EVENTS, None, b'{"customer_id": "a"', [], {"a"}),
        (topics.ORDERS, b"a", b'{"customer_id": "a", "origin": "b", "merged_into": "c"}', [], {"a", "b", "c"}),
        (topics.CUSTOMER_FEATURES, b"a", b"x", [], {"a"}),
        (topics.PREDICTIONS, b"a", b'{"customer_id": "b"}', [], {"a"}),
        (topics.CUSTOMER_STATE_CHANGELOG, b"a", ROW, [], {"a", "into", "part", "via"}),
        (topics.CUSTOMER_STATE_CHANGELOG, PROGRESS_KEY, encode(new_progress()), [], set()),
        (topics.CUSTOMER_STATE_CHANGELOG, erased_key(b"a"), encode(Row(5, 0, 9, fold([]), Links(5))), [], set()),
        (topics.DEAD_LETTERS, *to_record(LETTER), {"a", "b"}),
        (topics.DEAD_LETTERS, *marker(letter_key(LETTER), 0, 1), set()),
    ],
)
def test_a_customer_is_found_where_the_list_says(topic: str, key, value, headers, customers: set[str]):
    record = FakeRecord(topic, key, value, headers)
    everyone = {"a", "b", "c", "any", "into", "part", "via", "z", "replayed"}
    assert {each for each in everyone if record_holds(each, record)} == customers


def test_a_row_is_shown_order_by_order():
    shown = exported(FakeRecord(topics.CUSTOMER_STATE_CHANGELOG, b"a", ROW))["value"]["state"]
    assert shown["orders"] == [
        {"order_hash": id_key("o1").hex(), "at": "1970-01-02T00:00:00+00:00", "amount_minor": 1250}
    ]
    assert [(each["order_hash"], each["amount_minor"]) for each in shown["refunds"]] == [
        (id_key("o1").hex(), 250),
        (None, 50),
    ]
    assert shown["cancelled"] == [{"order_hash": id_key("o2").hex(), "at": "1970-01-04T00:00:00+00:00"}]
    assert shown["profile"]["birth_year"] == 1980


def test_the_row_in_a_document_is_shown_order_by_order_too():
    shown = readable({"_id": "a", "row": ROW, "events_applied": 5})
    assert shown["row"] == exported(FakeRecord(topics.CUSTOMER_STATE_CHANGELOG, b"a", ROW))["value"]
    assert (shown["_id"], shown["events_applied"]) == ("a", 5)
    assert readable({"row": b"\xc1"}) == {"row": {"base64": "wQ=="}}


nested: Any = st.recursive(
    st.none() | st.integers() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
)


@given(nested)
def test_whatever_is_found_can_be_written_as_json(found: Any):
    json.dumps(readable(found))
