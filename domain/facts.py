"""The few facts behind a row of features: what can be exchanged between two customers without contradicting itself.

The columns of a row are many views of a few facts. Putting one customer's `recency_days` beside another's
`overdue_ratio` describes nobody, and what a model says of nobody explains nothing. So facts are exchanged, and each
column is computed anew from the mixed facts, the first eighteen by domain.features.engineer itself. Where the literal
mix cannot be (a last order before the first), it becomes the nearest that can: see `_possible`. What one of the two
customers cannot have (the regularity of gaps without two gaps) is taken from the other, so it makes no difference.
Pure; must never change the customer's own row, nor need a column that a what-if call does not have.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from domain.features import DAYS_PER_MONTH, ENGINEERED, FEATURE_NAMES, INPUT_NAMES, WINDOWS_DAYS, engineer
from domain.rfm_scores import Quintiles, rfm_cell, score_high_is_good

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Coordinates = dict[str, Floats]

TENURE, ORDERS, LAST_ORDER, PACE, RHYTHM = "tenure", "orders", "last_order", "pace", "rhythm"
ORDER_VALUE, ORDER_SPREAD, REFUNDS, AGE = "order_value", "order_spread", "refunds", "age"
OTHER = "other"
TIMING, MONEY, PERSON, REST = "timing", "money", "person", "rest"

_PACE = tuple(f"pace_{days}d" for days in WINDOWS_DAYS)
_WINDOW_VALUE = tuple(f"window_value_{days}d" for days in WINDOWS_DAYS)
_COORDINATES: Mapping[str, tuple[str, ...]] = {
    TENURE: ("T",),
    ORDERS: ("n", "x", "rate_ratio", "score_shift"),
    LAST_ORDER: ("r",),
    PACE: (*_PACE, *_WINDOW_VALUE),
    RHYTHM: ("gap_cv", "last_gap_ratio", "log_gap_loss"),
    ORDER_VALUE: ("aov",),
    ORDER_SPREAD: ("largest_ratio", "last_ratio", "value_cv"),
    REFUNDS: ("refunded", "paid_days_share", "paid_value_ratio"),
    AGE: ("age",),
}
"""What is exchanged with each fact: T, r in days, n orders, x repeat days, aov in currency; the rest are ratios."""

UNIONS: Mapping[str, tuple[str, ...]] = {
    TIMING: (TENURE, ORDERS, LAST_ORDER, PACE, RHYTHM),
    MONEY: (ORDER_VALUE, ORDER_SPREAD, REFUNDS),
    PERSON: (AGE,),
}
"""Facts that speak of the same thing, as the a-priori unions of Owen (1977)."""

_AT = {name: place for place, name in enumerate(FEATURE_NAMES)}
_EXTRAS_FROM = len(ENGINEERED)
_RATIO_DECIMALS = 12
"""Ratios are rounded, so that equal facts are equal although their columns were divided in another order."""
_DECILES, _REFERENCE_CUSTOMERS_MIN = 10, 5
_ANY_QUINTILES = Quintiles((0.0,) * 4, (0.0,) * 4, (0.0,) * 4)


def _extras() -> tuple[str, ...]:
    windows = (*(f"orders_{days}d" for days in WINDOWS_DAYS), *(f"net_spend_{days}d" for days in WINDOWS_DAYS))
    values = ("largest_order_value", "last_order_value", "order_value_std")
    gaps = ("gap_std_days", "last_gap_days", "refund_share")
    return (*windows, *values, *gaps, "btyd_x", "btyd_t_x", "btyd_T", "btyd_litt", "btyd_m", "btyd_m_days")


EXTRAS_UNDERSTOOD = _extras()
"""Columns beside the engineered ones that are computed from the facts."""
CONTEXT = tuple(name for name in ("as_of_year_day",) if name in _AT)
"""Columns that tell of the day and not of the customer: typical customers are described as of the same day."""
LITERAL = tuple(name for name in FEATURE_NAMES[_EXTRAS_FROM:] if name not in (*EXTRAS_UNDERSTOOD, *CONTEXT))
"""Columns that no fact claims yet: together one more fact, OTHER, exchanged as they are."""


def unions() -> dict[str, tuple[str, ...]]:
    """UNIONS, with OTHER where the features have columns that no fact claims."""
    return {**UNIONS, **({REST: (OTHER,)} if LITERAL else {})}


FACT_NAMES = tuple(fact for union in unions().values() for fact in union)
"""The facts in the order in which the columns of a coalition name them."""


class Mixed(NamedTuple):
    """The customers that arise when coalitions of facts are the customer's and the others a reference's."""

    rows: Floats
    """(u, features): each different one once; the first is the customer's own row, unchanged."""
    place: Ints
    """(coalitions, references): which of `rows` each pair is."""


