"""Dead letters as records of a compacted topic, and which customers a raw message names."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.dead_letters import (
    DeadLetter,
    Origin,
    Reason,
    from_record,
    letter_key,
    marked,
    marker,
    to_record,
)
from schemas.named_customers import contains, holds, named_customers, words
from schemas.tombstones import CAUSE_HEADER, Cause, cause_headers, cause_of

names = st.text(st.characters(codec="utf-8", exclude_characters="\n"), min_size=1, max_size=20).filter(str.strip)
letters = st.builds(
    DeadLetter,
    reason=st.sampled_from(Reason),
    detail=names,
    service=names,
    origin=st.builds(Origin, st.just("clv.orders.v1"), st.integers(0, 9), st.integers(0, 2**40))
    | st.just(Origin("http")),
    rejected_at_ms=st.integers(0, 2**40),
    key=st.none() | st.binary(max_size=9),
    value=st.none() | st.binary(max_size=30),
    original_headers=st.lists(st.tuples(names.filter(lambda name: name[0] not in "c_"), st.binary(max_size=5))),
    arrived_at_ms=st.none() | st.integers(0, 2**40),
)


@given(letters)
def test_a_letter_comes_back_from_its_record_as_it_was(letter: DeadLetter):
    key, value, headers = to_record(letter)
    assert from_record(key, value, headers) == letter
    assert value is not None, "it would be a tombstone"


@given(letters)
def test_a_letters_key_says_nothing_of_its_customer_and_is_the_same_when_it_comes_again(letter: DeadLetter):
    again = from_record(*to_record(letter))
    assert letter_key(letter) == letter_key(again)
    if letter.origin.offset is not None:
        origin = letter.origin
        assert letter_key(letter) == f"{origin.topic}/{origin.partition}/{origin.offset}".encode()


def test_different_letters_from_http_have_different_keys():
    def letter(value: bytes, at: int) -> DeadLetter:
        return DeadLetter(
            reason=Reason.INVALID_JSON,
            detail="",
            service="ingest",
            origin=Origin("http"),
            rejected_at_ms=at,
            key=None,
            value=value,
        )

    keys = {letter_key(letter(value, at)) for value in (b"a", b"b") for at in (1, 2)}
    assert len(keys) == 4
    assert all(key.startswith(b"http/") for key in keys)


@given(letters, st.integers(0, 9), st.integers(0, 2**40))
def test_a_marker_names_its_letter_and_is_none(letter: DeadLetter, partition: int, offset: int):
    key, value, headers = marker(letter_key(letter), partition, offset)
    assert marked(key, headers) == (letter_key(letter), offset)
    assert key != letter_key(letter), "compaction would let one replace the other"
    with pytest.raises(ValueError, match="not a dead letter"):
        from_record(key, value, headers)
    assert marked(*(to_record(letter)[index] for index in (0, 2))) is None


def test_a_tombstone_is_no_letter():
    with pytest.raises(ValueError, match="tombstone"):
        from_record(b"clv.orders.v1/0/1", None, [(CAUSE_HEADER, b"erased")])


@pytest.mark.parametrize("cause", Cause)
def test_a_tombstones_cause_comes_back(cause: Cause):
    assert cause_of(cause_headers(cause)) is cause
    assert cause_of([*cause_headers(cause), ("other", b"x")]) is cause


@given(st.lists(st.tuples(st.sampled_from([CAUSE_HEADER, "x"]), st.binary(max_size=4))))
def test_no_header_makes_reading_the_cause_fail(headers: list[tuple[str, bytes]]):
    assert cause_of(headers) is None


# ---------------------------------------------------------------- customers that a message names


EVENT = {"event_type": "order.placed", "customer_id": "c-1"}


@pytest.mark.parametrize(
    ("key", "value", "headers", "customers"),
    [
        (b"k", json.dumps(EVENT).encode(), [], {"k", "c-1"}),
        (None, b'{"customer_id": "a", "merged_into": "b"}', [], {"a", "b"}),
        (None, b'{"customer_id": 17}', [], {"17"}),
        (None, json.dumps({"specversion": "1.0", "subject": "s", "data": EVENT}).encode(), [], {"s", "c-1"}),
        (None, b'{"order_id": "o"}', [("ce_subject", b"c-9")], {"c-9"}),
        (None, b'{"customer_id": "a", "origin": "b"}', [("x-customer", b"z")], {"a", "b", "z"}),
        (b"k", b"", [], {"k"}),
        (None, None, [("ce_subject", None)], set()),
    ],
)
def test_a_message_that_says_whom_it_is_about_names_just_those(key, value, headers, customers):
    assert named_customers(key, value, headers) == (frozenset(customers), True)


@pytest.mark.parametrize("value", [b"{", b"[]", b'{"userId": "c-1"}', b"\xff\xfe", b'{"customer_id": null}', b"7"])
def test_one_that_does_not_has_to_be_searched(value: bytes):
    assert not named_customers(b"k", value).clear


@given(st.none() | st.binary(max_size=20), st.binary(max_size=60), names)
def test_no_bytes_ever_raise(key: bytes | None, value: bytes, customer: str):
    named_customers(key, value, [("ce_subject", value)])
    assert isinstance(holds(customer, key, value), bool)
    list(words(value))


ids = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Z")), min_size=1, max_size=20)


@given(
    ids,
    st.sampled_from(['{{"customer": {0}', '{{"customer_id": {0}, "amount": ', "[{0}", '{{"userId": {0}}}']),
    st.booleans(),
)
def test_an_id_is_found_in_a_message_that_cannot_be_read(customer: str, form: str, ascii_only: bool):
    value = form.format(json.dumps(customer, ensure_ascii=ascii_only)).encode()
    assert contains(customer, value)
    assert holds(customer, None, value)
    assert customer in set(words(value))


@given(ids)
def test_an_id_is_found_in_utf_16(customer: str):
    if customer.isascii():
        value = json.dumps({"customer_id": customer}).encode("utf-16")
        assert contains(customer, value)
        assert customer in set(words(value))


@pytest.mark.parametrize("other", ["c-12", "ac-1", "c-1_b", "c-1é", "Xc-1"])
def test_an_id_within_a_longer_one_is_another_customer(other: str):
    value = json.dumps({"userId": other}, ensure_ascii=False).encode()
    assert not contains("c-1", value)
    assert "c-1" not in set(words(value))
    assert contains(other, value)
