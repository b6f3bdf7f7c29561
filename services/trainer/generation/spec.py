"""What a generated shop is like: its parameters with meaning and bounds, and named presets. It must never draw a random
number.

The parameters are ones that a shop knows of itself (orders a year, half-life, mean order); `purchases` and `spend` are
those of the literature that they amount to.
"""

from collections.abc import Mapping
from datetime import date
from math import log
from typing import Annotated, Any, Literal, NamedTuple, get_type_hints

import msgspec
from msgspec import Meta

from domain.btyd import BgNbd, GammaGamma, ParetoNbd
from domain.features import day_of
from schemas.currencies import exponent_of
from services.runtime.shutdown import KnownProblem
from services.trainer.generation.breakages import BREAKAGES

DAYS_PER_YEAR = 365.25
DEFAULT_START = date(2022, 1, 1)
DEFAULT_WEEK = (1.1, 1.0, 0.95, 0.95, 1.05, 0.9, 1.05)
ORDERS_EXPECTED_MAX = 50_000_000
"""A shop beyond this would not fit into a small machine's memory (about 60 bytes an order while it is made)."""

Dropout = Literal["pareto", "bg"]
Share = Annotated[float, Meta(ge=0, le=1)]
Shape = Annotated[float, Meta(ge=0.01, le=1000)]
Days = Annotated[float, Meta(gt=0, le=1e6)]
Factor = Annotated[float, Meta(gt=0, le=10_000)]
Growth = Annotated[float, Meta(gt=-1, le=100)]
Amplitude = Annotated[float, Meta(ge=0, le=0.99)]
Count = Annotated[int, Meta(ge=1, le=10_000_000)]


def _says(meaning: str) -> Meta:
    return Meta(description=meaning)


