"""Writes a model bundle: graph, metadata and card in one folder named by their content, then the pointer. It must never
change a bundle that exists, nor leave a half-written one behind under its name.
"""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from schemas.model_bundle import METADATA_FILE, MODEL_FILE, VERSION_FIELD, bundle_version, metadata_without_version
from services.runtime.bundle import point_to
from services.runtime.shutdown import KnownProblem

CARD_FILE = "model_card.md"


def write_bundle(output_dir: Path, onnx_bytes: bytes, metadata: Mapping[str, Any]) -> tuple[str, Path]:
    """(version, folder) of the bundle, which `current` now names. Raises KnownProblem if it cannot be written."""
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
            _write(temporary / CARD_FILE, model_card(complete).encode())
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


FIGURES = {
    "mae": "MAE",
    "rmse": "RMSE",
    "spearman": "Spearman",
    "ngini": "nGini",
    "bias": "bias",
    "auc_active": "AUC active",
    "coverage_p10_p90": "p10–p90 covers",
}
"""Heading of each figure that a person is shown."""


def figure(name: str, value: float | None) -> str:
    """A figure for a person."""
    if value is None:
        return "–"
    if name in ("bias", "coverage_p10_p90"):
        return f"{value:+.1%}" if name == "bias" else f"{value:.1%}"
    return f"{value:,.2f}" if name in ("mae", "rmse") else f"{value:.3f}"


def model_card(metadata: Mapping[str, Any]) -> str:
    """What the model is, how good it was on days that it had not seen, and where it falls short; Markdown."""
    holdout = metadata["holdout"]
    lines = [
        f"# Model {metadata[VERSION_FIELD]}",
        "",
        f"Net value of a customer over the next {metadata['horizon_days']} days, in {metadata['currency']}. Trained on "
        f"{metadata['counts']['customers']:,} customers with {metadata['counts']['events']:,} orders and refunds from "
        f"{metadata['training_window']['first_day']} until before {metadata['cutoff']}.",
        "",
        f"Structural model: {metadata['structural']['name']}. Weights of the tree corrections: "
        + ", ".join(f"{name} {weight:g}" for name, weight in metadata["choices"]["correction_weights"].items())
        + ". Parity of the graph with the Python original: largest relative error "
        f"{metadata['parity']['error_max']:.1e} over {metadata['parity']['rows']:,} rows.",
        "",
    ]
    if metadata["fallbacks"]:
        lines += ["What it had to do without:", "", *(f"- {each}" for each in metadata["fallbacks"]), ""]
    if not holdout:
        return "\n".join(
            [*lines, "There was too little history to hold a later period out: its quality is unknown.", ""]
        )
    lines += [
        f"## Quality on {holdout['days']} days from {holdout['from']} on",
        "",
        f"The same training was done as of {holdout['from']} and predicted the {holdout['days']} days from then on, "
        f"which it had not seen, for {holdout['customers']:,} customers. Beside it are simpler models fitted to the "
        "same past; the mean is that of the held-out days themselves, the best that a constant could do.",
        "",
        "| | " + " | ".join(FIGURES.values()) + " |",
        "|---|" + "---|" * len(FIGURES),
    ]
    for name, figures in holdout["metrics"].items():
        lines.append(f"| {name} | " + " | ".join(figure(each, figures.get(each)) for each in FIGURES) + " |")
    lines += [
        "",
        "MAE and RMSE are in the currency; bias is predicted ÷ actual total − 1; nGini and Spearman judge the ranking "
        "by value, AUC that of ordering at all. An honest interval from p10 to p90 covers 80 %, and more where many "
        "customers spend nothing.",
        "",
    ]
    return "\n".join(lines)
