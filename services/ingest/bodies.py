"""Takes the body of an HTTP request apart into events, each byte for byte as it was sent. Pure; judges nothing."""

from collections.abc import Iterable, Mapping
from urllib.parse import unquote_to_bytes

import msgspec

from schemas.dead_letters import Headers
from services.ingest.cloud_events import STRUCTURED

JSON = "application/json"
NDJSON = "application/x-ndjson"
STRUCTURED_BATCH = "application/cloudevents-batch+json"
MEDIA_TYPES = (JSON, NDJSON, STRUCTURED, STRUCTURED_BATCH)

_list_of_raw = msgspec.json.Decoder(list[msgspec.Raw])


def media_type(content_type: str) -> str | None:
    """The media type of a Content-Type header, if it is one that is accepted."""
    name, *parameters = (part.strip().lower() for part in content_type.split(";"))
    charset_ok = all(
        each.removeprefix("charset=").strip('"') in ("utf-8", "utf8") for each in parameters if "charset=" in each
    )
    return name if name in MEDIA_TYPES and charset_ok else None


def event_headers(media: str, http_headers: Iterable[tuple[str, str]]) -> Headers:
    """The Kafka headers that an event of this request has (CloudEvents HTTP binding §3.1, Kafka binding §3.2)."""
    content_type = STRUCTURED if media in (STRUCTURED, STRUCTURED_BATCH) else JSON
    found = [("content-type", content_type.encode())]
    for name, value in http_headers:
        if name.lower().startswith("ce-"):
            found.append((name.lower().replace("ce-", "ce_", 1), unquote_to_bytes(value)))
    return found


def split(body: bytes, media: str, headers: Mapping[str, bytes]) -> list[bytes]:
    """The events in a body. One that cannot be taken apart is one event, which the judge then refuses.

    headers: of event_headers(); a CloudEvent in binary mode is always one event.
    """
    if media == NDJSON:
        return [line for line in (each.strip(b" \t\r") for each in body.split(b"\n")) if line]
    if not body.strip():
        return []
    if body.lstrip()[:1] != b"[" or "ce_specversion" in headers or media == STRUCTURED:
        return [body]
    try:
        return [bytes(event) for event in _list_of_raw.decode(body)]
    except (msgspec.DecodeError, RecursionError):
        return [body]
