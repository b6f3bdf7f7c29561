"""The sink as a process: clients, health, from start to a clean end. Waits for MongoDB and Kafka however long.

Must never begin to consume before the declared collections and indexes are there.
"""

import asyncio
from contextlib import AsyncExitStack
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError
from motor.motor_asyncio import AsyncIOMotorClient

from schemas.topics import CHALLENGER_PREDICTIONS, CUSTOMER_STATE_CHANGELOG, DEAD_LETTERS, PREDICTIONS, topic
from services.runtime import telemetry
from services.runtime.consume import consume
from services.runtime.health import Health, HttpServer, health_app
from services.runtime.kafka import create_topics, new_consumer, new_producer, wait_for_kafka
from services.runtime.logs import logger
from services.runtime.shutdown import KnownProblem, unless_stopped
from services.sink.comparison import Comparison
from services.sink.mongo import Letters, MongoAway, Store, connect, ensure_collections, primary_answers
from services.sink.patience import Stopping, UntilDone
from services.sink.settings import SinkSettings
from services.sink.state_keeper import StateKeeper
from services.sink.state_store import StateStore
from services.sink.worker import SERVICE, Sink

log = logger(__name__)

GROUP = "clv-sink"
STATES_GROUP = "clv-sink-states"
"""Of the changelog's reader, which takes its own time."""
_TOPICS = ("predictions", "challenger-predictions", "dead-letters", "customer-state-changelog")
_RECONNECT_SECONDS = 1.0
_PING_SECONDS = 2.0
_DRAIN_SECONDS = 5.0
_CLOSE_SECONDS = 2.0


class _Current:
    """The running readers and what is known of MongoDB; readiness is read from here."""

    def __init__(self, health: Health) -> None:
        self.readers: tuple[Sink | StateKeeper, ...] = ()
        self.waiting: tuple[UntilDone, ...] = ()
        self.mongo_problem: str | None = "no MongoDB primary has answered yet"
        health.add("mongo", lambda: self.mongo_problem or next((each.away for each in self.waiting if each.away), None))
        health.add("kafka", self._not_consuming)

    def _not_consuming(self) -> str | None:
        if not self.readers:
            return "not connected to Kafka"
        return None if all(each.assigned for each in self.readers) else "no partitions assigned yet"

    async def watch(self, client: "AsyncIOMotorClient[Any]") -> None:
        """Ask for the primary again and again, for ever."""
        while True:
            self.mongo_problem = await primary_answers(client)
            await asyncio.sleep(_PING_SECONDS)


async def serve(settings: SinkSettings, stop: asyncio.Event) -> None:
    """Store predictions, states and letters until `stop` is set. Raises KnownProblem for what somebody must mend."""
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
            comparing = asyncio.ensure_future(Comparison(client, settings).run(stop))
            try:
                await _stay_connected(settings, client, current, stop)
            finally:
                if stop.is_set():
                    await asyncio.wait({comparing}, timeout=_CLOSE_SECONDS)
                comparing.cancel()
    finally:
        watching.cancel()
        client.close()


async def _stay_connected(
    settings: SinkSettings, client: "AsyncIOMotorClient[Any]", current: _Current, stop: asyncio.Event
) -> None:
    while not stop.is_set():
        try:
            await _connection(settings, client, current, stop)
        except KafkaError as error:
            log.warning("kafka_lost", problem=repr(error), retry_seconds=_RECONNECT_SECONDS)
            await unless_stopped(stop, asyncio.sleep(_RECONNECT_SECONDS))
        except Stopping:
            return
        finally:
            current.readers, current.waiting = (), ()


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
    servers, batch = settings.kafka_bootstrap_servers, settings.sink_batch_records
    producer = new_producer(servers, f"clv-{SERVICE}")
    consumer = new_consumer(servers, f"clv-{SERVICE}", GROUP, batch)
    states_consumer = new_consumer(servers, f"clv-{SERVICE}-states", STATES_GROUP, batch)
    try:
        for each in (producer, consumer, states_consumer):
            await each.start()
        database, bulk = client[settings.mongo_database], settings.sink_bulk_documents
        waiting = [UntilDone(stop, settings.sink_retry_seconds_max) for _ in range(2)]
        sink = Sink(Store(database, bulk), Letters(database, bulk), producer, waiting[0])
        keeper = StateKeeper(StateStore(database, bulk), producer, waiting[1])
        current.readers, current.waiting = (sink, keeper), tuple(waiting)
        await _until_stopped(
            [
                _reading(consumer, [PREDICTIONS, CHALLENGER_PREDICTIONS, DEAD_LETTERS], sink, stop, batch),
                _reading(states_consumer, [CUSTOMER_STATE_CHANGELOG], keeper, stop, batch),
            ],
            stop,
        )
    finally:
        clients = (consumer, states_consumer, producer)
        await asyncio.wait({asyncio.ensure_future(each.stop()) for each in clients}, timeout=_CLOSE_SECONDS)


def _reading(
    consumer: AIOKafkaConsumer, topics: list[str], reader: Sink | StateKeeper, stop: asyncio.Event, batch: int
) -> "asyncio.Future[None]":
    return asyncio.ensure_future(
        consume(
            consumer,
            topics,
            reader.process,
            stop,
            service=SERVICE,
            max_records=batch,
            on_assigned=reader.on_assigned,
        )
    )


async def _until_stopped(readings: "list[asyncio.Future[None]]", stop: asyncio.Event) -> None:
    """Wait for `stop`, then for the batches in hand. Raises what ended a reader; the other ends with it."""
    stopped = asyncio.ensure_future(stop.wait())
    either: set[asyncio.Future[Any]] = {*readings, stopped}
    try:
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if stop.is_set():
            await asyncio.wait(readings, timeout=_DRAIN_SECONDS)
            if not all(each.done() for each in readings):
                log.warning("batch_given_up", problem=f"Kafka did not answer within {_DRAIN_SECONDS} s; it comes again")
    finally:
        stopped.cancel()
        for each in readings:
            each.cancel()
        await asyncio.wait(readings)
    failures = [error for each in readings if not each.cancelled() and (error := each.exception()) is not None]
    if failures:
        raise next((each for each in failures if not isinstance(each, Stopping)), failures[0])
