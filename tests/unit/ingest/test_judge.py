"""The judge against every way an event can be wrong, and against arbitrary bytes."""

import base64
import json
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from schemas.dead_letters import Reason
from schemas.examples import EXAMPLES_DIR
from schemas.orders import Cancelled, Placed, Refunded, Updated, decode_order, encode_order
from services.ingest.judge import Rules, judge
from services.ingest.rates import Rates
from services.ingest.rejection import Rejection
from tests.effort import tries
from tests.unit.ingest.events import LEFT_OUT, NOW_MS, RULES, encoded, event, json_values, verdict

CE = {"specversion": "1.0", "id": "e1", "source": "/shop", "type": "order.placed", "time": "2026-01-31T12:00:00Z"}
CE_DATA = {"order_id": "o1", "amount": "12.34", "currency": "USD"}
BINARY = [(f"ce_{name}", value.encode()) for name, value in (CE | {"subject": "c1"}).items()]
GOOD = Placed(
    event_id="e1",
    customer_id="c1",
    occurred_at_ms=1_769_860_800_000,
    source="shop",
    order_id="o1",
    amount_minor=1234,
    original_amount="12.34",
    original_currency="USD",
)


def structured(**changes: Any) -> bytes:
    fields = CE | {"subject": "c1", "data": CE_DATA} | changes
    return json.dumps({name: value for name, value in fields.items() if value is not LEFT_OUT}).encode()


