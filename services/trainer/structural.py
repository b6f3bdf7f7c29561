"""The structural model: a purchase model (BTYD) times a spend model, from the feature vector alone, or the mean of an
earlier window where too few customers ever came back. It must never look at anything but features and its parameters.

In a shop with a season that is Pareto/NBD on two clocks (domain.btyd.two_clocks); where some customers buy more and
more often, there are two classes of them (domain.btyd.two_classes).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from domain.btyd import (
    GammaGamma,
    NotEnoughRepeatBuyers,
    OrderModel,
    OrderModelFit,
    ParetoNbd,
    SecondClass,
    SpendHistories,
    TwoClasses,
    TwoClassFit,
    TwoClockHistories,
    evenly,
    expected_spend,
    fit_bg_nbd,
    fit_gamma_gamma,
    fit_mbg_nbd,
    fit_pareto_nbd,
    fit_two_classes,
    fit_two_clocks,
    predict,
    predict_two_classes,
    predict_two_clocks,
    purchase_histories,
)
from domain.features import FEATURE_NAMES, year_day
from domain.season import NO_SEASON, Season, WeeklyFit, fit_season
from services.trainer.history import Daily, TrainingSet

Floats = NDArray[np.float64]

TWO_CLOCK_MODEL = "Pareto/NBD"
"""The one in which customers leave by themselves, and so by a clock of their own; in the others an order decides. Only
it can have a season, or two classes."""
FITS = {"BG/NBD": fit_bg_nbd, "MBG/NBD": fit_mbg_nbd, "Pareto/NBD": fit_pareto_nbd}
"""The purchase models that compete, by name."""

REPEAT_DAYS_MAX = 10_000.0
AGE_DAYS_MAX = 100_000.0
MONEY_MAX = 1e11
"""Largest mean spend that is believed, major units: beyond any order that ingest lets through."""

FIT_CUSTOMERS_MAX = 40_000
"""Customers that a model is fitted to, evenly spread: four parameters are known to a percent or two from so many."""
GAP_DAYS_MIN = 1e-3
"""Of a repeat customer on the season's clock: two different days are never the same instant."""
HORIZON_DAYS_MIN = 1e-3

SECOND_CLASS_GAIN_MIN = 1.5
"""Times the logarithm of the customers: the gain of log-likelihood that pays for three parameters (Schwarz 1978)."""

PRIOR_CUSTOMER_DAYS = 180
"""Where nobody came back, it is supposed that one order more would have come in so many days of one more customer: a
day of history is no proof that nobody ever will."""


def column(matrix: Floats, name: str) -> Floats:
    """A feature of all rows by name."""
    return matrix[:, FEATURE_NAMES.index(name)]


class Statistics(NamedTuple):
    """What the structural model needs of n customers, each array (n,), finite and possible for any features."""

    has_order: NDArray[np.bool_]
    x: Floats
    t_x_days: Floats
    age_days: Floats
    paid_days: Floats
    mean_spend: Floats
    year_day: Floats
    """Day of the year of as_of, from 1; NaN where it is not known."""

    @property
    def spent(self) -> SpendHistories:
        """What is known of their spend."""
        return SpendHistories(self.paid_days, self.mean_spend)


def statistics(matrix: Floats) -> Statistics:
    """From features of shape (n, len(FEATURE_NAMES)); where streaming extras are missing, from the seven inputs'.

    The ONNX graph repeats this operation by operation (structural_graph.py).
    """
    frequency = column(matrix, "frequency")
    age = _bounded(_first_known(column(matrix, "btyd_T"), column(matrix, "customer_lifetime_days")), AGE_DAYS_MAX)
    t_x = np.minimum(_bounded(_first_known(column(matrix, "btyd_t_x"), column(matrix, "active_span_days")), age), age)
    x = _bounded(_first_known(column(matrix, "btyd_x"), frequency), REPEAT_DAYS_MAX)
    x = np.minimum(x, t_x)  # one purchase day a day: orders of the first day are no repeat
    paid_days = column(matrix, "btyd_m_days")
    unknown = np.isnan(paid_days)
    mean = np.where(unknown, column(matrix, "average_order_value"), column(matrix, "btyd_m"))
    return Statistics(
        has_order=frequency >= 0,
        x=x,
        t_x_days=t_x,
        age_days=age,
        paid_days=_bounded(np.where(unknown, x + 1, paid_days), REPEAT_DAYS_MAX),
        mean_spend=_bounded(mean, MONEY_MAX),
        year_day=column(matrix, "as_of_year_day"),
    )


def _first_known(first: Floats, second: Floats) -> Floats:
    return np.where(np.isnan(first), second, first)


def _bounded(values: Floats, upper: float | Floats) -> Floats:
    return np.minimum(np.maximum(np.where(np.isnan(values), 0.0, values), 0.0), upper)


