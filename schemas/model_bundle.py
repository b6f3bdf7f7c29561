"""A model bundle's files, the names inside its ONNX graph, and its version: what the trainer writes and loaders check.

A bundle is a folder `<models_dir>/<model_version>/`, never changed once written. Pure declarations: must never read a
file, so that the trainer and each loader decide where a bundle lives.
"""

from collections.abc import Mapping
from hashlib import sha256
from typing import Any

import msgspec

MODEL_FILE = "model.onnx"
METADATA_FILE = "metadata.json"
VERSION_FIELD = "model_version"
"""Field of metadata.json that holds the bundle's version, and so is no part of what the version is made from."""

INPUT_NAME = "features"
"""The graph's one input: tensor(double) of (n, len(FEATURE_NAMES)) in FEATURE_NAMES order; NaN is unknown."""
OUTPUT_NAMES = (
    "expected_value",
    "expected_orders",
    "p_active",
    "value_p10",
    "value_p50",
    "value_p90",
    "next_order_days",
)
"""The graph's outputs, each tensor(double) or tensor(float) of (n,) or (n, 1): money in major units of the bundle's
currency, orders within the horizon, a probability, days until the next order if one comes within the horizon. Finite,
at least 0, and value_p10 ≤ value_p50 ≤ value_p90. A row without an order (`monetary` is NaN) has 0 in all of them."""

VALUE_QUANTILES = 101
"""Length of the optional field `value_quantiles` of metadata.json: expected_value of the reference population at its
0th, 1st, … 100th percentile, each customer once, ascending."""


def metadata_without_version(metadata: Mapping[str, Any]) -> bytes:
    """The canonical bytes of metadata.json for `bundle_version`: without the version, keys sorted, no spaces.

    The same for the trainer's values and for the decoded file (tuples are lists in JSON, NaN is null).
    """
    return msgspec.json.encode(
        {name: value for name, value in metadata.items() if name != VERSION_FIELD}, order="sorted"
    )


def bundle_version(onnx_bytes: bytes, metadata_without_version: bytes) -> str:
    """The content address of a bundle, 16 hexadecimal digits: SHA-256 over the graph and the canonical metadata."""
    digest = sha256(len(onnx_bytes).to_bytes(8, "big"))  # the length first, so that no byte can change sides unseen
    digest.update(onnx_bytes)
    digest.update(metadata_without_version)
    return digest.hexdigest()[:16]