REFUSED: list[tuple[str, bytes | None, Reason]] = [
    ("tombstone", None, Reason.EMPTY_MESSAGE),
    ("empty", b"", Reason.EMPTY_MESSAGE),
    ("one byte too many", b" " * (RULES.event_bytes_max + 1), Reason.MESSAGE_TOO_LARGE),
    ("latin-1", b'{"event_id": "\xe9"}', Reason.INVALID_UTF8),
    ("utf-16", json.dumps({}).encode("utf-16"), Reason.INVALID_UTF8),
    ("encoded surrogate", b'"\xed\xa0\x80"', Reason.INVALID_UTF8),
    ("not utf-8 and not json", b"\xff{", Reason.INVALID_UTF8),
    ("text", b"hello", Reason.INVALID_JSON),
    ("cut off", encoded()[:-1], Reason.INVALID_JSON),
    ("two events", encoded() + encoded(), Reason.INVALID_JSON),
    ("byte order mark", b"\xef\xbb\xbf" + encoded(), Reason.INVALID_JSON),
    ("NaN", b'{"amount": NaN}', Reason.INVALID_JSON),
    ("Infinity", b'{"amount": -Infinity}', Reason.INVALID_JSON),
    ("lone surrogate", rb'{"event_id": "\ud800"}', Reason.INVALID_JSON),
    ("number beyond floats", b'{"amount": 1e999}', Reason.INVALID_JSON),
    ("nested lists", b"[" * 200_000, Reason.INVALID_JSON),
    ("nested objects", b'{"a":' * 100_000 + b"1" + b"}" * 100_000, Reason.INVALID_JSON),
    ("only blanks", b"  \n", Reason.INVALID_JSON),
    ("list", b"[" + encoded() + b"]", Reason.NOT_AN_OBJECT),
    ("string", b'"order"', Reason.NOT_AN_OBJECT),
    ("number", b"17", Reason.NOT_AN_OBJECT),
    ("huge number", b"9" * 400_0, Reason.INVALID_JSON),
    ("null", b"null", Reason.NOT_AN_OBJECT),
    ("nothing in it", b"{}", Reason.MISSING_FIELD),
    ("no event_type", encoded(event_type=LEFT_OUT), Reason.MISSING_FIELD),
    ("no event_id", encoded(event_id=LEFT_OUT), Reason.MISSING_FIELD),
    ("no customer_id", encoded(customer_id=LEFT_OUT), Reason.MISSING_FIELD),
    ("no occurred_at", encoded(occurred_at=LEFT_OUT), Reason.MISSING_FIELD),
    ("no order_id", encoded(order_id=LEFT_OUT), Reason.MISSING_FIELD),
    ("no amount", encoded(amount=LEFT_OUT), Reason.MISSING_FIELD),
    ("no currency", encoded(currency=LEFT_OUT), Reason.MISSING_FIELD),
    ("merged into nobody", encoded(event_type="customer.merged"), Reason.MISSING_FIELD),
    ("unknown type", encoded(event_type="order.shipped"), Reason.UNKNOWN_EVENT_TYPE),
    ("type in capitals", encoded(event_type="ORDER_PLACED"), Reason.UNKNOWN_EVENT_TYPE),
    ("type null", encoded(event_type=None), Reason.UNKNOWN_EVENT_TYPE),
    ("type a list", encoded(event_type=["order.placed"]), Reason.UNKNOWN_EVENT_TYPE),
    ("version 2", encoded(schema_version=2), Reason.UNSUPPORTED_SCHEMA_VERSION),
    ("version 2 with a new type", encoded(schema_version=2, event_type="new"), Reason.UNSUPPORTED_SCHEMA_VERSION),
    ("version text", encoded(schema_version="1"), Reason.UNSUPPORTED_SCHEMA_VERSION),
    ("version true", encoded(schema_version=True), Reason.UNSUPPORTED_SCHEMA_VERSION),
    ("version 1.0", encoded(schema_version=1.0), Reason.UNSUPPORTED_SCHEMA_VERSION),
    ("version null", encoded(schema_version=None), Reason.UNSUPPORTED_SCHEMA_VERSION),
    ("empty customer", encoded(customer_id=""), Reason.EMPTY_CUSTOMER_ID),
    ("blank customer", encoded(customer_id=" \t"), Reason.EMPTY_CUSTOMER_ID),
    ("null customer", encoded(customer_id=None), Reason.EMPTY_CUSTOMER_ID),
    ("customer a number", encoded(customer_id=17), Reason.INVALID_FIELD),
    ("customer with a line break", encoded(customer_id="a\nb"), Reason.INVALID_FIELD),
    ("customer too long", encoded(customer_id="c" * 257), Reason.INVALID_FIELD),
    ("empty event_id", encoded(event_id=""), Reason.INVALID_FIELD),
    ("event_id a number", encoded(event_id=1), Reason.INVALID_FIELD),
    ("empty order_id", encoded(order_id=""), Reason.INVALID_FIELD),
    ("source a list", encoded(source=[]), Reason.INVALID_FIELD),
    ("birth year text", encoded(event_type="customer.updated", birth_year="1980"), Reason.INVALID_FIELD),
    ("birth year too early", encoded(event_type="customer.updated", birth_year=1700), Reason.INVALID_FIELD),
    ("birth year huge", encoded(event_type="customer.updated", birth_year=10**30), Reason.INVALID_FIELD),
    ("time without a zone", encoded(occurred_at="2026-01-31T12:00:00"), Reason.INVALID_TIMESTAMP),
    ("date alone", encoded(occurred_at="2026-01-31"), Reason.INVALID_TIMESTAMP),
    ("unix seconds", encoded(occurred_at=1_769_860_800), Reason.INVALID_TIMESTAMP),
    ("unix seconds as text", encoded(occurred_at="1769860800"), Reason.INVALID_TIMESTAMP),
    ("time null", encoded(occurred_at=None), Reason.INVALID_TIMESTAMP),
    ("30 February", encoded(occurred_at="2026-02-30T12:00:00Z"), Reason.INVALID_TIMESTAMP),
    ("words", encoded(occurred_at="yesterday"), Reason.INVALID_TIMESTAMP),
    ("before 1970", encoded(occurred_at="1969-12-31T23:59:59.999Z"), Reason.INVALID_TIMESTAMP),
    ("before 1970 in UTC", encoded(occurred_at="1970-01-01T00:30:00+01:00"), Reason.INVALID_TIMESTAMP),
    ("year 1", encoded(occurred_at="0001-01-01T00:00:00+14:00"), Reason.INVALID_TIMESTAMP),
    ("just beyond the tolerance", encoded(occurred_at="2026-02-02T02:45:00.001Z"), Reason.FUTURE_DATE),
    ("next year", encoded(occurred_at="2027-01-31T12:00:00Z"), Reason.FUTURE_DATE),
    ("year 9999", encoded(occurred_at="9999-12-31T23:59:59-14:00"), Reason.FUTURE_DATE),
    ("amount a float", encoded(amount=12.34), Reason.INVALID_AMOUNT),
    ("amount an integer", encoded(amount=-5), Reason.INVALID_AMOUNT),
    ("amount null", encoded(amount=None), Reason.INVALID_AMOUNT),
    ("amount words", encoded(amount="twelve"), Reason.INVALID_AMOUNT),
    ("amount empty", encoded(amount=""), Reason.INVALID_AMOUNT),
    ("amount with a comma", encoded(amount="12,34"), Reason.INVALID_AMOUNT),
    ("amount in exponents", encoded(amount="1e3"), Reason.INVALID_AMOUNT),
    ("amount NaN", encoded(amount="NaN"), Reason.INVALID_AMOUNT),
    ("amount in Arabic digits", encoded(amount="١٢"), Reason.INVALID_AMOUNT),
    ("half a cent", encoded(amount="12.345"), Reason.INVALID_AMOUNT),
    ("half a yen", encoded(amount="12.5", currency="JPY"), Reason.INVALID_AMOUNT),
    ("negative", encoded(amount="-12.34"), Reason.NON_POSITIVE_AMOUNT),
    ("negative and huge", encoded(amount="-" + "9" * 39), Reason.NON_POSITIVE_AMOUNT),
    ("negative and very long", encoded(amount="-" + "9" * 60), Reason.NON_POSITIVE_AMOUNT),
    ("zero", encoded(amount="0.00"), Reason.NON_POSITIVE_AMOUNT),
    ("minus zero", encoded(amount="-0"), Reason.NON_POSITIVE_AMOUNT),
    ("a cent too much", encoded(amount="100000000000.01"), Reason.AMOUNT_TOO_LARGE),
    ("19 digits", encoded(amount="9" * 19), Reason.AMOUNT_TOO_LARGE),
    ("60 digits", encoded(amount="9" * 60), Reason.AMOUNT_TOO_LARGE),
    ("refund too large", encoded(event_type="order.refunded", amount="9" * 18), Reason.AMOUNT_TOO_LARGE),
    ("refund of nothing", encoded(event_type="order.refunded", amount="0"), Reason.NON_POSITIVE_AMOUNT),
    ("no such currency", encoded(currency="ABC"), Reason.UNKNOWN_CURRENCY),
    ("small letters", encoded(currency="usd"), Reason.UNKNOWN_CURRENCY),
    ("currency empty", encoded(currency=""), Reason.UNKNOWN_CURRENCY),
    ("currency null", encoded(currency=None), Reason.UNKNOWN_CURRENCY),
    ("currency too long", encoded(currency="U" * 1000), Reason.UNKNOWN_CURRENCY),
    ("gold", encoded(currency="XAU"), Reason.UNKNOWN_CURRENCY),
    ("no rate", encoded(currency="EUR"), Reason.UNKNOWN_CURRENCY),
    ("merged into itself", encoded(event_type="customer.merged", merged_into="c1"), Reason.INVALID_FIELD),
    ("cloud event 0.3", structured(specversion="0.3"), Reason.UNSUPPORTED_SCHEMA_VERSION),
    ("cloud event without id", structured(id=LEFT_OUT), Reason.MISSING_FIELD),
    ("cloud event without source", structured(source=LEFT_OUT), Reason.MISSING_FIELD),
    ("cloud event without type", structured(type=LEFT_OUT), Reason.MISSING_FIELD),
    ("cloud event without time", structured(time=LEFT_OUT), Reason.MISSING_FIELD),
    ("cloud event without customer", structured(subject=LEFT_OUT), Reason.MISSING_FIELD),
    ("cloud event without data", structured(data=LEFT_OUT), Reason.MISSING_FIELD),
    ("cloud event of a list", structured(data=[1]), Reason.NOT_AN_OBJECT),
    ("cloud event of text", structured(data="<order/>"), Reason.NOT_AN_OBJECT),
    ("cloud event with two data", structured(data_base64="e30="), Reason.INVALID_FIELD),
    ("not base 64", structured(data=LEFT_OUT, data_base64="%%%"), Reason.INVALID_FIELD),
    ("base 64 a number", structured(data=LEFT_OUT, data_base64=5), Reason.INVALID_FIELD),
    ("base 64 of no json", structured(data=LEFT_OUT, data_base64="aGk="), Reason.INVALID_JSON),
    ("base 64 of no utf-8", structured(data=LEFT_OUT, data_base64="/w=="), Reason.INVALID_UTF8),
    ("cloud event of unknown type", structured(type="order.shipped"), Reason.UNKNOWN_EVENT_TYPE),
    ("cloud event with an empty subject", structured(subject=""), Reason.EMPTY_CUSTOMER_ID),
]


