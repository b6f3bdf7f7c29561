"""The sink as a process: clients, health, from start to a clean end. Waits for MongoDB and Kafka however long.

Must never begin to consume before the declared collections and indexes are there.
"""

import asyncio
from contextlib import AsyncExitStack
from typing import Any

from aiokafka.errors import KafkaError
from motor.motor_asyncio import AsyncIOMotorClient

from schemas.topics import DEAD_LETTERS, PREDICTIONS, topic
from services.runtime import telemetry
from services.runtime.consume import consume
from services.runtime.health import Health, HttpServer, health_app
from services.runtime.kafka import create_topics, new_consumer, new_producer, wait_for_kafka
from services.runtime.logs import logger
from services.runtime.shutdown import KnownProblem, unless_stopped
from services.sink.mongo import Letters, MongoAway, Store, connect, ensure_collections, primary_answers
from services.sink.settings import SinkSettings
from services.sink.worker import SERVICE, Sink, Stopping

log = logger(__name__)

GROUP = "clv-sink"
_TOPICS = ("predictions", "dead-letters")
_RECONNECT_SECONDS = 1.0
_PING_SECONDS = 2.0
_DRAIN_SECONDS = 5.0
_CLOSE_SECONDS = 2.0


class _Current:
    """The running sink and what is known of MongoDB; readiness is read from here."""

    def __init__(self, health: Health) -> None:
        self.sink: Sink | None = None
        self.mongo_problem: str | None = "no MongoDB primary has answered yet"
        health.add("mongo", lambda: self.mongo_problem or (self.sink.away if self.sink else None))
        health.add("kafka", self._not_consuming)

    def _not_consuming(self) -> str | None:
        if self.sink is None:
            return "not connected to Kafka"
        return None if self.sink.assigned else "no partitions assigned yet"

    async def watch(self, client: "AsyncIOMotorClient[Any]") -> None:
        """Ask for the primary again and again, for ever."""
        while True:
            self.mongo_problem = await primary_answers(client)
            await asyncio.sleep(_PING_SECONDS)


async def serve(settings: SinkSettings, stop: asyncio.Event) -> None:
    """Store predictions and dead letters until `stop` is set. Raises KnownProblem for what somebody must mend."""
    health = Health()
    current = _Current(health)
    telemetry.UP.set(1, service=SERVICE, version="1")
    client = connect(settings)
    watching = asyncio.ensure_future(current.watch(client))
    try:
        async with AsyncExitStack() as http:
            try:
                server = HttpServer(health_app(health), settings.http_host, settings.sink_http_port)
                await http.enter_async_context(server)
            except OSError as error:
                raise KnownProblem(str(error)) from error
            if not await unless_stopped(stop, _prepare(settings, client)):
                return
            while not stop.is_set():
                try:
                    await _connection(settings, client, current, stop)
                except KafkaError as error:
                    log.warning("kafka_lost", problem=repr(error), retry_seconds=_RECONNECT_SECONDS)
                    await unless_stopped(stop, asyncio.sleep(_RECONNECT_SECONDS))
                except Stopping:
                    return
                finally:
                    current.sink = None
    finally:
        watching.cancel()
        client.close()


async def _prepare(settings: SinkSettings, client: "AsyncIOMotorClient[Any]") -> None:
    while True:
        try:
            await ensure_collections(client[settings.mongo_database], settings.sink_history_days)
            break
        except MongoAway as problem:
            log.warning("mongo_away", problem=str(problem), retry_seconds=_RECONNECT_SECONDS)
            await asyncio.sleep(_RECONNECT_SECONDS)
    await wait_for_kafka(settings.kafka_bootstrap_servers, settings.kafka_wait_seconds)
    await create_topics(settings.kafka_bootstrap_servers, [topic(name) for name in _TOPICS])


async def _connection(
    settings: SinkSettings, client: "AsyncIOMotorClient[Any]", current: _Current, stop: asyncio.Event
) -> None:
    """One connection to Kafka: until `stop`, or an error after which client objects are of no more use."""
    servers = settings.kafka_bootstrap_servers
    producer = new_producer(servers, f"clv-{SERVICE}")
    consumer = new_consumer(servers, f"clv-{SERVICE}", GROUP, settings.sink_batch_records)
    try:
        await producer.start()
        await consumer.start()
        database, bulk = client[settings.mongo_database], settings.sink_bulk_documents
        store, letters = Store(database, bulk), Letters(database, bulk)
        sink = current.sink = Sink(store, letters, producer, stop, settings.sink_retry_seconds_max)
        reading = asyncio.ensure_future(
            consume(
                consumer,
                [PREDICTIONS, DEAD_LETTERS],
                sink.process,
                stop,
                service=SERVICE,
                max_records=settings.sink_batch_records,
                on_assigned=sink.on_assigned,
            )
        )
        stopped = asyncio.ensure_future(stop.wait())
        await asyncio.wait({reading, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        await asyncio.wait({reading}, timeout=_DRAIN_SECONDS)
        if not reading.done():
            log.warning("batch_given_up", problem=f"Kafka did not answer within {_DRAIN_SECONDS} s; it comes again")
            reading.cancel()
            await asyncio.wait({reading})
        if not reading.cancelled():
            reading.result()
    finally:
        await asyncio.wait(
            {asyncio.ensure_future(each.stop()) for each in (consumer, producer)}, timeout=_CLOSE_SECONDS
        )
