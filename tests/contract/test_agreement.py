"""The published schemas and the code that judges messages agree: who goes by a schema is not refused, and the reverse.

Where one says more than the other, the exception is named here, with its reason.
"""

import json
from datetime import datetime
from decimal import Decimal

import msgspec
import orjson
import pytest
from hypothesis import HealthCheck, Phase, event, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import ValidationError

from domain.money import AMOUNT_MINOR_MAX, AmountError, minor_units
from schemas.customer_events import CUSTOMER_EVENT
from schemas.customer_features import decode_features
from schemas.dead_letters import Reason
from schemas.examples import Example, examples
from schemas.json_schemas import json_schemas
from schemas.orders import decode_order
from schemas.predictions import decode_prediction
from schemas.segment_thresholds import decode_sketch
from services.ingest.judge import Rules, judge
from services.ingest.rates import Rates
from services.ingest.rejection import Rejection
from tests.contract.schema_values import nearly_valid, valid
from tests.effort import tries

SCHEMAS = json_schemas()
EVENTS = SCHEMAS["customer-events"]
VALIDATOR = Draft202012Validator(EVENTS)
RULES = Rules("USD", Rates())
WITH_RATES = Rules("USD", Rates([(0, currency, Decimal("0.5")) for currency in ("EUR", "GBP", "JPY")]))
NOW_MS = 4_102_444_800_000
"""2100-01-01: after any example."""
KINDS = {
    member["properties"]["event_type"]["const"]: Draft202012Validator(member) for member in EVENTS["$defs"].values()
}
brisk = settings(  # explaining a failure traces every line, which takes minutes here
    max_examples=tries(150),
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[phase for phase in Phase if phase is not Phase.explain],
)

UNKNOWABLE = {
    # What depends on the clock, the currency or our release cannot stand in a schema.
    Reason.FUTURE_DATE,
    Reason.UNKNOWN_CURRENCY,
    Reason.AMOUNT_TOO_LARGE,
}


def model_accepts(value) -> bool:
    try:
        CUSTOMER_EVENT.validate_json(json.dumps(value))
    except ValidationError:
        return False
    return True


def refused_by_schema(value) -> set[str]:
    """Names of the fields (or "" for the whole) that the schema refuses."""
    kind = KINDS.get(value.get("event_type")) if isinstance(value.get("event_type"), str) else None
    if kind is None:
        return {"event_type"}
    return {str(error.path[0]) if error.path else "" for error in kind.iter_errors(value)}


@brisk
@given(nearly_valid(EVENTS))
def test_what_the_schema_refuses_the_model_refuses(value):
    fields = refused_by_schema(value)
    assert bool(fields) != VALIDATOR.is_valid(value)
    # The model alone takes more ways to write a time, and any text as an amount; the judge behind it does not (below).
    fields -= {"occurred_at", "amount"}
    if fields == {"schema_version"} and value["schema_version"] is True:
        return  # pydantic takes true for 1; the judge refuses it
    event(f"refused: {bool(fields)}")
    if fields:
        assert not model_accepts(value), fields


@brisk
@given(nearly_valid(EVENTS))
def test_what_the_schema_refuses_ingest_refuses(value):
    if not VALIDATOR.is_valid(value):
        verdict = judge(orjson.dumps(value), (), NOW_MS, RULES)
        assert isinstance(verdict, Rejection), refused_by_schema(value)


@brisk
@given(nearly_valid(EVENTS))
def test_what_the_schema_accepts_the_model_accepts(value):
    if not VALIDATOR.is_valid(value):
        return
    whole_floats = [name for name in ("birth_year", "schema_version") if isinstance(value.get(name), float)]
    if whole_floats:
        return  # to JSON Schema 1.0 is an integer; the model wants it written as one
    at = value["occurred_at"]
    try:
        datetime.fromisoformat(at)
    except ValueError:
        return  # a 30th of February has the right form; the schema's `format` is a hint that validators may skip
    assert model_accepts(value)