# fmt: off
class ShopSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One shop. Shares are probabilities, for each row or customer on its own; what came of them is in Shop.counts."""

    customers: Annotated[Count, _says("Customers, each with a first order within the time.")] = 2000
    years: Annotated[float, Meta(gt=0, le=50), _says("Length; whole years end on the day they began.")] = 2.0
    seed: Annotated[int, Meta(ge=0, le=2**63 - 1), _says("The same seed and parameters give the same shop.")] = 1
    start: Annotated[date, _says("First day, UTC.")] = DEFAULT_START
    currency: Annotated[str, _says("Currency of all amounts, ISO 4217.")] = "USD"

    orders_per_year: Annotated[float, Meta(ge=0, le=1000), _says("Mean rate of repeat orders until leaving.")] = 4.0
    rate_shape: Annotated[Shape, _says("Gamma shape r of the rates: below 1 most buy rarely, a few often.")] = 0.8
    dropout: Annotated[Dropout, _says("Customers leave at any time (pareto) or after a repeat order (bg).")] = "pareto"
    half_life_days: Annotated[Days, _says("pareto: days until half of the customers have left.")] = 300.0
    dropout_shape: Annotated[Shape, _says("pareto: Gamma shape s of the rates of leaving; small: unlike.")] = 0.7
    bg_a: Annotated[Shape, _says("bg: a of the Beta of leaving after an order.")] = 0.8
    bg_b: Annotated[Shape, _says("bg: b of the Beta of leaving after an order; the mean is a / (a + b).")] = 2.4
    mean_order: Annotated[float, Meta(gt=0, le=1e8), _says("Mean value of an order, units of the currency.")] = 45.0
    spend_shape: Annotated[Shape, _says("Gamma-Gamma p: the higher, the more alike one customer's orders.")] = 5.0
    spend_spread: Annotated[float, Meta(gt=1, le=1000), _says("Gamma-Gamma q: high: customers are alike.")] = 4.0
    wholesale_share: Annotated[Share, _says("Share of customers who are wholesale buyers.")] = 0.01
    wholesale_rate_factor: Annotated[Factor, _says("How many times as often they order.")] = 4.0
    wholesale_spend_factor: Annotated[Factor, _says("How many times as much an order of theirs is.")] = 8.0

    season_amplitude: Annotated[Amplitude, _says("Season of orders and arrivals: 0 none, .5 strong.")] = 0.35
    season_peak: Annotated[str, _says("Day of the season's peak, MM-DD.")] = "12-10"
    season_sharpness: Annotated[int, Meta(ge=1, le=200), _says("1: a cosine; higher: a narrower peak.")] = 2
    weekly: Annotated[tuple[float, ...], _says("Seven weights, Monday to Sunday.")] = DEFAULT_WEEK
    acquisition_days: Annotated[int, Meta(ge=0), _says("Days in which customers arrive; 0: all the time.")] = 0
    growth_per_year: Annotated[Growth, _says("Growth of the customers who arrive: .2 is 20 % a year.")] = 0.2
    order_growth_per_year: Annotated[Growth, _says("Growth of everybody's order rate.")] = 0.0
    price_growth_per_year: Annotated[Growth, _says("Growth of the value of orders.")] = 0.0

    refund_share: Annotated[Share, _says("Share of orders of which money goes back.")] = 0.05
    refund_full_share: Annotated[Share, _says("Share of refunds of a whole order; others are of 10 % to 90 %.")] = 0.6
    refund_loose_share: Annotated[Share, _says("Share of refunds that name no order.")] = 0.02
    refund_delay_days: Annotated[Days, _says("Mean days to a refund; those after the end are not seen.")] = 12.0

    untidy_share: Annotated[Share, _says("Share of orders and refunds written in another valid form.")] = 0.05
    duplicate_share: Annotated[Share, _says("Share of orders and refunds that the file repeats exactly.")] = 0.01
    late_share: Annotated[Share, _says("Share that arrives late: rows out of time order.")] = 0.02
    late_days: Annotated[Days, _says("Mean delay of late rows, beyond the first day.")] = 6.0
    dirty_share: Annotated[Share, _says("Share that has a broken copy beside the good row.")] = 0.01
    dirty_kinds: Annotated[tuple[str, ...], _says("Kinds of breakage of dirty and lost rows.")] = tuple(BREAKAGES)
    lost_share: Annotated[Share, _says("Share broken beyond repair, rounded down to rows: no good row.")] = 0.0001
# fmt: on

    @property
    def start_day(self) -> int:
        """First day since 1970."""
        return day_of(self.start)

    @property
    def end_day(self) -> int:
        """The first day after the history, since 1970: whole years to the date, the rest in days of the next year."""
        whole = int(self.years)
        last, following = (_years_later(self.start, years) for years in (whole, whole + 1))
        return day_of(last) + round((self.years - whole) * (following - last).days)

    @property
    def exponent(self) -> int:
        """Digits after the point of the currency."""
        found = exponent_of(self.currency)
        assert found is not None
        return found

    @property
    def purchases(self) -> ParetoNbd | BgNbd:
        """The purchase model without season, trend and wholesale buyers. Schmittlein, Morrison & Colombo (1987); Fader,
        Hardie & Lee (2005). r / α is the mean rate; half have left when (β / (β + t))^s = ½."""
        alpha = self.rate_shape * DAYS_PER_YEAR / max(self.orders_per_year, 1e-9)
        if self.dropout == "bg":
            return BgNbd(self.rate_shape, alpha, self.bg_a, self.bg_b)
        beta = self.half_life_days / (2.0 ** (1 / self.dropout_shape) - 1)
        return ParetoNbd(self.rate_shape, alpha, self.dropout_shape, beta)

    @property
    def spend(self) -> GammaGamma:
        """The spend model of an order. Fader & Hardie (2013): the mean order is p γ / (q − 1)."""
        gamma = self.mean_order * (self.spend_spread - 1) / self.spend_shape
        return GammaGamma(self.spend_shape, self.spend_spread, gamma)


def _years_later(day: date, years: int) -> date:
    try:
        return day.replace(year=day.year + years)
    except ValueError:  # 29 February, in a year without one, or a year that no date has
        if day.year + years > 9999:
            raise KnownProblem(f"{years} years from {day} on is beyond the calendar") from None
        return date(day.year + years, 3, 1)


class Preset(NamedTuple):
    """A named kind of shop: what differs from ShopSpec's defaults."""

    meaning: str
    changes: Mapping[str, Any]


_CLEAN = {"refund_share": 0.0, "untidy_share": 0.0, "duplicate_share": 0.0, "late_share": 0.0, "dirty_share": 0.0}
_STEADY = {"season_amplitude": 0.0, "weekly": (1.0,) * 7, "growth_per_year": 0.0, "wholesale_share": 0.0}

