"""The scorer as a process: model, clients, health, and the tasks that keep the model and the thresholds current.

Must never begin to consume before a model is loaded, nor keep a population across a lost connection: what was not
acknowledged may not be in the topic.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from aiokafka.errors import KafkaError

from schemas.topics import CUSTOMER_FEATURES, topic
from services.inference.following import BundlePointers, RegistryAddress
from services.inference.thresholds import follow
from services.runtime import telemetry
from services.runtime.bundle import challenger_bundle
from services.runtime.consume import consume
from services.runtime.health import Health, HttpServer, health_app
from services.runtime.kafka import create_topics, new_consumer, new_producer, wait_for_kafka
from services.runtime.logs import logger
from services.runtime.shutdown import KnownProblem, unless_stopped
from services.scorer.loading import Loaded, load
from services.scorer.settings import ScorerSettings
from services.scorer.worker import SERVICE, Scorer

log = logger(__name__)

GROUP = "clv-scorer"
_TOPICS = ("customer-features", "predictions", "challenger-predictions", "segment-thresholds", "dead-letters")
_RECONNECT_SECONDS = 1.0
_DRAIN_SECONDS = 5.0
_CLOSE_SECONDS = 2.0


class _Current:
    """The models in use and the running scorer; readiness is read from here."""

    def __init__(self, settings: ScorerSettings, health: Health) -> None:
        self._settings = settings
        self.champion: Loaded | None = None
        self.challenger: Loaded | None = None
        self.scorer: Scorer | None = None
        self._refused = {"champion": "", "challenger": ""}
        registry = RegistryAddress(settings.mongo_uri, settings.mongo_database) if settings.scorer_registry else None
        self.pointers = BundlePointers(settings.models_dir, registry, lambda: self.version)
        health.add("model", self._model_missing)
        health.add("kafka", self._not_consuming)

    @property
    def version(self) -> str | None:
        """Of the model in use."""
        return self.champion and self.champion.model.version

    async def load(self) -> None:
        """Load the bundle that the pointer names, if it is another one. Raises KnownProblem if it cannot be used."""
        folder = self.pointers.champion()
        if self.version == folder.name:
            return
        loaded = await self._read(folder)
        if self.scorer is not None:
            self.scorer.swap(loaded)
        log.info("model_loaded", model_version=loaded.model.version, former=self.version)
        self.champion = loaded

    async def follow(self) -> None:
        """Ask the registry, then load what the pointers name. What cannot be used is said once; the former stays."""
        await self.pointers.refresh()
        try:
            await self.load()
            self._refused["champion"] = ""
        except (KnownProblem, OSError) as problem:
            self._refuse("champion", "model_refused", str(problem))
        try:
            await self._load_challenger()
            self._refused["challenger"] = ""
        except Exception as problem:  # noqa: BLE001 - whatever is wrong with it, the champion goes on
            self._try_nobody()
            self._refuse("challenger", "challenger_refused", str(problem))

    async def _load_challenger(self) -> None:
        folder = challenger_bundle(self._settings.models_dir)
        if folder is None or folder.name == self.version:
            self._try_nobody()
            return
        if self.challenger is not None and self.challenger.model.version == folder.name:
            return
        loaded = await self._read(folder)
        self.challenger = loaded
        if self.scorer is not None:
            self.scorer.shadow.swap(loaded.model)
        log.info("challenger_loaded", model_version=loaded.model.version)

    def _try_nobody(self) -> None:
        if self.challenger is not None:
            log.info("challenger_gone", model_version=self.challenger.model.version)
            self.challenger = None
            if self.scorer is not None:
                self.scorer.shadow.swap(None)

    async def _read(self, folder: Path) -> Loaded:
        return await asyncio.to_thread(load, folder, self._settings.currency, self._settings.scorer_threads)

    def _refuse(self, which: str, event: str, problem: str) -> None:
        if problem != self._refused[which]:
            log.error(event, problem=problem, in_use=self.version)
        self._refused[which] = problem

    def _model_missing(self) -> str | None:
        return None if self.champion else f"no model in {self._settings.models_dir} yet: train one with `./clv train`"

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
        http.callback(current.pointers.close)
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
    await current.pointers.refresh()
    if not current.pointers.pointed:
        log.warning("waiting_for_model", problem=f"no model in {settings.models_dir}: train one with `./clv train`")
    while not current.pointers.pointed:
        await asyncio.sleep(min(1.0, settings.scorer_model_poll_seconds))
        await current.pointers.refresh()
    await current.load()
    await wait_for_kafka(settings.kafka_bootstrap_servers, settings.kafka_wait_seconds)
    await create_topics(settings.kafka_bootstrap_servers, [topic(name) for name in _TOPICS])


async def _connection(settings: ScorerSettings, current: _Current, stop: asyncio.Event) -> None:
    """One connection to Kafka: until `stop`, or an error after which client objects are of no more use."""
    servers = settings.kafka_bootstrap_servers
    producer = new_producer(servers, "clv-scorer")
    shadow_producer = new_producer(servers, "clv-scorer-challenger")
    consumer = new_consumer(servers, "clv-scorer", GROUP)
    sketches = new_consumer(servers, "clv-scorer-thresholds", None)
    clients = [sketches, consumer, producer, shadow_producer]
    try:
        for client in clients:
            await client.start()
        assert current.champion is not None
        scorer = current.scorer = Scorer(settings, current.champion, producer, shadow_producer)
        if current.challenger is not None:
            scorer.shadow.swap(current.challenger.model)
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
            _every(settings.scorer_model_poll_seconds, current.follow),
            _every(settings.scorer_drift_seconds, scorer.show_drift),
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
