"""Two models beside each other: their measured quality, what they say of the same customers, and what came true.

For the command and the API. Reads MongoDB alone, through a database that it is given. The numbers about pairs are a
pure function of the pairs (`differences`). Must never compare two predictions that were made from different features.
"""

from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from domain.metrics import spearman
from schemas.models import Model
from schemas.mongo import CHALLENGER_PREDICTIONS, MATURED_PREDICTIONS, PREDICTION_HISTORY, realised_pipeline
from schemas.predictions import prediction_id

Floats = NDArray[np.float64]

CUSTOMERS_MAX = 1_000_000
_AT_ONCE = 2000
_SINCE = datetime(1970, 1, 1, tzinfo=UTC)
FIGURES = {
    "mae": "MAE",
    "rmse": "RMSE",
    "spearman": "Spearman",
    "ngini": "nGini",
    "bias": "bias",
    "auc_active": "AUC active",
    "coverage_p10_p90": "p10–p90 covers",
    "share_above_p90": "above p90",
}
"""Quality on the period that training had not seen, as in the bundle's metadata."""


class Differences(NamedTuple):
    """How what two models say of the same customers differs; money in major units."""

    customers: int
    total_first: float
    total_second: float
    rank_correlation: float
    """Spearman's, of expected_value; NaN if one of them says the same of all."""
    mean_difference: float
    """Mean of |second − first|."""
    segment_differs: float
    """Share of the customers whose quarter differs, each model's quarters being those of these very customers."""
    active_difference: float
    """Mean of |second − first| of p_active."""


def differences(first: Floats, second: Floats, active_first: Floats, active_second: Floats) -> Differences | None:
    """expected_value and p_active of n customers by two models, each (n,). None for no customers.

    Quarters, not the stored segments: those of a champion follow the live population, those of a challenger its
    bundle's, and would differ for that alone.
    """
    if not len(first):
        return None
    return Differences(
        customers=len(first),
        total_first=float(first.sum()),
        total_second=float(second.sum()),
        rank_correlation=spearman(first, second) if len(first) > 1 else float("nan"),
        mean_difference=float(np.abs(second - first).mean()),
        segment_differs=float(np.mean(_quarter(first) != _quarter(second))),
        active_difference=float(np.abs(active_second - active_first).mean()),
    )


def _quarter(values: Floats) -> NDArray[np.int64]:
    return np.searchsorted(np.quantile(values, [0.25, 0.5, 0.75]), values, side="right")


class Comparison(NamedTuple):
    """Everything that is known of two models."""

    first: Model
    second: Model
    on_same_customers: Differences | None
    """None if neither was on trial while the other was champion."""
    realised: dict[str, dict[str, float]]
    """By version, for models whose predictions have matured: see `realised_figures`."""


async def compare(database: Any, first: Model, second: Model) -> Comparison:
    """Compare two models. database: Motor's."""
    columns = await _columns(database, first.version, second.version, CUSTOMERS_MAX)
    if not columns.size:
        value, other_value, active, other_active = await _columns(
            database, second.version, first.version, CUSTOMERS_MAX
        )
        columns = np.stack([other_value, value, other_active, active])
    found = await database[MATURED_PREDICTIONS].aggregate(realised_pipeline(_SINCE)).to_list(None)
    realised = {each["_id"]: realised_figures(each) for each in found if each["_id"] in (first.version, second.version)}
    return Comparison(first, second, differences(*columns), realised)


async def differences_on_trial(
    database: Any, champion: str, challenger: str, customers_max: int = CUSTOMERS_MAX
) -> Differences | None:
    """How what a challenger says differs from what its champion said of the same customers, of at most so many.

    database: Motor's. None while there are no customers of whom both have spoken.
    """
    return differences(*await _columns(database, champion, challenger, customers_max))


async def _columns(database: Any, champion: str, challenger: str, customers_max: int) -> Floats:
    """(4, n): value by champion, by challenger, p_active by champion, by challenger."""
    pairs = [row async for row in _pairs(database, champion, challenger, customers_max)]
    return np.array(pairs, dtype=np.float64).reshape(-1, 4).T


async def _pairs(
    database: Any, champion: str, challenger: str, customers_max: int
) -> AsyncIterator[tuple[float, float, float, float]]:
    """(value by champion, by challenger, p_active by champion, by challenger) from the same features."""
    fields = {"customer_id": 1, "feature_version": 1, "prediction.expected_value": 1, "prediction.p_active": 1}
    cursor = database[CHALLENGER_PREDICTIONS].find({"prediction.model_version": challenger}, fields)
    cursor = cursor.limit(customers_max).batch_size(_AT_ONCE)
    while said := await cursor.to_list(_AT_ONCE):
        ids = {prediction_id(each["customer_id"], each["feature_version"], champion): each for each in said}
        beside = database[PREDICTION_HISTORY].find({"_id": {"$in": list(ids)}}, fields)
        async for other in beside:
            mine, its = other["prediction"], ids[other["_id"]]["prediction"]
            yield mine["expected_value"], its["expected_value"], mine["p_active"], its["p_active"]


def realised_figures(sums: Mapping[str, Any]) -> dict[str, float]:
    """Figures of one model's matured predictions from their sums (schemas.mongo.realised_pipeline)."""
    count, realised = sums["count"], sums["realised"]
    return {
        "predictions": count,
        "mae": sums["absolute_error"] / count,
        "bias": sums["predicted"] / realised - 1 if realised > 0 else float("nan"),
        "share_above_p90": sums["above_p90"] / count,
        "share_below_p10": sums["below_p10"] / count,
        "brier": sums["squared_error"] / count,
        "share_active": sums["active"] / count,
    }


def warnings(first: Model, second: Model) -> list[str]:
    """What keeps the two from being compared figure by figure."""
    found = []
    if first.horizon_days != second.horizon_days:
        found.append(f"they predict {first.horizon_days} and {second.horizon_days} days: money is not comparable")
    if first.currency != second.currency:
        found.append(f"they are in {first.currency} and {second.currency}")
    periods = [(each.metrics.get("from"), each.metrics.get("days")) for each in (first, second)]
    if periods[0] != periods[1]:
        told = " and ".join(f"{days} days from {day}" if day else "none" for day, days in periods)
        found.append(f"quality was measured on different periods: {told}")
    return found
