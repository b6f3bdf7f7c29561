"""Sends dead letters: counted by reason, acknowledged like any other output. Their form: schemas.dead_letters.

Must never make one that the topic cannot hold: a record that came compressed can be far larger than any limit on
messages, and a letter that cannot be sent would stop the line that it is to keep going.
"""

import asyncio
import time

import msgspec
from aiokafka import AIOKafkaProducer, ConsumerRecord

from schemas.dead_letters import DeadLetter, Headers, Origin, Reason, to_record
from schemas.topics import DEAD_LETTERS
from services.runtime import telemetry
from services.runtime.kafka import MAX_REQUEST_BYTES
from services.runtime.logs import logger

log = logger(__name__)

HEADER_TRUNCATED_FROM = "truncated_from_bytes"
"""On a dead letter whose value was cut: how many bytes it had. Such a letter cannot be replayed."""
DETAIL_CHARS_MAX = 500
"""What a decoder says of a message may quote as much of it as it likes."""
_OWN_HEADERS_BYTES = 8 * 1024
_HEADER_OVERHEAD_BYTES = 16


async def send_dead_letter(producer: AIOKafkaProducer, letter: DeadLetter) -> asyncio.Future[object]:
    """Queue the letter; the future is its acknowledgement, to be awaited before the origin's offset is committed."""
    telemetry.DEAD_LETTERS.inc(service=letter.service, reason=letter.reason.value)
    # Without the detail, which may quote a customer's id: a log line cannot be erased, the letter can.
    log.warning(
        "dead_letter",
        reason=letter.reason.value,
        topic=letter.origin.topic,
        partition=letter.origin.partition,
        offset=letter.origin.offset,
    )
    key, value, headers = to_record(letter)
    future: asyncio.Future[object] = await producer.send(DEAD_LETTERS, key=key, value=value, headers=headers)
    return future


def letter_of(record: ConsumerRecord, reason: Reason, detail: str, service: str) -> DeadLetter:
    """The dead letter of a consumed record: its bytes and headers (as far as they fit), and where it came from."""
    return fitting(
        DeadLetter(
            reason=reason,
            detail=detail[:DETAIL_CHARS_MAX],
            service=service,
            origin=Origin(record.topic, record.partition, record.offset),
            rejected_at_ms=time.time_ns() // 1_000_000,
            key=record.key,
            value=record.value,
            original_headers=list(record.headers),
            arrived_at_ms=record.timestamp if record.timestamp and record.timestamp > 0 else None,
        )
    )


def fitting(letter: DeadLetter, bytes_max: int = MAX_REQUEST_BYTES) -> DeadLetter:
    """The letter itself, unless it is larger than bytes_max with key and headers: then its value is cut.

    If key or headers alone are too large, they are left out.
    """
    value = letter.value or b""
    room = bytes_max - _OWN_HEADERS_BYTES
    beside = _beside_value_bytes(letter.key, letter.original_headers)
    if beside + len(value) <= room:
        return letter
    if beside > room // 2:
        letter = msgspec.structs.replace(letter, key=None, original_headers=[])
        beside = 0
    mark = (HEADER_TRUNCATED_FROM, str(len(value)).encode())
    return msgspec.structs.replace(
        letter, value=value[: room - beside], original_headers=[*letter.original_headers, mark]
    )


def _beside_value_bytes(key: bytes | None, headers: Headers) -> int:
    named = sum(len(name.encode()) + len(value or b"") + _HEADER_OVERHEAD_BYTES for name, value in headers)
    return len(key or b"") + named
