"""The gate of the profile model's graphs, and what they cost to run. It must never let a graph pass that differs from
the Python original by more than PARITY_ERROR_MAX on any held-out row, or gives anything but a bounded amount of money.
"""

import time
from typing import NamedTuple

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from domain.features import INPUT_NAMES
from schemas.profile_model import INPUT_NAME, OUTPUT_NAME, VALUE_MAX
from services.runtime.shutdown import KnownProblem
from services.trainer.profile.candidates import Candidate
from services.trainer.profile.nodes import build_graph

Floats = NDArray[np.float64]

PARITY_ERROR_MAX = 1e-4
"""Largest relative error of any row."""
MONEY_SCALE_MIN = 1e-3
"""Values smaller than this are measured against this: a tenth of a cent is no difference."""
_NONSENSE = (1e12, -1e12, 1e300, -1e300, np.inf, -np.inf, np.nan, 0.0, -1.0, 1e-300, 0.5)
_RUNS = 5


class GraphDiffers(KnownProblem):
    """The gate refuses a graph."""


class Exported(NamedTuple):
    """A graph that has passed the gate."""

    onnx_bytes: bytes
    parity_rows: int
    parity_error_max: float
    """Largest relative error of any row against the Python original."""
    microseconds_per_row: float
    """Processor time of one call with all rows, the best of a few."""


def export(candidate: Candidate, inputs: Floats) -> Exported:
    """The candidate's graph, compared on these rows and on absurd ones. Raises GraphDiffers if it does not pass."""
    onnx_bytes = build_graph(candidate).SerializeToString()
    every = np.concatenate([inputs, absurd_inputs(inputs)])
    found, original = run_graph(onnx_bytes, every), candidate.predict(every)
    good = np.isfinite(found) & (found >= 0) & (found <= VALUE_MAX)
    if not good.all():
        row = int(np.flatnonzero(~good)[0])
        raise GraphDiffers(f"{candidate.name}: the ONNX graph gives {float(found[row])!r} in row {row}")
    errors = np.abs(found - original) / np.maximum(np.abs(original), MONEY_SCALE_MIN)
    row = int(np.argmax(errors))
    if not errors[row] <= PARITY_ERROR_MAX:
        raise GraphDiffers(
            f"{candidate.name}: the ONNX graph gives {float(found[row])!r} in row {row}, the model "
            f"{float(original[row])!r} ({errors[row]:.2g} relative, {PARITY_ERROR_MAX:g} allowed)"
        )
    return Exported(onnx_bytes, len(every), float(errors[row]), _microseconds_per_row(onnx_bytes, inputs))


def absurd_inputs(rows: Floats) -> Floats:
    """Inputs that no customer has: each kind of nonsense in all inputs at once, and in one input of a few real rows."""
    parts = [np.array([[each] * len(INPUT_NAMES) for each in _NONSENSE])]
    for row in rows[:5]:
        single = np.repeat(row[None, :], len(_NONSENSE) * len(INPUT_NAMES), axis=0)
        for place in range(len(INPUT_NAMES)):
            single[place * len(_NONSENSE) : (place + 1) * len(_NONSENSE), place] = _NONSENSE
        parts.append(single)
    return np.concatenate(parts)


def _session(onnx_bytes: bytes) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    return ort.InferenceSession(onnx_bytes, options, providers=["CPUExecutionProvider"])


def run_graph(onnx_bytes: bytes, inputs: Floats) -> Floats:
    """The graph's monetary value, (n,), of inputs (n, 7)."""
    (found,) = _session(onnx_bytes).run([OUTPUT_NAME], {INPUT_NAME: np.ascontiguousarray(inputs, dtype=np.float64)})
    return np.asarray(found, dtype=np.float64).reshape(len(inputs))


def _microseconds_per_row(onnx_bytes: bytes, inputs: Floats) -> float:
    session, rows = _session(onnx_bytes), {INPUT_NAME: np.ascontiguousarray(inputs)}
    taken = []
    for _ in range(_RUNS):
        start = time.process_time()
        session.run([OUTPUT_NAME], rows)
        taken.append(time.process_time() - start)
    return min(taken) / len(inputs) * 1e6