@pytest.mark.parametrize(("value", "reason"), [pytest.param(value, reason, id=name) for name, value, reason in REFUSED])
def test_a_bad_event_is_refused_with_its_reason(value: bytes | None, reason: Reason):
    rejection = verdict(value)
    assert isinstance(rejection, Rejection), rejection
    assert rejection.reason is reason, rejection
    assert 0 < len(rejection.detail) <= 400
    assert "\n" not in rejection.detail


def test_every_reason_that_ingest_gives_is_in_the_table():
    of_others = {Reason.EMPTY_KEY, Reason.KEY_MISMATCH, Reason.CUSTOMER_ERASED, Reason.MERGE_CONFLICT}
    assert {reason for _, _, reason in REFUSED} == set(Reason) - of_others - {Reason.NOT_SUPPORTED_YET}


def test_the_reason_why_a_currency_cannot_be_used_is_told_apart():
    assert "no rate from EUR to USD" in verdict(encoded(currency="EUR")).detail
    assert "no currency of ISO 4217" in verdict(encoded(currency="ABC")).detail


def test_a_rejection_names_the_event_where_it_can():
    assert verdict(encoded(amount="0")).event_id == "e1"
    assert verdict(structured(data=CE_DATA | {"amount": "0"})).event_id == "e1"
    assert verdict(b"{").event_id is None
    assert verdict(encoded(event_id="x" * 5000)).event_id is None


