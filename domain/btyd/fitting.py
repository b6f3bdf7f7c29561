"""Maximum likelihood for the purchase and spend models: unpenalised, from several starting points, in log-parameters,
with time and money scaled to about 1 first. It must never return a fit that it cannot justify: too thin data is an
error, parameters at the edge of the search are named."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize
from scipy.special import digamma, gammaln

from domain.btyd.histories import PurchaseHistories
from domain.btyd.likelihood import bg_loglik, mbg_loglik, pareto_loglik
from domain.btyd.parameters import (
    BgNbd,
    FloatArray,
    GammaGamma,
    MbgNbd,
    NotEnoughRepeatBuyers,
    OrderModel,
    OrderModelFit,
    ParetoNbd,
    SpendModelFit,
)
from domain.btyd.two_clocks import TwoClockHistories, two_clocks_loglik
from domain.season import Season

REPEAT_BUYERS_MIN = 10
# Starting points are compared on at most this many rows; the best is followed on more of them, then on all.
EXPLORE_ROWS_MAX = 2000
APPROACH_ROWS_MAX = 40_000
ITERATIONS_MAX = 1000
# Which start is best, and about where its optimum is on all rows, is known long before the last digits of it.
FTOL_ON_THE_WAY = 1e-8
FTOL = 1e-14
# A shape of 1,000 is a spread of 3 %: nothing that data could tell from no spread at all.
LOG_SHAPE_BOUNDS = (np.log(1e-3), np.log(1e3))
LOG_SCALE_BOUNDS = (np.log(1e-5), np.log(1e5))

LogLik = Callable[[FloatArray, PurchaseHistories], tuple[float, FloatArray]]
Objective = Callable[[FloatArray], tuple[float, FloatArray]]


class _Optimum(NamedTuple):
    log_theta: FloatArray
    value: float
    evaluations: int
    converged: bool


def fit_bg_nbd(histories: PurchaseHistories) -> OrderModelFit:
    """BG/NBD by maximum likelihood. Raises NotEnoughRepeatBuyers, a ValueError, below REPEAT_BUYERS_MIN of them."""
    return _fit_orders("BG/NBD", bg_loglik, histories, ("r", "alpha_days", "a", "b"), BgNbd)


def fit_mbg_nbd(histories: PurchaseHistories) -> OrderModelFit:
    """MBG/NBD by maximum likelihood. Raises NotEnoughRepeatBuyers, a ValueError, below REPEAT_BUYERS_MIN of them."""
    return _fit_orders("MBG/NBD", mbg_loglik, histories, ("r", "alpha_days", "a", "b"), MbgNbd)


def fit_pareto_nbd(histories: PurchaseHistories) -> OrderModelFit:
    """Pareto/NBD by maximum likelihood. Raises NotEnoughRepeatBuyers, a ValueError, below REPEAT_BUYERS_MIN of them."""
    return _fit_orders("Pareto/NBD", pareto_loglik, histories, ("r", "alpha_days", "s", "beta_days"), ParetoNbd)


TWO_CLOCKS_ROWS_MAX = 16_000
"""Evenly spread; more would tell nothing that the season's own error does not hide."""
TWO_CLOCKS_LOG_BOUNDS = [(-6.0, 6.0), (-3.0, 11.0), (-6.0, 5.0), (-3.0, 11.0)]
"""Of r, α, s and β; the times in days."""
TWO_CLOCKS_FTOL = 1e-10


def fit_two_clocks(histories: TwoClockHistories, season: Season, start: ParetoNbd) -> ParetoNbd:
    """Pareto/NBD on two clocks by maximum likelihood: alpha_days is operational, beta_days is of the calendar.

    start: the only one; a fit on the calendar is good enough. Raises ValueError where there is no optimum."""

    def objective(rows: TwoClockHistories) -> Objective:
        def negative_mean(log_theta: FloatArray) -> tuple[float, FloatArray]:
            theta = np.exp(log_theta)
            value, gradient = two_clocks_loglik(ParetoNbd(*theta.tolist()), season, rows)
            return -value / len(rows.x), -gradient * theta / len(rows.x)

        return negative_mean

    log_theta, value = np.log([start.r, start.alpha_days, start.s, start.beta_days]), np.inf
    for rows_max in (EXPLORE_ROWS_MAX, TWO_CLOCKS_ROWS_MAX):
        found = _minimise(objective(histories.thinned(rows_max)), log_theta, TWO_CLOCKS_LOG_BOUNDS, TWO_CLOCKS_FTOL)
        log_theta, value = found.log_theta, found.value
    if not np.isfinite(value):
        raise ValueError("Pareto/NBD on two clocks has no likelihood for these histories")
    return ParetoNbd(*np.exp(log_theta).tolist())


