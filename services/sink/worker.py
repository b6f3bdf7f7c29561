"""The sink's work on Kafka: predictions and dead letters in, stored documents out, however long MongoDB is away.

Must never return from a batch that is not stored by a majority (or dead-lettered), and never hold more than that batch.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TypeVar

from aiokafka import AIOKafkaProducer, ConsumerRecord, TopicPartition

from schemas.dead_letters import Reason
from schemas.topics import DEAD_LETTERS
from services.runtime import telemetry
from services.runtime.consume import Records
from services.runtime.dead_letter import letter_of, send_dead_letter
from services.runtime.logs import logger
from services.sink.documents import Erased, Refusal, Write, erasures, judge, plan
from services.sink.letter_keeper import LetterKeeper
from services.sink.mongo import Letters, MongoAway, Result, Store

log = logger(__name__)

SERVICE = "sink"
_RETRY_SECONDS_MIN = 0.1
_DRAIN_SECONDS = 4.0
_Done = TypeVar("_Done")


class Stopping(Exception):
    """The service is to end, and the batch in hand is not stored: it will be read again."""


class Sink:
    """One sink process's state."""

    def __init__(
        self,
        store: Store,
        letters: Letters,
        producer: AIOKafkaProducer,
        stop: asyncio.Event,
        retry_seconds_max: float,
    ) -> None:
        self._store, self._producer, self._stop = store, producer, stop
        self._keeper = LetterKeeper(letters, producer, self._until_done)
        self._retry_seconds_max = retry_seconds_max
        self.assigned = False
        """Whether the group has assigned partitions (perhaps none) at least once."""
        self.away: str | None = None
        """Why the batch in hand cannot be stored at present."""

    async def on_assigned(self, _: set[TopicPartition]) -> None:
        """The group has spoken."""
        self.assigned = True

    async def process(self, records: Records) -> None:
        """Store a batch: returns when it is stored and its dead letters are acknowledged. Raises Stopping."""
        now = datetime.now(UTC)
        refused: list[tuple[ConsumerRecord, Refusal]] = []
        good: list[Write | Erased] = []
        predictions = {source: batch for source, batch in records.items() if source.topic != DEAD_LETTERS}
        for batch in predictions.values():
            for record in batch:
                verdict = judge(record, now)
                if isinstance(verdict, Refusal):
                    refused.append((record, verdict))
                else:
                    good.append(verdict)
        work = plan(good)
        result = await self._until_done(lambda: self._store.write(work))
        refused += _as_refusals(predictions, result)
        letters = [
            await send_dead_letter(self._producer, letter_of(record, why.reason, why.detail, SERVICE))
            for record, why in refused
        ]
        await asyncio.gather(*letters)
        kept = [record for source, batch in records.items() if source.topic == DEAD_LETTERS for record in batch]
        await self._keeper.take(kept, erasures(good))
        now_ms = time.time() * 1000
        for entry in good:
            if isinstance(entry, Write):
                telemetry.STORED_LATENCY.observe(max(0.0, now_ms - entry.timestamp_ms) / 1000)

    async def _until_done(self, attempt: Callable[[], Awaitable[_Done]]) -> _Done:
        """Try until MongoDB has it, or `stop` is set. Every attempt does all of it: repeats change nothing."""
        pause_seconds = _RETRY_SECONDS_MIN
        while True:
            try:
                result = await self._attempt(attempt)
            except MongoAway as problem:
                telemetry.MONGO_RETRIES.inc()
                self.away = str(problem)
                log.warning("mongo_away", problem=str(problem), retry_seconds=pause_seconds)
            else:
                self.away = None
                return result
            try:
                await asyncio.wait_for(self._stop.wait(), pause_seconds)
            except TimeoutError:
                pause_seconds = min(2 * pause_seconds, self._retry_seconds_max)
            else:
                raise Stopping

    async def _attempt(self, attempt_once: Callable[[], Awaitable[_Done]]) -> _Done:
        """One attempt. After `stop` it has a few seconds left, then is given up; whether it succeeded is not known."""
        attempt = asyncio.ensure_future(attempt_once())
        stopped = asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait({attempt, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if not attempt.done():
                await asyncio.wait({attempt}, timeout=_DRAIN_SECONDS)
            if not attempt.done():
                log.warning("batch_given_up", problem=f"not stored within {_DRAIN_SECONDS} s; it will be read again")
                raise Stopping
            return attempt.result()
        finally:
            stopped.cancel()
            attempt.cancel()


def _as_refusals(records: Records, result: Result) -> list[tuple[ConsumerRecord, Refusal]]:
    if not result.refused:
        return []
    places = {(source.partition, record.offset): record for source in records for record in records[source]}
    return [
        (places[write.partition, write.offset], Refusal(Reason.INVALID_FIELD, f"MongoDB refuses the document: {why}"))
        for write, why in result.refused
    ]
