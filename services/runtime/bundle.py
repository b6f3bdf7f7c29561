"""Model bundles as services find them: the pointers in the models folder, metadata without the model itself, and
whether a bundle's content is what its name says.

The feature worker needs only the quintile borders and must not load ONNX; the scorer builds on this for the rest.
"""

import os
import tempfile
from pathlib import Path
from typing import Any

import msgspec

from domain.rfm_scores import Quintiles
from schemas.model_bundle import METADATA_FILE, MODEL_FILE, VERSION_FIELD, bundle_version, metadata_without_version
from services.runtime.shutdown import KnownProblem

POINTER = "current"
"""File in the models folder that names the bundle in use."""
CHAMPION_POINTER = "champion"
"""File in the models folder that names the registry's champion; written by `services.runtime.registry.mirror` alone."""
CHALLENGER_POINTER = "challenger"
"""File in the models folder that names the bundle on trial, if there is one."""
METADATA = METADATA_FILE


class BundleHead(msgspec.Struct, frozen=True):
    """The part of metadata.json that every service may need."""

    model_version: str
    horizon_days: int
    currency: str
    feature_names: list[str]
    quintiles: Quintiles
    segment_thresholds: tuple[float, float, float]


def current_bundle(models_dir: Path, pointer: str = POINTER) -> Path:
    """Folder of the bundle in use. Raises KnownProblem if there is none."""
    named = models_dir / pointer
    try:
        folder = models_dir / named.read_text().strip()
    except FileNotFoundError:
        raise KnownProblem(f"no model in {models_dir}: train one with `./clv train`, or set CLV_MODELS_DIR") from None
    if not (folder / METADATA).is_file():
        raise KnownProblem(f"{named} names {folder.name}, which is no model bundle: train one with `./clv train`")
    return folder


def challenger_bundle(models_dir: Path) -> Path | None:
    """Folder of the bundle on trial; None if there is none. Raises KnownProblem if the pointer names no bundle."""
    try:
        name = (models_dir / CHALLENGER_POINTER).read_text().strip()
    except FileNotFoundError:
        return None
    return current_bundle(models_dir, CHALLENGER_POINTER) if name else None


def read_head(bundle: Path) -> BundleHead:
    """The metadata that services share. Raises KnownProblem if the bundle cannot be read."""
    try:
        return msgspec.json.decode((bundle / METADATA).read_bytes(), type=BundleHead)
    except (OSError, msgspec.DecodeError) as error:
        raise KnownProblem(f"{bundle / METADATA} cannot be read as a model bundle: {error}") from None


def read_metadata(bundle: Path) -> dict[str, Any]:
    """All of a bundle's metadata.json. Raises KnownProblem unless the bundle's content has the version it states."""
    try:
        graph = (bundle / MODEL_FILE).read_bytes()
        metadata: dict[str, Any] = msgspec.json.decode((bundle / METADATA).read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.DecodeError) as error:
        raise KnownProblem(f"{bundle} cannot be read as a model bundle: {error}") from None
    version = bundle_version(graph, metadata_without_version(metadata))
    if metadata.get(VERSION_FIELD) != version:
        raise KnownProblem(
            f"bundle {bundle} says it is {metadata.get(VERSION_FIELD)}, but its content is {version}: it was changed "
            "after training; train again with `./clv train`"
        )
    return metadata


def point_to(models_dir: Path, bundle_name: str, pointer: str = POINTER) -> None:
    """Make `bundle_name` the bundle in use; readers see the old or the new one, never half. Many may write."""
    handle, temporary = tempfile.mkstemp(prefix=f".{pointer}.", suffix=".tmp", dir=models_dir)
    try:
        with os.fdopen(handle, "w") as file:
            file.write(bundle_name + "\n")
        Path(temporary).chmod(0o644)  # who reads it may be another user than who writes it
        Path(temporary).replace(models_dir / pointer)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