@pytest.mark.parametrize(
    "field", ["event_id", "customer_id", "order_id", "currency", "amount", "occurred_at", "source"]
)
def test_a_detail_holds_little_of_the_payload(field: str):
    secret = "s3cret" * 200
    rejection = verdict(encoded(**{field: secret}))
    assert isinstance(rejection, Rejection)
    assert rejection.detail.count("s3cret") * 6 <= 200


# ---------------------------------------------------------------- good events


def test_an_order_becomes_a_record():
    assert verdict(encoded()) == GOOD


@pytest.mark.parametrize(
    ("changes", "record"),
    [
        (
            {"event_type": "order.refunded", "refund_id": "r1"},
            Refunded(
                event_id="e1",
                customer_id="c1",
                occurred_at_ms=GOOD.occurred_at_ms,
                source="shop",
                refund_id="r1",
                order_id="o1",
                amount_minor=1234,
                original_amount="12.34",
                original_currency="USD",
            ),
        ),
        (
            {"event_type": "order.refunded", "order_id": LEFT_OUT},
            Refunded(
                event_id="e1",
                customer_id="c1",
                occurred_at_ms=GOOD.occurred_at_ms,
                source="shop",
                refund_id="e1",
                order_id=None,
                amount_minor=1234,
                original_amount="12.34",
                original_currency="USD",
            ),
        ),
        (
            {"event_type": "order.cancelled"},
            Cancelled(
                event_id="e1", customer_id="c1", occurred_at_ms=GOOD.occurred_at_ms, source="shop", order_id="o1"
            ),
        ),
        (
            {"event_type": "customer.updated", "birth_year": 1980},
            Updated(
                event_id="e1", customer_id="c1", occurred_at_ms=GOOD.occurred_at_ms, source="shop", birth_year=1980
            ),
        ),
    ],
)
def test_each_type_becomes_its_record(changes: dict[str, Any], record: object):
    assert verdict(encoded(**changes)) == record


@pytest.mark.parametrize(
    "value",
    [
        encoded(something_new={"nested": [1, 2.5, None]}),
        encoded(schema_version=1),
        encoded(occurred_at="2026-01-31T13:00:00+01:00"),
        encoded(occurred_at="2026-01-31t12:00:00.000z"),
        b'{"amount":"99","amount":"12.34",' + encoded(amount=LEFT_OUT)[1:],  # the last of two keys counts
        json.dumps(event(), indent=4).encode(),
    ],
)
def test_another_way_of_writing_an_event_is_the_same_event(value: bytes):
    assert verdict(value) == GOOD


