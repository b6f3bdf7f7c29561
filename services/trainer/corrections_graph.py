"""Corrections and the shrinkage of spend as nodes of an ONNX graph: services.trainer.signals, corrections and
spend_shrinkage, operation by operation. It must never compute anything that those do not.
"""

from typing import NamedTuple

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
    TARGETS,
    TREES_SHARE,
    Corrections,
)
from services.trainer.graph import LANES, OPSET, OPSET_ML, GraphBuilder, Tensor
from services.trainer.regression import PROBABILITY_EDGE, SIGNAL_MAX, Regression
from services.trainer.spend_shrinkage import SpendShrinkage
from services.trainer.structural import AGE_DAYS_MAX, MONEY_MAX
from services.trainer.structural_graph import StructuralNodes, feature_columns, statistics_nodes


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
    linear = _linear(builder, corrections.regression, expected, horizon_days, scale)
    factors = _factors(builder, corrections)
    of_value, of_orders = _opinions_of_money(linear, factors)
    of_value = of_value * (scale.large_value / expected.value.maximum(scale.large_value))
    odds, by_trees = _log_odds(
        builder.stacked([expected.p_active, (expected.p_active * factors["p_active"]).minimum(1.0)])
    ).split()
    of_active = (linear["p_active"] + (by_trees - odds)) / 3.0
    grown = builder.stacked(
        [weights["value"] * of_value, weights["orders"] * of_orders, -(odds + weights["p_active"] * of_active)]
    )
    value, orders, unlikely = grown.exp().split()
    return StructuralNodes(
        expected.has_order,
        expected.value * value if weights["value"] else expected.value,
        expected.orders * orders if weights["orders"] else expected.orders,
        1.0 / (1.0 + unlikely) if weights["p_active"] else expected.p_active,
    )


def _linear(
    builder: GraphBuilder,
    regression: Regression,
    expected: StructuralNodes,
    horizon_days: int,
    scale: told.Scale,
) -> dict[str, Tensor]:
    """What the regression asks for, by target."""
    names, standardised = _standardised(builder, regression, expected, horizon_days, scale)
    of_name = {
        target: dict(zip(told.NAMES, regression.coefficients[target], strict=True)) | {_PADDING: 0.0}
        for target in TARGETS
    }
    rows = builder.constant([[[of_name[target][name] for name in names] for target in TARGETS]])
    found = (standardised.layered(1) * rows).row_sum().maximum(LOG_FACTOR_MIN).minimum(LOG_FACTOR_MAX)
    return dict(zip(TARGETS, found.split(), strict=True))


def _factors(builder: GraphBuilder, corrections: Corrections) -> dict[str, Tensor]:
    """What the trees ask for, by target."""
    rows = builder.input
    tree_rows = rows.is_nan().choose(rows, rows.maximum(-FEATURE_MAX).minimum(FEATURE_MAX))
    ratios = builder.stacked([tree_nodes(tree_rows, corrections.trees[target]) for target in TARGETS])
    factors = 1.0 + TREES_SHARE * (ratios.maximum(RATIO_MIN).minimum(RATIO_MAX) - 1.0)
    return dict(zip(TARGETS, factors.split(), strict=True))


