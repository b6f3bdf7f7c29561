"""Runs ingest: HTTP server, Kafka consumer and producer, from start to a clean end. Connects again when Kafka was away.

Must never commit an offset whose effects were lost with a connection: each connection begins at what is committed.
"""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

from schemas.currencies import exponent_of
from schemas.topics import CUSTOMER_EVENTS, topic
from services.ingest.app import build_app
from services.ingest.intake import Intake, NotConnected
from services.ingest.judge import Rules
from services.ingest.letters import SERVICE
from services.ingest.output import Output
from services.ingest.rates import Rates, RatesError, parse_rates
from services.ingest.settings import IngestSettings
from services.runtime import telemetry
from services.runtime.consume import consume
from services.runtime.health import Health, HttpServer
from services.runtime.kafka import create_topics, new_consumer, new_producer, wait_for_kafka
from services.runtime.logs import logger
from services.runtime.shutdown import KnownProblem, unless_stopped

GROUP = "clv-ingest"
_TOPICS = ("customer-events", "orders", "dead-letters")
_RECONNECT_SECONDS = 1.0
_DRAIN_SECONDS = 5.0
_CLOSE_SECONDS = 2.0
log = logger(__name__)


class _Readiness:
    """What the readiness checks look at."""

    def __init__(self, intake: Intake, health: Health) -> None:
        self._intake = intake
        self._assigned = False
        health.add("kafka_producer", lambda: None if self._intake.output else "not connected to Kafka")
        health.add("kafka_consumer", lambda: None if self._assigned else "no partitions assigned yet")

    async def on_assigned(self, _: set[TopicPartition]) -> None:
        self._assigned = True

    async def on_revoked(self, _: set[TopicPartition]) -> None:
        self._assigned = False


def load_rules(settings: IngestSettings) -> Rules:
    """The judge's rules by the settings. Raises KnownProblem if the currency or the rates file cannot be used."""
    if exponent_of(settings.currency) is None:
        raise KnownProblem(f"CLV_CURRENCY={settings.currency} is no currency of ISO 4217, such as USD")
    rates = Rates()
    if settings.ingest_rates_file is not None:
        try:
            rates = parse_rates(settings.ingest_rates_file.read_text())
        except (OSError, UnicodeDecodeError, RatesError) as error:
            raise KnownProblem(f"CLV_INGEST_RATES_FILE={settings.ingest_rates_file}: {error}") from error
    return Rules(
        currency=settings.currency,
        rates=rates,
        event_bytes_max=settings.ingest_max_event_bytes,
        future_tolerance_ms=round(settings.ingest_future_tolerance_seconds * 1000),
    )


async def serve(settings: IngestSettings, stop: asyncio.Event) -> None:
    """Run until `stop` is set. Raises KnownProblem if Kafka does not answer at the start, or the port is taken."""
    health, intake = Health(), Intake(load_rules(settings))
    readiness = _Readiness(intake, health)
    telemetry.UP.set(1, service=SERVICE, version="1")
    async with AsyncExitStack() as http:
        try:
            app = build_app(settings, intake, health)
            await http.enter_async_context(HttpServer(app, settings.http_host, settings.ingest_http_port))
        except OSError as error:
            raise KnownProblem(str(error)) from error
        if not await _kafka_is_there(settings, stop):
            return
        while not stop.is_set():
            try:
                await _connection(settings, intake, readiness, stop, http)
            except (KafkaError, NotConnected) as error:
                log.warning("kafka_lost", problem=repr(error), retry_seconds=_RECONNECT_SECONDS)
                await unless_stopped(stop, asyncio.sleep(_RECONNECT_SECONDS))


async def _kafka_is_there(settings: IngestSettings, stop: asyncio.Event) -> bool:
    """Wait for Kafka and make sure of the topics; False if `stop` came first."""

    async def prepare() -> None:
        await wait_for_kafka(settings.kafka_bootstrap_servers, settings.kafka_wait_seconds)
        await create_topics(settings.kafka_bootstrap_servers, [topic(name) for name in _TOPICS])

    return await unless_stopped(stop, prepare())


async def _connection(
    settings: IngestSettings, intake: Intake, readiness: _Readiness, stop: asyncio.Event, http: AsyncExitStack
) -> None:
    """One connection to Kafka: until `stop`, or an error after which client objects are of no more use."""
    over = asyncio.Event()
    producer = new_producer(settings.kafka_bootstrap_servers, f"clv-{SERVICE}")
    consumer = new_consumer(settings.kafka_bootstrap_servers, f"clv-{SERVICE}", GROUP)
    stopping = asyncio.ensure_future(stop.wait())
    stopping.add_done_callback(lambda _: over.set())
    try:
        await producer.start()
        await consumer.start()
        intake.output = await Output.connect(producer, over)
        reading = asyncio.ensure_future(
            consume(
                consumer,
                [CUSTOMER_EVENTS],
                intake.from_kafka,
                over,
                service=SERVICE,
                on_assigned=readiness.on_assigned,
                on_revoked=readiness.on_revoked,
            )
        )
        await asyncio.wait({reading, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if stop.is_set():  # requests in flight still need the producer
            await asyncio.wait({reading, asyncio.ensure_future(http.aclose())}, timeout=_DRAIN_SECONDS)
        await _finish(reading)
    finally:
        stopping.cancel()
        intake.output = None
        await readiness.on_revoked(set())
        await _close([consumer, producer])


async def _finish(reading: asyncio.Future[None]) -> None:
    """Raise what it raised. One that does not end (Kafka is away) is given up: it has not committed."""
    if not reading.done():
        log.warning("batch_given_up", problem=f"not acknowledged within {_DRAIN_SECONDS} s; it will be read again")
        reading.cancel()
        await asyncio.wait({reading})
    if not reading.cancelled():
        reading.result()


async def _close(clients: Sequence[AIOKafkaConsumer | AIOKafkaProducer]) -> None:
    """Close clients in bounded time. One that waits for an absent broker goes on closing by itself."""
    closing = {asyncio.ensure_future(client.stop()) for client in clients}
    done, _ = await asyncio.wait(closing, timeout=_CLOSE_SECONDS)
    for each in done:
        if each.exception() is not None:
            log.warning("close_failed", problem=repr(each.exception()))
