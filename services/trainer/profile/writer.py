"""Writes a profile model's folder. It must never leave a file half written, nor metadata that names another graph than
the one beside it: the metadata goes last, and loading checks that both belong together.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from schemas.profile_model import (
    CANDIDATES_FOLDER,
    CARD_HTML_FILE,
    CARD_MARKDOWN_FILE,
    METADATA_FILE,
    MODEL_FILE,
)
from services.runtime.shutdown import KnownProblem
from services.trainer.profile.card import html, markdown
from services.trainer.profile.plots import plots


class ProfileFiles(NamedTuple):
    """What a folder is made of."""

    onnx_bytes: bytes
    metadata: Mapping[str, Any]
    candidates: Mapping[str, bytes]
    """The graph of each candidate by name."""
    errors: Mapping[str, NDArray[np.float64]]
    """The relative errors of each candidate on the held-out customers, for the plots."""


def write_profile(folder: Path, files: ProfileFiles) -> None:
    """Write or replace the files. Raises KnownProblem where that is not possible."""
    pictures = plots(files.metadata, files.errors)
    try:
        (folder / CANDIDATES_FOLDER).mkdir(parents=True, exist_ok=True)
        for name, graph in files.candidates.items():
            _write(folder / CANDIDATES_FOLDER / candidate_file(name), graph)
        _write(folder / CARD_MARKDOWN_FILE, markdown(files.metadata).encode())
        _write(folder / CARD_HTML_FILE, html(files.metadata, pictures).encode())
        _write(folder / MODEL_FILE, files.onnx_bytes)
        _write(folder / METADATA_FILE, msgspec.json.format(msgspec.json.encode(files.metadata), indent=1))
    except OSError as error:
        raise KnownProblem(f"cannot write the profile model to {folder}: {error.strerror or error}") from None


def candidate_file(name: str) -> str:
    """A candidate's file name: `random forest` is random_forest.onnx."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") + ".onnx"


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