class ClassSearch(NamedTuple):
    """What a search for a second class says: `second` is None where none was found."""

    second: SecondClass | None
    gain: float
    """Of log-likelihood, against one class."""


class Expectation(NamedTuple):
    """Of n customers over a horizon, each array (n,), finite, at least 0."""

    value: Floats
    orders: Floats
    p_active: Floats


@dataclass(frozen=True)
class MeanRates:
    """Everybody alike: what a customer did on average in an earlier window, for shops where nobody comes back."""

    window_days: int
    orders: float
    value: float
    p_active: float

    def over(self, horizon_days: int) -> tuple[float, float, float]:
        """(value, orders, p_active) over another horizon: as many windows as fit into it, each like the first."""
        windows = horizon_days / self.window_days
        return self.value * windows, self.orders * windows, 1 - (1 - self.p_active) ** windows


@dataclass(frozen=True)
class TwoClocks:
    """Pareto/NBD that buys by a season and leaves by the calendar (domain.btyd.two_clocks), of one class of customers
    or of two (domain.btyd.two_classes)."""

    season: Season
    """NO_SEASON where there is none."""
    orders: ParetoNbd
    """alpha_days on the season's clock, beta_days on the calendar; of the usual class."""
    year_day: float
    """Of the day that the model was made for: stands in where a row does not know its as_of."""
    second: SecondClass | None = None

    def histories(self, found: Statistics, horizon_days: float) -> TwoClockHistories:
        """Rows on both clocks, with the horizon that starts at each one's as_of."""
        known = np.where(np.isnan(found.year_day), self.year_day, found.year_day)
        now = np.minimum(np.maximum(known, 1.0), 366.0) - 1.0
        age = np.maximum(self.season.elapsed(now, found.age_days), 0.0)
        recency = np.maximum(self.season.elapsed(now, found.age_days - found.t_x_days), 0.0)
        t_x = np.where(found.x > 0, np.minimum(np.maximum(age - recency, GAP_DAYS_MIN), age), 0.0)
        t_x_days = np.where(found.x > 0, found.t_x_days, 0.0)
        ahead = np.maximum(-self.season.elapsed(now, -horizon_days), HORIZON_DAYS_MIN)
        return TwoClockHistories(found.x, t_x_days, found.age_days, t_x, age, ahead, self.season.operational(now))


@dataclass(frozen=True)
class Structural:
    """Fitted parameters. Exactly one of `orders` and `mean` is there; without `spend`, `spend_mean` holds for all.

    With `clocks` those say when, instead of `orders`, which is what would hold of one class without a season; with a
    second class `spend` is the usual one's."""

    orders: OrderModel | None
    spend: GammaGamma | None
    spend_mean: float
    """Mean spend of a purchase day over all customers, major units."""
    orders_per_day: float
    """Orders of a purchase day: the models count days."""
    paid_share: float = 1.0
    """Net spend of a purchase day ÷ that of a day that netted more than nothing: the spend model knows of no other
    days, nor of refunds without an order."""
    mean: MeanRates | None = None
    name: str = "mean"
    fit: OrderModelFit | None = None
    clocks: TwoClocks | None = None
    activity: float = 1.0
    """1: p_active is the purchase model's P(at least one); 0: 1 − exp(−expected purchase days), which ranks better
    where the model's idea of who has left is wrong; between: their geometric mean. One of ACTIVITY."""

    def expect(self, matrix: Floats, horizon_days: int) -> Expectation:
        """Expectation over the next horizon_days; rows without an order have 0."""
        found = statistics(matrix)
        if self.orders is None:
            assert self.mean is not None
            return Expectation(*(np.where(found.has_order, each, 0.0) for each in self.mean.over(horizon_days)))
        days, p_order, value = self._outlook(found, horizon_days)
        p_active = np.minimum(p_order, 1.0)
        if self.activity < 1:
            rated = 1.0 - np.exp(-days)
            p_active = rated if self.activity == 0 else np.sqrt(p_active * rated)
        return Expectation(
            *(np.where(found.has_order, each, 0.0) for each in (value, days * self.orders_per_day, p_active))
        )

    def _outlook(self, found: Statistics, horizon_days: int) -> tuple[Floats, Floats, Floats]:
        """Expected purchase days, P(at least one) and expected net spend, (n,)."""
        assert self.orders is not None
        if self.clocks is None:
            outlook = predict(self.orders, found.x, found.t_x_days, found.age_days, horizon_days)
        else:
            rows = self.clocks.histories(found, horizon_days)
            orders, season, second = self.clocks.orders, self.clocks.season, self.clocks.second
            if second is not None:
                assert self.spend is not None, "classes differ by what they spend"
                classes = TwoClasses(orders, self.spend, second)
                ahead = predict_two_classes(classes, season, rows, found.spent, float(horizon_days))
                return ahead.expected_orders, ahead.p_order, ahead.expected_spend * self.paid_share
            outlook = predict_two_clocks(orders, season, rows)
        days = np.minimum(outlook.expected_orders, float(horizon_days))
        return days, outlook.p_order, days * self.spend_per_day(found)

    def spend_per_day(self, found: Statistics) -> Floats:
        """Expected net spend of a future purchase day of customers of one class, major units."""
        if self.spend is None:
            return np.full(found.x.shape, self.spend_mean * self.paid_share)
        return expected_spend(self.spend, found.paid_days, found.mean_spend) * self.paid_share


