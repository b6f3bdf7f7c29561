"""Reads predictions from Kafka as they are published, for the live figures and the stream.

Without a group: each process of the API sees all of them, from when it began. Goes on where it was when Kafka was away.
Must never end for what a record holds, nor commit anything.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import msgspec
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from schemas.predictions import PredictionHead, decode_prediction_head
from schemas.topics import PREDICTIONS, topic
from services.api.live.fanout import Event, Fanout
from services.api.live.figures import Arrivals
from services.api.views import row_of_message
from services.runtime import telemetry
from services.runtime.kafka import new_consumer
from services.runtime.logs import logger

_RECONNECT_SECONDS = 1.0
_CLOSE_SECONDS = 2.0
log = logger(__name__)


class Feed:
    """The reader."""

    def __init__(self, bootstrap_servers: str, arrivals: Arrivals, fanout: Fanout) -> None:
        self._bootstrap_servers = bootstrap_servers
        self._arrivals, self._fanout = arrivals, fanout
        self._next: dict[TopicPartition, int] = {}
        """The offset that comes next in each partition; empty before the first connection."""
        self.problem: str | None = "not connected to Kafka"
        """What readiness says: None when well."""

    async def run(self) -> None:
        """Read for ever."""
        while True:
            consumer = new_consumer(self._bootstrap_servers, "clv-api-feed", None, 2000, offset_reset="none")
            try:
                await consumer.start()
                await self._begin(consumer)
                self.problem = None
                while True:
                    self._take(await consumer.getmany(timeout_ms=1000))
            except OffsetOutOfRangeError:
                self._next.clear()  # the topic was made anew, or what came next has expired
            except (KafkaError, OSError) as error:
                log.warning("feed_lost", problem=repr(error), retry_seconds=_RECONNECT_SECONDS)
            finally:
                self.problem = "not connected to Kafka"
                await asyncio.wait([asyncio.ensure_future(consumer.stop())], timeout=_CLOSE_SECONDS)
            await asyncio.sleep(_RECONNECT_SECONDS)

    async def _begin(self, consumer: AIOKafkaConsumer) -> None:
        partitions = [TopicPartition(PREDICTIONS, number) for number in range(topic("predictions").partitions)]
        consumer.assign(partitions)
        ends: Mapping[TopicPartition, int] = await consumer.end_offsets(partitions)
        for partition in partitions:
            known = self._next.get(partition, ends[partition])
            self._next[partition] = min(known, ends[partition])  # beyond the end: the topic was made anew
            consumer.seek(partition, self._next[partition])

    def _take(self, batches: Mapping[TopicPartition, Sequence[ConsumerRecord]]) -> None:
        now = time.time()
        received_at = datetime.fromtimestamp(now, UTC)
        for partition, records in batches.items():
            for record in records:
                self._take_one(record, now, received_at)
            if records:
                self._next[partition] = records[-1].offset + 1

    def _take_one(self, record: ConsumerRecord, now: float, received_at: datetime) -> None:
        if record.value is None:
            return  # a customer was erased or merged: nothing that could be shown
        try:
            message = decode_prediction_head(record.value)
        except (msgspec.DecodeError, RecursionError):
            return  # the sink makes a dead letter of it
        self._arrivals.take(message.segment, record.timestamp / 1000, now)
        telemetry.API_FRESHNESS_SECONDS.observe(max(0.0, now - record.timestamp / 1000))
        self._fanout.publish(message.segment, lambda: _event(record, message, received_at))


def _event(record: ConsumerRecord, message: PredictionHead, received_at: datetime) -> Event:
    return Event(f"{record.partition}-{record.offset}", row_of_message(message, received_at).model_dump_json())
