"""Which customers a raw message names: by its key, by the fields that say so, and where those are unreadable by bytes.

For what must be found again by customer though it may be no valid message: dead letters and events as they were sent.
Pure; must never raise for what a message holds. In doubt a message names a customer: it is asked when one is erased.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import msgspec

ID_CHARS_MAX = 256
_FIELDS = ("customer_id", "merged_into", "origin", "from", "into", "subject")
"""Fields of the contracts that hold a customer, those of CloudEvents and of the events' older names included."""
_SAYS_WHOM = ("customer_id", "subject")
"""A message with one of these says whom it is about; without, its bytes have to be searched."""
_HEADERS = ("customer", "user", "ce_subject")
_WORD = rb"0-9A-Za-z_\-\x80-\xff"
_QUOTED = re.compile(rb'"((?:[^"\\]|\\.){1,2048})"')
_RUNS = (re.compile(rb"[" + _WORD + rb".@:+/]{1,1024}"), re.compile(rb"[" + _WORD + rb"]{1,1024}"))

Headers = Sequence[tuple[str, bytes | None]]


class Named(NamedTuple):
    """The customers that a message names."""

    customer_ids: frozenset[str]
    clear: bool
    """Whether those are all; if not, `contains` has to be asked of its bytes."""


def named_customers(key: bytes | None, value: bytes | None, headers: Headers = ()) -> Named:
    """The customers named by key, headers and fields of a message (JSON, plain or as a CloudEvent)."""
    texts = [_text(key)]
    texts += [_text(found) for name, found in headers if any(part in name.lower() for part in _HEADERS)]
    found = {text for text in texts if text}
    if not value:
        return Named(frozenset(found), clear=True)
    by_header = any(name.lower() == "ce_subject" and header for name, header in headers)
    by_field = False
    for level in _objects(value):
        for field in _FIELDS:
            text = _scalar(level.get(field))
            if text:
                found.add(text)
                by_field = by_field or field in _SAYS_WHOM
    return Named(frozenset(found), clear=by_header or by_field)


def holds(customer_id: str, key: bytes | None, value: bytes | None, headers: Headers = ()) -> bool:
    """Whether the message names the customer, or may well do."""
    named = named_customers(key, value, headers)
    return customer_id in named.customer_ids or (not named.clear and contains(customer_id, value or b""))


def contains(customer_id: str, data: bytes) -> bool:
    """Whether the id occurs in the bytes and is no part of a longer word there; in UTF-8, UTF-16 or escaped in JSON."""
    forms = {customer_id.encode("utf-8", "surrogatepass")}
    forms |= {json.dumps(customer_id, ensure_ascii=each)[1:-1].encode("utf-8", "replace") for each in (False, True)}
    pattern = b"|".join(re.escape(form) for form in sorted(forms) if form)
    if not pattern:
        return False
    whole = re.compile(rb"(?<![" + _WORD + rb"])(?:" + pattern + rb")(?![" + _WORD + rb"])")
    return any(whole.search(each) for each in _readings(data))


def words(data: bytes) -> Iterator[str]:
    """What in the bytes may be a customer's id: quoted strings and runs of the characters that ids are made of.

    To look a message up by hashes of ids where the ids themselves are no longer known; `contains` finds a little more.
    """
    for reading in _readings(data):
        for quoted in _QUOTED.findall(reading):
            yield _unescaped(quoted)
        for pattern in _RUNS:
            yield from (run.decode("utf-8", "replace") for run in pattern.findall(reading))


def _readings(data: bytes) -> Iterable[bytes]:
    """The bytes as they are and, if they look like UTF-16, without what that adds to ASCII."""
    return (data, data.replace(b"\0", b"")) if b"\0" in data else (data,)


def _objects(value: bytes) -> Iterator[dict[str, Any]]:
    """The JSON object in the bytes and a CloudEvent's data within it."""
    try:
        decoded = msgspec.json.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return
    if isinstance(decoded, dict):
        yield decoded
        if isinstance(decoded.get("data"), dict):
            yield decoded["data"]


def _scalar(value: object) -> str | None:
    if isinstance(value, str):
        return value if len(value) <= ID_CHARS_MAX else None
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else None


def _text(data: bytes | None) -> str | None:
    text = None if data is None else data.decode("utf-8", "backslashreplace")
    return text if text is not None and len(text) <= ID_CHARS_MAX else None


def _unescaped(quoted: bytes) -> str:
    try:
        return str(json.loads(b'"' + quoted + b'"'))
    except ValueError:
        return quoted.decode("utf-8", "replace")
