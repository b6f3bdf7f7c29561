"""The structural model as nodes of an ONNX graph: services.trainer.structural and domain.btyd.quadrature, operation by
operation, in float64. It must never compute anything that those two do not.
"""

from typing import NamedTuple

import numpy as np

from domain.btyd import BetaQuadrature, LifetimeQuadrature, OrderModel, quadrature
from domain.btyd.lifetime_integral import unit_nodes
from domain.btyd.quadrature import EXPONENT_MAX, LIFETIME_RATIO_MIN, SHAPE_GAP_MIN
from domain.features import FEATURE_NAMES
from domain.season import BIN_DAYS, BINS, YEAR_DAYS
from services.trainer.graph import LANES, GraphBuilder, Operand, Tensor
from services.trainer.structural import (
    AGE_DAYS_MAX,
    GAP_DAYS_MIN,
    HORIZON_DAYS_MIN,
    MONEY_MAX,
    REPEAT_DAYS_MAX,
    Seasonal,
    Structural,
    horizon_longest,
)

_NO_WEIGHT = -1e30
"""Log weight of a node that is there for padding alone."""


class StructuralNodes(NamedTuple):
    """Tensors (n, 1); `has_order` is boolean, the others are finite and at least 0 for every input."""

    has_order: Tensor
    value: Tensor
    orders: Tensor
    p_active: Tensor


class StatisticsNodes(NamedTuple):
    """Tensors (n, 1): structural.Statistics."""

    x: Tensor
    t_x_days: Tensor
    age_days: Tensor
    paid_days: Tensor
    mean_spend: Tensor


def structural_nodes(builder: GraphBuilder, structural: Structural, horizon_days: int) -> StructuralNodes:
    """The nodes that give structural.expect(input, horizon_days)."""
    has_order = _feature(builder, "frequency").at_least(0.0)
    if structural.orders is None:
        columns = _mean_columns(builder, structural, horizon_days)
    else:
        found = statistics_nodes(builder)
        days, p_active = _outlook(builder, structural, found, horizon_days)
        days = days.minimum(float(horizon_days))
        value = days * _spend(builder, structural, found)
        p_active = p_active.minimum(1.0)
        if structural.activity < 1:
            rated = 1.0 - (-days).exp()
            p_active = rated if structural.activity == 0 else (p_active * rated).sqrt()
        columns = (value, days * structural.orders_per_day, p_active)
    return StructuralNodes(has_order, *(has_order.choose(each, 0.0) for each in columns))


def _outlook(
    builder: GraphBuilder, structural: Structural, found: StatisticsNodes, horizon_days: int
) -> tuple[Tensor, Tensor]:
    """structural.Structural._outlook."""
    assert structural.orders is not None
    if structural.seasonal is None:
        return _purchases(builder, structural.orders, found, builder.constant(float(horizon_days)), horizon_days)
    t_x, age, ahead = _clock(builder, structural.seasonal, found, float(horizon_days))
    longest = horizon_longest(structural.seasonal.season, horizon_days)
    calendar = _purchases(builder, structural.orders, found, ahead, longest)
    on_clock = found._replace(t_x_days=t_x, age_days=age)
    season = _purchases(builder, structural.seasonal.orders, on_clock, ahead, longest)
    return (calendar[0] * season[0]).sqrt(), (calendar[1] * season[1]).sqrt()


def _purchases(
    builder: GraphBuilder, orders: OrderModel, found: StatisticsNodes, horizon: Tensor, horizon_longest_days: float
) -> tuple[Tensor, Tensor]:
    nodes = quadrature(orders, horizon_longest_days)
    if isinstance(nodes, BetaQuadrature):
        return _beta(builder, nodes, found, horizon)
    return _lifetime(builder, nodes, found, horizon)


