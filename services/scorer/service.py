"""The scorer as a process: model, clients, health, and the tasks that keep the model and the thresholds current.

Must never begin to consume before a model is loaded, nor keep a population across a lost connection: what was not
acknowledged may not be in the topic.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any

from aiokafka.errors import KafkaError

from schemas.topics import CUSTOMER_FEATURES, topic
from services.runtime import telemetry
from services.runtime.bundle import POINTER, current_bundle
from services.runtime.consume import consume
from services.runtime.health import Health, HttpServer, health_app
from services.runtime.kafka import create_topics, new_consumer, new_producer, wait_for_kafka
from services.runtime.logs import logger
from services.runtime.shutdown import KnownProblem, unless_stopped
from services.scorer.model import Model, load_model
from services.scorer.settings import ScorerSettings
from services.scorer.thresholds import follow
from services.scorer.worker import SERVICE, Scorer

log = logger(__name__)

GROUP = "clv-scorer"
_TOPICS = ("customer-features", "predictions", "segment-thresholds", "dead-letters")
_RECONNECT_SECONDS = 1.0
_DRAIN_SECONDS = 5.0
_CLOSE_SECONDS = 2.0


class _Current:
    """The model in use and the running scorer; readiness is read from here."""

    def __init__(self, settings: ScorerSettings, health: Health) -> None:
        self._settings = settings
        self.model: Model | None = None
        self.scorer: Scorer | None = None
        self._refused = ""
        health.add("model", self._model_missing)
        health.add("kafka", self._not_consuming)

    async def load(self) -> None:
        """Load the bundle that the pointer names, if it is another one. Raises KnownProblem if it cannot be used."""
        folder = current_bundle(self._settings.models_dir)
        if self.model is not None and self.model.version == folder.name:
            return
        model = await asyncio.to_thread(load_model, folder, self._settings.currency, self._settings.scorer_threads)
        if self.scorer is not None:
            self.scorer.swap(model)
        log.info("model_loaded", model_version=model.version, former=self.model and self.model.version)
        self.model = model

    async def follow_pointer(self) -> None:
        """Load another bundle if the pointer names one; one that cannot be used is reported once, the former stays."""
        try:
            await self.load()
            self._refused = ""
        except KnownProblem as problem:
            if str(problem) != self._refused:
                log.error("model_refused", problem=str(problem), in_use=self.model and self.model.version)
            self._refused = str(problem)

    def _model_missing(self) -> str | None:
        return None if self.model else f"no model in {self._settings.models_dir} yet: train one with `./clv train`"

    def _not_consuming(self) -> str | None:
        if self.scorer is None:
            return "not connected to Kafka"
        if not self.scorer.assigned:
            return "no partitions assigned yet"
        missing = self.scorer.not_restored()
        return f"restoring the population of partitions {missing}" if missing else None


async def serve(settings: ScorerSettings, stop: asyncio.Event) -> None:
    """Score until `stop` is set. Raises KnownProblem for a bundle that cannot be used, or without Kafka."""
    health = Health()
    current = _Current(settings, health)
    telemetry.UP.set(1, service=SERVICE, version="1")
    async with AsyncExitStack() as http:
        try:
            server = HttpServer(health_app(health), settings.http_host, settings.scorer_http_port)
            await http.enter_async_context(server)
        except OSError as error:
            raise KnownProblem(str(error)) from error
        if not await unless_stopped(stop, _prepare(settings, current)):
            return
        while not stop.is_set():
            try:
                await _connection(settings, current, stop)
            except KafkaError as error:
                log.warning("kafka_lost", problem=repr(error), retry_seconds=_RECONNECT_SECONDS)
                await unless_stopped(stop, asyncio.sleep(_RECONNECT_SECONDS))
            finally:
                current.scorer = None


async def _prepare(settings: ScorerSettings, current: _Current) -> None:
    pointer = settings.models_dir / POINTER
    if not pointer.exists():
        log.warning("waiting_for_model", problem=f"no model in {settings.models_dir}: train one with `./clv train`")
    while not pointer.exists():  # noqa: ASYNC110 (another process writes it)
        await asyncio.sleep(min(1.0, settings.scorer_model_poll_seconds))
    await current.load()
    await wait_for_kafka(settings.kafka_bootstrap_servers, settings.kafka_wait_seconds)
    await create_topics(settings.kafka_bootstrap_servers, [topic(name) for name in _TOPICS])


async def _connection(settings: ScorerSettings, current: _Current, stop: asyncio.Event) -> None:
    """One connection to Kafka: until `stop`, or an error after which client objects are of no more use."""
    servers = settings.kafka_bootstrap_servers
    producer = new_producer(servers, "clv-scorer")
    consumer = new_consumer(servers, "clv-scorer", GROUP)
    sketches = new_consumer(servers, "clv-scorer-thresholds", None)
    clients = [sketches, consumer, producer]
    try:
        for client in clients:
            await client.start()
        assert current.model is not None
        scorer = current.scorer = Scorer(settings, current.model, producer)
        reading = consume(
            consumer,
            [CUSTOMER_FEATURES],
            scorer.process,
            stop,
            service=SERVICE,
            on_assigned=scorer.on_assigned,
            on_revoked=scorer.on_revoked,
        )
        beside = [
            follow(sketches, scorer.board, scorer.sketches_read.set),
            _every(settings.scorer_thresholds_seconds, scorer.refresh_thresholds),
            _every(settings.scorer_model_poll_seconds, current.follow_pointer),
            scorer.watch_restoring(),
        ]
        await _together(stop, reading, beside)
    finally:
        await asyncio.wait([asyncio.ensure_future(client.stop()) for client in clients], timeout=_CLOSE_SECONDS)


async def _together(
    stop: asyncio.Event, reading: Coroutine[Any, Any, None], beside: list[Coroutine[Any, Any, None]]
) -> None:
    """Until reading ends, which it does after `stop`, or one of the others fails; what failed is raised."""
    main = asyncio.ensure_future(reading)
    others = [asyncio.ensure_future(each) for each in beside]
    stopped = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({main, stopped, *others}, return_when=asyncio.FIRST_COMPLETED)
        if stop.is_set():
            await asyncio.wait({main}, timeout=_DRAIN_SECONDS)
            if not main.done():
                log.warning("batch_given_up", problem=f"not acknowledged within {_DRAIN_SECONDS} s; it comes again")
    finally:
        for task in (main, stopped, *others):
            task.cancel()
        await asyncio.wait({main, stopped, *others})
    for task in (main, *others):
        if not task.cancelled():
            task.result()


async def _every(seconds: float, work: Callable[[], Awaitable[None]]) -> None:
    while True:
        await asyncio.sleep(seconds)
        await work()
