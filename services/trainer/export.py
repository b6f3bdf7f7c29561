"""The model as one ONNX graph, and the gate that lets it out only if it says what the Python original says. It must
never let a graph pass that differs from the original by more than PARITY_ERROR_MAX on any row.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from domain.features import FEATURE_NAMES
from schemas.model_bundle import INPUT_NAME, OUTPUT_NAMES
from services.inference.graph_rows import run_rows
from services.runtime.shutdown import KnownProblem
from services.trainer.calibration import PREDICTION_MIN, Curve
from services.trainer.corrections_graph import corrected_nodes, shrunk_nodes
from services.trainer.graph import LANES, GraphBuilder, Tensor, padded, slopes
from services.trainer.intervals import PROBABILITY_MIN, SPREAD_LEVELS, Intervals
from services.trainer.structural_graph import structural_nodes
from services.trainer.value_model import VALUE_MAX, ValueModel

Floats = NDArray[np.float64]

PARITY_ERROR_MAX = 1e-4
"""Largest relative error of any output of any row, as the bundle's contract promises."""
PARITY_SCALE_MIN = {"expected_orders": 1e-6, "p_active": 1e-6, "next_order_days": 1e-3}
MONEY_SCALE_MIN = 1e-3
"""Outputs smaller than these are measured against these: a tenth of a cent is no difference."""
QUANTILE_SCALE_SHARE = 0.01
"""A quantile below this share of the row's expected value is measured against that: where it nearly vanishes, it is
the small difference of 32-bit numbers of the size of the expected value."""


def build_graph(model: ValueModel) -> onnx.ModelProto:
    """The model as one graph: schemas.model_bundle names its input and outputs."""
    builder = GraphBuilder(INPUT_NAME, len(FEATURE_NAMES))
    expected = structural_nodes(builder, model.structural, model.horizon_days)
    raw = corrected_nodes(builder, model.corrections, expected, model.horizon_days, model.scale)
    raw_value = shrunk_nodes(model.shrinkage, raw.value, raw.orders).minimum(VALUE_MAX)
    known_value, orders, p_active = _calibrated(raw_value, raw.orders, raw.p_active, model.curves)
    known_value, p_active = known_value.minimum(VALUE_MAX), p_active.minimum(1.0)
    orders = orders.maximum(p_active)
    value = known_value if model.factor is None else (raw_value * model.factor).minimum(VALUE_MAX)
    quantiles = _quantiles(model.intervals, known_value, orders, p_active)
    next_order = model.horizon_days / (1.0 + (orders / p_active.maximum(PROBABILITY_MIN)).maximum(1.0))
    columns = builder.stacked([value, orders, p_active, *quantiles, next_order])
    return builder.model(dict(zip(OUTPUT_NAMES, expected.has_order.choose(columns, 0.0).split(), strict=True)))


def _calibrated(
    value: Tensor, orders: Tensor, p_active: Tensor, curves: Mapping[str, Curve | None]
) -> tuple[Tensor, Tensor, Tensor]:
    """value_model.ValueModel.calibrated(), without its bounds."""
    known = [curve for name in ("value", "orders", "p_active") if (curve := curves[name]) is not None]
    if not known:
        return value, orders, p_active
    assert len(known) == len(curves), "all are calibrated, or none"
    predicted = value.graph.stacked([value, orders, p_active])
    log = predicted.maximum(PREDICTION_MIN).log()
    factors = log.interpolated([each.log_predictions for each in known], [each.log_factors for each in known]).exp()
    first, second, third = (predicted * factors).split()
    return first, second, third