def _fit_orders(
    name: str,
    loglik: LogLik,
    histories: PurchaseHistories,
    fields: tuple[str, ...],
    make: Callable[..., OrderModel],
) -> OrderModelFit:
    if histories.repeat_buyers < REPEAT_BUYERS_MIN:
        raise NotEnoughRepeatBuyers(name, histories.repeat_buyers, REPEAT_BUYERS_MIN)
    weight = histories.customers
    days_per_unit = float(weight @ histories.age_days / weight.sum())
    scaled = histories.scaled(days_per_unit)
    is_time = np.array([field.endswith("_days") for field in fields])
    bounds = [LOG_SCALE_BOUNDS if time else LOG_SHAPE_BOUNDS for time in is_time]
    orders_per_unit = float(weight @ histories.x / weight.sum())

    def objective(rows: PurchaseHistories) -> Objective:
        total = rows.customers.sum()

        def negative_mean(log_theta: FloatArray) -> tuple[float, FloatArray]:
            theta = np.exp(log_theta)
            value, gradient = loglik(theta, rows)
            return -value / total, -gradient * theta / total

        return negative_mean

    starts = _order_starts(orders_per_unit, second_is_time=bool(is_time[3]))
    stages = [objective(scaled.thinned(rows)) for rows in _stage_rows(scaled.x.size)]
    best = _best_of(stages, starts, bounds)
    theta = np.exp(best.log_theta) * np.where(is_time, days_per_unit, 1.0)
    return OrderModelFit(
        params=make(*map(float, theta)),
        log_likelihood=loglik(theta, histories)[0],
        customers=histories.customers_total,
        repeat_buyers=histories.repeat_buyers,
        evaluations=best.evaluations,
        converged=best.converged,
        at_bounds=_at_bounds(best.log_theta, bounds, fields),
    )


def _stage_rows(rows: int) -> list[int]:
    """How many of so many rows each stage of a search looks at."""
    return sorted({min(rows, EXPLORE_ROWS_MAX), min(rows, APPROACH_ROWS_MAX), rows})


def _order_starts(orders_per_unit: float, second_is_time: bool) -> list[FloatArray]:
    """Log starting points: very unlike to alike buyers (r), α to match the mean rate, low and high dropout."""
    starts = []
    for r in (0.3, 1.0, 4.0):
        for drop_shape, drop_scale in ((0.5, 0.5), (1.0, 4.0)) if second_is_time else ((0.5, 1.5), (1.0, 6.0)):
            starts.append(np.log([r, r / (2 * orders_per_unit), drop_shape, drop_scale]))
    return starts


def _best_of(stages: Sequence[Objective], starts: Sequence[FloatArray], bounds: list[tuple[float, float]]) -> _Optimum:
    """The best start on the first stage's data, followed through the stages' growing data to the optimum."""
    explored = [_minimise(stages[0], start, bounds, FTOL_ON_THE_WAY) for start in starts]
    best = min(explored, key=lambda optimum: optimum.value)
    evaluations = sum(optimum.evaluations for optimum in explored)
    for stage in stages[1:-1]:
        best = _minimise(stage, best.log_theta, bounds, FTOL_ON_THE_WAY)
        evaluations += best.evaluations
    best = _minimise(stages[-1], best.log_theta, bounds, FTOL)
    evaluations += best.evaluations
    return best._replace(evaluations=evaluations)


def _minimise(objective: Objective, start: FloatArray, bounds: list[tuple[float, float]], ftol: float) -> _Optimum:
    inside = np.clip(start, [low for low, _ in bounds], [high for _, high in bounds])
    result = minimize(
        objective, inside, jac=True, method="L-BFGS-B", bounds=bounds,
        options={"maxiter": ITERATIONS_MAX, "maxfun": 4 * ITERATIONS_MAX, "ftol": ftol, "gtol": 1e-7, "maxls": 60},
    )  # fmt: skip
    # L-BFGS-B also stops when rounding allows no further progress; a small gradient then says that it had arrived.
    _, gradient = objective(result.x)
    free = [low < value < high for value, (low, high) in zip(result.x, bounds, strict=True)]
    converged = bool(result.success) or float(np.max(np.abs(gradient[free]), initial=0.0)) < 1e-5
    return _Optimum(np.asarray(result.x, dtype=np.float64), float(result.fun), int(result.nfev) + 1, converged)