def _clock(
    builder: GraphBuilder, seasonal: Seasonal, found: StatisticsNodes, horizon_days: float
) -> tuple[Tensor, Tensor, Tensor]:
    """structural.Seasonal.clock: (t_x, T, horizon) in operational days."""
    year_day = _feature(builder, "as_of_year_day")
    now = year_day.is_nan().choose(seasonal.year_day, year_day).maximum(1.0).minimum(366.0) - 1.0
    surplus = seasonal.season.surplus_days

    def surplus_at(position: Tensor) -> Tensor:
        years = position / YEAR_DAYS
        within = (years - years.floor()) * YEAR_DAYS
        return within.interpolated(np.arange(BINS + 1) * BIN_DAYS, surplus)

    def elapsed(days: Tensor) -> Tensor:
        return days + at_now - surplus_at(now - days)

    at_now = surplus_at(now)
    age = elapsed(found.age_days).maximum(0.0)
    recency = elapsed(found.age_days - found.t_x_days).maximum(0.0)
    t_x = found.x.above(0.0).choose((age - recency).maximum(GAP_DAYS_MIN).minimum(age), 0.0)
    ahead = -elapsed(builder.constant(-horizon_days))
    return t_x, age, ahead.maximum(HORIZON_DAYS_MIN)


def _mean_columns(builder: GraphBuilder, structural: Structural, horizon_days: int) -> tuple[Tensor, Tensor, Tensor]:
    assert structural.mean is not None
    value, orders, p_active = structural.mean.over(horizon_days)
    return builder.constant(value), builder.constant(orders), builder.constant(p_active)


def _feature(builder: GraphBuilder, name: str) -> Tensor:
    return builder.input.column(FEATURE_NAMES.index(name))


def _bounded(values: Tensor, upper: Operand) -> Tensor:
    return values.is_nan().choose(0.0, values).maximum(0.0).minimum(upper)


def statistics_nodes(builder: GraphBuilder) -> StatisticsNodes:
    """The nodes that give structural.statistics(input)."""

    def first_known(first: str, second: str) -> Tensor:
        return _feature(builder, first).is_nan().choose(_feature(builder, second), _feature(builder, first))

    age = _bounded(first_known("btyd_T", "customer_lifetime_days"), AGE_DAYS_MAX)
    t_x = _bounded(first_known("btyd_t_x", "active_span_days"), age)
    x = _bounded(first_known("btyd_x", "frequency"), REPEAT_DAYS_MAX).minimum(t_x)
    paid_days = _feature(builder, "btyd_m_days")
    unknown = paid_days.is_nan()
    mean = unknown.choose(_feature(builder, "average_order_value"), _feature(builder, "btyd_m"))
    return StatisticsNodes(
        x, t_x, age, _bounded(unknown.choose(x + 1.0, paid_days), REPEAT_DAYS_MAX), _bounded(mean, MONEY_MAX)
    )


def _spend(builder: GraphBuilder, structural: Structural, found: StatisticsNodes) -> Tensor:
    if structural.spend is None:
        return builder.constant(structural.spend_mean * structural.paid_share)
    p, q, gamma = structural.spend.p, structural.spend.q, structural.spend.gamma_money
    spend = p * (gamma + found.paid_days * found.mean_spend) / (p * found.paid_days + (q - 1))
    return spend * structural.paid_share


def _log1p(z: Tensor) -> Tensor:
    one_plus = 1.0 + z
    return one_plus.log() * z / (one_plus - 1.0)


def _one_minus_exp(y: Tensor) -> Tensor:
    decay = (-y).exp()
    return (1.0 - decay) * y / -decay.log()


def _expm1(y: Tensor) -> Tensor:
    grown = y.exp()
    return (grown - 1.0) * y / grown.log()


def _p_alive(log_odds_dead: Tensor) -> Tensor:
    return 1.0 / (1.0 + log_odds_dead.minimum(EXPONENT_MAX).exp())


def _padded(values: np.ndarray, filler: float) -> np.ndarray:
    return np.append(values, np.full(-len(values) % LANES, filler))


