"""What a regression is told of a customer: ratios and shares without a unit, so that what was learnt from customers of
one age, over one horizon, still means the same for older ones over another. It must never give NaN or an unbounded
number, whatever the features are; what is not known counts as the mean."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.trainer.structural import AGE_DAYS_MAX, MONEY_MAX, Expectation, column, statistics

Floats = NDArray[np.float64]

RATIO_LIMIT = 1e6
"""Ratios lie between its inverse and itself."""
COUNT_MAX = 1e9
WINDOWS_DAYS = (30, 90, 180, 365)
WINDOW_KNOWN_SHARE = 0.7
"""A window says something of customers who are older than this share of it."""
HALF = 0.5
"""An order more or less that nobody has placed: keeps ratios of small counts near 1."""
TINY = 1e-9
LARGEST_CUSTOMERS = 200
"""Those of whom most is expected: too few, and each too much by himself, for anything to be learnt of them."""
SPREAD_OF_ORDERS = "order_value_std"

RATIOS = (
    "purchase days",
    "overdue: recency by usual gap",
    "last gap by usual gap",
    "last order by mean order",
    "largest order by mean order",
    "mean order by the shop's",
    *(f"orders in {days} days by the usual number" for days in WINDOWS_DAYS),
    "expected orders by the shop's",
    "expected value by the shop's",
    "expected orders by the past rate",
)
"""Signals that are logarithms of ratios, in order."""
SHARES = (
    "bought once",
    "share of the lifetime since the last order",
    "unevenness of gaps",
    "share refunded",
    "unevenness of order values",
    "age by the shop's",
    "recency by the shop's age",
    "regularity of gaps",
)
"""Signals that are used as they are, in order, after RATIOS."""
NAMES = RATIOS + SHARES


@dataclass(frozen=True)
class Scale:
    """What the shop's customers are like on one day: the measure of each one's own figures."""

    history_days: float
    """Since the shop's first order."""
    order_value: float
    """Geometric mean over customers of the mean order value, major units."""
    expected_orders: float
    """Mean over customers, over the horizon."""
    expected_value: float
    large_value: float
    """What is expected of the last of the LARGEST_CUSTOMERS, over the horizon, major units; at least TINY."""


def scale_of(matrix: Floats, expected: Expectation, history_days: float) -> Scale:
    """The scale of customers with features of shape (n, len(FEATURE_NAMES)) and expectations (n,)."""
    mean_order = np.clip(_zero(column(matrix, "average_order_value")), 0.01, MONEY_MAX)
    return Scale(
        max(float(history_days), 1.0),
        float(np.exp(np.log(mean_order).mean())),
        max(float(expected.orders.mean()), TINY),
        max(float(expected.value.mean()), TINY),
        max(float(np.sort(expected.value)[-LARGEST_CUSTOMERS:][0]), TINY),
    )


def signals(matrix: Floats, expected: Expectation, horizon_days: int, scale: Scale) -> Floats:
    """Signals in the order of NAMES, shape (n, len(NAMES)); NaN where unknown.

    matrix: features (n, len(FEATURE_NAMES)); expected: the structural model's over horizon_days, (n,). The ONNX graph
    repeats this operation by operation (corrections_graph.py). Regularity (the idea is Platzer & Reutterer's, 2016) is
    the mean log gap less the log of the mean gap: 0 for a customer like clockwork, negative for one who comes in
    bursts."""
    found = statistics(matrix)
    x, t_x, age = found.x, found.t_x_days, found.age_days
    recency = age - t_x
    repeats, usual = x > 0, np.maximum(t_x / np.maximum(x, 1.0), HALF)
    several = x >= 2
    order_value = _limited(column(matrix, "average_order_value"), 0.01, MONEY_MAX)
    orders = _limited(column(matrix, "frequency"), 0.0, COUNT_MAX) + 1.0

    def known(condition: NDArray[np.bool_], values: Floats, name: str | None = None) -> Floats:
        if name is not None:
            condition = condition & ~np.isnan(column(matrix, name))
        return np.where(condition, values, np.nan)

    def by_mean_order(name: str) -> Floats:
        return known(np.isfinite(x), _limited(column(matrix, name), 0.01, MONEY_MAX) / order_value, name)

    def in_window(days: int) -> Floats:
        name = f"orders_{days}d"
        usually = orders * np.minimum(days / np.maximum(age, 1.0), 1.0) + HALF
        counted = _limited(column(matrix, name), 0.0, COUNT_MAX) + HALF
        return known(age > WINDOW_KNOWN_SHARE * days, counted / usually, name)

    every = np.isfinite(x)
    ratios = [
        x + 1.0,
        np.where(repeats, (recency + 1.0) / (usual + 1.0), 1.0),
        known(several, _limited(column(matrix, "last_gap_days"), HALF, AGE_DAYS_MAX) / usual, "last_gap_days"),
        by_mean_order("last_order_value"),
        by_mean_order("largest_order_value"),
        order_value / scale.order_value,
        *(in_window(days) for days in WINDOWS_DAYS),
        np.maximum(expected.orders, TINY) / scale.expected_orders,
        np.maximum(expected.value, TINY) / scale.expected_value,
        np.maximum(expected.orders, TINY) / ((x + HALF) / (age + 1.0) * float(horizon_days)),
    ]
    usual_log = np.log(usual)
    mean_log_gap = _limited(column(matrix, "btyd_litt"), 0.0, COUNT_MAX) / np.maximum(x, 1.0)
    shares = [
        np.where(repeats, 0.0, 1.0),
        recency / np.maximum(age, 1.0),
        known(several, _limited(column(matrix, "gap_std_days"), 0.0, AGE_DAYS_MAX) / usual, "gap_std_days"),
        known(every, _limited(column(matrix, "refund_share"), 0.0, 10.0), "refund_share"),
        known(
            orders > 1.5, _limited(column(matrix, "order_value_std"), 0.0, MONEY_MAX) / order_value, SPREAD_OF_ORDERS
        ),
        age / scale.history_days,
        recency / scale.history_days,
        known(several, mean_log_gap - usual_log, "btyd_litt"),
    ]
    logs = np.log(np.clip(np.column_stack(ratios), 1.0 / RATIO_LIMIT, RATIO_LIMIT))
    return np.column_stack([logs, *shares])


def _zero(values: Floats) -> Floats:
    return np.where(np.isnan(values), 0.0, values)


def _limited(values: Floats, lower: float, upper: float) -> Floats:
    return np.minimum(np.maximum(_zero(values), lower), upper)
