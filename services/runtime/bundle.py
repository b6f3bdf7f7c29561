"""Model bundles as services find them: the registry pointer, and metadata without the model itself.

The feature worker needs only the quintile borders and must not load ONNX; the scorer builds on this for the rest.
"""

from pathlib import Path

import msgspec

from domain.rfm_scores import Quintiles
from services.runtime.shutdown import KnownProblem

POINTER = "current"
"""File in the models folder that names the bundle in use."""
METADATA = "metadata.json"


class BundleHead(msgspec.Struct, frozen=True):
    """The part of metadata.json that every service may need."""

    model_version: str
    horizon_days: int
    currency: str
    feature_names: list[str]
    quintiles: Quintiles
    segment_thresholds: tuple[float, float, float]


def current_bundle(models_dir: Path) -> Path:
    """Folder of the bundle in use. Raises KnownProblem if there is none."""
    pointer = models_dir / POINTER
    try:
        folder = models_dir / pointer.read_text().strip()
    except FileNotFoundError:
        raise KnownProblem(f"no model in {models_dir}: train one with `./clv train`, or set CLV_MODELS_DIR") from None
    if not (folder / METADATA).is_file():
        raise KnownProblem(f"{pointer} names {folder.name}, which is no model bundle: train one with `./clv train`")
    return folder


def read_head(bundle: Path) -> BundleHead:
    """The metadata that services share. Raises KnownProblem if the bundle cannot be read."""
    try:
        return msgspec.json.decode((bundle / METADATA).read_bytes(), type=BundleHead)
    except (OSError, msgspec.DecodeError) as error:
        raise KnownProblem(f"{bundle / METADATA} cannot be read as a model bundle: {error}") from None


def point_to(models_dir: Path, bundle_name: str) -> None:
    """Make `bundle_name` the bundle in use; readers see the old or the new one, never half."""
    temporary = models_dir / f".{POINTER}.tmp"
    temporary.write_text(bundle_name + "\n")
    temporary.replace(models_dir / POINTER)
