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

from domain.btyd.histories import evenly
from domain.btyd.likelihood import gamma_gamma_loglik
from domain.btyd.parameters import PARAMETER_MIN, FloatArray, GammaGamma, ParetoNbd
from domain.btyd.prediction import expected_spend
from domain.btyd.quadrature import EXPONENT_MAX
from domain.btyd.two_clocks import TwoClockHistories, predict_with_evidence, two_clocks_loglik
from domain.season import Season

BOUNDS = ((1e-3, 0.25), (1.3, 100.0), (0.1, 40.0))
"""Of share, spend_factor and rate_factor."""
ROUNDING = 1e-3
"""Relative: so far beyond a bound a value on it may come to lie."""


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
            if not low * (1 - ROUNDING) <= getattr(self, name) <= high * (1 + ROUNDING):
                raise ValueError(f"{name} must be between {low:g} and {high:g}, got {getattr(self, name)}")

    def orders(self, usual: ParetoNbd) -> ParetoNbd:
        """How they order, from how the usual ones do."""
        return msgspec.structs.replace(usual, alpha_days=max(usual.alpha_days / self.rate_factor, PARAMETER_MIN))

    def spend(self, usual: GammaGamma) -> GammaGamma:
        """What they spend, from what the usual ones do."""
        return msgspec.structs.replace(usual, gamma_money=usual.gamma_money * self.spend_factor)


class TwoClasses(NamedTuple):
    """Parameters of both; `orders` and `spend` are the usual one's."""

    orders: ParetoNbd
    spend: GammaGamma
    second: SecondClass

    @property
    def each(self) -> tuple[tuple[float, ParetoNbd, GammaGamma], tuple[float, ParetoNbd, GammaGamma]]:
        """(share, orders, spend) of the usual class, then of the second."""
        orders, spend, second = self
        return (1 - second.share, orders, spend), (second.share, second.orders(orders), second.spend(spend))


class SpendHistories(NamedTuple):
    """What n customers spent, each array (n,)."""

    paid_days: FloatArray
    """Purchase days that netted more than nothing, the first included; 0: nothing is known of the spend."""
    mean_spend: FloatArray
    """Mean net spend of such a day; at least 0."""

    def thinned(self, rows_max: int, unit: float) -> "SpendHistories":
        """At most so many of them, evenly spread, in units of so much money."""
        each = evenly(len(self.paid_days), rows_max)
        return SpendHistories(self.paid_days[each], self.mean_spend[each] / unit)


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
    classes: TwoClasses, season: Season, histories: TwoClockHistories, spent: SpendHistories, orders_max: float
) -> Prospects:
    """Over each row's horizon, of both classes by how likely each is; the ONNX graph repeats it operation by operation.

    orders_max: more purchase days than these are not believed of anybody."""
    told = [predict_with_evidence(orders, season, histories) for _, orders, _ in classes.each]
    purchases = [each.outlook for each in told]
    log_odds = told[1].log_evidence - told[0].log_evidence + class_log_odds(classes, spent)
    p_second = 1 / (1 + np.exp(np.minimum(-log_odds, EXPONENT_MAX)))
    shares = (1 - p_second, p_second)
    days = [share * np.minimum(each.expected_orders, orders_max) for share, each in zip(shares, purchases, strict=True)]
    per_day = [expected_spend(spend, spent.paid_days, spent.mean_spend) for _, _, spend in classes.each]
    return Prospects(
        days[0] + days[1],
        shares[0] * purchases[0].p_order + shares[1] * purchases[1].p_order,
        days[0] * per_day[0] + days[1] * per_day[1],
        p_second,
    )


def class_log_odds(classes: TwoClasses, spent: SpendHistories) -> FloatArray:
    """log P(second class) / P(usual class) by its share and by what was spent alone, (n,)."""
    total, spend = spent.paid_days * spent.mean_spend, classes.spend
    usual, second = (np.log(each.gamma_money + total) for _, _, each in classes.each)
    gained = (spend.p * spent.paid_days + spend.q) * (second - usual)
    return np.asarray(class_log_odds_constant(classes) - gained, dtype=np.float64)


def class_log_odds_constant(classes: TwoClasses) -> float:
    """What is the same for all customers of class_log_odds()."""
    second = classes.second
    return log_odds(second.share) + classes.spend.q * float(np.log(second.spend_factor))


def log_odds(share: float) -> float:
    """ln w / (1 − w)."""
    return float(np.log(share / (1 - share)))


def two_classes_loglik(
    classes: TwoClasses, season: Season, histories: TwoClockHistories, spent: SpendHistories
) -> tuple[float, FloatArray]:
    """Σ over the customers, of purchases and spend, without the terms that no parameter moves, and its gradient.

    The gradient is in (log r, log α, log s, log β, log p, log (q − 1), log γ, log odds of w, log σ, log κ)."""
    values, slopes = [], []
    for k, (share, orders, spend) in enumerate(classes.each):
        value, slope = _class_loglik(orders, spend, season, histories, spent)
        by_share = np.full(len(value), k - classes.second.share)
        values.append(np.log(share) + value)
        slopes.append(np.vstack([slope, by_share, k * slope[_LOG_GAMMA], -k * slope[_LOG_ALPHA]]))
    total = np.logaddexp(*values)
    p_second = np.exp(values[1] - total)
    return float(total.sum()), ((1 - p_second) * slopes[0] + p_second * slopes[1]).sum(axis=1)


def one_class_loglik(
    orders: ParetoNbd, spend: GammaGamma, season: Season, histories: TwoClockHistories, spent: SpendHistories
) -> float:
    """two_classes_loglik() where all customers are of one class."""
    return float(_class_loglik(orders, spend, season, histories, spent)[0].sum())


_LOG_ALPHA, _LOG_GAMMA = 1, 6
"""Places in the gradient of _class_loglik()."""


def _class_loglik(
    orders: ParetoNbd, spend: GammaGamma, season: Season, histories: TwoClockHistories, spent: SpendHistories
) -> tuple[FloatArray, FloatArray]:
    """Of each customer, (n,), as one of this class; its gradient in (log r, log α, log s, log β, log p, log (q − 1),
    log γ), (7, n). A spend that tells nothing counts as certain."""
    there = (spent.paid_days >= 1) & (spent.mean_spend > 0)
    days, mean = (np.where(there, each, 1.0) for each in spent)
    bought, by_orders = two_clocks_loglik(orders, season, histories)
    paid, by_spend = gamma_gamma_loglik(spend.p, spend.q, spend.gamma_money, days, mean)
    by_orders *= np.array([[orders.r], [orders.alpha_days], [orders.s], [orders.beta_days]])
    by_spend *= there * np.array([[spend.p], [spend.q - 1], [spend.gamma_money]])
    return bought + np.where(there, paid, 0.0), np.vstack([by_orders, by_spend])
