"""Every feature of the product, defined once: from customer states and a day to a matrix of numbers.

Used online, in training, in the API and in backfill, always for many customers at a time; a row depends on its own
customer alone, never on its neighbours (sums run over integers, so no batch changes a last bit). Pure: the day is
passed in. Must never guess: what is unknown is NaN.
"""

import calendar
import math
from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from domain.customer import CustomerState
from domain.purchases import LooseRefunds, Purchases, Settled, settle, sum_by
from domain.rfm_scores import Quintiles, rfm_cell, score_high_is_good, score_low_is_good

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

DAYS_PER_MONTH = 30.4375
"""Mean length of a month of the Julian year, 365.25 / 12."""
WINDOWS_DAYS = (30, 90, 180, 365)


class Feature(NamedTuple):
    """A column: its name, unit and meaning."""

    name: str
    unit: str
    meaning: str


INPUTS = (
    Feature("customer_age", "years", "Age of the person in the year of as_of; missing when the birth year is unknown."),
    Feature("purchase_frequency", "orders/month", "Orders per month since the first order (at least one month)."),
    Feature("average_order_value", "currency", "Gross spend divided by orders."),
    Feature("total_orders", "orders", "Orders placed and not cancelled."),
    Feature("customer_lifetime_days", "days", "From the first order to as_of."),
    Feature("days_since_last_purchase", "days", "From the last order to as_of."),
    Feature("frequency_score", "1-5", "Quintile of repeat orders in the training population; 5 is the most."),
)

ENGINEERED = (
    Feature("recency_days", "days", "as_of minus the last order."),
    Feature("frequency", "orders", "Repeat orders: all but the first."),
    Feature("monetary", "currency", "Net spend: gross less refunds; gross where refunds are unknown (what-if)."),
    Feature("recency_score", "1-5", "Quintile of recency in the training population; 5 is the most recent."),
    Feature("frequency_score", "1-5", "Quintile of repeat orders in the training population; 5 is the most."),
    Feature("monetary_score", "1-5", "Quintile of net spend in the training population; 5 is the most."),
    Feature("rfm_score", "111-555", "RFM cell: hundreds recency, tens frequency, ones monetary score."),
    Feature("spending_velocity", "currency/day", "Gross spend per day of lifetime (at least one day)."),
    Feature("avg_days_between_purchases", "days", "Active span divided by repeat orders; missing without a repeat."),
    Feature("overdue_ratio", "ratio", "Recency divided by the usual gap; missing without a gap."),
    Feature("active_span_days", "days", "Last order minus first order."),
    Feature("inactivity_share", "ratio", "Share of the lifetime since the last order; 0 on the first day."),
    Feature("customer_lifetime_days", "days", "From the first order to as_of."),
    Feature("recency_months", "months", "Recency in months of 30.4375 days."),
    Feature("orders_per_month", "orders/month", "The input purchase_frequency."),
    Feature("total_spending", "currency", "Gross spend: orders times average order value."),
    Feature("average_order_value", "currency", "Gross spend divided by orders."),
    Feature("customer_age", "years", "Age of the person; missing when the birth year is unknown."),
)

EXTRAS = (
    *(Feature(f"orders_{d}d", "orders", f"Orders in the {d} days up to as_of.") for d in WINDOWS_DAYS),
    *(
        Feature(f"net_spend_{d}d", "currency", f"Net value of the orders of the {d} days up to as_of.")
        for d in WINDOWS_DAYS
    ),
    Feature("largest_order_value", "currency", "Largest gross order (or day's mean, where orders are folded)."),
    Feature("last_order_value", "currency", "Mean gross value of the orders of the last purchase day."),
    Feature("order_value_std", "currency", "Population standard deviation of gross order values."),
    Feature(
        "gap_std_days", "days", "Population standard deviation of gaps between purchase days; missing below two gaps."
    ),
    Feature("last_gap_days", "days", "Gap between the last two purchase days; missing without a repeat."),
    Feature("refund_share", "ratio", "Refunded share of gross spend; 0 when nothing was spent."),
    Feature("btyd_x", "days", "Repeat purchase days (BTYD x): distinct purchase days but the first."),
    Feature("btyd_t_x", "days", "Last purchase day minus first (BTYD t_x); not the ML recency."),
    Feature("btyd_T", "days", "as_of minus first purchase day (BTYD T)."),
    Feature("btyd_litt", "log days", "Sum of natural logs of the gaps between purchase days."),
    Feature("btyd_m", "currency", "Mean net value per purchase day, over the days that netted more than nothing."),
    Feature("btyd_m_days", "days", "Purchase days behind btyd_m."),
    Feature("as_of_year_day", "days", "Day of the year of as_of, 1 on 1 January: what season lies ahead."),
)

