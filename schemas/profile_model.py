"""The files of a profile model, the names inside its ONNX graph, and its version. Pure declarations: must never read a
file, so that whoever writes a profile model and whoever loads it agree without knowing each other.
"""

from collections.abc import Mapping
from typing import Any

from domain.features import ENGINEERED, INPUT_NAMES
from schemas.model_bundle import bundle_version, metadata_without_version

MODEL_FILE = "profile.onnx"
METADATA_FILE = "profile.json"
CARD_MARKDOWN_FILE = "profile_card.md"
CARD_HTML_FILE = "profile_card.html"
CANDIDATES_FOLDER = "candidates"
"""Subfolder with the graph of every candidate; nothing that serves reads it."""

VERSION_FIELD = "model_version"
TIMINGS_FIELD = "timings"
"""Field of profile.json with what was measured by a clock: no part of the version, since no two runs agree on it."""

INPUT_NAME = "inputs"
"""The graph's one input: tensor(double) of (n, 7) in domain.features.INPUT_NAMES order; NaN is unknown."""
OUTPUT_NAME = "monetary_value"
"""The graph's one output: tensor(double) of (n, 1), major units of the model's currency, finite, 0 to VALUE_MAX. A row
without orders or without their average value has 0."""

ENGINEERED_NAMES = tuple(feature.name for feature in ENGINEERED)
COLUMNS = (*INPUT_NAMES, *(name for name in ENGINEERED_NAMES if name not in INPUT_NAMES))
"""What a candidate sees, each number once: four of the 18 engineered features are inputs passed on."""

VALUE_MAX = 1e12
"""Largest value that is ever given, major units: absurd input must have a bounded answer."""


def profile_version(onnx_bytes: bytes, metadata: Mapping[str, Any]) -> str:
    """The content address of a profile model, 16 hexadecimal digits: its graph and its metadata but for the timings."""
    lasting = {name: value for name, value in metadata.items() if name not in (TIMINGS_FIELD, VERSION_FIELD)}
    return bundle_version(onnx_bytes, metadata_without_version(lasting))
