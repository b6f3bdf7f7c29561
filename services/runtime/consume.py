"""The loop of a service that reads batches: fetch → process (effects acknowledged) → commit.

Must never commit what `process` has not finished. A rebalance waits for the batch in hand, so that a partition is not
given away in the middle of one.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, ConsumerRecord, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, RebalanceInProgressError

from services.runtime import telemetry
from services.runtime.logs import logger

log = logger(__name__)

Records = dict[TopicPartition, list[ConsumerRecord]]
Process = Callable[[Records], Awaitable[None]]
PartitionsChanged = Callable[[set[TopicPartition]], Awaitable[None]]


class _Listener(ConsumerRebalanceListener):
    def __init__(self, assigned: PartitionsChanged | None, revoked: PartitionsChanged | None) -> None:
        self.in_hand = asyncio.Lock()
        self.rebalances = 0
        self._assigned, self._revoked = assigned, revoked

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        async with self.in_hand:
            self.rebalances += 1
            if self._revoked:
                await self._revoked(set(revoked))

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        # Without the lock: no heartbeat is sent until this returns, and a batch of these very partitions, already in
        # hand, may take longer than the session lasts.
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
    on_revoked: called between batches with the partitions that go. on_assigned: called with those that came; must
    return at once, and may be called a moment after `process` got the first records of them.
    """
    listener = _Listener(on_assigned, on_revoked)
    consumer.subscribe(list(topics), listener=listener)
    stopped: asyncio.Future[bool] = asyncio.ensure_future(stop.wait())
    try:
        while not stop.is_set():
            records, rebalances = await _fetch(consumer, max_records, listener, stopped)
            if not records:
                continue
            async with listener.in_hand:
                if listener.rebalances != rebalances:
                    continue  # given away on their way here: whoever owns them now begins at the committed offset
                began = time.perf_counter()
                await process(records)
                await _commit(consumer, records, service)
                telemetry.BATCH_SECONDS.observe(time.perf_counter() - began, service=service)
            _count(consumer, records)
    finally:
        stopped.cancel()


async def _fetch(
    consumer: AIOKafkaConsumer, max_records: int, listener: _Listener, stopped: "asyncio.Future[bool]"
) -> tuple[Records, int]:
    """The next records, and the count of rebalances at the very moment they were taken from the client.

    None after a moment without any, or once `stopped` is done. Outside the lock, since it waits for a rebalance to end,
    and a rebalance waits for the lock.
    """

    async def take() -> tuple[Records, int]:
        return await consumer.getmany(timeout_ms=100, max_records=max_records), listener.rebalances

    taking = asyncio.ensure_future(take())
    either: set[asyncio.Future[Any]] = {taking, stopped}
    try:
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        return taking.result() if taking.done() else ({}, 0)
    finally:
        taking.cancel()


def _count(consumer: AIOKafkaConsumer, records: Records) -> None:
    for partition, batch in records.items():
        telemetry.RECORDS_PROCESSED.inc(len(batch), topic=partition.topic)
        end = consumer.highwater(partition) if partition in consumer.assignment() else None
        if end is not None:
            lag = max(0, end - batch[-1].offset - 1)
            telemetry.CONSUMER_LAG.set(lag, topic=partition.topic, partition=str(partition.partition))


async def _commit(consumer: AIOKafkaConsumer, records: Records, service: str) -> None:
    try:
        await consumer.commit({partition: batch[-1].offset + 1 for partition, batch in records.items()})
    except (CommitFailedError, IllegalStateError, RebalanceInProgressError) as error:
        # The group has moved on; whoever owns the partitions now reads the batch again: its effects repeat harmlessly.
        telemetry.COMMIT_FAILURES.inc(service=service)
        log.warning("commit_failed", problem=repr(error))
