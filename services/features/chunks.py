"""Faust fed one message per fetched chunk of a source partition, and commits that never pass what was processed.

Plain Faust costs one asyncio hop, one changelog send and one output send per event; here a chunk costs one. The worker
says what it has processed; Faust's own acknowledgements of the source topic are not believed, because Faust
acknowledges a message whose processing raised. Faust still owns membership, rebalances, recovery and the table.
"""

from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any

import faust
from faust.transport.consumer import ensure_TPset
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, Message

from services.runtime.logs import logger

log = logger(__name__)


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

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, Message]]:  # noqa: ASYNC109 - Faust's signature
        """Fetch; one message per source partition, one per record of any other topic (the changelog in recovery)."""
        records, active = await self._wait_next_records(timeout)
        if records is None or self.should_stop:
            return
        if not self.flow_active:
            # A rebalance began while fetching: the position has moved on, so what was fetched must be fetched again.
            await self.perform_seek()
            return
        for tp, chunk in records.items():
            if not chunk or (active is not None and tp not in active and tp not in self._buffered_partitions):
                continue
            self.app.monitor.track_tp_end_offset(tp, self.highwater(tp))
            if self.is_source(tp):
                # Faust drops what lies before its read offset, which it sets late: after a seek back it would drop
                # just what was asked for. Chunks are checked against `expected` instead.
                self._read_offset[tp] = None
                message = self._to_message(tp, chunk[-1])
                message.key, message.value = None, chunk
                yield tp, message
            else:
                for record in chunk:
                    yield tp, self._to_message(tp, record)

    async def perform_seek(self) -> None:
        """Seek to the committed offsets, and expect source chunks to begin there."""
        await super().perform_seek()
        sources = {tp for tp in self.assignment() if self.is_source(tp)}
        if not sources:
            return
        earliest = await self.earliest_offsets(*sources)
        for tp in sources:
            committed = self._committed_offset[tp]
            start = earliest.get(tp) or 0
            if committed is None:
                self.never_committed.add(tp)
            elif committed < start:
                log.error("source_records_gone", partition=tp.partition, committed=committed, earliest=start)
            self.expected[tp] = max(committed or 0, start, self.processed.get(tp, 0))
            # aiokafka does not seek where nothing was committed yet, although its position may have moved on.
            await self.seek(tp, self.expected[tp])

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
