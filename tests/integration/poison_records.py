"""Records that no service can use, for every topic that one reads: the same list, bent to each topic's own form."""

import json
from typing import Any, NamedTuple

DEEP = 100_000
"""Levels of nesting: beyond any decoder's recursion."""
BOMB_BYTES = 12_000_000
"""Of a record that is small only because it is compressed: more than a dead letter may have."""


class Poison(NamedTuple):
    """A record and the reasons that may be given for it; no reason: it is no fault, and has no dead letter."""

    name: str
    key: bytes | None
    value: bytes | None
    reasons: frozenset[str]


def poison(name: str, key: bytes | None, value: bytes | None, *reasons: str) -> Poison:
    return Poison(name, key, value, frozenset(reasons))


def with_raw(valid: dict[str, Any], field: str, raw: bytes) -> bytes:
    """The message with a field's JSON replaced by something that need not be JSON."""
    return json.dumps({**valid, field: "@@raw@@"}).encode().replace(b'"@@raw@@"', raw)


def common(valid: dict[str, Any], text_field: str, number_field: str) -> list[Poison]:
    """What is wrong on every topic. valid: a message that is not; text_field, number_field: fields that are checked."""
    key = str(valid["customer_id"]).encode()
    good = json.dumps(valid).encode()
    found = [
        poison("garbage", key, b"\x00\xff\xfe\x80garbage", "invalid_json", "invalid_utf8"),
        poison("empty value", key, b"", "invalid_json", "empty_message"),
        poison("cut in the middle", key, good[: len(good) // 2], "invalid_json"),
        poison("unclosed nesting", key, b'{"a":' * DEEP, "invalid_json"),
        poison(
            "nesting in an unknown field", key, good[:-1] + b',"x":' + b"[" * DEEP + b"]" * DEEP + b"}", "invalid_json"
        ),
        poison("invalid UTF-8", key, with_raw(valid, text_field, b'"\xff\xfe"'), "invalid_utf8", "invalid_json"),
        poison("a lone surrogate", key, with_raw(valid, text_field, b'"\\ud800"'), "invalid_json"),
        poison("huge", key, b"[" + b" " * 5_000_000 + b"]", "message_too_large", "invalid_field", "not_an_object"),
        poison("bomb", key, b"[" + b" " * BOMB_BYTES + b"]", "message_too_large", "invalid_field", "not_an_object"),
        poison("no field at all", key, b"{}", "missing_field", "invalid_field"),
    ]
    for raw in (b"null", b"[]", b"1", b'"x"', b"true", b"1e400"):
        found.append(poison(f"the JSON {raw.decode()}", key, raw, "not_an_object", "invalid_field", "invalid_json"))
    for raw in (b"NaN", b"Infinity", b"-Infinity", b"1e400", str(2**63).encode(), str(-(10**400)).encode(), b"[[]]"):
        reasons = ("invalid_field", "invalid_json", "invalid_amount", "invalid_timestamp")
        found.append(poison(f"{number_field} {raw[:20].decode()}", key, with_raw(valid, number_field, raw), *reasons))
    return found


def keyed(valid: dict[str, Any]) -> list[Poison]:
    """What is wrong where the key must be the customer. (A compacted topic takes no record without a key.)"""
    good = json.dumps(valid).encode()
    return [
        poison("empty key", b"", good, "empty_key"),
        poison("another's key", b"somebody else", good, "key_mismatch"),
        poison("a key that is not UTF-8", b"\xff\xfe", good, "invalid_utf8", "key_mismatch"),
        poison("a key of 100 kB", b"k" * 100_000, good, "key_mismatch"),
    ]


def changed(valid: dict[str, Any], *reasons: str, **changes: Any) -> Poison:
    """The valid message with fields replaced."""
    field, value = next(iter(changes.items()))
    message = {**valid, **changes}
    return poison(
        f"{field} {str(value)[:20]}", str(message["customer_id"]).encode(), json.dumps(message).encode(), *reasons
    )