FEATURES = ENGINEERED + EXTRAS
"""The feature vector, in order. The first len(ENGINEERED) columns need the seven inputs alone."""

CONTEXT = ("as_of_year_day",)
"""Features that tell of the day and not of the customer: the same for all customers on one day. Messages made before
there were any have none, which means unknown."""

INPUT_NAMES = tuple(feature.name for feature in INPUTS)
FEATURE_NAMES = tuple(feature.name for feature in FEATURES)

# Gaps longer than two centuries do not occur; logs are whole multiples of 2^-32 so that their sums are exact.
_LOG_UNIT = 2.0**32
_LOG_GAP = np.array([0] + [round(math.log(gap) * _LOG_UNIT) for gap in range(1, 73_050)], dtype=np.int64)


def day_of(at: date | datetime) -> int:
    """Days since 1970-01-01 of a date, or of an instant in UTC."""
    if isinstance(at, datetime):
        at = at.astimezone(UTC).date()
    return calendar.timegm(at.timetuple()) // 86_400


def date_of(day: int) -> date:
    """The date of a day since 1970-01-01: the inverse of day_of()."""
    return date.fromordinal(day + 719_163)


def year_day(day: int) -> float:
    """Day of the year, from 1, of a day since 1970."""
    return float(date_of(day).timetuple().tm_yday)


def engineer(inputs: Floats, quintiles: Quintiles, monetary: Floats | None = None) -> Floats:
    """The engineered features, shape (n, 18), from the seven inputs, shape (n, 7).

    monetary: net spend per row where it is known; otherwise gross spend stands in for it.
    A row without orders has NaN in all features but those that need no order.
    """
    age, per_month, aov, orders, lifetime, recency, frequency_score = inputs.T
    with np.errstate(divide="ignore", invalid="ignore"):
        repeat = np.where(orders > 0, orders - 1.0, np.nan)
        total = orders * aov
        monetary = total if monetary is None else monetary
        span = lifetime - recency
        usual_gap = np.where(repeat > 0, span / repeat, np.nan)
        overdue = np.where(usual_gap > 0, recency / usual_gap, np.nan)
        inactive = np.where(lifetime > 0, recency / lifetime, np.where(lifetime == 0, 0.0, np.nan))
        recency_score = score_low_is_good(recency, quintiles.recency_days)
        monetary_score = score_high_is_good(monetary, quintiles.monetary)
        columns = [
            recency,
            repeat,
            monetary,
            recency_score,
            frequency_score,
            monetary_score,
            rfm_cell(recency_score, frequency_score, monetary_score),
            total / np.maximum(lifetime, 1.0),
            usual_gap,
            overdue,
            span,
            inactive,
            lifetime,
            recency / DAYS_PER_MONTH,
            per_month,
            total,
            aov,
            age,
        ]
    return np.column_stack(columns)


def features_of_inputs(inputs: Floats, quintiles: Quintiles, as_of_day: int) -> Floats:
    """Features, (n, len(FEATURES)), of customers of whom the seven inputs alone are known, (n, 7), as of a day.

    as_of_day: days since 1970 (UTC). What would need the orders one by one is NaN. The day of the year is known, and a
    model with a season is wrong without it by as much as the season is strong.
    """
    engineered = engineer(inputs, quintiles)
    extras = np.full((len(inputs), len(EXTRAS)), np.nan)
    some = inputs[:, INPUT_NAMES.index("total_orders")] > 0
    extras[:, FEATURE_NAMES.index("as_of_year_day") - len(ENGINEERED)] = np.where(some, year_day(as_of_day), np.nan)
    return np.hstack([engineered, extras])


