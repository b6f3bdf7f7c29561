"""The sink's work on dead letters: kept in MongoDB, and taken back, there and in the topic, when a customer is erased.

A letter is stored before it is held against the erasures, and an erasure is remembered before letters are looked for:
so, of a letter and an erasure that two sinks handle at the same time, at least one meets the other. Must never delete a
letter here before its tombstone in the topic is acknowledged: after a crash nothing would find it there again.
"""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime

from aiokafka import AIOKafkaProducer, ConsumerRecord

from schemas.tombstones import Cause, cause_headers
from schemas.topics import DEAD_LETTERS
from services.runtime import telemetry
from services.runtime.logs import logger
from services.sink.letters import Found, concerned, judge_letter, newest
from services.sink.mongo import Letters
from services.sink.patience import UntilDone

log = logger(__name__)


class LetterKeeper:
    """Takes in letters and erasures."""

    def __init__(self, letters: Letters, producer: AIOKafkaProducer, until_done: UntilDone) -> None:
        self._letters, self._producer, self._until_done = letters, producer, until_done

    async def take(self, records: Sequence[ConsumerRecord], erased_at: Mapping[str, datetime]) -> None:
        """Store letters and carry out erasures; returns when all of it is stored and acknowledged.

        records: of the dead-letter topic, in order within a partition. erased_at: customers who asked to be forgotten,
        and when that arrived.
        """
        kept, gone = newest(each for each in map(judge_letter, records) if each is not None)
        if kept or gone:
            await self._until_done(lambda: self._letters.write(kept, gone))
        found: list[Found] = []
        if erased_at:
            await self._until_done(lambda: self._letters.remember(erased_at))
            found += await self._until_done(lambda: self._letters.of_customers(erased_at))
        if kept:
            oldest = min(each.document["arrived_at"] for each in kept)
            known = await self._until_done(lambda: self._letters.erasures_since(oldest))
            if known:
                found += await asyncio.to_thread(concerned, kept, known)
        if found:
            await self._take_back(list(dict.fromkeys(found)))

    async def _take_back(self, found: Sequence[Found]) -> None:
        headers = cause_headers(Cause.ERASED)
        tombstones = [
            await self._producer.send(
                DEAD_LETTERS, key=each.letter.encode(), value=None, partition=each.partition, headers=headers
            )
            for each in found
        ]
        await asyncio.gather(*tombstones)
        await self._until_done(lambda: self._letters.write([], [each.letter for each in found]))
        telemetry.LETTERS_ERASED.inc(len(found))
        log.info("letters_erased", count=len(found))
