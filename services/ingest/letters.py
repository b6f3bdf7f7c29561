"""Makes the dead letters of rejected events. Pure."""

from schemas.dead_letters import DeadLetter, Headers, Origin
from services.ingest.rejection import Rejection
from services.runtime.dead_letter import fitting
from services.runtime.kafka import MAX_REQUEST_BYTES

SERVICE = "ingest"
ORIGIN_HTTP = "http"


def dead_letter(
    rejection: Rejection,
    origin: Origin,
    now_ms: int,
    *,
    key: bytes | None,
    value: bytes | None,
    headers: Headers,
    arrived_at_ms: int | None = None,
    bytes_max: int = MAX_REQUEST_BYTES,
) -> DeadLetter:
    """The letter for a rejected message: byte for byte, unless it is larger than bytes_max with key and headers."""
    letter = DeadLetter(
        reason=rejection.reason,
        detail=rejection.detail,
        service=SERVICE,
        origin=origin,
        rejected_at_ms=now_ms,
        key=key,
        value=value,
        original_headers=headers,
        arrived_at_ms=arrived_at_ms,
    )
    return fitting(letter, bytes_max)