ACTIVITY = (1.0, 0.5, 0.0)

_FITTED: WeakKeyDictionary[TrainingSet, dict[str, Structural]] = WeakKeyDictionary()
_FITTED_CLOCKS: WeakKeyDictionary[TrainingSet, dict[Season, TwoClocks | None]] = WeakKeyDictionary()
_FITTED_CLASSES: WeakKeyDictionary[TrainingSet, dict[tuple[Season, SecondClass], Structural]] = WeakKeyDictionary()
"""Fits by set, and by model, season or classes, for as long as the set is there: choosing and using one fits it but
once."""


def fit_structural(
    known: TrainingSet, name: str, season: Season | None = None, second: SecondClass | None = None
) -> Structural:
    """Fit the named purchase model and the spend model to customers as they were known at the set's origin.

    season: fit it on the season's clock too; second: with this second class. Only TWO_CLOCK_MODEL can have either.
    Raises NotEnoughRepeatBuyers if the purchase model cannot be fitted, ValueError if it has no optimum; a spend model
    that cannot is replaced by the mean spend, and then there is one class."""
    fits = _FITTED.setdefault(known, {})
    if name not in fits:
        same_customers = next(iter(fits.values()), None)
        fits[name] = _fit(known, name, same_customers)
    one_class = fits[name] if season is None else replace(fits[name], clocks=_clocks(known, fits[name], season))
    if second is None or one_class.spend is None:
        return one_class
    both = _FITTED_CLASSES.setdefault(known, {})
    key = season or NO_SEASON, second
    if key not in both:
        both[key] = _with_classes(known, one_class, second)[0]
    return both[key]


def find_second_class(known: TrainingSet, season: Season | None) -> ClassSearch:
    """Whether a second class of customers tells more of a set's histories than it costs. Raises nothing."""
    try:
        one_class = fit_structural(known, TWO_CLOCK_MODEL, season)
        if one_class.spend is None:
            return ClassSearch(None, 0.0)
        structural, fit = _with_classes(known, one_class, None)
    except (NotEnoughRepeatBuyers, ValueError):
        return ClassSearch(None, 0.0)
    if fit.at_bounds or fit.gain < SECOND_CLASS_GAIN_MIN * np.log(fit.customers):
        return ClassSearch(None, fit.gain)
    _FITTED_CLASSES.setdefault(known, {})[season or NO_SEASON, fit.classes.second] = structural
    return ClassSearch(fit.classes.second, fit.gain)


def _clocks(known: TrainingSet, one_clock: Structural, season: Season) -> TwoClocks | None:
    assert isinstance(one_clock.orders, ParetoNbd), f"{one_clock.name} knows no season, {TWO_CLOCK_MODEL} does"
    fits = _FITTED_CLOCKS.setdefault(known, {})
    if season not in fits:
        fits[season] = _fit_clocks(known, season, one_clock.orders)
    return fits[season]


def _with_classes(
    known: TrainingSet, one_class: Structural, second: SecondClass | None
) -> tuple[Structural, TwoClassFit]:
    """Fitted with two classes, of which the second is known or not."""
    assert isinstance(one_class.orders, ParetoNbd), f"{one_class.name} knows no classes, {TWO_CLOCK_MODEL} does"
    assert one_class.spend is not None, "classes differ by what they spend"
    clocks = one_class.clocks or TwoClocks(NO_SEASON, one_class.orders, year_day(known.origin_day))
    found = statistics(known.features)
    histories = clocks.histories(found, max(known.horizon_days, 1))
    fit = fit_two_classes(histories, clocks.season, found.spent, clocks.orders, one_class.spend, second)
    classes = fit.classes
    clocks = replace(clocks, orders=classes.orders, second=classes.second)
    return replace(one_class, spend=classes.spend, clocks=clocks), fit


