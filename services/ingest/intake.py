"""The way of events through the service, the same for Kafka and HTTP: judge each, write all, count.

Must never acknowledge an event whose record or dead letter is not written.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from schemas.dead_letters import DeadLetter, Headers, Origin
from schemas.orders import OrderRecord, encode_order
from services.ingest.judge import Rules, judge
from services.ingest.letters import ORIGIN_HTTP, dead_letter
from services.ingest.output import Output
from services.ingest.rejection import Rejection
from services.runtime import telemetry
from services.runtime.consume import Records
from services.runtime.kafka import Item

_EVENTS_PER_SLICE = 500
"""Events judged before others get a turn: heartbeats, and HTTP requests while a backlog is read."""


class NotConnected(Exception):
    """There is no connection to Kafka at the moment."""


class Message(NamedTuple):
    """One message to judge."""

    key: bytes | None
    value: bytes | None
    headers: Headers
    timestamp_ms: int
    origin: Origin


class Intake:
    """Judges and writes. Without a connection (see `output`) it can do neither."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self.output: Output | None = None
        """Where to write; None while there is no connection to Kafka."""

    async def from_kafka(self, records: Records) -> None:
        """Judge and write a fetched batch. Raises KafkaError or NotConnected if it is not all acknowledged."""
        messages = [
            Message(
                record.key,
                record.value,
                list(record.headers),
                record.timestamp if record.timestamp and record.timestamp > 0 else _now_ms(),
                Origin(record.topic, record.partition, record.offset),
            )
            for batch in records.values()
            for record in batch
        ]
        await self._take(messages, "kafka")

    async def from_http(self, events: Sequence[bytes], headers: Headers) -> dict[int, Rejection]:
        """Judge and write the events of one request; the rejected ones by index, once all is acknowledged.

        Raises KafkaError or NotConnected.
        """
        now_ms = _now_ms()
        return await self._take(
            [Message(None, event, headers, now_ms, Origin(ORIGIN_HTTP)) for event in events], "http"
        )

    async def _take(self, messages: Sequence[Message], via: str) -> dict[int, Rejection]:
        output = self.output
        if output is None:
            raise NotConnected("there is no connection to Kafka")
        now_ms = _now_ms()
        orders: list[Item] = []
        letters: list[DeadLetter] = []
        rejected: dict[int, Rejection] = {}
        counts: Counter[type[OrderRecord]] = Counter()
        for index, message in enumerate(messages):
            if index % _EVENTS_PER_SLICE == _EVENTS_PER_SLICE - 1:
                await asyncio.sleep(0)
            verdict = judge(message.value, message.headers, now_ms, self._rules)
            if isinstance(verdict, Rejection):
                rejected[index] = verdict
                letters.append(_letter(verdict, message, now_ms))
            else:
                counts[type(verdict)] += 1
                orders.append((verdict.customer_id.encode(), encode_order(verdict), message.timestamp_ms, []))
        await output.write(orders, letters)
        for record_type, count in counts.items():
            telemetry.INGEST_EVENTS.inc(count, via=via, event_type=str(record_type.__struct_config__.tag))
        return rejected


def _letter(rejection: Rejection, message: Message, now_ms: int) -> DeadLetter:
    return dead_letter(
        rejection,
        message.origin,
        now_ms,
        key=message.key,
        value=message.value,
        headers=message.headers,
        arrived_at_ms=message.timestamp_ms,
    )


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
