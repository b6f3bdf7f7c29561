"""Model bundles by their version: from the models folder, else from the registry, once for all who ask.

Must never give a bundle of another version than was asked for, nor put anything into the models folder.
"""

import asyncio
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypeVar

from services.api.settings import ApiSettings
from services.api.short_cache import ShortCache
from services.runtime.bundle import METADATA, read_metadata
from services.runtime.registry import Registry, RegistryAway
from services.runtime.shutdown import KnownProblem

_CHECKED_SECONDS = 3600.0
_KEPT_MAX = 4
T = TypeVar("T")


class BundleGone(Exception):
    """Neither the models folder nor the registry has the bundle, or not as it was."""


class Bundles:
    """Where bundles are."""

    def __init__(self, settings: ApiSettings, registry: Registry) -> None:
        self._models_dir, self._registry = settings.models_dir, registry
        self._own_dir = settings.api_bundles_dir
        self._temporary: Path | None = None
        self._folders = ShortCache[tuple[Path, dict[str, Any]]](_CHECKED_SECONDS)

    def close(self) -> None:
        """Remove what was fetched, unless a folder was given for it."""
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)

    async def folder(self, version: str) -> Path:
        """The bundle's folder. Raises BundleGone, or RegistryAway if the registry would have to be asked."""
        return (await self._found(version))[0]

    async def metadata(self, version: str) -> dict[str, Any]:
        """All of metadata.json; its content has been checked. Raises as `folder`."""
        return (await self._found(version))[1]

    async def _found(self, version: str) -> tuple[Path, dict[str, Any]]:
        return await self._folders.get(version, lambda: self._find(version))

    async def _find(self, version: str) -> tuple[Path, dict[str, Any]]:
        folder = self._models_dir / version
        try:
            if not (folder / METADATA).is_file():
                folder = await self._registry.fetch(version, self._fetched_dir())
            metadata = await asyncio.to_thread(read_metadata, folder)
        except RegistryAway:
            raise
        except KnownProblem as problem:
            raise BundleGone(str(problem)) from None
        if metadata["model_version"] != version:
            raise BundleGone(f"{folder} holds model {metadata['model_version']}")
        return folder, metadata

    def _fetched_dir(self) -> Path:
        if self._own_dir is not None:
            self._own_dir.mkdir(parents=True, exist_ok=True)
            return self._own_dir
        if self._temporary is None:
            self._temporary = Path(tempfile.mkdtemp(prefix="clv-api-bundles-"))
        return self._temporary


class Loaded(Generic[T]):
    """What is made of bundles, by version: the last few are kept, since making one takes longer than using it."""

    def __init__(self, make: Callable[[Path], T]) -> None:
        """make: runs in a thread."""
        self._make = make
        self._kept: dict[str, asyncio.Future[T]] = {}

    async def get(self, version: str, folder: Path) -> T:
        """What `make` gives of the folder; what it raises is raised, and not kept."""
        known = self._kept.pop(version, None)
        if known is None or (known.done() and (known.cancelled() or known.exception() is not None)):
            known = asyncio.ensure_future(asyncio.to_thread(self._make, folder))
        self._kept[version] = known  # the last to be used goes last
        while len(self._kept) > _KEPT_MAX:
            del self._kept[next(iter(self._kept))]
        return await asyncio.shield(known)
