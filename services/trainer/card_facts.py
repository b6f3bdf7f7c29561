"""What the training data holds, what it lacks, and so what the model cannot know: sentences for a model card, each from
a number. It must never say what the data at hand does not show, nor name a customer."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domain.features import FEATURE_NAMES, INPUT_NAMES, date_of
from schemas.dead_letters import Reason
from services.trainer.evaluation import MODEL
from services.trainer.history import TrainingSet
from services.trainer.quality import DECILE_BAND, HEADINGS, SURE, UNDECIDED, WORSE, is_honest

Floats = NDArray[np.float64]

YEAR_DAYS = 365.25
MONTH_DAYS = 30
FEW_REPEAT_BUYERS, FEW_CUSTOMERS = 500, 1_000
QUIET_DAYS_MIN, QUIET_GAPS = 14, 20
"""A silence before the cutoff of more days is told, if it is so many times the shop's mean gap between orders too."""
SURE_MIN, SURE_BAND = 200, (0.07, 0.13)
"""Fewest customers who are sure to order among whom the share below value_p10 says anything, and what is honest."""


def data_facts(
    known: TrainingSet, first_day: int, events: int, rejected: Mapping[Reason, int], duplicates: int = 0
) -> dict[str, Any]:
    """Field `data` of metadata.json. known: the customers as of the cutoff; first_day: of the history, days since 1970.

    rejected: refused rows before the cutoff by reason; duplicates: rows that repeat an event. Raises ValueError
    without customers.
    """
    if not len(known):
        raise ValueError("no customers")
    refused = sum(rejected.values())
    read = events + refused + duplicates
    missing = np.isnan(known.features).mean(axis=0).tolist()
    lifetime, recency = _column(known, "customer_lifetime_days"), _column(known, "recency_days")
    period = known.origin_day - first_day
    gross = _column(known, "total_spending")
    spent = float(np.nansum(gross))
    refunded = float(np.nansum(gross * _column(known, "refund_share")))
    return {
        "first_day": date_of(first_day).isoformat(),
        "cutoff": date_of(known.origin_day).isoformat(),
        "period_days": period,
        "rows_read": read,
        "events": events,
        "refused": refused,
        "duplicates": duplicates,
        "usable_share": _round((events + duplicates) / read),
        "customers": len(known),
        "orders": int(np.nansum(known.inputs[:, INPUT_NAMES.index("total_orders")])),
        "repeat_buyers": int((_column(known, "frequency") >= 1).sum()),
        "refunded_share": _round(refunded / spent) if spent > 0 else 0.0,
        "newest_customer_days": _whole(np.nanmin(lifetime)) if np.isfinite(lifetime).any() else None,
        "quiet_days": _whole(np.nanmin(recency)) if np.isfinite(recency).any() else None,
        "first_month_share": _round(float(np.mean(lifetime >= period - MONTH_DAYS))),
        "silent_year_share": _round(float(np.mean(recency >= YEAR_DAYS))),
        "top_percent_share": _top_share(_column(known, "monetary")),
        "cells": int(known.features.size),
        "cells_missing": int(np.isnan(known.features).sum()),
        "missing_shares": {
            name: _round(share) for name, share in zip(FEATURE_NAMES, missing, strict=True) if share > 0
        },
    }


def _column(known: TrainingSet, name: str) -> Floats:
    return known.features[:, FEATURE_NAMES.index(name)]


def _round(share: float) -> float:
    return round(share, 6)


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _whole(days: float) -> int:
    return int(days)


