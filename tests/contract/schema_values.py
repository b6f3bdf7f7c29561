"""Hypothesis strategies for values that a JSON Schema of this product accepts, and for ones that are nearly right."""

import base64
import json
from datetime import datetime
from typing import Any

from hypothesis import strategies as st

from schemas.json_schemas import REF, JsonSchema

Values = st.SearchStrategy[Any]
INTEGERS = st.integers(-(2**63), 2**63 - 1)
TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=12)
JSON = st.recursive(
    st.none() | st.booleans() | INTEGERS | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)


def valid(schema: JsonSchema, root: JsonSchema | None = None) -> Values:
    """Values that the schema accepts. Raises NotImplementedError on a keyword that this product does not use yet."""
    root = root or schema
    if "$ref" in schema:
        return valid(root["$defs"][schema["$ref"].removeprefix(REF)], root)
    if "oneOf" in schema:
        return st.one_of([valid(member, root) for member in schema["oneOf"]])
    if "const" in schema:
        return st.just(schema["const"])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    kinds = schema["type"]
    if isinstance(kinds, list):
        return st.one_of([valid({**schema, "type": kind}, root) for kind in kinds])
    return _of_type(kinds, schema, root)


def _of_type(kind: str, schema: JsonSchema, root: JsonSchema) -> Values:
    match kind:
        case "null":
            return st.none()
        case "integer":
            low = max(schema.get("minimum", -(2**63)), schema.get("exclusiveMinimum", -(2**63) - 1) + 1)
            return st.integers(low, min(schema.get("maximum", 2**63 - 1), schema.get("exclusiveMaximum", 2**63) - 1))
        case "number":
            return st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**53)
        case "string":
            return _strings(schema)
        case "array":
            return st.lists(valid(schema["items"], root), min_size=schema["minItems"], max_size=schema["maxItems"])
        case "object":
            return _objects(schema, root)
    raise NotImplementedError(kind)


def _strings(schema: JsonSchema) -> Values:
    if schema.get("contentEncoding") == "base64":
        return st.binary(max_size=40).map(lambda content: base64.b64encode(content).decode())
    if schema.get("format") == "date-time":
        return st.builds(_rfc3339, st.datetimes(), st.integers(-23 * 60 - 59, 23 * 60 + 59))
    if schema.get("pattern") == r"\S":
        return st.text(min_size=1, max_size=schema["maxLength"]).filter(_printable)
    if "pattern" in schema:
        found = st.from_regex(schema["pattern"].removesuffix("$") + r"\Z")
        return found.filter(lambda text: "allOf" not in schema or any(digit in text for digit in "123456789"))
    return st.text(min_size=schema.get("minLength", 0), max_size=min(schema.get("maxLength", 30), 300))


def _rfc3339(at: datetime, offset_minutes: int) -> str:
    text = at.isoformat(timespec="milliseconds")
    if offset_minutes == 0:
        return text + "Z"
    hours, minutes = divmod(abs(offset_minutes), 60)
    return f"{text}{'-' if offset_minutes < 0 else '+'}{hours:02}:{minutes:02}"


def _printable(text: str) -> bool:
    return (
        text.strip() != ""
        and all(ord(char) >= 32 for char in text)
        and all(not 0xD800 <= ord(c) < 0xE000 for c in text)
    )


def _objects(schema: JsonSchema, root: JsonSchema) -> Values:
    fields = {name: valid(declared, root) for name, declared in schema["properties"].items()}
    required = set(schema.get("required", ()))
    known = st.fixed_dictionaries(
        {name: values for name, values in fields.items() if name in required},
        optional={name: values for name, values in fields.items() if name not in required},
    )
    if "additionalProperties" in schema:
        return known
    others = st.dictionaries(TEXT.map(lambda name: f"x_{name}"), JSON, max_size=2)
    return st.builds(lambda left, right: right | left, known, others)


# Written as JSON, since that is how they come.
_TEMPTING = r"""["", " ", "\t", "a\nb", "\u0000", "\u00a0", "0", "0.00", "-1", "+1", "1e3", "1,5", "12.34", "NaN", "1",
"usd", "USD", "99999999999999999999", "1.0000000000000000000", 12.34, 1, 1.0, 2, 1980, true, null, [], {}, 1700000000,
"2024-01-31T12:00:00", "2024-01-31", "2024-02-30T00:00:00Z", "2024-01-31T12:00Z", "2024-01-31T12:00:00Z",
"2024-01-31 12:00:00+01:00", "order.placed", "order.lost"]"""
TEMPTING = st.sampled_from([*json.loads(_TEMPTING), "x" * 257, "é" * 256])
SPOILT = JSON | TEMPTING


def nearly_valid(schema: JsonSchema) -> Values:
    """A valid object with up to two of its fields left out, or replaced by something else."""
    return _spoilt(valid(schema))  # made once: to make the values of a large schema takes longer than to draw one


@st.composite
def _spoilt(draw: st.DrawFn, objects: Values) -> Any:
    value = dict(draw(objects))
    for _ in range(draw(st.integers(0, 2))):
        names = sorted(value)
        if not names:
            break
        name = draw(st.sampled_from(names))
        if draw(st.booleans()):
            del value[name]
        else:
            value[name] = draw(SPOILT)
    return value
