"""Pareto/NBD and Gamma-Gamma for customers of two latent classes: usual ones, and those who spend more an order by one
factor and order as many times as often by another, as wholesale buyers do. It must use only operations that an ONNX
graph has, for what is predicted.

Gamma-Gamma supposes that how much is spent has nothing to do with how often (Fader & Hardie 2013, §1). Where a few buy
for resale it has, and what a new customer with one large basket will order is expected of him too rarely. So (finite
mixtures: McLachlan & Peel 2000, §1.4) with probability w a customer is of a class k = 1 instead of 0, in which

    λ ~ Gamma(r, α / κ), ν ~ Gamma(q, σ γ), and all else is as in class 0.

A class is as likely as its share times the likelihood of its purchases (domain.btyd.two_clocks) and of its spend. Of
the latter (Fader & Hardie 2013, eq. 1a) all terms but (σ γ)^q (σ γ + n z̄)^−(p n + q) are the same for both.
"""

from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from domain.btyd.likelihood import gamma_gamma_loglik
from domain.btyd.parameters import PARAMETER_MIN, FloatArray, GammaGamma, ParetoNbd
from domain.btyd.quadrature import EXPONENT_MAX
from domain.btyd.two_clocks import TwoClockHistories, predict_with_evidence, two_clocks_loglik
from domain.season import Season

BOUNDS = ((1e-3, 0.25), (1.3, 100.0), (0.1, 40.0))
"""Of share, spend_factor and rate_factor."""
AT_BOUND = 1e-3
"""Of logarithms: nearer is on it."""


