"""Keeps what forms are answered with current: the champion's bundle, and the ranking of the live population.

Both are replaced as a whole between two calls of the model, so no request sees half of either, and none fails because
of it. Must never leave the API without a model because a newer one cannot be used.
"""

import asyncio
import gc
from pathlib import Path

from aiokafka.errors import KafkaError

from schemas.topics import topic
from services.api.forms.settings import PredictSettings
from services.api.forms.what_if import Serving, ranges_of
from services.inference.explain import Explainer, references_of
from services.inference.following import BundlePointers, RegistryAddress
from services.inference.model import Model, load_model
from services.inference.profile_model import ProfileModel, load_profile
from services.inference.ranking import Ranking, bundle_ranking
from services.inference.thresholds import Board, follow
from services.runtime import telemetry
from services.runtime.bundle import read_metadata
from services.runtime.kafka import create_topics, new_consumer
from services.runtime.logs import logger
from services.runtime.shutdown import KnownProblem

log = logger(__name__)

_RECONNECT_SECONDS = 1.0


class BundleFollower:
    """The model in use. `serving` may be another object after each await."""

    def __init__(self, settings: PredictSettings) -> None:
        """Raises KnownProblem if the profile model cannot be used."""
        self._settings = settings
        registry = RegistryAddress(settings.mongo_uri, settings.mongo_database) if settings.api_registry else None
        self._pointers = BundlePointers(settings.models_dir, registry, lambda: self.version)
        self._profile: ProfileModel | None = None
        if settings.api_profile_dir is not None:
            self._profile = load_profile(settings.api_profile_dir, settings.currency)
        self.serving: Serving | None = None
        self.board = Board()
        self._ranked: object = None
        """What the ranking was last made from."""
        self._customers_most = 0
        self._refused = ""
        self.looked = False
        """Whether there has been a first look for a model."""

    @property
    def version(self) -> str | None:
        """Of the model in use."""
        return None if self.serving is None else self.serving.model.version

    def missing(self) -> str | None:
        """For readiness: what there is to do while there is no model."""
        if self.serving is not None:
            return None
        return self._refused or f"no model in {self._settings.models_dir} yet: train one with `./clv train`"

    async def run(self) -> None:
        """Follow model and population, for ever."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._follow_models())
                tasks.create_task(self._follow_population())
                tasks.create_task(self._follow_ranking())
        finally:
            self._pointers.close()

    # ------------------------------------------------------------ the model

    async def load(self) -> None:
        """Load the bundle that is pointed to, if it is another one. Never raises: the former stays."""
        await self._pointers.refresh()
        try:
            folder = self._pointers.champion()
            if folder.name == self.version:
                return
            serving = await asyncio.to_thread(read_serving, folder, self._settings.currency, self._profile)
        except (KnownProblem, OSError) as problem:
            if self._pointers.pointed and str(problem) != self._refused:  # once, not at every look
                log.error("model_refused", problem=str(problem), in_use=self.version)
            self._refused = str(problem)
            return
        self._refused = ""
        former, self.serving = self.version, serving
        self._ranked = None
        self.rank()
        if former is not None:
            telemetry.API_MODEL_INFO.set(0, model_version=former)
        telemetry.API_MODEL_INFO.set(1, model_version=serving.model.version)
        log.info("model_loaded", model_version=serving.model.version, former=former)

    async def _follow_models(self) -> None:
        while True:
            await self.load()
            if not self.looked:
                # What is there by now stays: to go through it again and again would take a tenth of a second each time,
                # in which nobody is answered.
                gc.collect()
                gc.freeze()
            self.looked = True
            waiting = 1.0 if self.serving is None else self._settings.api_model_poll_seconds
            await asyncio.sleep(min(waiting, self._settings.api_model_poll_seconds))

    # ------------------------------------------------------------ the population

    def rank(self) -> None:
        """Rank by the population as it was last read, if enough of it is known under the model in use."""
        if self.serving is None:
            return
        model = self.serving.model
        state = (self.board.changes, model.version)
        if state == self._ranked:
            return
        live, customers = self.board.ranking({}, model.version, self._settings.api_min_population)
        self._customers_most = max(self._customers_most, customers)
        if live is None or customers < self._customers_most * self._settings.api_min_population_share:
            self.serving = self.serving._replace(ranking=own_ranking(model), customers=None)
        else:
            self.serving = self.serving._replace(ranking=live, customers=customers)
        self._ranked = state

    async def _follow_ranking(self) -> None:
        while True:
            await asyncio.sleep(self._settings.api_thresholds_seconds)
            self.rank()

    async def _follow_population(self) -> None:
        servers = self._settings.kafka_bootstrap_servers
        away = False
        while True:
            consumer = new_consumer(servers, "clv-api-thresholds", None)
            try:
                await create_topics(servers, [topic("segment-thresholds")])
                await consumer.start()
                if away:
                    log.info("thresholds_followed_again")
                away = False
                await follow(consumer, self.board, self.rank)
            except KafkaError as error:
                if not away:
                    log.warning("thresholds_not_followed", problem=repr(error), retry_seconds=_RECONNECT_SECONDS)
                away = True
            finally:
                await consumer.stop()
            await asyncio.sleep(_RECONNECT_SECONDS)


def own_ranking(model: Model) -> Ranking:
    """The ranking of the bundle's reference population."""
    return bundle_ranking(model.thresholds, model.metadata.value_quantiles)


def read_serving(folder: Path, currency: str, profile: ProfileModel | None) -> Serving:
    """A bundle ready to answer. Raises KnownProblem that says what is wrong with it."""
    model = load_model(folder, currency)
    metadata = read_metadata(folder)
    try:
        explainer = Explainer(model, references_of(folder))
    except KnownProblem as problem:
        log.warning("nothing_explained", problem=str(problem))
        explainer = None
    return Serving(model, own_ranking(model), None, ranges_of(metadata), explainer, profile)
