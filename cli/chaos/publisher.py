"""Publishes events as upstream teams do, through whatever happens to the product: acknowledged, or sent again.

To Kafka with acks=all and idempotence, to HTTP until the answer is 202. Must never count an event as accepted that was
not acknowledged, nor give one up.
"""

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import httpx
from aiokafka.errors import KafkaError

from cli.chaos.load import Channel, Event, Planned
from schemas.topics import CUSTOMER_EVENTS
from services.runtime.kafka import Item, new_producer, send_batches

_RETRY_SECONDS = 0.3
_HTTP_SECONDS = 10.0
_KAFKA_SECONDS = 25.0
_CLOSE_SECONDS = 3.0
_HTTP_EVENTS = 50


class Publisher:
    """`async with` it. accepted: events by id that were acknowledged, or answered 202."""

    def __init__(self, bootstrap_servers: str, ingest_url: str) -> None:
        self._servers, self._events_url = bootstrap_servers, f"{ingest_url}/v1/events"
        self._producer: Any = None
        self._connecting = asyncio.Lock()
        self._client = httpx.AsyncClient(timeout=_HTTP_SECONDS)
        self.accepted: dict[str, Event] = {}
        self.deliveries = 0
        """Accepted events, repetitions counted."""
        self.waiting: Counter[Channel] = Counter()
        """Events published and not accepted yet."""
        self.refused: list[str] = []
        """Answers that say that an event is wrong: none of them is."""

    async def __aenter__(self) -> "Publisher":
        await self._connected()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()
        await self._disconnect(self._producer)

    async def publish(self, planned: Sequence[Planned]) -> None:
        """Returns when every event is accepted."""
        http = [each.event for each in planned if each.channel is Channel.HTTP]
        parts = [http[at : at + _HTTP_EVENTS] for at in range(0, len(http), _HTTP_EVENTS)]
        kafka = [each for each in planned if each.channel is Channel.KAFKA]
        self.waiting.update(each.channel for each in planned)
        async with asyncio.TaskGroup() as group:
            if kafka:
                group.create_task(self._to_kafka(kafka))
            for part in parts:
                group.create_task(self._to_http(part))

    async def _to_kafka(self, planned: list[Planned]) -> None:
        by_partition: dict[int, list[Item]] = {}
        for each in planned:
            by_partition.setdefault(each.partition, []).append((None, _encoded(each.event), None, []))
        while True:
            producer = None
            try:
                producer = await self._connected()
                async with asyncio.timeout(_KAFKA_SECONDS):
                    futures = [
                        future
                        for partition, items in by_partition.items()
                        for future in await send_batches(producer, CUSTOMER_EVENTS, partition, items)
                    ]
                    await asyncio.gather(*futures)
            except (KafkaError, OSError):  # a timeout is an OSError: batches of a producer that another task gave up
                await self._disconnect(producer)
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                self._accept(Channel.KAFKA, [each.event for each in planned])
                return

    async def _to_http(self, events: list[Event]) -> None:
        body = json.dumps(events).encode()
        while True:
            with contextlib.suppress(httpx.HTTPError):
                answer = await self._client.post(
                    self._events_url, content=body, headers={"content-type": "application/json"}
                )
                if answer.status_code == httpx.codes.ACCEPTED and not answer.json()["rejected"]:
                    self._accept(Channel.HTTP, events)
                    return
                if answer.status_code < 500:
                    self.refused.append(answer.text[:500])
                    return
            await asyncio.sleep(_RETRY_SECONDS)

    def _accept(self, channel: Channel, events: Sequence[Event]) -> None:
        self.waiting[channel] -= len(events)
        for event in events:
            self.accepted[str(event["event_id"])] = event
            self.deliveries += 1

    async def _connected(self) -> Any:
        async with self._connecting:
            if self._producer is None:
                producer = new_producer(self._servers, "clv-chaos")
                try:
                    await producer.start()
                except BaseException:
                    await producer.stop()
                    raise
                self._producer = producer
            return self._producer

    async def _disconnect(self, producer: Any) -> None:
        """Give up a producer that failed; the next attempt connects anew."""
        if producer is not None and producer is self._producer:
            self._producer = None
            await asyncio.wait([asyncio.ensure_future(producer.stop())], timeout=_CLOSE_SECONDS)


def _encoded(event: Event) -> bytes:
    return json.dumps(event).encode()
