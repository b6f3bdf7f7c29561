"""A graph's answers for any number of rows. It must never give a row another answer because of the rows beside it."""

from collections.abc import Sequence

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from schemas.model_bundle import INPUT_NAME

Floats = NDArray[np.float64]

ROWS_AT_ONCE = 8192
"""Each takes some thirty kilobytes in the graph: a hundred thousand at once took 3.5 GB."""


def run_rows(session: ort.InferenceSession, names: Sequence[str], rows: Floats) -> list[Floats]:
    """The named outputs, each (n,), for rows of shape (n, features)."""
    given = np.ascontiguousarray(rows, dtype=np.float64)
    starts = range(0, max(len(given), 1), ROWS_AT_ONCE)
    parts = [session.run(list(names), {INPUT_NAME: given[start : start + ROWS_AT_ONCE]}) for start in starts]
    return [
        np.concatenate([np.asarray(each, dtype=np.float64).reshape(-1) for each in found])
        for found in zip(*parts, strict=True)
    ]
