"""What truly happened in a generated shop: orders and refunds, by time. It must never be touched by dirt: the same seed
with other shares of it has the same events.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from domain.customer import DAY_MS
from domain.money import AMOUNT_MINOR_MAX
from services.trainer.generation.customers import NEVER_MS, Customers
from services.trainer.generation.intensity import Intensity, order_intensity
from services.trainer.generation.spec import DAYS_PER_YEAR, ShopSpec

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

LOOSE = -1
"""Number of the order of a refund that names none."""


@dataclass(frozen=True, eq=False)
class Events:
    """Orders and refunds by time, arrays (events,)."""

    is_refund: NDArray[np.bool_]
    customer: NDArray[np.int32]
    """Place of the customer."""
    number: Ints
    """Orders and refunds are numbered apart, by time, from 1."""
    order: Ints
    """Number of the order that a refund is of, or LOOSE; an order's own number."""
    at_ms: Ints
    minor: Ints

    def __len__(self) -> int:
        return len(self.number)


@dataclass(frozen=True, eq=False)
class _Orders:
    customer: NDArray[np.int32]
    days: Floats
    """Since the shop's start."""
    at_ms: Ints


def draw_orders(spec: ShopSpec, customers: Customers, chance: Generator) -> tuple[Customers, _Orders]:
    """First and repeat orders by time; and the customers, with the departures of bg."""
    intensity = order_intensity(spec)
    customers, repeat_of, repeat_days = _repeats(spec, customers, intensity, chance)
    first_days = customers.acquired_ms / DAY_MS - spec.start_day
    owner = np.concatenate([np.arange(len(customers), dtype=np.int32), repeat_of])
    days = np.concatenate([first_days, repeat_days])
    seconds = np.floor((repeat_days + spec.start_day) * (DAY_MS // 1000)).astype(np.int64)
    repeat_ms = np.maximum(seconds * 1000, customers.acquired_ms[repeat_of])  # rounding must not put it first
    at_ms = np.concatenate([customers.acquired_ms, repeat_ms])
    by_time = np.lexsort((owner, at_ms))
    return customers, _Orders(owner[by_time], days[by_time], at_ms[by_time])


def _repeats(
    spec: ShopSpec, customers: Customers, intensity: Intensity, chance: Generator
) -> tuple[Customers, NDArray[np.int32], Floats]:
    """Repeat orders: Poisson in number on the customer's own stretch of the clock, uniform in place on it (the order
    statistics of a Poisson process: Çinlar 1975, ch. 4.4)."""
    length = float(spec.end_day - spec.start_day)
    came = customers.acquired_ms / DAY_MS - spec.start_day
    left = np.minimum(customers.dropout_ms / DAY_MS - spec.start_day, length)
    began = intensity.elapsed(came)
    stretch = intensity.elapsed(left) - began
    counts = chance.poisson(customers.rate_per_day * stretch)
    owner = np.repeat(np.arange(len(customers), dtype=np.int32), counts)
    place = chance.random(len(owner)) * stretch[owner] + began[owner]
    if spec.dropout == "bg":
        p = np.maximum(chance.beta(spec.bg_a, spec.bg_b, len(customers)), 1e-12)
        return _until_leaving(spec, customers, owner, intensity.when(place), chance.geometric(p))
    return customers, owner, intensity.when(place)


def _until_leaving(
    spec: ShopSpec, customers: Customers, owner: NDArray[np.int32], days: Floats, last: Ints
) -> tuple[Customers, NDArray[np.int32], Floats]:
    """BG/NBD (Fader, Hardie & Lee 2005): the customer leaves right after the `last`-th repeat order."""
    order = np.lexsort((days, owner))
    owner, days = owner[order], days[order]
    begins = np.searchsorted(owner, np.arange(len(customers)))
    rank = np.arange(len(owner)) - begins[owner] + 1
    stays = rank <= last[owner]
    leaves = rank == last[owner]
    dropout_ms = np.full(len(customers), NEVER_MS, dtype=np.int64)
    seconds = np.floor((days[leaves] + spec.start_day) * (DAY_MS // 1000)).astype(np.int64)
    dropout_ms[owner[leaves]] = seconds * 1000
    return replace(customers, dropout_ms=dropout_ms), owner[stays], days[stays]


def draw_amounts(spec: ShopSpec, customers: Customers, orders: _Orders, chance: Generator) -> Ints:
    """Minor units of each order, 1 at least: Gamma of shape p around the customer's mean, times the price level."""
    share_of_mean = chance.standard_gamma(spec.spend_shape, len(orders.days)) / spec.spend_shape
    level = (1 + spec.price_growth_per_year) ** (orders.days / DAYS_PER_YEAR)
    minor = customers.mean_spend[orders.customer] * share_of_mean * level * 10.0**spec.exponent
    return np.rint(np.clip(minor, 1.0, float(AMOUNT_MINOR_MAX))).astype(np.int64)


def draw_events(spec: ShopSpec, orders: _Orders, minor: Ints, chance: Generator) -> tuple[Events, int]:
    """Orders and their refunds by time; and how many refunds come after the end, so that nobody sees them."""
    count = len(minor)
    chosen = np.flatnonzero(chance.random(count) < spec.refund_share)
    is_full, is_loose = (
        chance.random(len(chosen)) < share for share in (spec.refund_full_share, spec.refund_loose_share)
    )
    part = np.maximum(1, np.floor(minor[chosen] * chance.uniform(0.1, 0.9, len(chosen))).astype(np.int64))
    back = np.where(is_full, minor[chosen], part)
    delay_s = np.ceil(chance.exponential(spec.refund_delay_days * (DAY_MS // 1000), len(chosen))).astype(np.int64)
    at_ms = orders.at_ms[chosen] + delay_s * 1000
    seen = at_ms < spec.end_day * DAY_MS
    chosen, back, at_ms, is_loose = chosen[seen], back[seen], at_ms[seen], is_loose[seen]
    by_time = np.lexsort((chosen, at_ms))
    chosen, back, at_ms, is_loose = chosen[by_time], back[by_time], at_ms[by_time], is_loose[by_time]

    is_refund = np.repeat([False, True], [count, len(chosen)])
    customer = np.concatenate([orders.customer, orders.customer[chosen]])
    number = np.concatenate([np.arange(1, count + 1), np.arange(1, len(chosen) + 1)])
    of_order = np.concatenate([np.arange(1, count + 1), np.where(is_loose, LOOSE, chosen + 1)])
    all_ms, all_minor = np.concatenate([orders.at_ms, at_ms]), np.concatenate([minor, back])
    order = np.lexsort((is_refund, all_ms))
    columns = (each[order] for each in (is_refund, customer, number, of_order, all_ms, all_minor))
    return Events(*columns), int((~seen).sum())
