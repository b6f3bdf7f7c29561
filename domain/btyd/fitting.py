"""Maximum likelihood for the purchase and spend models: unpenalised, from several starting points, in log-parameters,
with time and money scaled to about 1 first. It must never return a fit that it cannot justify: too thin data is an
error, parameters at the edge of the search are named."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize

from domain.btyd.histories import PurchaseHistories, evenly
from domain.btyd.likelihood import bg_loglik, gamma_gamma_loglik, mbg_loglik, pareto_loglik
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
from domain.btyd.two_classes import (
    BOUNDS,
    SecondClass,
    SpendHistories,
    TwoClasses,
    log_odds,
    one_class_loglik,
    two_classes_loglik,
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
            return -float(value.sum()) / len(rows.x), -gradient.sum(axis=1) * theta / len(rows.x)

        return negative_mean

    log_theta, value = np.log([start.r, start.alpha_days, start.s, start.beta_days]), np.inf
    for rows_max in (EXPLORE_ROWS_MAX, TWO_CLOCKS_ROWS_MAX):
        found = _minimise(objective(histories.thinned(rows_max)), log_theta, TWO_CLOCKS_LOG_BOUNDS, TWO_CLOCKS_FTOL)
        log_theta, value = found.log_theta, found.value
    if not np.isfinite(value):
        raise ValueError("Pareto/NBD on two clocks has no likelihood for these histories")
    return ParetoNbd(*np.exp(log_theta).tolist())


SECOND_CLASSES = (SecondClass(0.03, 8.0, 2.0), SecondClass(0.15, 2.5, 1.4))
"""Where the search for one begins: few who buy much, and more who buy somewhat more."""
TWO_CLASSES_EXPLORE_ROWS_MAX, TWO_CLASSES_ROWS_MAX = 3000, 10_000
"""Customers that a search begins on and ends on: of a hundredth, thirty and a hundred."""
TWO_CLASSES_LOG_BOUNDS = [
    *TWO_CLOCKS_LOG_BOUNDS,
    LOG_SHAPE_BOUNDS,
    LOG_SHAPE_BOUNDS,
    LOG_SCALE_BOUNDS,
    (log_odds(BOUNDS[0][0]), log_odds(BOUNDS[0][1])),
    *((np.log(low), np.log(high)) for low, high in BOUNDS[1:]),
]
"""As the gradient of two_classes_loglik() has them; money by its mean."""


class TwoClassFit(NamedTuple):
    """Fitted parameters of both classes. `at_bounds` names those of the second at the edge of the search: the data
    would have it beyond, so customers differ by degrees, and there is no class."""

    classes: TwoClasses
    gain: float
    """Of log-likelihood, of purchases and spend together, against one class."""
    customers: int
    """That it was fitted to."""
    at_bounds: tuple[str, ...]


def fit_two_classes(
    histories: TwoClockHistories,
    season: Season,
    spent: SpendHistories,
    orders: ParetoNbd,
    spend: GammaGamma,
    second: SecondClass | None = None,
) -> TwoClassFit:
    """Pareto/NBD and Gamma-Gamma with a second class, together, by maximum likelihood.

    orders, spend: of one class, fitted to the same customers, where the search begins. second: known already; without
    it, it is searched for from each of SECOND_CLASSES. Raises ValueError where there is no optimum."""
    paid = spent.paid_days >= 1
    unit = float(spent.mean_spend[paid].mean()) if paid.any() else 1.0

    def rows(rows_max: int) -> tuple[TwoClockHistories, SpendHistories]:
        return histories.thinned(rows_max), spent.thinned(rows_max, unit)

    def objective(rows_max: int) -> Objective:
        customers = rows(rows_max)

        def negative_mean(log_theta: FloatArray) -> tuple[float, FloatArray]:
            value, gradient = two_classes_loglik(_two_classes(log_theta), season, *customers)
            return -value / len(customers[0].x), -gradient / len(customers[0].x)

        return negative_mean

    one_class = np.log([orders.r, orders.alpha_days, orders.s, orders.beta_days])
    gamma = spend.gamma_money / unit
    one_class = np.append(one_class, np.log([spend.p, spend.q - 1, gamma]))
    starts = [
        np.append(one_class, [log_odds(each.share), np.log(each.spend_factor), np.log(each.rate_factor)])
        for each in (SECOND_CLASSES if second is None else (second,))
    ]
    bounds = TWO_CLASSES_LOG_BOUNDS
    if second is not None:
        bounds = [*bounds[:-3], *((known, known) for known in starts[0][-3:].tolist())]
    explored = [_minimise(objective(TWO_CLASSES_EXPLORE_ROWS_MAX), each, bounds, FTOL_ON_THE_WAY) for each in starts]
    begin = min(explored, key=lambda optimum: optimum.value).log_theta
    best = _minimise(objective(TWO_CLASSES_ROWS_MAX), begin, bounds, FTOL_ON_THE_WAY)
    if not np.isfinite(best.value):
        raise ValueError("Pareto/NBD with two classes has no likelihood for these histories")
    found = _two_classes(best.log_theta)
    in_money = msgspec.structs.replace(found.spend, gamma_money=found.spend.gamma_money * unit)
    customers = rows(TWO_CLASSES_ROWS_MAX)
    alone = one_class_loglik(orders, msgspec.structs.replace(spend, gamma_money=gamma), season, *customers)
    count = len(customers[0].x)
    return TwoClassFit(
        classes=TwoClasses(found.orders, in_money, second or found.second),
        gain=-best.value * count - alone,
        customers=count,
        at_bounds=_at_bounds(best.log_theta[-3:], TWO_CLASSES_LOG_BOUNDS[-3:], SecondClass.__struct_fields__),
    )


def _two_classes(log_theta: FloatArray) -> TwoClasses:
    *orders, p, q_less_1, gamma, odds, spend_factor, rate_factor = np.exp(log_theta).tolist()
    second = SecondClass(odds / (1 + odds), spend_factor, rate_factor)
    return TwoClasses(ParetoNbd(*orders), GammaGamma(p, q_less_1 + 1, gamma), second)


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
    stages = [evenly(n.size, rows) for rows in _stage_rows(n.size)]
    best = _best_of([_spend_objective(n[each], scaled[each]) for each in stages], starts, bounds)
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


def _spend_objective(n: FloatArray, mean: FloatArray) -> Objective:
    def negative_mean(log_theta: FloatArray) -> tuple[float, FloatArray]:
        p, q_less_1, gamma = np.exp(log_theta)
        value, gradient = gamma_gamma_loglik(float(p), float(q_less_1) + 1, float(gamma), n, mean)
        return -float(value.sum()) / n.size, -gradient.sum(axis=1) * np.array([p, q_less_1, gamma]) / n.size

    return negative_mean
