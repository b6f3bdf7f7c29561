"""The customers of a generated shop: when they arrive, how often they order, what they spend, when they leave. It must
never know of orders."""

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from domain.btyd import ParetoNbd
from domain.customer import DAY_MS
from services.trainer.generation.intensity import arrival_intensity
from services.trainer.generation.spec import ShopSpec

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

NEVER_MS = 2**62
"""A departure that does not come, or that nobody knows."""


@dataclass(frozen=True, eq=False)
class Customers:
    """The truth of each customer, arrays (n,), in order of arrival; seconds are whole."""

    ids: NDArray[np.object_]
    acquired_ms: Ints
    """The first order."""
    rate_per_day: Floats
    """Repeat orders a day while active, on average over the year, at the trend of the start."""
    dropout_ms: Ints
    """pareto: when the customer leaves, which may be after the history; bg: the repeat order after which, NEVER_MS if
    it is not in the history."""
    mean_spend: Floats
    """Mean value of an order at the prices of the start, major units."""
    is_wholesale: NDArray[np.bool_]
    birth_year: Ints
    """0: not known. Not in the orders file, which has no column for it."""

    def __len__(self) -> int:
        return len(self.ids)


def draw_customers(spec: ShopSpec, chance: Generator) -> Customers:
    """Customers by Pareto/NBD or BG/NBD and Gamma-Gamma; of bg the departures are not known yet (NEVER_MS)."""
    n = spec.customers
    arrivals = arrival_intensity(spec)
    day = np.sort(arrivals.when(chance.random(n) * arrivals.total))
    rate, leaving = chance.standard_gamma(spec.rate_shape, n), chance.standard_gamma(spec.dropout_shape, n)
    lifetime, spend = chance.standard_exponential(n), chance.standard_gamma(spec.spend_spread, n)
    is_wholesale = chance.random(n) < spec.wholesale_share
    age = np.clip(18 + 60 * chance.beta(2.0, 3.0, n), 18, 90).astype(np.int64)
    birth_year = np.where(chance.random(n) < 0.1, 0, spec.start.year - age)

    purchases, money = spec.purchases, spec.spend
    per_day = rate / purchases.alpha_days if spec.orders_per_year > 0 else np.zeros(n)
    acquired_ms = _milliseconds(spec.start_day + day)
    dropout_ms = np.full(n, NEVER_MS, dtype=np.int64)
    if isinstance(purchases, ParetoNbd):
        with np.errstate(divide="ignore", over="ignore"):
            after = lifetime / leaving * purchases.beta_days
        dropout_ms = np.where(after < 1e9, acquired_ms + _milliseconds(np.minimum(after, 1e9)), NEVER_MS)
    return Customers(
        ids=_ids(n),
        acquired_ms=acquired_ms,
        rate_per_day=per_day * np.where(is_wholesale, spec.wholesale_rate_factor, 1.0),
        dropout_ms=dropout_ms,
        mean_spend=money.p * money.gamma_money / spend * np.where(is_wholesale, spec.wholesale_spend_factor, 1.0),
        is_wholesale=is_wholesale,
        birth_year=birth_year,
    )


def _milliseconds(days: Floats) -> Ints:
    """Epoch milliseconds, whole seconds, of days since 1970."""
    return np.floor(days * (DAY_MS // 1000)).astype(np.int64) * 1000


def _ids(count: int) -> NDArray[np.object_]:
    digits = max(4, len(str(count)))
    found = np.empty(count, dtype=object)
    found[:] = [f"c{number:0{digits}d}" for number in range(1, count + 1)]
    return found
