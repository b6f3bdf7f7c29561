"""What of a contract others rely on, and which changes break it.

The frozen contract is v1.json beside this file; `python -m tests.contract.compatibility` freezes additions. It must
never take a breaking change in: that is a new version.
"""

import json
import sys
from pathlib import Path
from typing import Any

from schemas.json_schemas import JsonSchema, json_schemas, messages

FROZEN = Path(__file__).parent / "v1.json"
WRITTEN_BY_OTHERS = {"customer-events"}
"""Topics whose producers are not ours: there an enumeration may grow. Elsewhere consumers may rely on it."""

Shape = dict[str, dict[str, Any]]
"""By field (`topic/kind/field`, nested fields with dots): whether it is required, its type, its allowed values."""


def shape(schemas: dict[str, JsonSchema]) -> Shape:
    """The part of the schemas that must not change within a major version."""
    found: Shape = {}
    for topic, schema in schemas.items():
        for kind, message in messages(schema).items():
            _add(found, f"{topic}/{kind}/", message)
    return found


def _add(found: Shape, prefix: str, schema: JsonSchema) -> None:
    required = set(schema.get("required", ()))
    for field, declared in schema["properties"].items():
        values = declared.get("enum", [declared["const"]] if "const" in declared else None)
        kinds = declared.get("type", sorted({type(value).__name__ for value in values or ()}))
        found[prefix + field] = {"required": field in required, "type": kinds} | (
            {"values": values} if values is not None else {}
        )
        if "items" in declared:
            found[prefix + field]["items"] = [declared.get("minItems"), declared["items"].get("type")]
        if "properties" in declared:
            _add(found, f"{prefix}{field}.", declared)


def breaks(frozen: Shape, now: Shape) -> list[str]:
    """Changes that a producer or consumer written against `frozen` would not survive."""
    found = []
    for field, before in frozen.items():
        after = now.get(field)
        if after is None:
            found.append(f"{field} was removed or renamed")
            continue
        if before["required"] != after["required"]:
            found.append(f"{field} {'may now be left out' if before['required'] else 'is now required'}")
        if (before["type"], before.get("items")) != (after["type"], after.get("items")):
            found.append(f"{field} was {_kind(before)} and is {_kind(after)}")
        found += _values_broken(field, before.get("values"), after.get("values"))
    known_objects = {_object_of(field) for field in frozen}
    for field in now.keys() - frozen.keys():
        if now[field]["required"] and _object_of(field) in known_objects:
            found.append(f"{field} is new and required")
    return sorted(found)


def _object_of(field: str) -> str:
    """The message, or the object within it, that the field is of: what is required of a new object breaks nobody."""
    message, _, name = field.rpartition("/")
    return f"{message}/{name.rpartition('.')[0]}"


def _kind(field: dict[str, Any]) -> str:
    kinds = field["type"] if isinstance(field["type"], str) else " or ".join(field["type"])
    return f"{kinds} of {field['items']}" if "items" in field else kinds


def _values_broken(field: str, before: list[Any] | None, after: list[Any] | None) -> list[str]:
    if after is None or before is None:
        return [f"{field} was made a closed list"] if before is None and after is not None else []
    gone = [value for value in before if value not in after]
    new = [value for value in after if value not in before]
    found = [f"{field} may no longer be {value!r}" for value in gone]
    if field.split("/", 1)[0] not in WRITTEN_BY_OTHERS:
        found += [f"{field} may now be {value!r}" for value in new]
    return found


def frozen() -> Shape:
    """The contract as it was promised."""
    loaded: Shape = json.loads(FROZEN.read_text())
    return loaded


def main() -> int:
    """Take additions into the frozen contract; 1 if there is a breaking change."""
    now = shape(dict(json_schemas()))
    broken = breaks(frozen() if FROZEN.exists() else {}, now)
    if broken:
        print("\n".join([*broken, "These break version 1: declare a v2 topic beside it instead."]))
        return 1
    FROZEN.write_text("{\n" + ",\n".join(f"{json.dumps(k)}: {json.dumps(now[k])}" for k in sorted(now)) + "\n}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
