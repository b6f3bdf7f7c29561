"""The loop of a service that reads batches: fetch → process (effects acknowledged) → commit. Used by ingest, scorer, sink.

Must never commit what `process` has not finished. A rebalance waits for the batch in hand, so that a partition is not
given away in the middle of one.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, ConsumerRecord, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, RebalanceInProgressError

from services.runtime import telemetry
from services.runtime.logs import logger

log = logger(__name__)

Records = dict[TopicPartition, list[ConsumerRecord]]
Process = Callable[[Records], Awaitable[None]]
PartitionsChanged = Callable[[set[TopicPartition]], Awaitable[None]]


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    def __init__(self, in_hand: asyncio.Lock, assigned: PartitionsChanged | None, revoked: PartitionsChanged | None):
        self._in_hand, self._assigned, self._revoked = in_hand, assigned, revoked

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        async with self._in_hand:
            if self._revoked:
                await self._revoked(set(revoked))

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        async with self._in_hand:
            log.info("partitions_assigned", partitions=sorted(f"{tp.topic}-{tp.partition}" for tp in assigned))
            if self._assigned:
                await self._assigned(set(assigned))


async def consume(
    consumer: AIOKafkaConsumer,
    topics: Sequence[str],
    process: Process,
    stop: asyncio.Event,
    *,
    service: str,
    max_records: int = 5000,
    on_assigned: PartitionsChanged | None = None,
    on_revoked: PartitionsChanged | None = None,
) -> None:
    """Read `topics` with a started consumer until `stop` is set; the batch in hand is finished and committed first.

    process: gets the records by partition, in order; returns when their effects are acknowledged. If it raises, nothing
    of the batch is committed and the error leaves this function: the service ends, and the batch is read again.
    on_assigned, on_revoked: called between batches with the partitions that came or go.
    """
    in_hand = asyncio.Lock()
    consumer.subscribe(list(topics), listener=_Listener(in_hand, on_assigned, on_revoked))
    while not stop.is_set():
        async with in_hand:
            records: Records = await consumer.getmany(timeout_ms=100, max_records=max_records)
            if not records:
                continue
            began = time.perf_counter()
            await process(records)
            await _commit(consumer, records, service)
            telemetry.BATCH_SECONDS.observe(time.perf_counter() - began, service=service)
        for partition, batch in records.items():
            telemetry.RECORDS_PROCESSED.inc(len(batch), topic=partition.topic)
            end = consumer.highwater(partition) if partition in consumer.assignment() else None
            if end is not None:
                lag = max(0, end - batch[-1].offset - 1)
                telemetry.CONSUMER_LAG.set(lag, topic=partition.topic, partition=str(partition.partition))
        await asyncio.sleep(0)  # let a waiting rebalance take the lock


async def _commit(consumer: AIOKafkaConsumer, records: Records, service: str) -> None:
    try:
        await consumer.commit({partition: batch[-1].offset + 1 for partition, batch in records.items()})
    except (CommitFailedError, IllegalStateError, RebalanceInProgressError) as error:
        # The group has moved on; whoever owns the partitions now reads the batch again, and its effects repeat harmlessly.
        telemetry.COMMIT_FAILURES.inc(service=service)
        log.warning("commit_failed", problem=repr(error))
