"""Predictions against what came: when a prediction's time is over, and what its customer then had done.

Pure. Must never count as an outcome what the prediction knew, and never compare before all of the window is known.
Windows and outcomes are those of domain.outcomes, which training uses too.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Any

from domain.customer import DAY_MS, CustomerState, union
from domain.features import date_of, day_of
from domain.outcomes import outcomes, window
from schemas.currencies import minor_per_major
from schemas.customer_rows import Row
from schemas.mongo import MaturedDocument

WEEK_DAYS = 7
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_RECENCY = "days_since_last_purchase"
_FIGURES = ("expected_value", "expected_orders", "p_active", "value_p10", "value_p50", "value_p90")

PENDING_FIELDS = {
    "customer_id": 1,
    "feature_version": 1,
    "as_of": 1,
    f"inputs.{_RECENCY}": 1,
    **{
        f"prediction.{name}": 1 for name in (*_FIGURES, "historical_value", "horizon_days", "currency", "model_version")
    },
}
"""What is read of a document of PREDICTION_HISTORY to compare it."""

Pending = Mapping[str, Any]
"""A document of PREDICTION_HISTORY with PENDING_FIELDS."""
Turn = tuple[str, str, int]
"""Customer, model and week: one prediction of each is compared."""


def knew_the_day(inputs: Mapping[str, float | None]) -> bool:
    """Whether the features hold an order of the very day that they are as of."""
    return inputs.get(_RECENCY) == 0


@lru_cache(maxsize=4096)
def due_on(as_of: str, horizon_days: int, knew_day: bool) -> str | None:
    """The day (UTC date) from which on the prediction's window is over; None for a date that no calendar has."""
    try:
        _, end = window(day_of(date.fromisoformat(as_of)), horizon_days, knew_the_day=knew_day)
        return date_of(end).isoformat()
    except (ValueError, OverflowError):
        return None


def over_until(clock_ms: int, grace_days: int) -> str | None:
    """The latest due_on that may be compared when time has come so far; None if none may."""
    try:
        return (_EPOCH + timedelta(milliseconds=clock_ms) - timedelta(days=grace_days)).date().isoformat()
    except OverflowError:
        return None


def turn_of(pending: Pending) -> Turn:
    """What the prediction stands for. Raises ValueError for a date that no calendar has."""
    week = day_of(date.fromisoformat(pending["as_of"])) // WEEK_DAYS
    return pending["customer_id"], pending["prediction"]["model_version"], week


def firsts(found: Iterable[Pending], taken: Iterable[Turn]) -> list[Pending]:
    """The first of each turn that is not taken yet."""
    seen = set(taken)
    chosen = []
    for each in found:
        turn = turn_of(each)
        if turn not in seen:
            seen.add(turn)
            chosen.append(each)
    return chosen


def compared(chosen: Sequence[Pending], rows: Mapping[str, Row], now: datetime) -> list[MaturedDocument]:
    """What became of each prediction, by customers' rows that know all of its window. now: UTC, becomes compared_at.

    A prediction without a row (the customer was erased meanwhile) or with figures that are none is left out.
    """
    usable = [each for each in chosen if each["customer_id"] in rows and _is_sound(each)]
    windows = [
        window(
            day_of(date.fromisoformat(each["as_of"])),
            each["prediction"]["horizon_days"],
            knew_the_day=knew_the_day(each["inputs"]),
        )
        for each in usable
    ]
    states = [_state(rows[each["customer_id"]], each["as_of"]) for each in usable]
    found = outcomes(states, [begin for begin, _ in windows], [end for _, end in windows])
    return [
        _matured(each, begin, end, orders, minor, now)
        for each, (begin, end), orders, minor in zip(
            usable, windows, found.orders.tolist(), found.minor.tolist(), strict=True
        )
    ]


def _is_sound(pending: Pending) -> bool:
    figures = [pending["prediction"][name] for name in _FIGURES]
    try:
        minor_per_major(pending["prediction"]["currency"])
    except ValueError:
        return False
    return all(isinstance(each, int | float) and math.isfinite(each) for each in figures)


def _state(row: Row, as_of: str) -> CustomerState:
    """What the customer did, with those who had been merged into the customer by the day of the prediction.

    Who was merged later was another customer then, with a prediction of its own.
    """
    if row.links is None or not row.links.parts:
        return row.state
    until_ms = (day_of(date.fromisoformat(as_of)) + 1) * DAY_MS
    return union([row.state, *(part.state for part in row.links.parts.values() if part.merged_at_ms < until_ms)])


def _matured(pending: Pending, begin: int, end: int, orders: int, minor: int, now: datetime) -> MaturedDocument:
    prediction = pending["prediction"]
    customer_id, model_version, week = turn_of(pending)
    return {
        "_id": pending["_id"],
        "customer_id": customer_id,
        "model_version": model_version,
        "feature_version": pending["feature_version"],
        "as_of": pending["as_of"],
        "week": week,
        "horizon_days": prediction["horizon_days"],
        "window_from": date_of(begin).isoformat(),
        "window_until": date_of(end).isoformat(),
        "currency": prediction["currency"],
        "expected_value": float(prediction["expected_value"]),
        "expected_orders": float(prediction["expected_orders"]),
        "p_active": float(prediction["p_active"]),
        "value_p10": float(prediction["value_p10"]),
        "value_p50": float(prediction["value_p50"]),
        "value_p90": float(prediction["value_p90"]),
        "historical_value": prediction["historical_value"],
        "realised_value": minor / minor_per_major(prediction["currency"]),
        "realised_orders": orders,
        "compared_at": now,
    }
