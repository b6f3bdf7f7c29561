"""The structural model as nodes of an ONNX graph: services.trainer.structural and domain.btyd.quadrature, operation by
operation, in float64. It must never compute anything that those two do not.

What is computed alike for several things is computed for all of them at once, a column or layer each (see
GraphBuilder): the integrals of a purchase model.
"""

from typing import NamedTuple

import numpy as np

from domain.btyd import BetaQuadrature, LifetimeQuadrature, OrderModel, TwoClasses, quadrature
from domain.btyd.lifetime_integral import unit_nodes
from domain.btyd.quadrature import EXPONENT_MAX, LIFETIME_RATIO_MIN, SHAPE_GAP_MIN
from domain.btyd.two_classes import class_log_odds_constant
from domain.btyd.two_clocks import DIED_MIN
from domain.features import FEATURE_NAMES
from domain.season import BIN_DAYS, BINS, LEADS, NO_SEASON, YEAR_DAYS, Season
from services.trainer.graph import LANES, GraphBuilder, Operand, Tensor
from services.trainer.structural import (
    AGE_DAYS_MAX,
    GAP_DAYS_MIN,
    HORIZON_DAYS_MIN,
    MONEY_MAX,
    REPEAT_DAYS_MAX,
    Structural,
    TwoClocks,
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
    has_order = feature_columns(builder, "frequency").at_least(0.0)
    if structural.orders is None:
        expected = _mean_columns(builder, structural, horizon_days)
    else:
        found = statistics_nodes(builder)
        days, p_active, value = _outlook(builder, structural, found, float(horizon_days))
        p_active = p_active.minimum(1.0)
        if structural.activity < 1:
            rated = 1.0 - (-days).exp()
            p_active = rated if structural.activity == 0 else (p_active * rated).sqrt()
        expected = builder.stacked([value, days * structural.orders_per_day, p_active])
    return StructuralNodes(has_order, *has_order.choose(expected, 0.0).split())


def _outlook(
    builder: GraphBuilder, structural: Structural, found: StatisticsNodes, horizon_days: float
) -> tuple[Tensor, Tensor, Tensor]:
    """structural.Structural._outlook."""
    assert structural.orders is not None
    if structural.clocks is None:
        days, p_order = _purchases(builder, structural.orders, found, horizon_days)
    else:
        ahead = _two_clocks(builder, structural.clocks, found, horizon_days)
        if structural.clocks.second is not None:
            return _two_classes(builder, structural, found, ahead, horizon_days)
        days, p_order = ahead.days, ahead.p_order
    days = days.minimum(horizon_days)
    return days, p_order, days * _spend(builder, structural, found)


def _purchases(
    builder: GraphBuilder, orders: OrderModel, found: StatisticsNodes, horizon_days: float
) -> tuple[Tensor, Tensor]:
    """Expected purchase days and P(at least one): domain.btyd.quadrature.evaluate."""
    nodes = quadrature(orders, horizon_days)
    return _beta(builder, nodes, found) if isinstance(nodes, BetaQuadrature) else _lifetime(builder, nodes, found)


class TwoClockNodes(NamedTuple):
    """Tensors (n, classes): domain.btyd.two_clocks.predict_with_evidence() of each class of customers."""

    days: Tensor
    p_order: Tensor
    log_evidence: Tensor | None
    """With two classes."""


def _two_clocks(builder: GraphBuilder, clocks: TwoClocks, found: StatisticsNodes, horizon_days: float) -> TwoClockNodes:
    """structural.TwoClocks.histories and domain.btyd.two_clocks, of all classes at once."""
    season = clocks.season
    usual = clocks.orders
    classes = [usual] if clocks.second is None else [usual, clocks.second.orders(usual)]
    k, alpha, beta = len(classes), builder.constant([each.alpha_days for each in classes]), usual.beta_days
    year_day = feature_columns(builder, "as_of_year_day")
    now = year_day.is_nan().choose(clocks.year_day, year_day).maximum(1.0).minimum(366.0) - 1.0
    days = builder.stacked([found.age_days, found.age_days - found.t_x_days, 0.0 * now - horizon_days])
    years = builder.stacked([now, now - days]) / YEAR_DAYS
    within = (years - years.floor()) * YEAR_DAYS
    at_now, before = within.interpolated(np.arange(BINS + 1) * BIN_DAYS, season.surplus_days).split(1, 3)
    age, recency, ahead = (days + at_now - before).split()
    age, recency, ahead = age.maximum(0.0), recency.maximum(0.0), (-ahead).maximum(HORIZON_DAYS_MIN)
    came_back = found.x.above(0.0)
    t_x = came_back.choose((age - recency).maximum(GAP_DAYS_MIN).minimum(age), 0.0)
    t_x_days = came_back.choose(found.t_x_days, 0.0)

    n = usual.r + found.x
    scales = builder.stacked([alpha + t_x, alpha + age, alpha + age + ahead, beta + t_x_days, beta + found.age_days])
    last_a, age_a, _, last_b, age_b = scales.split(k, k, k, 1, 1)
    log_last_a, log_age_a, log_end_a, log_last_b, log_age_b = scales.log().split(k, k, k, 1, 1)
    exponents = builder.stacked([n * (log_age_a - log_last_a), n * (log_end_a - log_age_a)])
    falling = (-exponents.minimum(EXPONENT_MAX)).exp()
    position, weight = (builder.constant(each[None, None]) for each in unit_nodes())
    waited = -(falling.upright() + (1.0 - falling).upright() * position).log() / n.upright()
    to_orders = builder.stacked([last_a, age_a]).upright() * waited.exp() - builder.stacked([age_a, age_a]).upright()
    here = now + at_now
    gone = _calendar(season, here.upright() + builder.piled([to_orders, ahead.upright() * position]))
    since, log_since = (
        builder.stacked([last] * k + [age] * (k + 1)).upright()
        for last, age in ((last_b, age_b), (log_last_b, log_age_b))
    )
    lived = (age_b.upright() + (gone - _calendar(season, here).upright())).maximum(since)
    survived = (-usual.s * (lived.log() - log_since)).exp() * weight
    while_silent, until_order, meanwhile = survived.row_sum().split(k, k, 1)

    silent, unbought = falling.split(k, k)
    died = (silent + (1.0 - silent) * (1.0 - while_silent)).maximum(DIED_MIN)
    alive = (silent * (-usual.s * (log_age_b - log_last_b)).exp() / died).minimum(1.0)
    evidence = None
    if k > 1:
        prior = builder.constant([each.r * np.log(each.alpha_days) for each in classes])
        evidence = prior - n * log_last_a + died.log()
    return TwoClockNodes(alive * (n / age_a * ahead * meanwhile), alive * (1.0 - unbought) * until_order, evidence)


def _two_classes(
    builder: GraphBuilder, structural: Structural, found: StatisticsNodes, ahead: TwoClockNodes, horizon_days: float
) -> tuple[Tensor, Tensor, Tensor]:
    """domain.btyd.two_classes.predict_two_classes: expected purchase days, P(at least one) and expected net spend."""
    spend, clocks = structural.spend, structural.clocks
    assert spend is not None
    assert clocks is not None
    second = clocks.second
    assert second is not None
    assert ahead.log_evidence is not None
    classes = TwoClasses(clocks.orders, spend, second)
    gammas = [each.gamma_money for _, _, each in classes.each]
    worth = found.paid_days * found.mean_spend + builder.constant(gammas)
    of_worth, of_purchases = worth.log().split(), ahead.log_evidence.split()
    log_odds = (of_purchases[1] - of_purchases[0]) + (
        class_log_odds_constant(classes) - (spend.p * found.paid_days + spend.q) * (of_worth[1] - of_worth[0])
    )
    p_second = 1.0 / (1.0 + (-log_odds).minimum(EXPONENT_MAX).exp())
    shares = builder.stacked([1.0 - p_second, p_second])
    days = shares * ahead.days.minimum(horizon_days)
    value = days * (spend.p * worth / (spend.p * found.paid_days + (spend.q - 1)))
    p_order = shares * ahead.p_order
    (days_0, days_1), (p_0, p_1), (value_0, value_1) = (each.split() for each in (days, p_order, value))
    return days_0 + days_1, p_0 + p_1, (value_0 + value_1) * structural.paid_share


def _calendar(season: Season, operational_days: Tensor) -> Tensor:
    """domain.season.Season.calendar."""
    if season == NO_SEASON:
        return operational_days
    years = operational_days / YEAR_DAYS
    place = (years - years.floor()) * float(LEADS)
    before = place.floor().minimum(LEADS - 1.0)
    leads = season.lead_days
    return operational_days + before.looked_up(leads) + (place - before) * before.looked_up(np.diff(leads))


def _mean_columns(builder: GraphBuilder, structural: Structural, horizon_days: int) -> Tensor:
    assert structural.mean is not None
    return builder.constant(structural.mean.over(horizon_days))


def feature_columns(builder: GraphBuilder, *names: str) -> Tensor:
    """Features of the input by name, a column each."""
    return builder.input.at([FEATURE_NAMES.index(name) for name in names])


def statistics_nodes(builder: GraphBuilder) -> StatisticsNodes:
    """The nodes that give structural.statistics(input)."""
    wanted = feature_columns(builder, "btyd_T", "btyd_t_x", "btyd_x", "btyd_m")
    instead = feature_columns(builder, "customer_lifetime_days", "active_span_days", "frequency", "average_order_value")
    paid_days = feature_columns(builder, "btyd_m_days")
    is_missing = feature_columns(builder, "btyd_T", "btyd_t_x", "btyd_x", "btyd_m_days").is_nan()
    longest = (AGE_DAYS_MAX, AGE_DAYS_MAX, REPEAT_DAYS_MAX, MONEY_MAX)
    age, t_x, x, mean = _bounded(is_missing.choose(instead, wanted), builder.constant(longest)).split()
    t_x = t_x.minimum(age)
    x = x.minimum(t_x)
    return StatisticsNodes(x, t_x, age, _bounded(paid_days.is_nan().choose(x + 1.0, paid_days), REPEAT_DAYS_MAX), mean)


def _bounded(values: Tensor, upper: Operand) -> Tensor:
    return values.is_nan().choose(0.0, values).maximum(0.0).minimum(upper)


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


def _beta(builder: GraphBuilder, nodes: BetaQuadrature, found: StatisticsNodes) -> tuple[Tensor, Tensor]:
    """Expected purchase days and P(at least one): domain.btyd.quadrature._evaluate_beta."""
    keep, weights = _padded(nodes.log_keep, 0.0), _padded(nodes.log_weight, _NO_WEIGHT)
    p = builder.constant(_padded(nodes.p, 0.5))
    n = nodes.r + found.x
    ratio = nodes.horizon_days / (nodes.alpha_days + found.age_days)
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


def _lifetime(builder: GraphBuilder, nodes: LifetimeQuadrature, found: StatisticsNodes) -> tuple[Tensor, Tensor]:
    """Expected purchase days and P(at least one): domain.btyd.quadrature._evaluate_lifetime."""
    s, gap, n = nodes.s, nodes.s - 1, nodes.r + found.x
    t_x, age = found.t_x_days, found.age_days
    scales = builder.stacked(
        [nodes.alpha_days + t_x, nodes.alpha_days + age, nodes.beta_days + t_x, nodes.beta_days + age]
    )
    _, age_a, _, age_b = scales.split()
    log_last_a, log_age_a, log_last_b, log_age_b = scales.log().split()
    scales_a, scales_b = scales.split(2, 2)
    died, ordered = _lifetime_masses(
        builder,
        scales_a,
        scales_b,
        builder.stacked([n, n + 1.0]),
        builder.constant([s + 1, s]),
        builder.stacked([age - t_x, 0.0 * age + nodes.horizon_days]),
    ).split()
    log_odds = (
        float(np.log(s)) - log_last_b + n * (log_age_a - log_last_a) + s * (log_age_b - log_last_b)
        + died.maximum(1e-300).log()
    )  # fmt: skip
    alive = _p_alive(log_odds)
    rate = n / age_a
    z = (nodes.horizon_days / age_b).maximum(LIFETIME_RATIO_MIN)
    grown = _log1p(z)
    if abs(gap) < SHAPE_GAP_MIN:
        lived_share = grown * (1.0 - gap * grown / 2.0) / z
    else:
        lived_share = -_expm1((-gap * grown).maximum(-EXPONENT_MAX)) / (gap * z)
    return alive * (rate * nodes.horizon_days * lived_share), alive * (rate * ordered).minimum(1.0)


def _lifetime_masses(
    builder: GraphBuilder, scale_a: Tensor, scale_b: Tensor, power_a: Tensor, power_b: Tensor, length: Tensor
) -> Tensor:
    """The integral of domain.btyd.lifetime_integral.lifetime_nodes for each column, (n, columns)."""
    position, weight = (builder.constant(each[None, None]) for each in unit_nodes())
    rate = power_a / scale_a + power_b / scale_b
    theta_max = (1.0 + rate * length).log()
    growth = (theta_max.upright() * position).exp()
    tau = (growth - 1.0) / rate.upright()
    log_a, log_b = (1.0 + tau / scale_a.upright()).log(), (1.0 + tau / scale_b.upright()).log()
    fallen = -(power_a.upright() * log_a) - power_b.upright() * log_b
    return (fallen.exp() * growth * weight * (theta_max / rate).upright()).row_sum()