def _beta(
    builder: GraphBuilder, nodes: BetaQuadrature, found: StatisticsNodes, horizon: Tensor
) -> tuple[Tensor, Tensor]:
    """Expected purchase days and P(at least one): domain.btyd.quadrature._evaluate_beta."""
    keep, weights = _padded(nodes.log_keep, 0.0), _padded(nodes.log_weight, _NO_WEIGHT)
    p = builder.constant(_padded(nodes.p, 0.5))
    n = nodes.r + found.x
    ratio = horizon / (nodes.alpha_days + found.age_days)
    row_weight = found.x * builder.constant(keep) + builder.constant(weights)
    weight = (row_weight - row_weight.row_max()).exp()
    z = (ratio * p).maximum(nodes.ratio_min)
    bought = _one_minus_exp((n * _log1p(z)).minimum(EXPONENT_MAX)) / z
    if_alive = ratio * (weight * bought).row_sum() / weight.row_sum()

    draws = found.x + float(nodes.first_draws)
    keeps = (nodes.b + draws - 1.0).maximum(nodes.b)
    gain = (nodes.alpha_days + found.age_days).log() - (nodes.alpha_days + found.t_x_days).log()
    has_drawn = draws.minimum(1.0)
    alive = has_drawn * _p_alive(float(np.log(nodes.a)) - keeps.log() + n * gain) + (1.0 - has_drawn)
    ordered = _one_minus_exp((n * _log1p(ratio.maximum(nodes.ratio_min))).minimum(EXPONENT_MAX))
    return alive * if_alive, alive * ordered


def _lifetime(
    builder: GraphBuilder, nodes: LifetimeQuadrature, found: StatisticsNodes, horizon: Tensor
) -> tuple[Tensor, Tensor]:
    """Expected purchase days and P(at least one): domain.btyd.quadrature._evaluate_lifetime."""
    n, s = nodes.r + found.x, nodes.s
    age_a, age_b = nodes.alpha_days + found.age_days, nodes.beta_days + found.age_days
    last_a, last_b = nodes.alpha_days + found.t_x_days, nodes.beta_days + found.t_x_days
    died = _lifetime_mass(builder, last_a, last_b, n, s + 1, found.age_days - found.t_x_days)
    log_last_b = last_b.log()
    log_odds = (
        float(np.log(s)) - log_last_b + n * (age_a.log() - last_a.log()) + s * (age_b.log() - log_last_b)
        + died.maximum(1e-300).log()
    )  # fmt: skip
    alive = _p_alive(log_odds)
    rate = n / age_a
    ordered = rate * _lifetime_mass(builder, age_a, age_b, n + 1.0, s, horizon)
    gap = s - 1
    z = (horizon / age_b).maximum(LIFETIME_RATIO_MIN)
    grown = _log1p(z)
    if abs(gap) < SHAPE_GAP_MIN:
        lived_share = grown * (1.0 - gap * grown / 2.0) / z
    else:
        lived_share = -_expm1((-gap * grown).maximum(-EXPONENT_MAX)) / (gap * z)
    return alive * (rate * horizon * lived_share), alive * ordered.minimum(1.0)


def _lifetime_mass(
    builder: GraphBuilder, scale_a: Tensor, scale_b: Tensor, power_a: Tensor, power_b: float, length: Tensor
) -> Tensor:
    """The integral of domain.btyd.lifetime_integral.lifetime_nodes, (n, 1)."""
    position, weight = unit_nodes()
    rate = power_a / scale_a + power_b / scale_b
    theta_max = (1.0 + rate * length).log()
    growth = (theta_max * builder.constant(position)).exp()
    tau = (growth - 1.0) / rate
    log_a, log_b = (1.0 + tau / scale_a).log(), (1.0 + tau / scale_b).log()
    mass = (-(power_a * log_a) - power_b * log_b).exp() * growth * builder.constant(weight) * (theta_max / rate)
    return mass.row_sum()