def _top_share(spent: Floats) -> float | None:
    """Share of all net spend that the top hundredth of the customers brought."""
    values = np.sort(np.maximum(np.nan_to_num(spent), 0.0))[::-1]
    total = float(values.sum())
    return _round(float(values[: max(1, len(values) // 100)].sum()) / total) if total > 0 else None


def limits(
    data: Mapping[str, Any],
    rejected: Mapping[Reason, int],
    backtests: Sequence[Mapping[str, Any]],
    horizon_days: int,
    currency: str,
) -> list[str]:
    """Field `limits` of metadata.json: what the data cannot say, and where the model fell short of its own measure.

    data: data_facts(). rejected: by reason, as in counts. backtests: quality()'s, by rising origin.
    """
    return [
        *_of_the_history(data, horizon_days),
        *_of_the_customers(data),
        *_of_the_money(data, rejected, currency),
        *_of_the_tests(backtests, horizon_days),
    ]


def quiet_end(data: Mapping[str, Any]) -> str | None:
    """That the data ends long before the cutoff, if it does. data: data_facts(), of an older trainer too."""
    quiet, orders = data.get("quiet_days") or 0, data.get("orders") or 0
    if not orders or quiet <= max(QUIET_DAYS_MIN, QUIET_GAPS * data["period_days"] / orders):
        return None
    return (
        f"The last order is {quiet:,} days before the cutoff. Either the shop had no orders since, or the data ends "
        "earlier than the cutoff: then everybody looks as if they had left, and the cutoff should be the day after the "
        "last complete day of the data."
    )


def gone(missing: int) -> list[str]:
    """What is to be said if Kafka deleted so many records of `orders` before anybody read them; one line or none."""
    if not missing:
        return []
    return [
        f"{_count(missing, 'record')} of the stream had been deleted before anything folded them: orders in them are "
        "missing, and those customers look poorer, or younger, than they are. Nothing but the shop's own orders, sent "
        "again or as a file, can bring them back."
    ]


def _of_the_history(data: Mapping[str, Any], horizon_days: int) -> Iterator[str]:
    period = data["period_days"]
    quiet = quiet_end(data)
    if quiet is not None:
        yield quiet
    if period < YEAR_DAYS:
        yield (
            f"The history is {_count(period, 'day')} long: not one whole year. No season was seen from end to end, and "
            "what looks like growth or decline may be a season."
        )
    elif period < 2 * YEAR_DAYS:
        yield (
            f"The history is {period} days long: no season was seen twice. What came back each year and what "
            "happened once cannot be told apart."
        )
    if horizon_days > period:
        yield (
            f"The model looks {_count(horizon_days, 'day')} ahead, further than the {_count(period, 'day')} that it "
            "learnt from."
        )
    newest = data["newest_customer_days"]
    if newest is not None and newest > max(60, period / 10):
        yield (
            f"No customer is new: the last first order is {newest} days before the cutoff. How new customers behave "
            "in their first weeks cannot have been learnt for today's season."
        )
    share, even = data["first_month_share"], MONTH_DAYS / max(period, MONTH_DAYS)
    if period > 3 * MONTH_DAYS and share > 2 * even:
        yield (
            f"{share:.0%} of the customers have their first known order in the first {MONTH_DAYS} days of the data. "
            "Either the shop began then, or these are older customers whose earlier orders are missing: their time as "
            "a customer and their number of orders are then too low."
        )


def _of_the_customers(data: Mapping[str, Any]) -> Iterator[str]:
    customers, repeat = data["customers"], data["repeat_buyers"]
    if customers < FEW_CUSTOMERS:
        yield f"There are only {_count(customers, 'customer')}: every figure is uncertain, as its interval says."
    if repeat < FEW_REPEAT_BUYERS or repeat < 0.1 * customers:
        yield (
            f"Only {repeat:,} of {_count(customers, 'customer')} ({repeat / customers:.1%}) ever ordered again: how "
            "long customers stay rests on them alone."
        )
    yield (
        "Everybody with an order before the cutoff is counted, however long ago"
        + (f" ({data['silent_year_share']:.0%} were silent for a year or more)" if data["silent_year_share"] else "")
        + ": nobody was left out for having left. Customers who first order after the cutoff are not predicted, so "
        "the total is that of the present customers, not of the shop."
    )
    if customers >= FEW_CUSTOMERS and (data["top_percent_share"] or 0) > 0.1:
        yield (
            f"The top 1% of customers brought {data['top_percent_share']:.0%} of the value so far: RMSE, and totals "
            "of small groups, hang on a few of them."
        )
    if data["missing_shares"].get("customer_age") == 1.0:
        yield "Nobody's age is known: it plays no part."


def _of_the_money(data: Mapping[str, Any], rejected: Mapping[Reason, int], currency: str) -> Iterator[str]:
    other = rejected.get(Reason.UNKNOWN_CURRENCY, 0)
    yield f"All money is in {currency}" + (
        f"; {other:,} rows in another or an unknown currency were refused, and those customers look poorer than they "
        "are." if other else "."
    )  # fmt: skip
    share = data["refunded_share"]
    if share == 0:
        yield "The data has no refund: if there are some elsewhere, values are too high by them."
    else:
        yield (
            f"{share:.1%} of the spend was refunded. A refund that comes after a period's end is not in that period's "
            "value: the latest orders look a little better than they will turn out."
        )


def _of_the_tests(backtests: Sequence[Mapping[str, Any]], horizon_days: int) -> Iterator[str]:
    if not backtests:
        yield "There was too little history to hold a later period out: the model's quality is unknown."
        return
    longest = max(each["days"] for each in backtests)
    if longest < horizon_days:
        yield (
            f"The horizon of {horizon_days} days was never tested in full: the longest period that could be held out "
            f"has {longest} days."
        )
    if len(backtests) == 1:
        yield "There was room for one held-out period only: how quality varies over the year is unknown."
    latest = backtests[-1]
    biases = [each["metrics"][MODEL]["bias"] for each in backtests]
    if any(each is not None and abs(each) > 0.05 for each in biases):
        said = ", ".join("unknown" if each is None else f"{each:+.0%}" for each in biases)
        yield f"Totals were off by {said} in the held-out periods (oldest first): a total may be as far off again."
    yield from _of_the_intervals(latest)
    for name, differences in latest["differences"].items():
        worse = [HEADINGS[figure] for figure, found in differences.items() if found["verdict"] == WORSE]
        if worse:
            yield f"In the latest held-out period {name} was certainly better than the model in: {', '.join(worse)}."
    open_ = sum(found["verdict"] == UNDECIDED for each in latest["differences"].values() for found in each.values())
    if open_:
        yield f"{open_} of the comparisons with baselines in the latest held-out period are undecided."


def _of_the_intervals(latest: Mapping[str, Any]) -> Iterator[str]:
    above = latest["metrics"][MODEL]["share_above_p90"]
    if above is not None and not is_honest(above):
        yield f"value_p90 was exceeded by {above:.1%} of the customers, not by about 10%."
    low, high = DECILE_BAND
    out = [row for row in latest["deciles"] if not low <= row["share_above_p90"] <= high]
    if out:
        certain = sum(row["above_interval"][0] > high or row["above_interval"][1] < low for row in out)
        yield (
            f"In {_count(len(out), 'decile')} of prediction ({', '.join(str(row['band']) for row in out)}; 1 = lowest) "
            f"the share above value_p90 was outside of {low:.0%} to {high:.0%}, in {certain or 'none'} of them beyond "
            "chance."
        )
    sure = latest["sure"]
    if sure["customers"] < SURE_MIN:
        few = f"Only {sure['customers']:,}" if sure["customers"] else "None"
        yield (
            f"{few} of the customers of the latest held-out period were at least {SURE:.0%} "
            "likely to order: whether value_p10 is honest where it is not simply 0 is hardly known."
        )
    elif not SURE_BAND[0] <= sure["share_below_p10"] <= SURE_BAND[1]:
        yield (
            f"Of {sure['customers']:,} customers who were at least {SURE:.0%} likely to order, "
            f"{sure['share_below_p10']:.1%} fell below value_p10, not about 10%."
        )