class FeatureRows(NamedTuple):
    """Features of n customers: `inputs` (n, 7) in INPUTS order, `features` (n, len(FEATURES)) in FEATURES order."""

    inputs: Floats
    features: Floats


def features(
    states: Sequence[CustomerState],
    as_of_days: Sequence[int],
    quintiles: Quintiles,
    minor_per_major: int,
    settled: Settled | None = None,
) -> FeatureRows:
    """Features of each state as of the end of its day; what happened after that day is not seen.

    as_of_days: days since 1970 (UTC), one a state. minor_per_major: minor units in one unit of the reporting currency.
    A customer without an order that counts has 0 total_orders, and NaN wherever an order would be needed. The profile
    has no past: it is taken as it stands in the state. settled: settle(states, as_of_days), where it is known already.
    """
    count = len(states)
    as_of = np.asarray(as_of_days, dtype=np.int64)
    found, loose, *_ = settled or settle(states, as_of_days)
    owner, day_, gross, net = found.owner, found.day, found.gross, found.net
    loose_minor = sum_by(loose.owner, loose.minor, count)

    orders = sum_by(owner, found.orders, count)
    gross_sum, net_sum = sum_by(owner, gross, count), sum_by(owner, net, count) - loose_minor
    some = orders > 0
    first_row = np.searchsorted(owner, np.arange(count))
    last_row = np.searchsorted(owner, np.arange(count), side="right") - 1
    first_day, last_day = _pick(day_, first_row, some), _pick(day_, last_row, some)
    lifetime = np.where(some, as_of - first_day, np.nan)
    recency = np.where(some, as_of - last_day, np.nan)
    unit = float(minor_per_major)
    with np.errstate(divide="ignore", invalid="ignore"):
        aov = np.where(some, gross_sum / unit / orders, np.nan)
        per_month = np.where(some, orders * DAYS_PER_MONTH / np.maximum(lifetime, DAYS_PER_MONTH), np.nan)
    frequency_score = score_high_is_good(np.where(some, orders - 1.0, np.nan), quintiles.frequency)
    inputs = np.column_stack(
        [_ages(states, as_of), per_month, aov, orders.astype(np.float64), lifetime, recency, frequency_score]
    )
    monetary = np.where(some, net_sum / unit, np.nan)
    engineered = engineer(inputs, quintiles, monetary)

    extras = np.column_stack(
        [
            *_windows(found, loose, as_of, some, unit),
            *_order_values(found, last_day, orders, gross_sum, some, unit),
            *_gaps_and_btyd(found, some, first_day, last_day, as_of, gross_sum, net_sum, unit),
            np.where(some, _year_days(as_of), np.nan),
        ]
    )
    return FeatureRows(inputs, np.column_stack([engineered, extras]))


def _pick(values: Ints, rows: Ints, some: NDArray[np.bool_]) -> Ints:
    if not len(values):
        return np.zeros(len(rows), dtype=np.int64)
    return np.where(some, values[np.clip(rows, 0, len(values) - 1)], 0)


def _ages(states: Sequence[CustomerState], as_of: Ints) -> Floats:
    births = [(state.profile and state.profile.birth_year) or np.nan for state in states]
    years = as_of.astype("datetime64[D]").astype("datetime64[Y]").astype(np.int64) + 1970
    return np.asarray(years - np.array(births, dtype=np.float64), dtype=np.float64)


def _year_days(as_of: Ints) -> Ints:
    days = as_of.astype("datetime64[D]")
    since = days - days.astype("datetime64[Y]").astype("datetime64[D]")
    return np.asarray(since.astype(np.int64) + 1, dtype=np.int64)


def _windows(p: Purchases, loose: LooseRefunds, as_of: Ints, some: NDArray[np.bool_], unit: float) -> list[Floats]:
    age = as_of[p.owner] - p.day
    loose_age = as_of[loose.owner] - loose.day
    counts, spends = [], []
    for window in WINDOWS_DAYS:
        inside, loose_inside = age < window, loose_age < window
        counts.append(np.where(some, sum_by(p.owner[inside], p.orders[inside], len(some)), np.nan))
        net = sum_by(p.owner[inside], p.net[inside], len(some))
        net -= sum_by(loose.owner[loose_inside], loose.minor[loose_inside], len(some))
        spends.append(np.where(some, net / unit, np.nan))
    return counts + spends


