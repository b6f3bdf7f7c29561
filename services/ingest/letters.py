"""Makes dead letters that the topic can hold: whole where they fit, cut and marked as such where they do not.

A record that came compressed can be far larger than any limit on messages. Pure; must never change bytes that fit.
"""

import msgspec

from schemas.dead_letters import DeadLetter, Headers, Origin
from services.ingest.rejection import Rejection
from services.runtime.kafka import MAX_REQUEST_BYTES

SERVICE = "ingest"
ORIGIN_HTTP = "http"
HEADER_TRUNCATED_FROM = "truncated_from_bytes"
"""On a dead letter whose value was cut: how many bytes it had. Such a letter cannot be replayed."""

_OWN_HEADERS_BYTES = 8 * 1024
_HEADER_OVERHEAD_BYTES = 16


def dead_letter(
    rejection: Rejection,
    origin: Origin,
    now_ms: int,
    *,
    key: bytes | None,
    value: bytes | None,
    headers: Headers,
    bytes_max: int = MAX_REQUEST_BYTES,
) -> DeadLetter:
    """The letter for a rejected message: byte for byte, unless it is larger than bytes_max with key and headers.

    Then the value is cut; and if key or headers alone are too large, they are left out.
    """
    letter = DeadLetter(
        reason=rejection.reason,
        detail=rejection.detail,
        service=SERVICE,
        origin=origin,
        rejected_at_ms=now_ms,
        key=key,
        value=value,
        original_headers=headers,
    )
    room = bytes_max - _OWN_HEADERS_BYTES
    beside = _beside_value_bytes(key, headers)
    if beside + len(value or b"") <= room:
        return letter
    if beside > room // 2:
        letter = msgspec.structs.replace(letter, key=None, original_headers=[])
        beside = 0
    mark = (HEADER_TRUNCATED_FROM, str(len(value or b"")).encode())
    return msgspec.structs.replace(
        letter, value=(value or b"")[: room - beside], original_headers=[*letter.original_headers, mark]
    )


def _beside_value_bytes(key: bytes | None, headers: Headers) -> int:
    named = sum(len(name.encode()) + len(value or b"") + _HEADER_OVERHEAD_BYTES for name, value in headers)
    return len(key or b"") + named
