"""Examples are contracts too: each one is valid, is understood by our decoder, and loses nothing on the way."""

import json
from datetime import datetime

import pytest
from jsonschema import Draft7Validator, Draft202012Validator

from schemas.customer_events import CUSTOMER_EVENT
from schemas.customer_features import decode_features, encode_features
from schemas.examples import EXAMPLES_DIR, Example, examples, kind_of
from schemas.json_schemas import json_schemas, messages
from schemas.orders import decode_order, encode_order
from schemas.predictions import decode_prediction, encode_prediction
from schemas.segment_thresholds import decode_sketch, encode_sketch
from schemas.topics import topics

SCHEMAS = json_schemas()
WITH_SCHEMA = [name for name, topic in topics().items() if topic.schema is not None]
ALL = [pytest.param(name, example, id=f"{name}/{example.name}") for name in WITH_SCHEMA for example in examples(name)]
DECODERS = {
    "customer-events": (CUSTOMER_EVENT.validate_json, CUSTOMER_EVENT.dump_json),
    "orders": (decode_order, encode_order),
    "customer-features": (decode_features, encode_features),
    "predictions": (decode_prediction, encode_prediction),
    "challenger-predictions": (decode_prediction, encode_prediction),
    "segment-thresholds": (decode_sketch, encode_sketch),
}


def kept(sent, received) -> bool:
    """Whether everything that was sent was received; defaults may have been added, instants written another way."""
    if isinstance(sent, dict):
        return all(key in received and kept(value, received[key]) for key, value in sent.items())
    if isinstance(sent, str) and sent != received:
        return datetime.fromisoformat(sent) == datetime.fromisoformat(received)
    return sent == received


@pytest.mark.parametrize("name", WITH_SCHEMA)
def test_every_kind_of_message_has_an_example(name: str):
    kinds = set(messages(SCHEMAS[topics()[name].schema]))
    shown = {kind_of(example, kinds) for example in examples(name)}
    assert shown == kinds, f"add examples of {kinds - shown} to schemas/examples/{name}/1/"


def test_every_folder_of_examples_belongs_to_a_topic_with_a_schema():
    assert {path.name for path in EXAMPLES_DIR.iterdir()} == set(WITH_SCHEMA)


@pytest.mark.parametrize(("name", "example"), ALL)
def test_an_example_is_valid_by_its_json_schema(name: str, example: Example):
    problems = list(Draft202012Validator(SCHEMAS[topics()[name].schema]).iter_errors(example.value))
    assert problems == []


@pytest.mark.parametrize(("name", "example"), ALL)
def test_an_example_survives_decoding_and_encoding(name: str, example: Example):
    decode, encode = DECODERS[name]
    message = decode(example.text.encode())
    encoded = encode(message)
    assert decode(encoded) == message
    assert kept(example.value, json.loads(encoded))


@pytest.mark.parametrize(("name", "example"), ALL)
def test_an_example_holds_no_field_that_the_contract_does_not_name(name: str, example: Example):
    """A typing error in an optional field's name would go unnoticed, since unknown fields are ignored."""
    kinds = messages(SCHEMAS[topics()[name].schema])
    schema = kinds[kind_of(example, set(kinds))]
    assert set(example.value) <= set(schema["properties"])
    for field, inner in schema["properties"].items():
        if "properties" in inner and example.value.get(field) is not None:
            assert set(inner["required"]) <= set(example.value[field]) <= set(inner["properties"])


@pytest.mark.parametrize("name", WITH_SCHEMA)
def test_a_schema_is_a_valid_schema_in_both_drafts(name: str):
    schema = SCHEMAS[topics()[name].schema]
    Draft202012Validator.check_schema(schema)
    Draft7Validator.check_schema({key: value for key, value in schema.items() if key != "$schema"})