def _order_values(
    p: Purchases, last_day: Ints, orders: Ints, gross_sum: Ints, some: NDArray[np.bool_], unit: float
) -> list[Floats]:
    count = len(some)
    largest = np.zeros(count, dtype=np.int64)
    np.maximum.at(largest, p.owner, p.gross // p.orders)
    on_last = p.day == last_day[p.owner]
    with np.errstate(divide="ignore", invalid="ignore"):
        last = sum_by(p.owner[on_last], p.gross[on_last], count) / sum_by(p.owner[on_last], p.orders[on_last], count)
        # Around each customer's own whole mean, which is off by less than a minor unit: the squares stay small.
        centre = np.where(some, gross_sum // np.maximum(orders, 1), 0)
        deviation = p.gross // p.orders - centre[p.owner]
        mean = sum_by(p.owner, deviation * p.orders, count) / orders
        squares = _sum_of_squares(p.owner, deviation, p.orders, count)
        std = np.sqrt(np.maximum(squares / orders - mean * mean, 0.0)) / unit
    return [np.where(some, largest / unit, np.nan), np.where(some, last / unit, np.nan), np.where(some, std, np.nan)]


def _sum_of_squares(owner: Ints, values: Ints, weights: Ints, count: int) -> Floats:
    """Weighted sums of squares by owner. The halves of each value are squared as integers, exactly, and added up before
    any rounding: a sum of floats would depend on the order of its parts."""
    size = np.abs(values)
    high, low = size >> 22, size & (2**22 - 1)  # amounts are below 2^44, so each product is too
    parts = (high * high, high * low, low * low)
    squared = [sum_by(owner, part * weights, count).astype(np.float64) for part in parts]
    return squared[0] * 2.0**44 + squared[1] * 2.0**23 + squared[2]


def _gaps_and_btyd(
    p: Purchases,
    some: NDArray[np.bool_],
    first_day: Ints,
    last_day: Ints,
    as_of: Ints,
    gross_sum: Ints,
    net_sum: Ints,
    unit: float,
) -> list[Floats]:
    count = len(some)
    fresh = np.ones(len(p.owner), dtype=np.bool_)
    fresh[1:] = (p.owner[1:] != p.owner[:-1]) | (p.day[1:] != p.day[:-1])
    day_index = np.cumsum(fresh) - 1
    owner, day_ = p.owner[fresh], p.day[fresh]
    day_net = sum_by(day_index, p.net, len(owner))
    repeat = np.zeros(len(owner), dtype=np.bool_)
    repeat[1:] = owner[1:] == owner[:-1]
    gap = np.zeros(len(owner), dtype=np.int64)
    gap[1:] = day_[1:] - day_[:-1]
    gap_owner, gap = owner[repeat], gap[repeat]
    x = np.bincount(gap_owner, minlength=count).astype(np.float64)
    sums = sum_by(gap_owner, gap, count)
    squares = sum_by(gap_owner, gap * gap, count)
    litt = sum_by(gap_owner, _LOG_GAP[np.minimum(gap, len(_LOG_GAP) - 1)], count) / _LOG_UNIT
    last_gap = np.full(count, np.nan)
    last_gap[gap_owner] = gap  # sorted by day, so the last gap of each owner stays
    positive = day_net > 0
    paid_days = np.bincount(owner[positive], minlength=count).astype(np.float64)
    paid = sum_by(owner[positive], day_net[positive], count)
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = (x * squares - sums.astype(np.float64) ** 2) / (x * x)
        gap_std = np.where(x >= 2, np.sqrt(np.maximum(variance, 0.0)), np.nan)
        refund_share = np.where(gross_sum > 0, (gross_sum - net_sum) / gross_sum, 0.0)
        mean_paid = np.where(paid_days > 0, paid / paid_days / unit, np.nan)
    return [
        gap_std,
        np.where(x >= 1, last_gap, np.nan),
        np.where(some, refund_share, np.nan),
        np.where(some, x, np.nan),
        np.where(some, last_day - first_day, np.nan),
        np.where(some, as_of - first_day, np.nan),
        np.where(some, litt, np.nan),
        mean_paid,
        np.where(some, paid_days, np.nan),
    ]