def _opinions_of_money(linear: dict[str, Tensor], factors: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """What is to be added to the logarithms of value and of orders."""
    graph = linear["value"].graph
    value, orders = graph.stacked([factors["value"], factors["orders"]]).log().split()
    of_orders = (linear["orders"] + orders) / 3.0
    return (of_orders + value + 0.5 * linear["value"]) / 3.0, of_orders


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


_PADDING = ""
"""Name of a column that fills up others to whole registers."""


class _Signal(NamedTuple):
    """Signals beside one another, and their names."""

    names: tuple[str, ...]
    values: Tensor

    @property
    def columns(self) -> int:
        """How many they are."""
        return self.values.columns


def _standardised(
    builder: GraphBuilder, regression: Regression, expected: StructuralNodes, horizon_days: int, scale: told.Scale
) -> tuple[list[str], Tensor]:
    """regression.standardised(signals()), and the signal that each column holds; padding is 0."""
    mean = dict(zip(told.NAMES, regression.mean.tolist(), strict=True)) | {_PADDING: 0.0}
    ratios, shares = _signals(builder, expected, horizon_days, scale, mean)
    one = 0.0 * expected.value + 1.0
    ratios += [_Signal((_PADDING,), one)] * (-sum(each.columns for each in ratios) % LANES)
    shares += [_Signal((_PADDING,), 0.0 * one)] * (-sum(each.columns for each in shares) % LANES)
    limited = builder.stacked([each.values for each in ratios]).maximum(1.0 / told.RATIO_LIMIT)
    logs = limited.minimum(told.RATIO_LIMIT).log()
    every = builder.stacked([logs, *(each.values for each in shares)])
    names = [name for each in (*ratios, *shares) for name in each.names]
    spread = dict(zip(told.NAMES, regression.spread, strict=True)) | {_PADDING: 1.0}
    centred = every - builder.constant([mean[name] for name in names])
    standard = centred / builder.constant([spread[name] for name in names])
    return names, standard.maximum(-SIGNAL_MAX).minimum(SIGNAL_MAX)


_OF_WINDOWS = tuple(f"orders_{days}d" for days in told.WINDOWS_DAYS)
_FEATURE_OF = {
    "last gap by usual gap": "last_gap_days",
    "last order by mean order": "last_order_value",
    "largest order by mean order": "largest_order_value",
    **{told.RATIOS[6 + place]: name for place, name in enumerate(_OF_WINDOWS)},
    "unevenness of gaps": "gap_std_days",
    "share refunded": "refund_share",
    "unevenness of order values": told.SPREAD_OF_ORDERS,
    "regularity of gaps": "btyd_litt",
}
"""Signals that need a feature which may be unknown; first the ratios among them."""
_RATIOS_OF_FEATURES = sum(name in told.RATIOS for name in _FEATURE_OF)
_LIMITS = {
    "last_gap_days": (told.HALF, AGE_DAYS_MAX),
    "gap_std_days": (0.0, AGE_DAYS_MAX),
    "refund_share": (0.0, 10.0),
    **dict.fromkeys(("last_order_value", "largest_order_value", "average_order_value"), (0.01, MONEY_MAX)),
    told.SPREAD_OF_ORDERS: (0.0, MONEY_MAX),
    **dict.fromkeys((*_OF_WINDOWS, "btyd_litt", "frequency"), (0.0, told.COUNT_MAX)),
}
_SEVERAL = float(np.nextafter(2.0, 0.0))
"""What two or more are above."""
_ALWAYS = -1.0
"""What every age is above."""


def _signals(
    builder: GraphBuilder, expected: StructuralNodes, horizon_days: int, scale: told.Scale, means: dict[str, float]
) -> tuple[list[_Signal], list[_Signal]]:
    """signals.signals() as (ratios, shares); an unknown one is its mean, which is what standardising makes of NaN."""
    found = statistics_nodes(builder)
    x, age = found.x, found.age_days
    recency = age - found.t_x_days
    repeats = x.above(0.0)
    usual = (found.t_x_days / x.maximum(1.0)).maximum(told.HALF)
    of_feature = _limited(builder)
    order_value, orders = of_feature["average_order_value"], of_feature["frequency"] + 1.0
    windows = builder.constant([float(days) for days in told.WINDOWS_DAYS])
    usually = orders * (windows / age.maximum(1.0)).minimum(1.0) + told.HALF
    by_feature = builder.stacked(
        [
            of_feature["last_gap_days"] / usual,
            of_feature["last_order_value"] / order_value,
            of_feature["largest_order_value"] / order_value,
            (builder.stacked([of_feature[name] for name in _OF_WINDOWS]) + told.HALF) / usually,
            of_feature["gap_std_days"] / usual,
            of_feature["refund_share"],
            of_feature[told.SPREAD_OF_ORDERS] / order_value,
            of_feature["btyd_litt"] / x.maximum(1.0) - usual.log(),
        ]
    )
    window_ages = [told.WINDOW_KNOWN_SHARE * days for days in told.WINDOWS_DAYS]
    is_told = builder.stacked([x, age.at([0] * 6), x, age, orders, x]).above(
        builder.constant([_SEVERAL, _ALWAYS, _ALWAYS, *window_ages, _SEVERAL, _ALWAYS, 1.5, _SEVERAL])
    )
    neutral = builder.constant([np.exp(means[name]) if name in told.RATIOS else means[name] for name in _FEATURE_OF])
    is_missing = feature_columns(builder, *_FEATURE_OF.values()).is_nan()
    known = is_missing.choose(neutral, is_told.choose(by_feature, neutral))
    names = tuple(_FEATURE_OF)
    of_ratios, of_shares = known.split(_RATIOS_OF_FEATURES, len(names) - _RATIOS_OF_FEATURES)
    ahead = builder.stacked([expected.orders, expected.value]).maximum(told.TINY)
    past_rate = (x + told.HALF) / (age + 1.0) * float(horizon_days)
    ratios = [
        _Signal(("purchase days",), x + 1.0),
        _Signal(("overdue: recency by usual gap",), repeats.choose((recency + 1.0) / (usual + 1.0), 1.0)),
        _Signal(names[:_RATIOS_OF_FEATURES], of_ratios),
        _Signal(("mean order by the shop's",), order_value / scale.order_value),
        _Signal(
            ("expected orders by the shop's", "expected value by the shop's"),
            ahead / builder.constant([scale.expected_orders, scale.expected_value]),
        ),
        _Signal(("expected orders by the past rate",), ahead.column(0) / past_rate),
    ]
    shares = [
        _Signal(("bought once",), repeats.choose(0.0, 1.0)),
        _Signal(("share of the lifetime since the last order",), recency / age.maximum(1.0)),
        _Signal(names[_RATIOS_OF_FEATURES:], of_shares),
        _Signal(
            ("age by the shop's", "recency by the shop's age"), builder.stacked([age, recency]) / scale.history_days
        ),
    ]
    return ratios, shares


def _limited(builder: GraphBuilder) -> dict[str, Tensor]:
    """Features within _LIMITS, unknown ones as if they were 0, by name."""
    given = feature_columns(builder, *_LIMITS)
    lowest, highest = (builder.constant(each) for each in zip(*_LIMITS.values(), strict=True))
    found = given.is_nan().choose(0.0, given).maximum(lowest).minimum(highest)
    return dict(zip(_LIMITS, found.split(), strict=True))
