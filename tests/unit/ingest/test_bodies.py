"""Bodies of HTTP requests, taken apart byte for byte."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ingest.bodies import JSON, NDJSON, STRUCTURED_BATCH, event_headers, media_type, split
from services.ingest.cloud_events import STRUCTURED
from tests.unit.ingest.events import json_values


@pytest.mark.parametrize(
    ("header", "media"),
    [
        ("application/json", JSON),
        ("Application/JSON; charset=UTF-8", JSON),
        ('application/json; charset="utf-8"', JSON),
        ("application/json; charset=latin-1", None),
        ("application/x-ndjson", NDJSON),
        ("application/cloudevents+json", STRUCTURED),
        ("application/cloudevents-batch+json", STRUCTURED_BATCH),
        ("text/plain", None),
        ("application/x-www-form-urlencoded", None),
        ("", None),
        (";", None),
    ],
)
def test_a_content_type_is_accepted_or_not(header: str, media: str | None):
    assert media_type(header) == media


@given(
    st.lists(
        json_values.filter(lambda value: "\\ud" not in json.dumps(value) and "NaN" not in json.dumps(value)), min_size=1
    )
)
def test_a_list_is_taken_apart_without_changing_a_byte(values: list[object]):
    texts = [json.dumps(value, allow_nan=True).encode() for value in values]
    if any(b"Infinity" in text for text in texts):
        return
    assert split(b" [ " + b" ,\n".join(texts) + b" ] ", JSON, {}) == texts


def test_lines_are_events_and_blank_ones_are_none():
    assert split(b'{"a":1}\n\r\n  \n {"b":2} \r\n', NDJSON, {}) == [b'{"a":1}', b'{"b":2}']


def test_one_event_is_the_body_as_it_is():
    assert split(b' {"a": 1}\n', JSON, {}) == [b' {"a": 1}\n']


def test_a_cloud_event_in_binary_mode_is_never_taken_apart():
    assert split(b"[1]", JSON, {"ce_specversion": b"1.0"}) == [b"[1]"]


@pytest.mark.parametrize("body", [b"[1,", b"[1,]", b"[" * 200_000, b"[\xff", b"[1] [2]", b'["\\ud800"]'])
def test_a_list_that_is_none_is_left_to_the_judge(body: bytes):
    assert split(body, JSON, {}) == [body]


@pytest.mark.parametrize(
    ("body", "media"), [(b"", JSON), (b" \n", JSON), (b"[]", JSON), (b"\n\n", NDJSON), (b"", NDJSON)]
)
def test_nothing_is_no_event(body: bytes, media: str):
    assert split(body, media, {}) == []


def test_headers_get_their_kafka_names_and_lose_their_percent_signs():
    found = event_headers(JSON, [("Ce-Id", "a%20b"), ("ce-specversion", "1.0"), ("x-ce-id", "no"), ("host", "h")])
    assert found == [("content-type", b"application/json"), ("ce_id", b"a b"), ("ce_specversion", b"1.0")]
    assert event_headers(STRUCTURED_BATCH, []) == [("content-type", b"application/cloudevents+json")]
