"""JSON Schemas of the messages, made from the typed declarations: one per topic that has a schema.

Only keywords that mean the same in draft 2020-12, draft-07 and AsyncAPI are used, so that any validator can read them.
Must never say more or less than the decoder does, except where a step behind the decoder refuses too (amounts).
"""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import core_schema

from domain.features import CONTEXT, ENGINEERED, EXTRAS, INPUTS, Feature
from domain.money import AMOUNT_MINOR_MAX
from schemas.customer_events import CUSTOMER_EVENT
from schemas.customer_features import CustomerFeatures, Ledger
from schemas.orders import OrderRecord
from schemas.predictions import Prediction
from schemas.segment_thresholds import PopulationSketch
from schemas.topics import topic

DRAFT = "https://json-schema.org/draft/2020-12/schema"
REF = "#/$defs/"
JsonSchema = dict[str, Any]

_DATE_TIME = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})$"
_DECIMAL = r"^\+?[0-9]{1,18}(\.[0-9]{1,18})?$"


class _Pydantic(GenerateJsonSchema):
    """Adds what pydantic cannot know: what our validators on identifiers ask for."""

    def function_after_schema(self, schema: core_schema.AfterValidatorFunctionSchema) -> JsonSchema:
        found = super().function_after_schema(schema)
        if getattr(schema["function"]["function"], "__name__", "") == "_printable":
            # The type within `not`: to null, which some of these fields may be, any pattern applies.
            control = {"type": "string", "pattern": r"[\u0000-\u001f]"}
            found |= {"minLength": 1, "pattern": r"\S", "not": control}
        return found


def json_schemas() -> Mapping[str, JsonSchema]:
    """The JSON Schema of each topic's values, by the topic's schema name."""
    return {name: _finished(name, build()) for name, build in _BUILDERS.items()}


def messages(schema: JsonSchema) -> Mapping[str, JsonSchema]:
    """The kinds of message that a schema describes, by event_type or, where there is one kind, by title."""
    if "oneOf" not in schema:
        return {schema["title"]: schema}
    members = [schema["$defs"][member["$ref"].removeprefix(REF)] for member in schema["oneOf"]]
    return {member["properties"]["event_type"]["const"]: member for member in members}


def _customer_events() -> JsonSchema:
    schema = CUSTOMER_EVENT.json_schema(schema_generator=_Pydantic, ref_template=REF + "{model}")
    for member in schema["$defs"].values():
        properties = member["properties"]
        properties["occurred_at"]["pattern"] = _DATE_TIME
        if "amount" in properties:
            properties["amount"] |= {
                "pattern": _DECIMAL,
                "allOf": [{"pattern": "[1-9]"}],
                "description": (
                    "Plain decimal string in units of the currency: greater than 0, no more digits after the point "
                    f"than the currency has, at most {AMOUNT_MINOR_MAX} minor units"
                ),
            }
    return schema


def _msgspec(struct: Any) -> Callable[[], JsonSchema]:
    def build() -> JsonSchema:
        (root,), components = msgspec.json.schema_components([struct], ref_template=REF + "{name}")
        if set(root) == {"$ref"}:
            only: JsonSchema = components[root["$ref"].removeprefix(REF)]
            return only
        return {"oneOf": root["anyOf"], "$defs": components}

    return build


def _with_features(struct: Any) -> Callable[[], JsonSchema]:
    def build() -> JsonSchema:
        schema = _msgspec(struct)()
        schema["properties"]["inputs"] |= _values(INPUTS)
        schema["properties"]["features"] |= _values(ENGINEERED + EXTRAS)
        schema["properties"]["ledger"] = _or_null(schema["properties"]["ledger"], _msgspec(Ledger)())
        return schema

    return build


def _or_null(declared: JsonSchema, inner: JsonSchema) -> JsonSchema:
    """A field that holds an `inner` or null, with the description and default of where it is declared."""
    described = {key: value for key, value in declared.items() if key in ("description", "default")}
    return {**inner, "type": [inner["type"], "null"], **described}


def _values(features: tuple[Feature, ...]) -> JsonSchema:
    return {
        "type": "object",
        "properties": {
            feature.name: {"type": ["number", "null"], "description": feature.meaning, "x-unit": feature.unit}
            for feature in features
        },
        "required": [feature.name for feature in features if feature.name not in CONTEXT],
    }


_BUILDERS: Mapping[str, Callable[[], JsonSchema]] = {
    "customer-events": _customer_events,
    "orders": _msgspec(OrderRecord),
    "customer-features": _with_features(CustomerFeatures),
    "predictions": _with_features(Prediction),
    "segment-thresholds": _msgspec(PopulationSketch),
}


def _finished(name: str, schema: JsonSchema) -> JsonSchema:
    declared = topic(name)
    plain: JsonSchema = _plain(schema)
    title = plain.pop("title", declared.name)
    head = {
        "$schema": DRAFT,
        "$id": f"urn:clv:schema:{declared.name}",
        "title": title,
        "description": plain.pop("description", declared.purpose),
    }
    return head | plain


def _plain(schema: Any, *, named: bool = False) -> Any:
    """The schema in the common keywords. named: the keys are names of properties or definitions, not keywords."""
    if isinstance(schema, list):
        return [_plain(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if named:
        return {key: _without_title(_plain(value), value) for key, value in schema.items()}
    plain = {
        key: _plain(value, named=key in ("properties", "$defs"))
        for key, value in schema.items()
        if key != "discriminator"
    }
    if len(plain.get("enum", ())) == 1:
        plain["const"] = plain.pop("enum")[0]
    if "prefixItems" in plain:  # a tuple of n alike is an array of exactly n
        plain["items"] = plain.pop("prefixItems")[0]
    return _nullable(plain)


def _without_title(plain: Any, original: Any) -> Any:
    """Titles of properties only repeat their names; those of whole messages stay."""
    if isinstance(original, dict) and "properties" not in original:
        return {key: value for key, value in plain.items() if key != "title"}
    return plain


def _nullable(schema: JsonSchema) -> JsonSchema:
    """`anyOf: [X, null]` as X that may be null."""
    match schema.get("anyOf"):
        case [{"type": str(kind)} as one, {"type": "null"}]:
            outer = {key: value for key, value in schema.items() if key != "anyOf"}
            return {**one, **outer, "type": [kind, "null"]}
        case [{"enum": list(values)}, {"type": "null"}]:
            outer = {key: value for key, value in schema.items() if key != "anyOf"}
            return {**outer, "enum": [*values, None]}
    return schema