def mix(row: Floats, references: Floats, coalitions: Bools, quintiles: Quintiles) -> Mixed:
    """The customer of each coalition against each reference.

    row: (features,), NaN is unknown. references: (R, features). coalitions: (m, len(FACT_NAMES)), True for a fact that
    is the customer's. A coalition of all facts in which the two differ is the customer's own row. For a row of a
    what-if call, which has no streaming extras, the references are described without them too. CONTEXT is the
    customer's throughout.
    """
    own = row[np.newaxis]
    what_if = bool(np.isnan(row[_AT["btyd_T"]]) and not np.isnan(row[_AT["customer_lifetime_days"]]))
    if what_if:
        references = without_extras(references)
    mine, theirs = _shared(coordinates(own), coordinates(references), len(references))
    # A what-if call gives this score itself, and may give another than that of its orders.
    shift = own[:, _AT["frequency_score"]] - score_high_is_good(own[:, _AT["frequency"]], quintiles.frequency)
    mine["score_shift"], theirs["score_shift"] = np.repeat(_or(shift, 0.0), len(references)), np.zeros(len(references))
    differs = _differs(mine, theirs, row, references)  # (R, facts)
    bits = 1 << np.arange(len(FACT_NAMES), dtype=np.int64)
    code = (coalitions[:, np.newaxis, :] & differs) @ bits  # (m, R)
    full = differs @ bits
    pair = np.where(code == full, -1, code * len(references) + np.arange(len(references)))
    distinct, place = np.unique(np.append(pair, -1), return_inverse=True)  # -1, the own row, comes first
    made = distinct[1:]
    who, taken = made % len(references), (made // len(references))[:, np.newaxis] & bits != 0
    mixed = {
        name: np.where(taken[:, FACT_NAMES.index(fact)], mine[name][who], theirs[name][who])
        for fact, names in _COORDINATES.items()
        for name in names
    }
    rows = columns(mixed, quintiles)
    # What no exchange has touched stays as it came, to the last bit: computing it anew may round otherwise.
    untouched = ~_unlike(rows, columns(mine, quintiles)[who])
    rows = np.where(untouched, row, rows)
    for name in CONTEXT:
        rows[:, _AT[name]] = np.where(np.isnan(rows[:, _AT["frequency"]]), np.nan, row[_AT[name]])
    if LITERAL:
        at = [_AT[name] for name in LITERAL]
        rows[:, at] = np.where(taken[:, [FACT_NAMES.index(OTHER)]], row[at], references[who][:, at])
    if what_if:
        rows[:, _EXTRAS_FROM:] = np.where(np.isnan(row[_EXTRAS_FROM:]), np.nan, rows[:, _EXTRAS_FROM:])
    return Mixed(np.concatenate([own, rows]), place[:-1].reshape(code.shape))


def without_extras(rows: Floats) -> Floats:
    """The rows as a what-if call would describe them: nothing beyond the engineered features, refunds unknown."""
    rows = rows.copy()
    rows[:, _EXTRAS_FROM:] = np.nan
    rows[:, _AT["monetary"]] = rows[:, _AT["total_spending"]]
    return rows


def _shared(mine: Coordinates, theirs: Coordinates, count: int) -> tuple[Coordinates, Coordinates]:
    """Both sides, (count,) each; what only one of them has, both have. An unknown age is a fact of its own."""
    mine = {name: np.broadcast_to(values, count) for name, values in mine.items()}
    filled = {name: np.where(np.isnan(values), theirs[name], values) for name, values in mine.items() if name != "age"}
    theirs_filled = {name: np.where(np.isnan(theirs[name]), values, theirs[name]) for name, values in filled.items()}
    return {**mine, **filled}, {**theirs, **theirs_filled}


def _differs(mine: Coordinates, theirs: Coordinates, row: Floats, references: Floats) -> Bools:
    """Whether each reference differs in each fact, (R, facts)."""
    found = [np.any([_unlike(mine[name], theirs[name]) for name in names], axis=0) for names in _COORDINATES.values()]
    if LITERAL:
        at = [_AT[name] for name in LITERAL]
        found.append(np.any(_unlike(row[at], references[:, at]), axis=1))
    return np.column_stack(found)


def _unlike(one: Floats, other: Floats) -> Bools:
    return np.asarray((one != other) & ~(np.isnan(one) & np.isnan(other)), dtype=np.bool_)


# ---------------------------------------------------------------- the customers to compare with


def reference_rows(features: Floats, values: Floats) -> Floats:
    """Typical customers of a population, (at most 10, features): the background of explanations, for a bundle to keep.

    features: (n, features) of the training population; values: (n,) what the model expects of each. One row a decile of
    the values, made of the median of each fact over at least 5 customers (fewer, if there are fewer), so that no row is
    anybody's. Between them they stand for everybody: their mean prediction is about the population's.
    The same rows in any order give the same. Raises ValueError without a customer.
    """
    if len(features) == 0 or len(features) != len(values):
        raise ValueError(f"{len(features)} customers and {len(values)} values: there must be as many, and one at least")
    bins = max(1, min(_DECILES, len(features) // _REFERENCE_CUSTOMERS_MIN))
    order = np.lexsort((*_or(features, -1.0).T, values))
    return np.concatenate([_typical(features[part]) for part in np.array_split(order, bins)])


def _typical(rows: Floats) -> Floats:
    facts = {name: np.array([_median(values, name)]) for name, values in coordinates(rows).items()}
    facts |= {name: np.rint(facts[name]) for name in ("T", "r", "n", "x", "age")}
    found = columns(facts, _ANY_QUINTILES)
    names = ("recency_score", "frequency_score", "monetary_score")
    scores = [np.rint(np.array([_median(rows[:, _AT[name]], name)])) for name in names]
    for name, score in zip(names, scores, strict=True):
        found[:, _AT[name]] = score
    found[:, _AT["rfm_score"]] = rfm_cell(*scores)
    for name in (*LITERAL, *CONTEXT):
        found[:, _AT[name]] = _median(rows[:, _AT[name]], name)
    return found


def of_medians(medians: Floats) -> Floats:
    """A customer, (1, features), with the simple facts of a row that is nobody: the median of each column on its own.

    For a bundle that keeps no reference_rows(). Ratios of medians mean nothing: its pace is even, its orders are alike.
    """
    found = coordinates(medians[np.newaxis])
    whole, kept = ("T", "r", "n", "x", "age"), ("aov", "refunded")
    nan = np.full(1, np.nan)
    simple = {name: found[name] if name in kept else nan for name in found}
    return columns(simple | {name: np.rint(found[name]) for name in whole}, _ANY_QUINTILES)


def _median(values: Floats, name: str) -> float:
    """Over those who have such a thing; an age that most do not tell is unknown."""
    there = values[~np.isnan(values)]
    if len(there) == 0 or (name == "age" and 2 * len(there) < len(values)):
        return np.nan
    return float(np.median(there))


# ---------------------------------------------------------------- from columns to coordinates


def coordinates(rows: Floats) -> Coordinates:
    """The facts of each row, by name of the coordinate, (n,) each; NaN where a customer has no such thing."""
    c = {name: rows[:, place] for name, place in _AT.items()}
    n, tenure, recency = c["frequency"] + 1.0, c["customer_lifetime_days"], c["recency_days"]
    n = np.where(np.isnan(n), 0.0, n)
    most = np.where(n > 0, np.minimum(n - 1.0, np.floor(tenure - recency)), np.nan)
    x = np.where(np.isnan(c["btyd_x"]), most, c["btyd_x"])
    with np.errstate(all="ignore"):
        share = c["refund_share"]
        net = c["total_spending"] * (1.0 - np.where(np.isnan(share), 0.0, share))
        found = {
            "T": tenure,
            "r": recency,
            "n": n,
            "x": x,
            "rate_ratio": _ratio(c["orders_per_month"], _per_month(n, tenure)),
            "aov": c["average_order_value"],
            "refunded": share,
            "age": c["customer_age"],
            "paid_days_share": _ratio(c["btyd_m_days"], x + 1.0),
            "paid_value_ratio": _ratio(c["btyd_m"] * c["btyd_m_days"], np.where(net > 0, net, np.nan)),
        }
        some = (n >= 2) & (c["average_order_value"] > 0)
        for name, column in (("largest", "largest_order_value"), ("last", "last_order_value")):
            found[f"{name}_ratio"] = np.where(some, _ratio(c[column], c["average_order_value"]), np.nan)
        found["value_cv"] = np.where(some, _ratio(c["order_value_std"], c["average_order_value"]), np.nan)
        gap = np.where(x >= 2, (tenure - recency) / x, np.nan)
        found["gap_cv"] = _ratio(c["gap_std_days"], gap)
        found["last_gap_ratio"] = _ratio(c["last_gap_days"], gap)
        found["log_gap_loss"] = np.round(np.log(gap) - c["btyd_litt"] / x, _RATIO_DECIMALS)
        found |= _window_coordinates(c, n, tenure, recency, net)
    found["score_shift"] = np.zeros(len(rows))
    return found


def _ratio(part: Floats, whole: Floats) -> Floats:
    ratio = np.round(part / whole, _RATIO_DECIMALS)
    return np.where(np.isinf(ratio), np.nan, ratio)


def _per_month(n: Floats, tenure: Floats) -> Floats:
    return n * DAYS_PER_MONTH / np.maximum(tenure, DAYS_PER_MONTH)


def _window_coordinates(
    c: Mapping[str, Floats], n: Floats, tenure: Floats, recency: Floats, net: Floats
) -> Coordinates:
    """How the orders between the first and the last crowd towards the end, and what those in the window were worth.

    Of the orders between, a share (share of the time between)^pace is in the window: 1 is an even pace, below 1 a
    quickening one. A window tells it only if it begins between the first and the last order.
    """
    found = {}
    for days, pace, value in zip(WINDOWS_DAYS, _PACE, _WINDOW_VALUE, strict=True):
        inside = c[f"orders_{days}d"]
        tells = (recency < days) & (days <= tenure)
        log_time = np.where(tells & (n >= 3), np.log(_share_of_time(days, tenure, recency)), np.nan)
        found[pace] = np.round(np.log(np.clip((inside - 1.0) / (n - 2.0), 0.0, 1.0)) / log_time, _RATIO_DECIMALS)
        mean = np.where(tells & (inside > 0) & (net > 0), net / n, np.nan)
        found[value] = _ratio(c[f"net_spend_{days}d"] / inside, mean)
    return found


def _share_of_time(days: int, tenure: Floats, recency: Floats) -> Floats:
    """Of the days from the first to the last order, both included, those in the window; below 1 if the first is not."""
    return (days - recency) / (tenure - recency + 1.0)


# ---------------------------------------------------------------- from coordinates to columns


def columns(coordinates: Coordinates, quintiles: Quintiles) -> Floats:
    """Rows of features, (n, features), of customers with these facts; LITERAL and CONTEXT columns are NaN.

    Without an order nothing is known but the age, as domain.features has it.
    """
    given = coordinates
    n, tenure, recency, x = _possible(given["n"], given["T"], given["r"], given["x"])
    aov, refunded = given["aov"], _or(given["refunded"], 0.0)
    score = np.clip(score_high_is_good(n - 1.0, quintiles.frequency) + _or(given["score_shift"], 0.0), 1.0, 5.0)
    with np.errstate(all="ignore"):
        per_month = _per_month(n, tenure) * _or(given["rate_ratio"], 1.0)
        inputs = {
            "customer_age": given["age"],
            "purchase_frequency": per_month,
            "average_order_value": aov,
            "total_orders": n,
            "customer_lifetime_days": tenure,
            "days_since_last_purchase": recency,
            "frequency_score": score,
        }
        net = n * aov * (1.0 - refunded)
        engineered = engineer(np.column_stack([inputs[name] for name in INPUT_NAMES]), quintiles, net)
        c = {
            **_windows(given, n, tenure, recency, net),
            **_order_values(given, n, aov),
            **_gaps(given, x, tenure - recency),
            **_paid(given, x, net),
            "refund_share": refunded,
            "btyd_x": x,
            "btyd_t_x": tenure - recency,
            "btyd_T": tenure,
        }
    nan = np.full(len(n), np.nan)
    rows = np.column_stack([engineered, *(c.get(name, nan) for name in FEATURE_NAMES[_EXTRAS_FROM:])])
    rows[np.isnan(n)] = np.nan
    rows[:, _AT["customer_age"]] = given["age"]
    return rows


def _or(values: Floats, default: float) -> Floats:
    return np.where(np.isnan(values), default, values)


def _possible(n: Floats, tenure: Floats, recency: Floats, x: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """The nearest that can be: a repeat day for a repeat order at most, each on a day of its own since the first, the
    last as long ago as it was or as the others leave room for; without a repeat day the last is the first."""
    n = np.where(n > 0, n, np.nan)
    tenure = np.maximum(tenure, 0.0)
    x = np.minimum(np.minimum(x, n - 1.0), np.floor(tenure))
    recency = np.where(x > 0, np.clip(recency, 0.0, np.maximum(tenure - x, 0.0)), tenure)
    return n, tenure, recency, x


def _windows(given: Coordinates, n: Floats, tenure: Floats, recency: Floats, net: Floats) -> Coordinates:
    counts, nets = {}, {}
    fewest = np.zeros(len(n))
    for days, pace, value in zip(WINDOWS_DAYS, _PACE, _WINDOW_VALUE, strict=True):
        between = np.clip(_share_of_time(days, tenure, recency), 0.0, 1.0) ** _or(given[pace], 1.0)
        count = 1.0 + np.rint((n - 2.0) * between)
        count = np.where(tenure < days, n, np.where(recency < days, count, 0.0))
        fewest = np.maximum(count, fewest)  # a longer window has no fewer orders
        counts[f"orders_{days}d"] = fewest
        nets[f"net_spend_{days}d"] = np.where(tenure < days, net, fewest * (net / n) * _or(given[value], 1.0))
    return counts | nets


def _order_values(given: Coordinates, n: Floats, aov: Floats) -> Coordinates:
    several = n >= 2
    largest = np.where(several, np.clip(_or(given["largest_ratio"], 1.0), 1.0, n), 1.0)
    last = np.where(several, np.clip(_or(given["last_ratio"], 1.0), 0.0, largest), 1.0)
    spread = np.where(several, np.clip(_or(given["value_cv"], 0.0), 0.0, np.sqrt(np.maximum(n - 1.0, 0.0))), 0.0)
    return {"largest_order_value": largest * aov, "last_order_value": last * aov, "order_value_std": spread * aov}


def _gaps(given: Coordinates, x: Floats, span: Floats) -> Coordinates:
    gap = span / x
    even = x < 2  # a single gap is as regular as can be
    spread = np.clip(_or(given["gap_cv"], 0.0), 0.0, np.sqrt(np.maximum(x - 1.0, 0.0)))
    last = np.where(even, gap, np.clip(_or(given["last_gap_ratio"], 1.0) * gap, 1.0, np.maximum(span - x + 1.0, 1.0)))
    loss = np.where(even, 0.0, np.maximum(_or(given["log_gap_loss"], 0.0), 0.0))
    return {
        "gap_std_days": np.where(even, np.nan, spread * gap),
        "last_gap_days": np.where(x >= 1, last, np.nan),
        "btyd_litt": np.where(x >= 1, np.maximum(x * (np.log(gap) - loss), 0.0), 0.0),
    }


def _paid(given: Coordinates, x: Floats, net: Floats) -> Coordinates:
    days = np.rint(np.clip(_or(given["paid_days_share"], 1.0), 0.0, 1.0) * (x + 1.0))
    mean = np.where((days > 0) & (net > 0), _or(given["paid_value_ratio"], 1.0) * net / days, np.nan)
    return {"btyd_m": mean, "btyd_m_days": days}