PRESETS: Mapping[str, Preset] = {
    "default": Preset("an online shop with a winter season, some wholesale buyers, refunds and dirt", {}),
    "textbook": Preset(
        "Pareto/NBD and Gamma-Gamma as in the papers: no season, no refunds, no dirt",
        {**_CLEAN, **_STEADY, "lost_share": 0.0},
    ),
    "cohort": Preset(
        "everybody's first order is in the first twelve weeks, as in the CDNOW data",
        {**_STEADY, "acquisition_days": 84, "orders_per_year": 2.7, "rate_shape": 0.55},
    ),
    "seasonal": Preset(
        "a gift shop: most is bought in the weeks before the year's end",
        {"season_amplitude": 0.85, "season_peak": "12-08", "season_sharpness": 12, "orders_per_year": 2.5},
    ),
    "wholesale": Preset(
        "a twelfth of the customers buys for resale: often, and much at a time",
        {
            "wholesale_share": 0.08,
            "wholesale_rate_factor": 6.0,
            "wholesale_spend_factor": 15.0,
            "half_life_days": 500.0,
        },
    ),
    "young": Preset(
        "a shop that triples every year and is soon forgotten: most customers are new",
        {"growth_per_year": 2.0, "half_life_days": 120.0, "orders_per_year": 3.0, "refund_share": 0.08},
    ),
}


def preset(name: str, **changes: Any) -> ShopSpec:
    """The named preset with changes, which may be texts (as from a command line). Raises KnownProblem for an unknown
    name or parameter, or a value that it cannot have."""
    if name not in PRESETS:
        raise KnownProblem(f"there is no shop {name!r}; there are {', '.join(PRESETS)}")
    fields = get_type_hints(ShopSpec)
    for each in changes:
        if each not in fields:
            raise KnownProblem(f"a shop has no parameter {each!r}; it has {', '.join(fields)}")
    lists = ("weekly", "dirty_kinds")
    given = {
        key: [part.strip() for part in value.split(",")] if key in lists and isinstance(value, str) else value
        for key, value in {**PRESETS[name].changes, **changes}.items()
    }
    try:
        spec: ShopSpec = msgspec.convert(given, ShopSpec, strict=False)
    except msgspec.ValidationError as error:
        raise KnownProblem(f"this is no shop: {error}") from None
    _check(spec)
    return spec


def _check(spec: ShopSpec) -> None:
    """What bounds of single parameters cannot say. Raises KnownProblem."""
    if exponent_of(spec.currency) is None:
        raise KnownProblem(f"{spec.currency!r} is no currency of ISO 4217, such as USD")
    if len(spec.weekly) != 7 or min(spec.weekly) < 0 or max(spec.weekly) <= 0:
        raise KnownProblem("weekly: seven weights of at least 0, Monday to Sunday, such as 1,1,1,1,1,0.5,0.5")
    peak_of(spec)
    for kind in spec.dirty_kinds:
        if kind not in BREAKAGES:
            raise KnownProblem(f"dirty_kinds: there is no {kind!r}; there are {', '.join(BREAKAGES)}")
    if not spec.dirty_kinds and spec.dirty_share + spec.lost_share > 0:
        raise KnownProblem("dirty_kinds is empty: set dirty_share and lost_share to 0")
    if spec.end_day - spec.start_day < 1:
        raise KnownProblem("the history is shorter than a day: raise years")
    if spec.start_day < 0:
        raise KnownProblem("the history must not begin before 1970")
    if not (spec.acquisition_days <= spec.end_day - spec.start_day):
        raise KnownProblem("acquisition_days is longer than the history")
    growth = max(0.0, log(1 + spec.order_growth_per_year)) * spec.years
    rates = 1 + spec.wholesale_share * (spec.wholesale_rate_factor - 1)
    expected = spec.customers * (1 + spec.orders_per_year * rates * spec.years * 2.718281828 ** min(growth, 50))
    if expected > ORDERS_EXPECTED_MAX:
        raise KnownProblem(
            f"this could be {expected:,.0f} orders, more than {ORDERS_EXPECTED_MAX:,}: take fewer customers"
        )


def peak_of(spec: ShopSpec) -> int:
    """Days from 1 January to the season's peak. Raises KnownProblem if season_peak is no day."""
    try:
        peak = date.fromisoformat(f"2001-{spec.season_peak}")
    except ValueError:
        raise KnownProblem(f"season_peak {spec.season_peak!r} is no day such as 12-10") from None
    return peak.timetuple().tm_yday - 1


def parameters(spec: ShopSpec) -> list[tuple[str, Any, str]]:
    """(name, value, meaning) of each parameter."""
    hints = get_type_hints(ShopSpec, include_extras=True)
    return [
        (name, getattr(spec, name), next(m.description for m in hint.__metadata__ if m.description) or "")
        for name, hint in hints.items()
    ]
