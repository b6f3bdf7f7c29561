"""The sink's work on predictions (of the model in use, and of models on trial) and dead letters: stored documents out,
however long MongoDB is away.

Must never return from a batch that is not stored by a majority (or dead-lettered), and never hold more than that batch.
"""

import asyncio
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar

from aiokafka import AIOKafkaProducer, ConsumerRecord, TopicPartition

from schemas.dead_letters import Reason
from schemas.topics import CHALLENGER_PREDICTIONS, DEAD_LETTERS, PREDICTIONS
from services.runtime import telemetry
from services.runtime.consume import Records
from services.runtime.dead_letter import letter_of, send_dead_letter
from services.sink.documents import (
    Refusal,
    Write,
    erasures,
    judge,
    judge_challenger,
    plan,
    plan_challengers,
)
from services.sink.letter_keeper import LetterKeeper
from services.sink.mongo import Letters, Result, Store
from services.sink.patience import UntilDone

SERVICE = "sink"
_Verdict = TypeVar("_Verdict")
Refused = list[tuple[ConsumerRecord, Refusal]]


class Sink:
    """One sink process's state."""

    def __init__(
        self,
        store: Store,
        letters: Letters,
        producer: AIOKafkaProducer,
        until_done: UntilDone,
    ) -> None:
        self._store, self._letters, self._producer, self._until_done = store, letters, producer, until_done
        self._keeper = LetterKeeper(letters, producer, until_done)
        self.assigned = False
        """Whether the group has assigned partitions (perhaps none) at least once."""

    async def on_assigned(self, _: set[TopicPartition]) -> None:
        """The group has spoken."""
        self.assigned = True

    async def process(self, records: Records) -> None:
        """Store a batch: returns when it is stored and its dead letters are acknowledged. Raises Stopping."""
        now = datetime.now(UTC)
        verdicts = judged(_of(records, PREDICTIONS), partial(judge, now=now))
        trial_verdicts = judged(_of(records, CHALLENGER_PREDICTIONS), partial(judge_challenger, now=now))
        good = [each for _, each in verdicts if not isinstance(each, Refusal)]
        trials = [each for _, each in trial_verdicts if not isinstance(each, Refusal)]
        refused, refused_trials = refusals(verdicts), refusals(trial_verdicts)
        work, trial_work = plan(good), plan_challengers(trials)
        result = await self._until_done(lambda: self._store.write(work))
        refused += _as_refusals(_of(records, PREDICTIONS), result)
        if trials:
            result = await self._until_done(lambda: self._store.write_challengers(trial_work))
            refused_trials += _as_refusals(_of(records, CHALLENGER_PREDICTIONS), result)
            if erased := erasures(trials):
                await self._until_done(lambda: self._letters.remember(erased, "challengers_erased_at"))
        await send_refusals(self._producer, [*refused, *refused_trials])
        kept = [record for batch in _of(records, DEAD_LETTERS).values() for record in batch]
        await self._keeper.take(kept, erasures(good))
        now_ms = time.time() * 1000
        for entry in good:
            if isinstance(entry, Write):
                telemetry.STORED_LATENCY.observe(max(0.0, now_ms - entry.timestamp_ms) / 1000)


def judged(records: Records, judge_one: Callable[[ConsumerRecord], _Verdict]) -> list[tuple[ConsumerRecord, _Verdict]]:
    """Each record with the verdict on it."""
    return [(record, judge_one(record)) for batch in records.values() for record in batch]


def refusals(verdicts: Iterable[tuple[ConsumerRecord, object]]) -> Refused:
    """The records that are refused."""
    return [(record, verdict) for record, verdict in verdicts if isinstance(verdict, Refusal)]


async def send_refusals(producer: AIOKafkaProducer, refused: Iterable[tuple[ConsumerRecord, Refusal]]) -> None:
    """Make each a dead letter; returns when all are acknowledged."""
    letters = [
        await send_dead_letter(producer, letter_of(record, why.reason, why.detail, SERVICE)) for record, why in refused
    ]
    await asyncio.gather(*letters)


def _of(records: Records, topic: str) -> Records:
    return {source: batch for source, batch in records.items() if source.topic == topic}


def _as_refusals(records: Records, result: Result) -> Refused:
    return refusals_of(records, [(write.partition, write.offset, why) for write, why in result.refused])


def refusals_of(records: Records, refused: Iterable[tuple[int, int, str]]) -> Refused:
    """Records of one topic that MongoDB will never take. refused: partition, offset, and why."""
    found = list(refused)
    if not found:
        return []
    places: dict[tuple[int, int], Any] = {(at.partition, each.offset): each for at in records for each in records[at]}
    return [
        (places[partition, offset], Refusal(Reason.INVALID_FIELD, f"MongoDB refuses the document: {why}"))
        for partition, offset, why in found
    ]
