"""Sending dead letters: counted by reason, acknowledged like any other output. What they look like: schemas.dead_letters."""

import asyncio

from aiokafka import AIOKafkaProducer

from schemas.dead_letters import DeadLetter, to_headers
from schemas.topics import DEAD_LETTERS
from services.runtime import telemetry
from services.runtime.logs import logger

log = logger(__name__)


async def send_dead_letter(producer: AIOKafkaProducer, letter: DeadLetter) -> asyncio.Future[object]:
    """Queue the letter; the future is its acknowledgement, which must be awaited before the origin's offset is committed."""
    telemetry.DEAD_LETTERS.inc(service=letter.service, reason=letter.reason.value)
    log.warning(
        "dead_letter",
        reason=letter.reason.value,
        detail=letter.detail,
        topic=letter.origin.topic,
        partition=letter.origin.partition,
        offset=letter.origin.offset,
    )
    future: asyncio.Future[object] = await producer.send(
        DEAD_LETTERS, key=letter.key, value=letter.value, headers=to_headers(letter)
    )
    return future
