"""Predictions for any number of customers in bounded memory, with checked input. It must never return NaN, infinity or
a negative number, and never compute anything otherwise than `quadrature` does."""

import numpy as np
from numpy.typing import ArrayLike

from domain.btyd.parameters import FloatArray, GammaGamma, OrderModel, Outlook
from domain.btyd.quadrature import evaluate, quadrature

# 2048 rows x ~60 nodes x 8 bytes = 1 MB per temporary.
BLOCK_ROWS = 2048


def predict(params: OrderModel, x: ArrayLike, t_x_days: ArrayLike, age_days: ArrayLike, horizon_days: float) -> Outlook:
    """P(alive), expected purchase days and P(at least one) over the next `horizon_days`, arrays of shape (n,).

    `x`: repeat purchase days; `t_x_days`: last − first purchase day; `age_days`: T = as_of − first purchase day.
    Raises ValueError for values that are not finite, arrays that do not broadcast, or an impossible horizon.
    """
    given = (x, t_x_days, age_days)
    columns = np.broadcast_arrays(*(np.atleast_1d(np.asarray(c, dtype=np.float64)) for c in given))
    if columns[0].ndim != 1:
        raise ValueError(f"x, t_x_days and age_days must be one-dimensional, got {columns[0].ndim} dimensions")
    if not all(np.isfinite(column).all() for column in columns):
        raise ValueError("x, t_x_days and age_days must be finite: leave out customers without a purchase")
    nodes = quadrature(params, horizon_days)
    outlook = Outlook(*(np.empty(columns[0].shape) for _ in Outlook._fields))
    for start in range(0, columns[0].size, BLOCK_ROWS):
        rows = slice(start, start + BLOCK_ROWS)
        for whole, block in zip(outlook, evaluate(nodes, *(column[rows] for column in columns)), strict=True):
            whole[rows] = block
    return outlook


def expected_spend(params: GammaGamma, orders: ArrayLike, mean_spend: ArrayLike) -> FloatArray:
    """Expected spend per purchase day, shape (n,): p (γ + n z̄) / (p n + q − 1). Fader & Hardie (2013), eq. 5.

    `orders` (n ≥ 0) and `mean_spend` (z̄) must count the same purchase days as the fit did. A mean below 0 (refunds
    exceed purchases) counts as 0; without orders the answer is the population's mean, p γ / (q − 1).
    """
    n, mean = np.broadcast_arrays(*(np.atleast_1d(np.asarray(v, dtype=np.float64)) for v in (orders, mean_spend)))
    n = np.maximum(n, 0.0)
    total = np.where(n > 0, n * np.maximum(mean, 0.0), 0.0)
    if not (np.isfinite(n).all() and np.isfinite(total).all()):
        raise ValueError("orders and mean_spend must be finite (mean_spend may be missing where orders is 0)")
    return np.asarray(params.p * (params.gamma_money + total) / (params.p * n + params.q - 1), dtype=np.float64)
