"""How much of a customer's own spend per order is believed where little is expected. It must never change what is
expected where much is.

Among customers of whom little is expected the ranking is one of who will order at all; what an order of theirs would be
worth is a guess from one or two baskets. Ranking them by the product of both spreads the guess over most of the shop
and ranks worse than the probability alone (on CDNOW: Spearman .447 by P(order), .430 by the product of corrected orders
and spend). So the spend of small expectations is drawn towards that of their like."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

SPEND_RATIO_LIMIT = 1e3
"""A customer's spend by that of the others lies between its inverse and itself."""
TINY = 1e-9


class Rule(NamedTuple):
    """How spend is shrunk."""

    exponent: float
    """Of the spend ratio where nothing is expected; 1 at the other end: all of it is believed."""
    half_share: float
    """Share of the mean expected value at which the exponent is half way."""


RULES = (None, Rule(0.5, 0.15), Rule(0.5, 0.4), Rule(0.0, 0.05), Rule(0.0, 0.15))
"""What competes; None leaves everything as it is."""
USUAL = Rule(0.5, 0.15)
"""Where no window can tell."""


@dataclass(frozen=True)
class SpendShrinkage:
    """A rule, at the scale of one population."""

    exponent: float
    half_value: float
    """Expected value at which the exponent is half way, major units."""
    spend: float
    """Spend per order that the others' is drawn towards, major units."""

    def __call__(self, value: Floats, orders: Floats) -> Floats:
        """Expected values, (n,), with less of the own spend in them where they are small; orders: (n,). The ONNX graph
        repeats this (corrections_graph.py)."""
        spend = np.maximum(value, TINY) / np.maximum(orders, TINY)
        ratio = np.minimum(np.maximum(spend / self.spend, 1.0 / SPEND_RATIO_LIMIT), SPEND_RATIO_LIMIT)
        taken = (1.0 - self.exponent) * (self.half_value / (value + self.half_value))
        return np.asarray(value * np.exp(-taken * np.log(ratio)), dtype=np.float64)


def shrinkage(rule: Rule | None, value: Floats, orders: Floats) -> SpendShrinkage | None:
    """The rule at the scale of a population's expectations, (n,). The spend that others are drawn towards is the
    geometric mean of those that are shrunk most, so that their total stays about as it was."""
    usable = (value > TINY) & (orders > TINY)
    if rule is None or not usable.any():
        return None
    value, orders = value[usable], orders[usable]
    half = max(rule.half_share * float(value.mean()), TINY)
    weight = orders * (half / (value + half))
    centre = float(np.exp((weight * np.log(value / orders)).sum() / max(float(weight.sum()), 1e-300)))
    return SpendShrinkage(rule.exponent, half, max(centre, TINY))