def test_the_bounds_themselves_are_accepted():
    assert verdict(encoded(occurred_at="2026-02-02T02:45:00Z")).occurred_at_ms == NOW_MS + RULES.future_tolerance_ms
    assert verdict(encoded(occurred_at="1970-01-01T00:00:00Z")).occurred_at_ms == 0
    assert verdict(encoded(amount="100000000000.00")).amount_minor == 10**13
    assert verdict(encoded(amount="0.01")).amount_minor == 1
    padded = encoded()[:-1] + b" " * (RULES.event_bytes_max - len(encoded())) + b"}"
    assert len(padded) == RULES.event_bytes_max
    assert verdict(padded) == GOOD


# ---------------------------------------------------------------- CloudEvents


def with_source(source: str) -> Placed:
    return Placed(**{name: getattr(GOOD, name) for name in GOOD.__struct_fields__} | {"source": source})


def test_a_cloud_event_in_structured_mode_is_understood():
    assert verdict(structured()) == with_source("/shop")
    assert verdict(structured(), [("content-type", b"application/cloudevents+json; charset=UTF-8")]) == with_source(
        "/shop"
    )


def test_a_cloud_event_in_binary_mode_is_understood():
    assert verdict(json.dumps(CE_DATA).encode(), BINARY) == with_source("/shop")


def test_data_in_base_64_is_understood():
    data = base64.b64encode(json.dumps(CE_DATA).encode()).decode()
    assert verdict(structured(data=LEFT_OUT, data_base64=data)) == with_source("/shop")


def test_the_data_say_who_the_customer_is_before_the_subject_does():
    data = CE_DATA | {"customer_id": "from-data"}
    assert verdict(structured(data=data)).customer_id == "from-data"
    assert verdict(json.dumps(data).encode(), BINARY).customer_id == "from-data"


def test_the_context_wins_over_the_data_for_everything_else():
    data = CE_DATA | {
        "event_id": "x",
        "event_type": "order.cancelled",
        "occurred_at": "2020-01-01T00:00:00Z",
        "source": "x",
    }
    assert verdict(structured(data=data)) == with_source("/shop")


def test_without_a_time_in_the_context_that_of_the_data_counts():
    data = CE_DATA | {"occurred_at": "2026-01-31T12:00:00Z"}
    assert verdict(structured(time=LEFT_OUT, data=data)) == with_source("/shop")


def test_a_structured_event_needs_its_specversion_even_if_a_header_says_what_it_is():
    headers = [("Content-Type", b"application/cloudevents+json")]
    assert verdict(encoded(), headers).reason is Reason.MISSING_FIELD


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ([("ce_specversion", b"2.0")], Reason.UNSUPPORTED_SCHEMA_VERSION),
        ([("ce_specversion", b"1.0"), ("ce_id", b"\xff")], Reason.INVALID_UTF8),
        ([("ce_specversion", b"1.0"), ("ce_id", None)], Reason.MISSING_FIELD),
        ([("ce_specversion", b"1.0")], Reason.MISSING_FIELD),
    ],
)
def test_bad_headers_of_binary_mode_are_refused(headers: list[tuple[str, bytes | None]], reason: Reason):
    assert verdict(json.dumps(CE_DATA).encode(), headers).reason is reason


def test_headers_of_other_people_do_not_matter():
    headers = [("traceparent", b"\xff"), ("content-type", b"application/json"), ("ce_id", b"without specversion")]
    assert verdict(encoded(), headers) == GOOD


EXAMPLE_FILES = sorted((EXAMPLES_DIR / "customer-events" / "1").rglob("*.json"))


