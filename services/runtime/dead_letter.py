"""Sends dead letters: counted by reason, acknowledged like any other output. Their form: schemas.dead_letters."""

import asyncio
import time

from aiokafka import AIOKafkaProducer, ConsumerRecord

from schemas.dead_letters import DeadLetter, Origin, Reason, to_headers
from schemas.topics import DEAD_LETTERS
from services.runtime import telemetry
from services.runtime.logs import logger

log = logger(__name__)


async def send_dead_letter(producer: AIOKafkaProducer, letter: DeadLetter) -> asyncio.Future[object]:
    """Queue the letter; the future is its acknowledgement, to be awaited before the origin's offset is committed."""
    telemetry.DEAD_LETTERS.inc(service=letter.service, reason=letter.reason.value)
    log.warning(
        "dead_letter",
        reason=letter.reason.value,
        detail=letter.detail,
        topic=letter.origin.topic,
        partition=letter.origin.partition,
        offset=letter.origin.offset,
    )
    headers = to_headers(letter)
    future: asyncio.Future[object]
    if letter.key is None and letter.value is None:  # send() refuses such a message, a batch of one does not
        batch = producer.create_batch()
        batch.append(key=None, value=None, timestamp=letter.rejected_at_ms, headers=headers)
        batch.close()
        future = await producer.send_batch(batch, DEAD_LETTERS, partition=0)
    else:
        future = await producer.send(DEAD_LETTERS, key=letter.key, value=letter.value, headers=headers)
    return future


def letter_of(record: ConsumerRecord, reason: Reason, detail: str, service: str) -> DeadLetter:
    """The dead letter of a consumed record: its bytes and headers, and where it came from."""
    return DeadLetter(
        reason=reason,
        detail=detail,
        service=service,
        origin=Origin(record.topic, record.partition, record.offset),
        rejected_at_ms=time.time_ns() // 1_000_000,
        key=record.key,
        value=record.value,
        original_headers=list(record.headers),
    )
