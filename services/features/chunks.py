"""Faust fed one message per fetched chunk of a source partition, and commits that never pass what was processed.

Plain Faust costs one asyncio hop, one changelog send and one output send per event; here a chunk costs one. The worker
says what it has processed; Faust's own acknowledgements of the source topic are not believed, because Faust
acknowledges a message whose processing raised. Chunks of the changelog go to the table's recovery and to nobody else.
Faust still owns membership, rebalances, the order of recovery and the table.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any, NamedTuple

import faust
from aiokafka.errors import CommitFailedError, ConsumerStoppedError, IllegalStateError
from aiokafka.structs import OffsetAndMetadata, TopicPartition
from faust.transport.consumer import ensure_TPset
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, Message

from services.runtime.logs import logger

log = logger(__name__)


FETCH_WAIT_MS = 100
"""How long a broker may keep a fetch waiting for records."""
REASSIGNMENT_POLL_SECONDS = 0.05
IDLE_SECONDS = 0.05
"""Between two looks at whether there is a partition to fetch from."""


class Chunk(NamedTuple):
    """What was fetched of a partition: every record from offset `start` to before `end`, of which some may be gone."""

    start: int
    end: int
    records: list[Any]


class ChunkThread(driver.AIOKafkaConsumerThread):
    """Fetches records together with the positions that they lie between."""

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        # A broker answers the requests of a connection in turn: while it waits for records, the questions for offsets
        # wait, of which each rebalance asks five. Faust's 1.5 s is not to be set.
        consumer._fetch_max_wait_ms = FETCH_WAIT_MS
        return consumer

    async def _fetch_records(
        self,
        consumer: Any,
        active_partitions: set[TP],
        timeout: float | None = None,  # noqa: ASYNC109 - Faust's signature
        max_records: int | None = None,
    ) -> dict[TP, Chunk]:
        fetcher = consumer._fetcher
        deadline = time.monotonic() + (timeout or 0)
        with consumer._subscription.fetch_context():
            while self.consumer.flow_active and (left := deadline - time.monotonic()) > 0:
                if consumer._closed or fetcher._closed:
                    raise ConsumerStoppedError
                if consumer._subscription.reassignment_in_progress:
                    await asyncio.sleep(REASSIGNMENT_POLL_SECONDS)
                    continue
                # No seek can come in between: with no timeout, aiokafka takes what is there without waiting.
                before = _positions(consumer, active_partitions)
                records = await fetcher.fetched_records(active_partitions, timeout=0, max_records=max_records)
                after = _positions(consumer, active_partitions)
                moved = {tp: end for tp, end in after.items() if before.get(tp) not in (None, end)}
                if moved:
                    return {tp: Chunk(before[tp], end, records.get(tp, [])) for tp, end in moved.items()}
                waiter = fetcher._create_fetch_waiter()
                await asyncio.wait([waiter], timeout=left)
                if waiter.done():
                    waiter.result()
                else:
                    waiter.cancel()
        return {}


def _positions(consumer: Any, partitions: set[TP]) -> dict[TP, int]:
    assignment = consumer._subscription.subscription.assignment
    states = {tp: assignment.state_value(tp) for tp in partitions} if assignment is not None else {}
    return {tp: state.position for tp, state in states.items() if state is not None and state.has_valid_position}


class ChunkConsumer(driver.Consumer):
    """Yields (partition, message): message.value is the list of fetched records, message.offset the last one's."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.source_topic: str = self.transport.source_topic
        self.processed: dict[TP, int] = {}
        """By source partition, the offset after the last record with acknowledged effects: all that is committed."""
        self.expected: dict[TP, int] = {}
        """Offset that the next chunk of a source partition must begin at (or before)."""
        self.never_committed: set[TP] = set()
        """Source partitions for which the group had no committed offset when they were assigned."""

    def is_source(self, tp: TP) -> bool:
        """Whether the partition is one of the source topic's."""
        return bool(tp.topic == self.source_topic)

    def _new_consumer_thread(self) -> ChunkThread:
        return ChunkThread(self, loop=self.loop, beacon=self.beacon)

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, Message]]:  # noqa: ASYNC109 - Faust's signature
        """Fetch; one message per source partition. What comes of the changelog is applied at once, not yielded."""
        chunks = await self._fetch(timeout)
        if not chunks or self.should_stop:
            return
        if not self.flow_active:
            # A rebalance began while fetching: the position has moved on, so what was fetched must be fetched again.
            # (Of the changelog too: each recovery begins with a seek.)
            # Should the assignment be gone already, the next one begins with a seek.
            with contextlib.suppress(IllegalStateError, AssertionError):
                await self.perform_seek()
            return
        for tp, chunk in chunks.items():
            if tp in self._paused_partitions:
                continue
            self.app.monitor.track_tp_end_offset(tp, self.highwater(tp))
            if not self.is_source(tp):
                missing = self.app.tables.recovery.take(tp, chunk)
                if missing is not None:
                    await self.seek(tp, missing)
            elif chunk.records:
                # Faust drops what lies before its read offset, which it sets late: after a seek back it would drop
                # just what was asked for. Chunks are checked against `expected` instead.
                self._read_offset[tp] = None
                message = self._to_message(tp, chunk.records[-1])
                message.key, message.value = None, chunk.records
                yield tp, message

    async def _fetch(self, timeout: float) -> dict[TP, Chunk]:  # noqa: ASYNC109 - Faust's signature
        if not self.flow_active:
            await self.wait(self.can_resume_flow)
        # A copy: were the set emptied while the thread waits, aiokafka would take it for "all partitions".
        active = set(self._get_active_partitions())
        if active:
            chunks: dict[TP, Chunk] = await self._thread.getmany(active, timeout)
            return chunks
        await self.sleep(IDLE_SECONDS)
        return {}

    async def _seek(self, partition: TP, offset: int) -> None:
        """In the consumer's thread, as aiokafka needs it; Faust calls it from another one."""
        await self._thread.seek_wait({partition: offset})

    def on_buffer_drop(self, tp: TP) -> None:
        """The stream has room again. Not for a partition that was paused or revoked since."""
        if tp in self._paused_partitions or tp not in self.assignment():
            self._buffered_partitions.discard(tp)
        else:
            super().on_buffer_drop(tp)

    async def perform_seek(self) -> None:
        """Seek to the committed offsets, and expect source chunks to begin there."""
        await super().perform_seek()
        sources = {tp for tp in self.assignment() if self.is_source(tp)}
        if not sources:
            return
        earliest = await self.earliest_offsets(*sources)
        for tp in sources:
            committed: int | None = self._committed_offset[tp]
            start = earliest.get(tp) or 0
            if committed is None:
                committed = await self._committed(tp)
            if committed is None:
                self.never_committed.add(tp)
            elif committed < start:
                log.error("source_records_gone", partition=tp.partition, committed=committed, earliest=start)
            self.expected[tp] = max(committed or 0, start, self.processed.get(tp, 0))
            # aiokafka does not seek where nothing was committed yet, although its position may have moved on.
            await self.seek(tp, self.expected[tp])

    async def _committed(self, tp: TP) -> int | None:
        """The group's committed offset; None if there never was one. (Faust takes a committed 0 for none.)"""
        thread: Any = self._thread
        consumer = thread._ensure_consumer()
        found: int | None = await thread.call_thread(consumer.committed, TopicPartition(tp.topic, tp.partition))
        return found

    async def is_member(self, tp: TP, committed: int) -> bool:
        """Ask the group's coordinator whether the partition is still this worker's.

        By committing an offset before which everything is committed or gone: that changes nothing, and a coordinator
        takes commits of the present generation's members only.
        """
        thread: Any = self._thread

        async def commit() -> None:
            place = TopicPartition(tp.topic, tp.partition)
            await thread._ensure_consumer().commit({place: OffsetAndMetadata(committed, "")})

        try:
            await thread.call_thread(commit)
        except (CommitFailedError, IllegalStateError) as error:
            log.warning("not_a_member", partition=tp.partition, problem=repr(error))
            return False
        return True

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Forget the revoked partitions' progress: whoever gets them starts at the committed offset."""
        await super().on_partitions_revoked(revoked)
        for tp in ensure_TPset(revoked):
            self.processed.pop(tp, None)
            self.expected.pop(tp, None)
            self.never_committed.discard(tp)

    def ack(self, message: Message) -> bool:
        """Faust's acknowledgement: of no meaning for the source topic, where `processed` counts."""
        if not self.is_source(message.tp):
            return bool(super().ack(message))
        message.acked = True
        self._unacked_messages.discard(message)
        return True

    def _filter_tps_with_pending_acks(self, topics: Iterable[Any] | None = None) -> Iterator[TP]:
        yield from (tp for tp in list(self.processed) if topics is None or tp in topics or tp.topic in topics)

    def _new_offset(self, tp: TP) -> int | None:
        return self.processed.get(tp)

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Faust's bookkeeping of holes between messages; chunks are checked against `expected` instead."""


class ChunkTransport(driver.Transport):
    """Faust's Kafka transport with the chunk consumer."""

    Consumer = ChunkConsumer

    def __init__(self, *args: Any, source_topic: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.source_topic = source_topic


class PassThrough(faust.Schema):
    """Leaves the chunk as it is: records are decoded by the fold."""

    def loads_key(self, app: Any, message: Message, **_: Any) -> None:
        """No key: the chunk holds many."""

    def loads_value(self, app: Any, message: Message, **_: Any) -> Any:
        """The chunk."""
        return message.value