@pytest.mark.parametrize("path", EXAMPLE_FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_the_published_examples_are_accepted(path: Any):
    rules = Rules(currency="USD", rates=Rates([(0, "JPY", Decimal("0.0065"))]))
    found = judge(path.read_bytes(), [], 1_800_000_000_000, rules)
    assert not isinstance(found, Rejection), found


# ---------------------------------------------------------------- anything at all

field_names = st.sampled_from(
    [*event(), "schema_version", "refund_id", "birth_year", "merged_into", *CE, "data", "data_base64"]
)
event_types = st.sampled_from(
    ["order.placed", "order.refunded", "order.cancelled", "customer.updated", "customer.erased", "customer.merged"]
)
headers_like = st.lists(
    st.tuples(
        st.sampled_from(
            ["ce_specversion", "ce_id", "ce_type", "ce_time", "ce_subject", "ce_source", "content-type", "x"]
        ),
        st.none() | st.binary() | st.sampled_from([b"1.0", b"order.placed", b"application/cloudevents+json"]),
    ),
    max_size=6,
)


def assert_judged(value: bytes | None, headers: Any) -> None:
    found = judge(value, headers, NOW_MS, RULES)
    if isinstance(found, Rejection):
        assert found.detail
        assert found.detail.encode()
        return
    assert decode_order(encode_order(found)) == found


@given(st.none() | st.binary(), headers_like)
@example(b'{"a":' * 2000, [])
def test_any_bytes_are_judged_without_an_error(value: bytes | None, headers: Any):
    assert_judged(value, headers)


@settings(max_examples=tries(500))
@given(st.dictionaries(field_names, json_values, max_size=4), event_types, headers_like)
def test_a_spoilt_event_is_judged_without_an_error(changes: dict[str, Any], event_type: str, headers: Any):
    value = json.dumps(event(event_type=event_type) | changes).encode("utf-8", "surrogatepass")
    assert_judged(value, headers)


@given(st.data())
def test_a_damaged_event_is_judged_without_an_error(data: st.DataObject):
    value = bytearray(encoded())
    for _ in range(data.draw(st.integers(1, 4))):
        value[data.draw(st.integers(0, len(value) - 1))] = data.draw(st.integers(0, 255))
    assert_judged(bytes(value), [])


# ---------------------------------------------------------------- money and time against an oracle

identifiers = st.text(st.characters(min_codepoint=32, exclude_categories=["Cs"]), min_size=1, max_size=256).filter(
    str.strip
)
exponents = {"USD": 2, "EUR": 2, "JPY": 0, "BHD": 3, "CLF": 4}
instants = st.datetimes(
    datetime(1971, 1, 1),  # noqa: DTZ001 (the zone comes below)
    datetime(2026, 2, 1),  # noqa: DTZ001
    timezones=st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes))),
)


@settings(max_examples=tries(300))
@given(
    currency=st.sampled_from(sorted(exponents)),
    minor=st.integers(1, 10**13),
    rate=st.decimals(Decimal("0.0001"), Decimal(5000), places=6).filter(lambda rate: rate > 0),
    at=instants,
    customer=identifiers,
    order=identifiers,
)
def test_a_valid_order_has_the_right_money_time_and_names(*, currency, minor, rate, at, customer, order):
    exponent = exponents[currency]
    digits = str(minor).rjust(exponent + 1, "0")
    amount = digits if exponent == 0 else f"{digits[:-exponent]}.{digits[-exponent:]}"
    rules = Rules(currency="USD", rates=Rates([(0, "EUR", rate), (0, "JPY", rate), (0, "BHD", rate), (0, "CLF", rate)]))
    value = encoded(currency=currency, amount=amount, occurred_at=at.isoformat(), customer_id=customer, order_id=order)
    found = judge(value, [], NOW_MS, rules)
    # The oracle: exact fractions of the reporting currency's cents, rounded half to even.
    numerator, denominator = (rate if currency != "USD" else Decimal(1)).as_integer_ratio()
    exact_top, exact_bottom = minor * numerator * 100, denominator * 10**exponent
    cents, rest = divmod(exact_top, exact_bottom)
    if 2 * rest > exact_bottom or (2 * rest == exact_bottom and cents % 2 == 1):
        cents += 1
    if cents == 0:
        assert found.reason is Reason.NON_POSITIVE_AMOUNT
    elif cents > 10**13:
        assert found.reason is Reason.AMOUNT_TOO_LARGE
    else:
        assert isinstance(found, Placed), found
        assert found.amount_minor == cents
        assert (found.original_amount, found.original_currency) == (amount, currency)
        assert (found.customer_id, found.order_id) == (customer, order)
        since_1970 = at - datetime(1970, 1, 1, tzinfo=UTC)
        assert abs(found.occurred_at_ms - since_1970 / timedelta(milliseconds=1)) <= 0.5