@brisk
@given(valid(EVENTS).filter(lambda value: "specversion" not in value), st.sampled_from(["USD"]))
def test_ingest_accepts_what_the_schema_accepts_but_for_what_no_schema_can_know(value, currency: str):
    if "currency" in value:
        value["currency"] = currency
    value["occurred_at"] = "2024-01-31T12:00:00Z"
    verdict = judge(orjson.dumps(value), (), NOW_MS, RULES)
    if isinstance(verdict, Rejection):
        event(verdict.reason)
        too_precise = verdict.reason is Reason.INVALID_AMOUNT and not is_dollars(value["amount"])
        into_itself = value.get("merged_into") == value["customer_id"]
        assert too_precise or into_itself or verdict.reason in UNKNOWABLE, verdict


def is_dollars(amount: str) -> bool:
    try:
        minor_units(amount, 2)
    except AmountError:
        return False
    return True


@brisk
@given(st.from_regex(r"\A[+-]?[0-9.]{0,25}\Z") | st.text(max_size=30))
def test_the_schemas_amounts_are_the_domains_positive_amounts(amount: str):
    schema = EVENTS["$defs"]["OrderPlacedEvent"]["properties"]["amount"]
    by_schema = Draft202012Validator(schema).is_valid(amount)
    try:  # 18 digits after the point: nothing is too precise
        by_domain = len(amount) <= 40 and minor_units(amount, 18) > 0
    except AmountError as error:
        by_domain = "larger than" in str(error) and not amount.startswith("-")
    if not amount.endswith("\n"):  # Python's $ alone lets a last line break pass
        assert by_schema == by_domain
    assert str(AMOUNT_MINOR_MAX) in schema["description"]


@pytest.mark.parametrize(
    ("name", "decode"),
    [
        ("orders", decode_order),
        ("customer-features", decode_features),
        ("predictions", decode_prediction),
        ("segment-thresholds", decode_sketch),
    ],
)
def test_our_decoders_accept_what_their_schemas_accept(name: str, decode):
    schema = SCHEMAS[name]
    validator = Draft202012Validator(schema)

    @settings(brisk, max_examples=tries(100))
    @given(valid(schema))
    def accepts(value):
        validator.validate(value)
        decode(orjson.dumps(value))

    accepts()


@pytest.mark.parametrize(
    ("name", "decode"),
    [("orders", decode_order), ("predictions", decode_prediction), ("segment-thresholds", decode_sketch)],
)
def test_our_decoders_refuse_what_their_schemas_refuse(name: str, decode):
    schema = SCHEMAS[name]
    validator = Draft202012Validator(schema)

    @settings(brisk, max_examples=tries(200))
    @given(nearly_valid(schema))
    def refuses(value):
        wrong = {str(error.path[0]) if error.path else "" for error in validator.iter_errors(value)}
        # The decoder takes any set of names in the two maps: whoever needs a feature asks for it (feature_matrix).
        if wrong - {"inputs", "features"}:
            with pytest.raises(msgspec.DecodeError):
                decode(orjson.dumps(value))

    refuses()


EVENT_EXAMPLES = examples("customer-events")
each_event = pytest.mark.parametrize("example", EVENT_EXAMPLES, ids=[example.name for example in EVENT_EXAMPLES])


@each_event
def test_ingest_accepts_every_example(example: Example):
    verdict = judge(example.text.encode(), (), NOW_MS, WITH_RATES)
    assert not isinstance(verdict, Rejection), verdict


@each_event
def test_the_documented_cloud_event_means_the_same_as_the_plain_event(example: Example):
    plain = example.value
    data = {
        key: value
        for key, value in plain.items()
        if key not in ("event_id", "event_type", "source", "occurred_at", "customer_id")
    }
    source = plain.get("source") or "shop"
    context = {"specversion": "1.0", "id": plain["event_id"], "type": plain["event_type"], "source": source}
    context |= {"time": plain["occurred_at"], "subject": plain["customer_id"]}
    binary = [(f"ce_{name}", value.encode()) for name, value in context.items()]
    structured = orjson.dumps({**context, "data": data})
    expected = judge(orjson.dumps({**plain, "source": source}), (), NOW_MS, RULES)
    assert judge(orjson.dumps(data), binary, NOW_MS, RULES) == expected
    assert judge(structured, [("content-type", b"application/cloudevents+json")], NOW_MS, RULES) == expected