def _fit(known: TrainingSet, name: str, same_customers: Structural | None) -> Structural:
    found = statistics(known.features)
    fit = FITS[name](purchase_histories(*(_spread(each) for each in (found.x, found.t_x_days, found.age_days))))
    spend, spend_mean = (
        _fit_spend(found) if same_customers is None else (same_customers.spend, same_customers.spend_mean)
    )
    days = float((found.x + 1).sum())
    paid = float((found.paid_days * found.mean_spend).sum())
    net_of_paid = float(column(known.features, "monetary").sum()) / paid if paid > 0 else 1.0
    paid_share = min(max(net_of_paid * float(found.paid_days.sum()) / days, 0.0), 1.0)
    orders = float((column(known.features, "frequency") + 1).sum())
    return Structural(fit.params, spend, spend_mean, orders / days, paid_share, name=name, fit=fit)


def _spread(values: Floats) -> Floats:
    """At most FIT_CUSTOMERS_MAX of them, evenly spread."""
    return values[evenly(len(values), FIT_CUSTOMERS_MAX)]


def _fit_clocks(known: TrainingSet, season: Season, calendar: ParetoNbd) -> TwoClocks | None:
    """calendar: of the same customers, fitted without a season: where the search begins."""
    begun = TwoClocks(season, calendar, year_day(known.origin_day))
    histories = begun.histories(statistics(known.features), max(known.horizon_days, 1))
    try:
        return replace(begun, orders=fit_two_clocks(histories, season, calendar))
    except ValueError:
        return None


PEERS_PER_DAY_MIN = 1e-9


def find_season(daily: Daily, known: TrainingSet) -> WeeklyFit:
    """The season of a shop from its repeat orders of each day until the set's origin.

    What is expected of a day without a season is what Pareto/NBD, fitted to the customers, expects of those who came
    before it: E[λ e^(−μ age)] = (r/α) (β/(β + age))^s (Fader & Hardie 2005, from eq. 17). As the fit itself is bent by
    the season, it is repeated on the clock of the season found. Raises nothing: no model, no season.
    """
    none = WeeklyFit(None, 0.0, 1.0)
    repeats = np.maximum(daily.orders - daily.new_customers, 0)
    try:
        calendar = fit_structural(known, TWO_CLOCK_MODEL).orders
    except (NotEnoughRepeatBuyers, ValueError):
        return none
    assert isinstance(calendar, ParetoNbd)
    orders, found = calendar, none
    for _ in range(2):
        age = np.arange(1, len(repeats) + 1)
        rate = orders.r / orders.alpha_days * (orders.beta_days / (orders.beta_days + age)) ** orders.s
        expected = np.convolve(daily.new_customers, rate)[: len(repeats)]
        expected = np.concatenate(([0.0], expected[:-1])) + PEERS_PER_DAY_MIN
        found = fit_season(int(daily.day[0]) if len(daily.day) else 0, repeats, expected)
        clocks = None if found.season is None else _fit_clocks(known, found.season, calendar)
        if clocks is None:
            return none._replace(aic_gain=found.aic_gain, overdispersion=found.overdispersion)
        orders = clocks.orders
    return found


def _fit_spend(found: Statistics) -> tuple[GammaGamma | None, float]:
    paid = (found.paid_days >= 1) & (found.mean_spend > 0)
    days, mean = _spread(found.paid_days[paid]), _spread(found.mean_spend[paid])
    spend_mean = float((days * mean).sum() / days.sum()) if paid.any() else 0.0
    try:
        return fit_gamma_gamma(days, mean).params, spend_mean
    except NotEnoughRepeatBuyers:
        return None, spend_mean
    except ValueError:  # a fit at its bounds that is no model, such as money that never varies
        return None, spend_mean


def mean_structural(windows: Sequence[TrainingSet], known: TrainingSet) -> Structural:
    """The mean over the earlier windows; where none has an order, the rate of repeat orders since the first ones."""
    customers = sum(len(window) for window in windows)
    targets = [window.known_targets for window in windows]
    if customers and any(each.orders.any() for each in targets):
        orders, value, active = (
            float(sum(getattr(each, name).sum() for each in targets)) / customers
            for name in ("orders", "value", "active")
        )
        return _everybody_alike(MeanRates(windows[-1].horizon_days, orders, max(0.0, value), active))
    repeats = float(column(known.features, "frequency").sum())
    days = float(np.maximum(column(known.features, "btyd_T"), 1.0).sum())
    per_day = repeats / days if repeats > 0 else 1 / (days + PRIOR_CUSTOMER_DAYS)
    net_of_order = float(column(known.features, "monetary").sum()) / (repeats + len(known))
    return _everybody_alike(MeanRates(1, per_day, max(0.0, net_of_order) * per_day, -float(np.expm1(-per_day))))


def _everybody_alike(mean: MeanRates) -> Structural:
    return Structural(None, None, 0.0, 1.0, mean=mean)
