"""Corrections and the shrinkage of spend as nodes of an ONNX graph: services.trainer.signals, corrections and
spend_shrinkage, operation by operation. It must never compute anything that those do not.
"""

import numpy as np
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import FloatTensorType
from sklearn.ensemble import HistGradientBoostingRegressor

from domain.features import FEATURE_NAMES
from services.trainer import signals as told
from services.trainer import spend_shrinkage
from services.trainer.corrections import (
    FEATURE_MAX,
    LOG_FACTOR_MAX,
    LOG_FACTOR_MIN,
    RATIO_MAX,
    RATIO_MIN,
    TREES_SHARE,
    Corrections,
)
from services.trainer.graph import LANES, OPSET, OPSET_ML, GraphBuilder, Tensor
from services.trainer.regression import PROBABILITY_EDGE, SIGNAL_MAX, Regression
from services.trainer.spend_shrinkage import SpendShrinkage
from services.trainer.structural import AGE_DAYS_MAX, MONEY_MAX
from services.trainer.structural_graph import StructuralNodes, statistics_nodes

_PADDING = -len(told.RATIOS) % LANES, -len(told.SHARES) % LANES
"""Columns that fill up ratios and shares to whole registers."""


def corrected_nodes(
    builder: GraphBuilder,
    corrections: Corrections | None,
    expected: StructuralNodes,
    horizon_days: int,
    scale: told.Scale,
) -> StructuralNodes:
    """The nodes that give corrections.corrected()."""
    if corrections is None or not any(corrections.weights.values()):
        return expected
    weights = corrections.weights
    standardised = _standardised(builder, corrections.regression, expected, horizon_days, scale)
    rows = builder.input
    tree_rows = rows.is_nan().choose(rows, rows.maximum(-FEATURE_MAX).minimum(FEATURE_MAX))

    def linear(target: str) -> Tensor:
        coefficients = builder.constant(_padded(corrections.regression.coefficients[target]))
        return (standardised * coefficients).row_sum().maximum(LOG_FACTOR_MIN).minimum(LOG_FACTOR_MAX)

    def factor(target: str) -> Tensor:
        ratio = tree_nodes(tree_rows, corrections.trees[target]).maximum(RATIO_MIN).minimum(RATIO_MAX)
        return 1.0 + TREES_SHARE * (ratio - 1.0)

    value, orders, p_active = expected.value, expected.orders, expected.p_active
    if weights["value"] or weights["orders"]:
        of_orders = (linear("orders") + factor("orders").log()) / 3.0
        if weights["value"]:
            of_value = (of_orders + factor("value").log() + 0.5 * linear("value")) / 3.0
            value = value * (weights["value"] * of_value).exp()
        if weights["orders"]:
            orders = orders * (weights["orders"] * of_orders).exp()
    if weights["p_active"]:
        odds = _log_odds(p_active)
        by_trees = _log_odds((p_active * factor("p_active")).minimum(1.0)) - odds
        of_active = (linear("p_active") + by_trees) / 3.0
        p_active = 1.0 / (1.0 + (-(odds + weights["p_active"] * of_active)).exp())
    return StructuralNodes(expected.has_order, value, orders, p_active)


def shrunk_nodes(shrinkage: SpendShrinkage | None, value: Tensor, orders: Tensor) -> Tensor:
    """The node that gives shrinkage(value, orders)."""
    if shrinkage is None:
        return value
    spend = value.maximum(spend_shrinkage.TINY) / orders.maximum(spend_shrinkage.TINY)
    limit = spend_shrinkage.SPEND_RATIO_LIMIT
    ratio = (spend / shrinkage.spend).maximum(1.0 / limit).minimum(limit)
    taken = (1.0 - shrinkage.exponent) * (shrinkage.half_value / (value + shrinkage.half_value))
    return value * (-taken * ratio.log()).exp()


def tree_nodes(tree_rows: Tensor, trees: HistGradientBoostingRegressor) -> Tensor:
    """The node that gives trees.predict(), (n, 1)."""
    converted = convert_sklearn(
        trees,
        initial_types=[("X", FloatTensorType([None, len(FEATURE_NAMES)]))],
        target_opset={"": OPSET, "ai.onnx.ml": OPSET_ML},
    )
    return tree_rows.graph.embed(converted, tree_rows)


def _log_odds(probability: Tensor) -> Tensor:
    p = probability.maximum(PROBABILITY_EDGE).minimum(1.0 - PROBABILITY_EDGE)
    return (p / (1.0 - p)).log()


def _padded(values: np.ndarray, filler: float = 0.0) -> np.ndarray:
    """One for each signal, with fillers where the two groups of signals are padded."""
    ratios, shares = np.split(np.asarray(values, dtype=np.float64), [len(told.RATIOS)])
    fillers = [np.full(count, filler) for count in _PADDING]
    return np.concatenate([ratios, fillers[0], shares, fillers[1]])


