"""Predictions of the purchase models as fixed-node sums of exp, log and arithmetic: the one definition that training
uses and that the scorer's ONNX graph copies op by op. It must never call a special function or branch on a row."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from domain.btyd.lifetime_integral import lifetime_nodes
from domain.btyd.parameters import BgNbd, FloatArray, MbgNbd, OrderModel, Outlook, ParetoNbd

# The nodes resolve histories of up to this many repeat purchase days.
REPEAT_DAYS_MAX = 10_000
# log1p and expm1 are built from log and exp, exact only where z is not lost in 1 + z, nor r·z. Below this z the
# expected orders are flat in p to (r + x)·z/2 ≤ 5e-9.
RATIO_MIN = 1e-12
RATIO_TIMES_R_MIN = 1e-14
HORIZON_DAYS_MAX = 100_000
EXPONENT_MAX = 600.0
# Closer to s = 1 than this, two terms of the series in s − 1 are exact to 1e-12 · log²(1 + t/(β+T)).
SHAPE_GAP_MIN = 1e-6
LIFETIME_RATIO_MIN = 1e-9  # times SHAPE_GAP_MIN: still enough for _expm1


@dataclass(frozen=True, slots=True, eq=False)
class BetaQuadrature:
    """Nodes over the dropout probability p for BG/NBD and MBG/NBD; arrays of shape (nodes,).

    `log_weight` is log of p^(a−1) (1−p)^(b+first_draws−1) dp, the step included, up to a constant: the sum
    is normalised by itself, so no Beta function is needed. A row multiplies it by (1−p)^x.
    """

    r: float
    alpha_days: float
    a: float
    b: float
    first_draws: int  # 0 for BG/NBD; 1 for MBG/NBD, which draws after the first purchase too
    horizon_days: float
    ratio_min: float
    p: FloatArray
    log_keep: FloatArray  # log(1 − p)
    log_weight: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class LifetimeQuadrature:
    """Pareto/NBD needs no nodes of its own: those of `lifetime_integral` fit every row and parameter."""

    r: float
    alpha_days: float
    s: float
    beta_days: float
    horizon_days: float


Quadrature = BetaQuadrature | LifetimeQuadrature


def quadrature(params: OrderModel, horizon_days: float, tolerance: float = 1e-8) -> Quadrature:
    """Nodes and constants for predictions over (as_of, as_of + horizon_days]; they hold for every row.

    The number of BG and MBG nodes follows from the tolerance (relative error of expected orders) and the parameters:
    about 30–70, up to 150 where dropout hardly varies between customers (a = 50, b ≪ a), at most 700 for any fit.
    Raises ValueError unless 0 < horizon_days ≤ HORIZON_DAYS_MAX and 1e-12 ≤ tolerance ≤ 1e-2.
    """
    if not 0 < horizon_days <= HORIZON_DAYS_MAX:
        raise ValueError(f"horizon_days must be > 0 and at most {HORIZON_DAYS_MAX}, got {horizon_days}")
    if not 1e-12 <= tolerance <= 1e-2:
        raise ValueError(f"tolerance must be between 1e-12 and 1e-2, got {tolerance}")
    if isinstance(params, ParetoNbd):
        return LifetimeQuadrature(params.r, params.alpha_days, params.s, params.beta_days, float(horizon_days))
    return _beta_quadrature(params, float(horizon_days), tolerance)


def _beta_quadrature(params: BgNbd | MbgNbd, horizon_days: float, tolerance: float) -> BetaQuadrature:
    """Trapezoid rule in u, where logit(p) = u − e^−(u+left) + e^(u−right).

    In logit(p) the integrand is smooth and analytic up to a distance of π from the real line for every row, so the
    trapezoid rule converges geometrically; outside [−left, right] it is a plain exponential p^a or (1−p)^b, slow where
    a or b is small, and the stretching walks through it in a few steps (double exponential rule, Takahasi & Mori 1974).
    """
    first_draws = int(isinstance(params, MbgNbd))
    beta_b = params.b + first_draws
    reach = max(1.0, params.r / params.alpha_days) * horizon_days
    left = 3 + max(np.log(beta_b + REPEAT_DAYS_MAX), np.log1p(reach))
    right = 3 + np.log1p(params.a)

    def at(u: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        stretch_left, stretch_right = np.exp(-(u + left)), np.exp(u - right)
        logit = u - stretch_left + stretch_right
        log_p, log_keep = -np.logaddexp(0, -logit), -np.logaddexp(0, logit)
        return log_p, log_keep, params.a * log_p + beta_b * log_keep + np.log1p(stretch_left + stretch_right)

    span = np.linspace(-left - 12, right + 12, 6001)
    _, log_keep, log_weight = at(span)
    x_grid = np.concatenate(([0.0], np.geomspace(1, REPEAT_DAYS_MAX, 13)))[:, None]
    row_weight = x_grid * log_keep + log_weight
    matters = (row_weight > row_weight.max(axis=1, keepdims=True) + np.log(tolerance / 10)).any(axis=0)
    low, high = span[matters][0], span[matters][-1]
    u = np.linspace(low, high, int(np.ceil((high - low) / _step(params.a, tolerance))) + 1)
    log_p, log_keep, log_weight = at(u)
    return BetaQuadrature(
        r=params.r, alpha_days=params.alpha_days, a=params.a, b=params.b, first_draws=first_draws,
        horizon_days=horizon_days, p=np.exp(log_p), log_keep=log_keep,
        ratio_min=max(RATIO_MIN, RATIO_TIMES_R_MIN / params.r), log_weight=log_weight - log_weight.max(),
    )  # fmt: skip


def _step(a: float, tolerance: float) -> float:
    """The widest step that meets the tolerance: off the real line by d, p^a (1−p)^b grows by at most (1/cos d)^a."""
    distance = np.linspace(0.01, np.pi / 2 - 0.01, 400)
    return float(np.max(2 * np.pi * distance / (-np.log(tolerance) - a * np.log(np.cos(distance)))))


def evaluate(nodes: Quadrature, x: ArrayLike, t_x_days: ArrayLike, age_days: ArrayLike) -> Outlook:
    """Predictions for rows of shape (n,), all at once: memory is n × nodes × 8 bytes a few times over.

    Rows that no history can have are bent to the nearest one that can: x < 0 → 0, t_x into [0, T].
    """
    row_x = np.maximum(np.atleast_1d(np.asarray(x, dtype=np.float64)), 0.0)
    row_age = np.maximum(np.atleast_1d(np.asarray(age_days, dtype=np.float64)), 0.0)
    row_t_x = np.minimum(np.maximum(np.atleast_1d(np.asarray(t_x_days, dtype=np.float64)), 0.0), row_age)
    if isinstance(nodes, BetaQuadrature):
        return _evaluate_beta(nodes, row_x, row_t_x, row_age)
    return _evaluate_lifetime(nodes, row_x, row_t_x, row_age)


def expected_orders_quadrature(nodes: Quadrature, x: ArrayLike, t_x_days: ArrayLike, age_days: ArrayLike) -> FloatArray:
    """Expected purchase days in the horizon, shape (n,): `evaluate(...).expected_orders`."""
    return evaluate(nodes, x, t_x_days, age_days).expected_orders


def _log1p(z: FloatArray) -> FloatArray:
    """log(1 + z) to full precision for z ≥ 1e-15 from log alone (Kahan): the rounding of 1 + z cancels."""
    one_plus = 1 + z
    return np.log(one_plus) * z / (one_plus - 1)


def _one_minus_exp(y: FloatArray) -> FloatArray:
    """1 − e^−y to full precision for 1e-15 ≤ y ≤ 700 from exp and log alone (Kahan)."""
    decay = np.exp(-y)
    return (1 - decay) * y / -np.log(decay)


def _p_alive(log_odds_dead: FloatArray) -> FloatArray:
    return 1 / (1 + np.exp(np.minimum(log_odds_dead, EXPONENT_MAX)))


def _evaluate_beta(nodes: BetaQuadrature, x: FloatArray, t_x_days: FloatArray, age_days: FloatArray) -> Outlook:
    """Given alive, λ ~ Gamma(r + x, α + T) and p ~ Beta(a, b + x + first_draws) are independent, so

    E[orders | alive] = ∫ Beta(p) (1/p) [1 − (1 + p t/(α+T))^−(r+x)] dp and P(order | alive) = 1 − (1 + t/(α+T))^−(r+x).
    P(alive) = 1/(1 + a/(b+draws−1) ((α+T)/(α+t_x))^(r+x)), and 1 where no draw has been made (BG/NBD, x = 0).
    """
    n = nodes.r + x
    ratio = nodes.horizon_days / (nodes.alpha_days + age_days)
    row_weight = x[:, None] * nodes.log_keep + nodes.log_weight
    weight = np.exp(row_weight - row_weight.max(axis=1, keepdims=True))
    z = np.maximum(ratio[:, None] * nodes.p, nodes.ratio_min)
    bought = _one_minus_exp(np.minimum(n[:, None] * _log1p(z), EXPONENT_MAX)) / z
    if_alive = ratio * (weight * bought).sum(axis=1) / weight.sum(axis=1)

    draws = x + nodes.first_draws
    keeps = np.maximum(nodes.b + draws - 1, nodes.b)
    gain = np.log(nodes.alpha_days + age_days) - np.log(nodes.alpha_days + t_x_days)
    has_drawn = np.minimum(draws, 1.0)
    alive = has_drawn * _p_alive(np.log(nodes.a) - np.log(keeps) + n * gain) + (1 - has_drawn)
    ordered = _one_minus_exp(np.minimum(n * _log1p(np.maximum(ratio, nodes.ratio_min)), EXPONENT_MAX))
    return Outlook(alive, alive * if_alive, alive * ordered)


def _evaluate_lifetime(nodes: LifetimeQuadrature, x: FloatArray, t_x_days: FloatArray, age_days: FloatArray) -> Outlook:
    """Given alive, λ ~ Gamma(r + x, α + T) and μ ~ Gamma(s, β + T) are independent (Fader & Hardie 2005), so

    E[orders | alive] = (r+x)/(α+T) · (β+T)/(s−1) · [1 − ((β+T)/(β+T+t))^(s−1)] in closed form,
    P(order | alive) = (r+x)/(α+T) ∫_0^t (1 + τ/(α+T))^−(r+x+1) (1 + τ/(β+T))^−s dτ (next order at τ, alive until then),
    P(dead)/P(alive) = s/(β+t_x) ((α+T)/(α+t_x))^(r+x) ((β+T)/(β+t_x))^s ∫_0^{T−t_x} (1 + τ/(α+t_x))^−(r+x)
    (1 + τ/(β+t_x))^−(s+1) dτ.
    """
    n = nodes.r + x
    age_a, age_b = nodes.alpha_days + age_days, nodes.beta_days + age_days
    last_a, last_b = nodes.alpha_days + t_x_days, nodes.beta_days + t_x_days
    died = lifetime_nodes(last_a, last_b, n, nodes.s + 1, age_days - t_x_days).mass.sum(axis=1)
    log_odds = (
        np.log(nodes.s) - np.log(last_b) + n * (np.log(age_a) - np.log(last_a))
        + nodes.s * (np.log(age_b) - np.log(last_b)) + np.log(np.maximum(died, 1e-300))
    )  # fmt: skip
    alive = _p_alive(log_odds)

    rate = n / age_a
    ordered = rate * lifetime_nodes(age_a, age_b, n + 1, nodes.s, nodes.horizon_days).mass.sum(axis=1)
    gap = nodes.s - 1
    z = np.maximum(nodes.horizon_days / age_b, LIFETIME_RATIO_MIN)
    grown = _log1p(z)
    # A property of the model, not of the row: decided when the graph is built.
    nearly_one = abs(gap) < SHAPE_GAP_MIN
    lived_share = (
        grown * (1 - gap * grown / 2) / z
        if nearly_one
        else -_expm1(np.maximum(-gap * grown, -EXPONENT_MAX)) / (gap * z)
    )
    if_alive = rate * nodes.horizon_days * lived_share
    return Outlook(alive, alive * if_alive, alive * np.minimum(ordered, 1.0))


def _expm1(y: FloatArray) -> FloatArray:
    """e^y − 1 for 1e-15 ≤ |y| ≤ 700 (Kahan), as `_one_minus_exp` but for either sign."""
    grown = np.exp(y)
    return (grown - 1) * y / np.log(grown)