def _at_bounds(log_theta: FloatArray, bounds: list[tuple[float, float]], fields: tuple[str, ...]) -> tuple[str, ...]:
    near = [min(value - low, high - value) < 1e-3 for value, (low, high) in zip(log_theta, bounds, strict=True)]
    return tuple(field for field, is_near in zip(fields, near, strict=True) if is_near)


def fit_gamma_gamma(orders: ArrayLike, mean_spend: ArrayLike) -> SpendModelFit:
    """Gamma-Gamma by maximum likelihood (Fader & Hardie 2013, eq. 1a). Arrays of shape (n,), one entry a customer.

    `orders` counts **all** purchase days, the first included, and `mean_spend` is the mean per purchase day (a day's
    orders summed). The paper leaves the first purchase out because its data had not recorded it; here it is recorded,
    and for the many one-time buyers it is all that is known about what they spend.
    Customers without a positive mean (all refunded) cannot be described by the model: they are skipped and counted.
    Raises NotEnoughRepeatBuyers where fewer than REPEAT_BUYERS_MIN customers have two purchase days or more (one day a
    customer cannot tell spread within customers from spread between them), and ValueError for bad input.
    """
    n, mean = (np.atleast_1d(np.asarray(column, dtype=np.float64)) for column in (orders, mean_spend))
    if n.ndim != 1 or n.shape != mean.shape:
        raise ValueError("orders and mean_spend must be one-dimensional and equally long")
    if not (np.isfinite(n).all() and np.isfinite(mean).all() and (n >= 1).all() and (n == np.floor(n)).all()):
        raise ValueError("orders must be whole numbers ≥ 1 and mean_spend finite")
    keep = mean > 0
    n, mean = n[keep], mean[keep]
    repeat_buyers = int((n >= 2).sum())
    if repeat_buyers < REPEAT_BUYERS_MIN:
        raise NotEnoughRepeatBuyers("Gamma-Gamma", repeat_buyers, REPEAT_BUYERS_MIN)
    money_per_unit = float(mean.mean())
    scaled = mean / money_per_unit
    bounds = [LOG_SHAPE_BOUNDS, LOG_SHAPE_BOUNDS, LOG_SCALE_BOUNDS]
    starts = [np.log([p, q - 1, (q - 1) / p]) for p, q in ((1.0, 2.0), (5.0, 4.0), (2.0, 10.0), (30.0, 3.0))]
    steps = [max(1, -(-n.size // rows)) for rows in _stage_rows(n.size)]
    best = _best_of([_spend_objective(n[::step], scaled[::step]) for step in steps], starts, bounds)
    p, q_less_1, gamma = np.exp(best.log_theta)
    return SpendModelFit(
        params=GammaGamma(p=float(p), q=float(q_less_1) + 1, gamma_money=float(gamma) * money_per_unit),
        log_likelihood=float(-best.value * n.size - n.size * np.log(money_per_unit)),
        customers=int(n.size),
        customers_skipped=int((~keep).sum()),
        evaluations=best.evaluations,
        converged=best.converged,
        at_bounds=_at_bounds(best.log_theta, bounds, ("p", "q", "gamma_money")),
    )


def gamma_gamma_loglik(p: float, q: float, gamma: float, n: FloatArray, mean: FloatArray) -> tuple[float, FloatArray]:
    """Σ log f(mean | n; p, q, γ) and its gradient in (p, q, γ). Fader & Hardie (2013), eq. 1a."""
    unique_n, inverse = np.unique(n, return_inverse=True)
    pn, log_total = p * n, np.log(gamma + n * mean)
    shape_terms = (gammaln(p * unique_n + q) - gammaln(p * unique_n))[inverse]
    psi_sum, psi_n = digamma(p * unique_n + q)[inverse], digamma(p * unique_n)[inverse]
    value = (
        shape_terms - gammaln(q) + q * np.log(gamma) + (pn - 1) * np.log(mean) + pn * np.log(n) - (pn + q) * log_total
    )
    gradient = (
        n * (psi_sum - psi_n + np.log(n * mean) - log_total),
        psi_sum - digamma(q) + np.log(gamma) - log_total,
        q / gamma - (pn + q) / (gamma + n * mean),
    )
    return float(value.sum()), np.array([part.sum() for part in gradient])


def _spend_objective(n: FloatArray, mean: FloatArray) -> Objective:
    def negative_mean(log_theta: FloatArray) -> tuple[float, FloatArray]:
        p, q_less_1, gamma = np.exp(log_theta)
        value, gradient = gamma_gamma_loglik(float(p), float(q_less_1) + 1, float(gamma), n, mean)
        return -value / n.size, -gradient * np.array([p, q_less_1, gamma]) / n.size

    return negative_mean
