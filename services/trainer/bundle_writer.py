"""Writes a model bundle: graph, metadata and card in one folder named by their content, then the pointer. It must never
change a bundle that exists, nor leave a half-written one behind under its name.
"""

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from schemas.model_bundle import METADATA_FILE, MODEL_FILE, VERSION_FIELD, bundle_version, metadata_without_version
from services.runtime.bundle import point_to
from services.runtime.shutdown import KnownProblem
from services.trainer.card import card_files, figure
from services.trainer.evaluation import Backtest
from services.trainer.quality import HEADINGS

__all__ = ["FIGURES", "figure", "write_bundle"]

FIGURES = {
    name: HEADINGS[name] for name in ("mae", "rmse", "spearman", "ngini", "bias", "auc_active", "share_above_p90")
}
"""Heading of each figure that fits into a terminal."""


def write_bundle(
    output_dir: Path, onnx_bytes: bytes, metadata: Mapping[str, Any], backtests: Sequence[Backtest] = ()
) -> tuple[str, Path]:
    """(version, folder) of the bundle, which `current` now names. Raises KnownProblem if it cannot be written.

    backtests: what metadata's `backtests` were made from, for the plots of the card. The version is made from the graph
    and the metadata alone: the card only shows them.
    """
    version = bundle_version(onnx_bytes, metadata_without_version(metadata))
    folder = output_dir / version
    temporary = output_dir / f".{version}.{os.getpid()}.tmp"
    complete = {VERSION_FIELD: version, **metadata}
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        if not (folder / METADATA_FILE).is_file():
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir()
            _write(temporary / MODEL_FILE, onnx_bytes)
            _write(temporary / METADATA_FILE, msgspec.json.format(msgspec.json.encode(complete), indent=1))
            for name, content in card_files(complete, backtests).items():
                (temporary / name).parent.mkdir(exist_ok=True)
                _write(temporary / name, content)
            temporary.rename(folder)
        point_to(output_dir, version)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise KnownProblem(f"cannot write the model to {output_dir}: {error.strerror or error}") from None
    return version, folder


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