class SecondClass(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The customers of the second class, against the usual ones. Raises ValueError for what is out of bounds."""

    share: float
    """w: of all customers."""
    spend_factor: float
    """σ: how many times as much an order of theirs is."""
    rate_factor: float
    """κ: how many times as often they order."""

    def __post_init__(self) -> None:
        for name, (low, high) in zip(self.__struct_fields__, BOUNDS, strict=True):
            if not low * (1 - AT_BOUND) <= getattr(self, name) <= high * (1 + AT_BOUND):
                raise ValueError(f"{name} must be between {low:g} and {high:g}, got {getattr(self, name)}")

    @property
    def at_bounds(self) -> bool:
        """Whether the data would have it beyond a bound: then customers differ by degrees, and there is no class."""
        low, high = np.transpose(BOUNDS)
        found = np.array(msgspec.structs.astuple(self))
        return bool((np.minimum(np.log(found / low), np.log(high / found)) < AT_BOUND).any())

    def orders(self, usual: ParetoNbd) -> ParetoNbd:
        """How they order, from how the usual ones do."""
        return msgspec.structs.replace(usual, alpha_days=max(usual.alpha_days / self.rate_factor, PARAMETER_MIN))

    def spend(self, usual: GammaGamma) -> GammaGamma:
        """What they spend, from what the usual ones do."""
        return msgspec.structs.replace(usual, gamma_money=usual.gamma_money * self.spend_factor)


class SpendHistories(NamedTuple):
    """What n customers spent, each array (n,)."""

    paid_days: FloatArray
    """Purchase days that netted more than nothing, the first included; 0: nothing is known of the spend."""
    mean_spend: FloatArray
    """Mean net spend of such a day; at least 0."""

    def thinned(self, rows_max: int, unit: float) -> "SpendHistories":
        """At most so many of them, evenly spread, in units of so much money."""
        step = max(1, -(-len(self.paid_days) // rows_max))
        return SpendHistories(self.paid_days[::step], self.mean_spend[::step] / unit)


class Prospects(NamedTuple):
    """Predictions of n customers over one horizon, each array (n,), finite and at least 0."""

    expected_orders: FloatArray
    """Purchase days."""
    p_order: FloatArray
    expected_spend: FloatArray
    """Over the whole horizon, in the unit of the spend."""
    p_second: FloatArray
    """P(of the second class), by all that is known."""


def predict_two_classes(
    orders: ParetoNbd,
    spend: GammaGamma,
    second: SecondClass,
    season: Season,
    histories: TwoClockHistories,
    spent: SpendHistories,
    orders_max: float,
) -> Prospects:
    """Over each row's horizon, of both classes by how likely each is; the ONNX graph repeats it operation by operation.

    orders, spend: of the usual class. orders_max: more purchase days than these are not believed of anybody."""
    told = [predict_with_evidence(each, season, histories) for each in (orders, second.orders(orders))]
    purchases = [each.outlook for each in told]
    gammas = [each.gamma_money for each in (spend, second.spend(spend))]
    total = spent.paid_days * spent.mean_spend
    log_odds = told[1].log_evidence - told[0].log_evidence + class_log_odds(spend, second, spent)
    p_second = 1 / (1 + np.exp(np.minimum(-log_odds, EXPONENT_MAX)))
    shares = (1 - p_second, p_second)
    days = [share * np.minimum(each.expected_orders, orders_max) for share, each in zip(shares, purchases, strict=True)]
    per_day = [spend.p * (gamma + total) / (spend.p * spent.paid_days + (spend.q - 1)) for gamma in gammas]
    return Prospects(
        days[0] + days[1],
        shares[0] * purchases[0].p_order + shares[1] * purchases[1].p_order,
        days[0] * per_day[0] + days[1] * per_day[1],
        p_second,
    )


def class_log_odds(spend: GammaGamma, second: SecondClass, spent: SpendHistories) -> FloatArray:
    """log P(second class) / P(usual class) by its share and by what was spent alone, (n,)."""
    prior = np.log(second.share / (1 - second.share)) + spend.q * np.log(second.spend_factor)
    total = spent.paid_days * spent.mean_spend
    gained = np.log(second.spend(spend).gamma_money + total) - np.log(spend.gamma_money + total)
    return np.asarray(prior - (spend.p * spent.paid_days + spend.q) * gained, dtype=np.float64)


def two_classes_loglik(
    orders: ParetoNbd,
    spend: GammaGamma,
    second: SecondClass,
    season: Season,
    histories: TwoClockHistories,
    spent: SpendHistories,
) -> tuple[float, FloatArray]:
    """Σ over the customers, of purchases and spend, without the terms that no parameter moves, and its gradient.

    The gradient is in (log r, log α, log s, log β, log p, log (q − 1), log γ, log odds of w, log σ, log κ)."""
    there, days, mean = _paid(spent)
    values, slopes = [], []
    for k, share in enumerate((1 - second.share, second.share)):
        of_orders, of_spend = (second.orders(orders), second.spend(spend)) if k else (orders, spend)
        bought, by_orders = two_clocks_loglik(of_orders, season, histories)
        paid, by_spend = gamma_gamma_loglik(of_spend.p, of_spend.q, of_spend.gamma_money, days, mean)
        by_orders *= np.array([[orders.r], [of_orders.alpha_days], [orders.s], [orders.beta_days]])
        by_spend *= there * np.array([[spend.p], [spend.q - 1], [of_spend.gamma_money]])
        by_share = np.full(len(days), 1 - second.share if k else -second.share)
        values.append(np.log(share) + bought + np.where(there, paid, 0.0))
        slopes.append(np.vstack([by_orders, by_spend, by_share, k * by_spend[2], -k * by_orders[1]]))
    value = np.logaddexp(*values)
    p_second = np.exp(values[1] - value)
    return float(value.sum()), ((1 - p_second) * slopes[0] + p_second * slopes[1]).sum(axis=1)


def one_class_loglik(
    orders: ParetoNbd, spend: GammaGamma, season: Season, histories: TwoClockHistories, spent: SpendHistories
) -> float:
    """two_classes_loglik() where all customers are of the usual class."""
    there, days, mean = _paid(spent)
    paid, _ = gamma_gamma_loglik(spend.p, spend.q, spend.gamma_money, days, mean)
    bought, _ = two_clocks_loglik(orders, season, histories)
    return float((bought + np.where(there, paid, 0.0)).sum())


def _paid(spent: SpendHistories) -> tuple[NDArray[np.bool_], FloatArray, FloatArray]:
    """Of whom spend tells something; their days and mean, and 1 for the others."""
    there = (spent.paid_days >= 1) & (spent.mean_spend > 0)
    return there, np.where(there, spent.paid_days, 1.0), np.where(there, spent.mean_spend, 1.0)