def _quantiles(intervals: Intervals, value: Tensor, orders: Tensor, p_active: Tensor) -> list[Tensor]:
    """intervals.Intervals.quantiles, at most VALUE_MAX."""
    builder = value.graph
    p = p_active.maximum(PROBABILITY_MIN)
    if_active = value / p
    among_active = (builder.constant(intervals.levels) - (1.0 - p)) / p
    log_orders = (orders / p).maximum(1.0).log()
    assert not any(spread[0] for spread in intervals.spreads), "see rising_from_nothing()"
    groups = np.eye(len(intervals.log_orders))
    shares = log_orders.interpolated(intervals.log_orders, np.pad(groups, ((0, -len(groups) % LANES), (0, 0))))
    # Every spread begins with 0, so a mean of spreads is that of their slopes.
    by_group = builder.constant(padded(slopes(SPREAD_LEVELS, intervals.spreads).T)[None])
    steepness = (shares.layered(1) * by_group).row_sum()
    ratio = (among_active.ramps(SPREAD_LEVELS) * steepness.layered(1)).row_sum()
    first, second, third = among_active.above(0.0).choose(if_active * ratio, 0.0).minimum(VALUE_MAX).split()
    low, high = first.minimum(second), first.maximum(second)
    middle = high.minimum(third)
    return [low.minimum(middle), low.maximum(middle), high.maximum(third)]


class GraphDiffers(KnownProblem):
    """The gate refuses a graph."""


class Parity(NamedTuple):
    """How far the graph was from the original."""

    rows: int
    error_max: float
    """Largest relative error of any output of any row."""


def absurd_rows(rows: Floats) -> Floats:
    """Rows that no shop has: each kind of nonsense in every feature at once, and in one feature at a time."""
    nonsense = (1e12, -1e12, 1e300, -1e300, np.inf, -np.inf, np.nan, 0.0, -1.0, 1e-300)
    whole = np.array([[each] * len(FEATURE_NAMES) for each in nonsense])
    parts = [whole]
    for row in rows[:3]:
        single = np.repeat(row[None, :], len(nonsense) * len(FEATURE_NAMES), axis=0)
        for place in range(len(FEATURE_NAMES)):
            single[place * len(nonsense) : (place + 1) * len(nonsense), place] = nonsense
        parts.append(single)
    return np.concatenate(parts)


def run_graph(onnx_bytes: bytes, rows: Floats, threads: int = 1) -> dict[str, Floats]:
    """The graph's outputs by name, each (n,)."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(onnx_bytes, options, providers=["CPUExecutionProvider"])
    return dict(zip(OUTPUT_NAMES, run_rows(session, OUTPUT_NAMES, rows), strict=True))


def check_parity(model: ValueModel, onnx_bytes: bytes, rows: Floats) -> Parity:
    """Compare the graph with the original on the rows and on absurd ones. Raises GraphDiffers beyond PARITY_ERROR_MAX,
    for NaN or infinity, a negative output, or quantiles in the wrong order."""
    every = np.concatenate([rows, absurd_rows(rows)])
    found, original = run_graph(onnx_bytes, every), model.predict(every)
    worst = 0.0
    for name in OUTPUT_NAMES:
        _check_bounds(name, found[name])
        scale = np.maximum(np.abs(original[name]), PARITY_SCALE_MIN.get(name, MONEY_SCALE_MIN))
        if name.startswith("value_p"):
            scale = np.maximum(scale, QUANTILE_SCALE_SHARE * original["expected_value"])
        errors = np.abs(found[name] - original[name]) / scale
        row = int(np.argmax(errors))
        worst = max(worst, float(errors[row]))
        if not errors[row] <= PARITY_ERROR_MAX:
            raise GraphDiffers(
                f"the ONNX graph differs from the model: {name} of row {row} is {float(found[name][row])!r}, should be "
                f"{float(original[name][row])!r} ({errors[row]:.2g} relative, {PARITY_ERROR_MAX:g} allowed)"
            )
    _check_order(found)
    return Parity(len(every), worst)


def _check_bounds(name: str, column: Floats) -> None:
    good = np.isfinite(column) & (column >= 0)
    if not good.all():
        row = int(np.flatnonzero(~good)[0])
        raise GraphDiffers(f"the ONNX graph gives {name} = {float(column[row])!r} in row {row}")


def _check_order(found: Mapping[str, Floats]) -> None:
    if (found["value_p10"] > found["value_p50"]).any() or (found["value_p50"] > found["value_p90"]).any():
        raise GraphDiffers("the ONNX graph gives quantiles in the wrong order")