def _standardised(
    builder: GraphBuilder, regression: Regression, expected: StructuralNodes, horizon_days: int, scale: told.Scale
) -> Tensor:
    """regression.standardised(signals()), with padding that is 0."""
    ratios, shares = _signals(builder, regression, expected, horizon_days, scale)
    one = 0.0 * ratios[0] + 1.0
    limited = builder.stacked([*ratios, *[one] * _PADDING[0]]).maximum(1.0 / told.RATIO_LIMIT)
    logs = limited.minimum(told.RATIO_LIMIT).log()
    every = builder.stacked([logs, *shares, *[0.0 * one] * _PADDING[1]])
    mean, spread = (builder.constant(each) for each in (_padded(regression.mean), _padded(regression.spread, 1.0)))
    return ((every - mean) / spread).maximum(-SIGNAL_MAX).minimum(SIGNAL_MAX)


def _signals(
    builder: GraphBuilder, regression: Regression, expected: StructuralNodes, horizon_days: int, scale: told.Scale
) -> tuple[list[Tensor], list[Tensor]]:
    """signals.signals() as (ratios, shares); an unknown one is the mean, which is what standardising makes of NaN."""
    found = statistics_nodes(builder)
    x, age = found.x, found.age_days
    recency = age - found.t_x_days
    repeats, several = x.above(0.0), x.at_least(2.0)
    usual = (found.t_x_days / x.maximum(1.0)).maximum(told.HALF)

    def feature(name: str) -> Tensor:
        return builder.input.column(FEATURE_NAMES.index(name))

    def limited(name: str, lower: float, upper: float) -> Tensor:
        return feature(name).is_nan().choose(0.0, feature(name)).maximum(lower).minimum(upper)

    means = dict(zip(told.NAMES, regression.mean, strict=True))

    def known(signal: str, condition: Tensor | None, value: Tensor, name: str) -> Tensor:
        mean = float(means[signal])
        neutral = float(np.exp(mean)) if signal in told.RATIOS else mean
        if condition is not None:
            value = condition.choose(value, neutral)
        return feature(name).is_nan().choose(neutral, value)

    order_value = limited("average_order_value", 0.01, MONEY_MAX)
    orders = limited("frequency", 0.0, told.COUNT_MAX) + 1.0
    names = iter(told.RATIOS[6 : 6 + len(told.WINDOWS_DAYS)])

    def in_window(days: int) -> Tensor:
        name = f"orders_{days}d"
        usually = orders * (float(days) / age.maximum(1.0)).minimum(1.0) + told.HALF
        counted = limited(name, 0.0, told.COUNT_MAX) + told.HALF
        return known(next(names), age.above(told.WINDOW_KNOWN_SHARE * days), counted / usually, name)

    def by_mean_order(signal: str, name: str) -> Tensor:
        return known(signal, None, limited(name, 0.01, MONEY_MAX) / order_value, name)

    gap = "last_gap_days"
    past_rate = (x + told.HALF) / (age + 1.0) * float(horizon_days)
    ratios = [
        x + 1.0,
        repeats.choose((recency + 1.0) / (usual + 1.0), 1.0),
        known(told.RATIOS[2], several, limited(gap, told.HALF, AGE_DAYS_MAX) / usual, gap),
        by_mean_order(told.RATIOS[3], "last_order_value"),
        by_mean_order(told.RATIOS[4], "largest_order_value"),
        order_value / scale.order_value,
        *(in_window(days) for days in told.WINDOWS_DAYS),
        expected.orders.maximum(told.TINY) / scale.expected_orders,
        expected.value.maximum(told.TINY) / scale.expected_value,
        expected.orders.maximum(told.TINY) / past_rate,
    ]
    mean_log_gap = limited("btyd_litt", 0.0, told.COUNT_MAX) / x.maximum(1.0)
    of_gaps, of_orders = "gap_std_days", told.SPREAD_OF_ORDERS
    shares = [
        repeats.choose(0.0, 1.0),
        recency / age.maximum(1.0),
        known(told.SHARES[2], several, limited(of_gaps, 0.0, AGE_DAYS_MAX) / usual, of_gaps),
        known(told.SHARES[3], None, limited("refund_share", 0.0, 10.0), "refund_share"),
        known(told.SHARES[4], orders.above(1.5), limited(of_orders, 0.0, MONEY_MAX) / order_value, of_orders),
        age / scale.history_days,
        recency / scale.history_days,
        known(told.SHARES[7], several, mean_log_gap - usual.log(), "btyd_litt"),
    ]
    return ratios, shares
