"""Which bundles are in use, as whoever predicts follows it: pointers in the models folder, which the registry in
MongoDB may move.

Reads names alone, loads nothing. Must never raise because the registry does not answer: what is at hand goes on.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from services.runtime import telemetry
from services.runtime.bundle import CHAMPION_POINTER, POINTER, current_bundle
from services.runtime.logs import logger

log = logger(__name__)


class RegistryAddress(NamedTuple):
    """Where the registry of models is."""

    mongo_uri: str
    mongo_database: str


class BundlePointers:
    """The pointers of one models folder, kept up to date with the registry where one is followed."""

    def __init__(self, models_dir: Path, registry: RegistryAddress | None, in_use: Callable[[], str | None]) -> None:
        """models_dir: must be writable where a registry is followed. in_use: version of the model at hand, for logs."""
        self._models_dir, self._registry, self._in_use = models_dir, registry, in_use
        self._mongo: Any = None
        self._away = False

    @property
    def pointed(self) -> bool:
        """Whether there is a pointer to follow."""
        return any((self._models_dir / name).exists() for name in (CHAMPION_POINTER, POINTER))

    def champion(self) -> Path:
        """Folder of the bundle that predicts. Raises KnownProblem if there is none."""
        # What else is put into the folder was not promoted.
        mirrored = self._registry is not None and (self._models_dir / CHAMPION_POINTER).exists()
        return current_bundle(self._models_dir, CHAMPION_POINTER if mirrored else POINTER)

    async def refresh(self) -> None:
        """Bring the models folder up to date with the registry, if it is followed. Never raises: see the metric."""
        if self._registry is None:
            return
        try:
            from services.runtime import registry  # motor is needed by those who follow the registry alone

            if self._mongo is None:
                self._mongo = registry.connect(self._registry.mongo_uri)
            await registry.mirror(registry.Registry(self._mongo, self._registry.mongo_database), self._models_dir)
        except Exception as problem:  # noqa: BLE001 - whatever it is, the model at hand goes on
            if not self._away:
                log.error("registry_away", problem=str(problem), in_use=self._in_use())
            self._away = True
        else:
            if self._away:
                log.info("registry_back")
            self._away = False
        telemetry.REGISTRY_AWAY.set(int(self._away))

    def close(self) -> None:
        """Let go of MongoDB."""
        if self._mongo is not None:
            self._mongo.close()
