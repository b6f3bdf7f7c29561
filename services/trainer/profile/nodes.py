"""A candidate as one ONNX graph, from the seven inputs to the monetary value: the engineering, the preparation, the
model and the scale. It must never differ from candidates.py by more than the gate in export.py allows.

The engineering is arithmetic and comparisons on doubles, so the graph repeats domain.features.engineer() to the last
bit.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import FloatTensorType

from domain.features import DAYS_PER_MONTH, INPUT_NAMES
from domain.rfm_scores import Quintiles
from schemas.profile_model import COLUMNS, INPUT_NAME, OUTPUT_NAME, VALUE_MAX
from services.trainer.graph import LANES, OPSET, OPSET_ML, GraphBuilder, Tensor
from services.trainer.profile.candidates import RATIO_MAX, Candidate, Line
from services.trainer.profile.columns import (
    COLUMN_MAX,
    SCALES,
    SIGNIFICAND_MEAN,
    SIGNIFICAND_STD,
    STANDARD_MAX,
    Preparation,
)
from services.trainer.profile.network import Network

Floats = NDArray[np.float64]


def build_graph(candidate: Candidate) -> onnx.ModelProto:
    """The candidate as a graph with the names of contract.py."""
    builder = GraphBuilder(INPUT_NAME, len(INPUT_NAMES))
    columns = column_nodes(builder, candidate.quintiles)
    rows = _prepared(builder, columns, candidate.preparation)
    parts = []
    if candidate.line is not None:
        parts.append(_line(builder, rows.smooth, candidate.line))
    if candidate.trees is not None:
        parts.append(_trees(rows.trees, candidate))
    if candidate.network is not None:
        parts.append(_network(builder, rows.smooth, candidate.network) * SIGNIFICAND_STD + SIGNIFICAND_MEAN)
    ratio = parts[0]
    for part in parts[1:]:
        ratio = ratio + part
    value = (rows.scale * ratio.maximum(0.0).minimum(RATIO_MAX)).minimum(VALUE_MAX)
    return builder.model({OUTPUT_NAME: rows.has_spent.choose(value, 0.0)})


# ---------------------------------------------------------------- engineering


def column_nodes(builder: GraphBuilder, quintiles: Quintiles) -> Tensor:
    """contract.COLUMNS, (n, 21), as columns.columns_of() has them."""
    unknown = builder.constant(np.nan)
    given = {name: builder.input.column(place) for place, name in enumerate(INPUT_NAMES)}
    orders, recency, lifetime = (
        given["total_orders"],
        given["days_since_last_purchase"],
        given["customer_lifetime_days"],
    )
    repeat = orders.above(0.0).choose(orders - 1.0, unknown)
    total = orders * given["average_order_value"]
    span = lifetime - recency
    usual_gap = repeat.above(0.0).choose(span / repeat, unknown)
    first_day = builder.node("Equal", lifetime, builder.constant(0.0), columns=1)
    inactive = lifetime.above(0.0).choose(recency / lifetime, first_day.choose(0.0, unknown))
    recency_score = 6.0 - _score(builder, recency, quintiles.recency_days)
    monetary_score = _score(builder, total, quintiles.monetary)
    made = {
        **given,
        "recency_days": recency,
        "frequency": repeat,
        "monetary": total,
        "recency_score": recency_score,
        "monetary_score": monetary_score,
        "rfm_score": 100.0 * recency_score + 10.0 * given["frequency_score"] + monetary_score,
        "spending_velocity": total / lifetime.is_nan().choose(unknown, lifetime.maximum(1.0)),
        "avg_days_between_purchases": usual_gap,
        "overdue_ratio": usual_gap.above(0.0).choose(recency / usual_gap, unknown),
        "active_span_days": span,
        "inactivity_share": inactive,
        "recency_months": recency / DAYS_PER_MONTH,
        "orders_per_month": given["purchase_frequency"],
        "total_spending": total,
    }
    return builder.stacked([made[name] for name in COLUMNS])


def _score(builder: GraphBuilder, values: Tensor, borders: Sequence[float]) -> Tensor:
    """domain.rfm_scores.score_high_is_good(): 1 + the number of borders below the value."""
    row = builder.constant([*borders, *[np.inf] * (LANES - len(borders))])
    below = builder.node("Greater", values, row, columns=LANES).choose(1.0, 0.0).row_sum()
    return values.is_nan().choose(builder.constant(np.nan), 1.0 + below)


# ---------------------------------------------------------------- preparation


class _Rows(NamedTuple):
    trees: Tensor
    smooth: Tensor
    scale: Tensor
    has_spent: Tensor


def _prepared(builder: GraphBuilder, columns: Tensor, preparation: Preparation) -> _Rows:
    missing = columns.is_nan()
    bounded = missing.choose(0.0, columns).maximum(-COLUMN_MAX).minimum(COLUMN_MAX)
    filled = missing.choose(builder.constant(preparation.fill), bounded)
    total = columns.column(COLUMNS.index("total_spending"))
    has_spent = total.above(0.0)
    total = has_spent.choose(total, 0.0).minimum(VALUE_MAX)
    scales = builder.constant(SCALES)
    scale = builder.node("GreaterOrEqual", total, scales, columns=len(SCALES)).choose(scales, SCALES[0]).row_max()
    significand = total / scale
    logs = (filled.padded().maximum(0.0) + 1.0).log().at(range(len(COLUMNS)))
    standard = (logs - builder.constant(preparation.log_mean)) / builder.constant(preparation.log_std)
    standard = standard.maximum(-STANDARD_MAX).minimum(STANDARD_MAX)
    flags = []
    if preparation.flagged:
        flags.append(missing.choose(1.0, builder.constant(np.zeros(len(COLUMNS)))).at(preparation.flagged))
    return _Rows(
        builder.stacked([filled, *flags, significand]),
        builder.stacked([standard, *flags, (significand - SIGNIFICAND_MEAN) / SIGNIFICAND_STD]),
        scale,
        has_spent,
    )


# ---------------------------------------------------------------- models


def _line(builder: GraphBuilder, smooth: Tensor, line: Line) -> Tensor:
    weights = np.zeros(smooth.columns + -smooth.columns % LANES)
    weights[: smooth.columns] = line.weights
    return (smooth.padded() * builder.constant(weights)).row_sum() + line.intercept


def _trees(rows: Tensor, candidate: Candidate) -> Tensor:
    converted = convert_sklearn(
        candidate.trees,
        initial_types=[("X", FloatTensorType([None, len(candidate.preparation.tree_names)]))],
        target_opset={"": OPSET, "ai.onnx.ml": OPSET_ML},
    )
    return rows.graph.embed(converted, rows)


def _network(builder: GraphBuilder, smooth: Tensor, network: Network) -> Tensor:
    hidden = smooth
    for weights, biases in network.hidden:
        hidden = (_product(builder, hidden, weights) + builder.constant(biases)).maximum(0.0)
    weights, bias = network.last
    last = _product(builder, hidden, weights) + builder.constant(bias)
    return last + _product(builder, smooth, network.beside)


def _product(builder: GraphBuilder, rows: Tensor, weights: Floats) -> Tensor:
    return builder.node("MatMul", rows, builder.constant(weights), columns=weights.shape[1])
