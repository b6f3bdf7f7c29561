"""What is told of models: from the registry, or where none is kept from the models folder; and from their bundles.

Pure but for the two places that models are read from. Must never show a figure that neither of them holds.
"""

import asyncio
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np

from domain.drift import psi, reference_in
from domain.features import CONTEXT, FEATURE_NAMES
from schemas.customer_features import feature_matrix
from schemas.http_api.models import (
    Comparison,
    DecileRow,
    FeatureDrift,
    GainPoint,
    ModelRow,
    Models,
    Realised,
)
from schemas.models import Model, Pointer, Status
from schemas.mongo import CUSTOMERS, MATURED_PREDICTIONS, realised_pipeline
from services.api.settings import ApiSettings
from services.api.store import Document, Store
from services.api.views import rfc3339
from services.inference.model_comparison import Differences
from services.runtime.bundle import METADATA, current_bundle, read_metadata
from services.runtime.registry import Registry
from services.runtime.shutdown import KnownProblem

_MONETARY = FEATURE_NAMES.index("monetary")
_SINCE = datetime(1970, 1, 1, tzinfo=UTC)


class Known(NamedTuple):
    """The models that there are."""

    pointer: Pointer
    rows: list[ModelRow]
    """The last registered first."""

    def row(self, version: str) -> ModelRow | None:
        """One of them."""
        return next((row for row in self.rows if row.version == version), None)

    def answer(self) -> Models:
        """As GET /v1/models tells it."""
        return Models(champion=self.pointer.champion, challenger=self.pointer.challenger, models=self.rows)


async def known_models(settings: ApiSettings, registry: Registry) -> Known:
    """The registry's models; where it has none, the one that the models folder points to, if there is one.

    Raises RegistryAway or KnownProblem if the registry does not answer.
    """
    models, pointer = await asyncio.gather(registry.models(), registry.pointer())
    if models:
        return Known(pointer, [registered_row(model) for model in models])
    try:
        row = await asyncio.to_thread(_row_in_folder, settings)
    except KnownProblem:
        return Known(pointer, [])
    return Known(Pointer(champion=row.version), [row])


def registered_row(model: Model) -> ModelRow:
    """A model of the registry."""
    return ModelRow(
        version=model.version,
        status=model.status.value,
        trained_at=_time(model.trained_at),
        registered_at=_time(model.registered_at),
        registered_by=model.registered_by,
        promoted_at=_time(model.promoted_at),
        cutoff=model.cutoff,
        horizon_days=model.horizon_days,
        currency=model.currency,
        metrics=model.metrics,
    )


def _row_in_folder(settings: ApiSettings) -> ModelRow:
    folder = current_bundle(settings.models_dir)
    metadata = read_metadata(folder)
    written_at = datetime.fromtimestamp((folder / METADATA).stat().st_mtime, UTC)
    return ModelRow(
        version=metadata["model_version"],
        status=Status.CHAMPION.value,
        trained_at=rfc3339(written_at),
        registered_at=None,
        registered_by=None,
        promoted_at=None,
        cutoff=metadata.get("cutoff"),
        horizon_days=metadata["horizon_days"],
        currency=metadata["currency"],
        metrics=metadata.get("holdout") or {},
    )


def _time(at: datetime | None) -> str | None:
    return None if at is None else rfc3339(at)


# ---------------------------------------------------------------- from the bundle


def _latest_backtest(metadata: Mapping[str, Any]) -> Mapping[str, Any]:
    backtests: Sequence[Mapping[str, Any]] = metadata.get("backtests") or [{}]
    return backtests[-1]


def deciles_in(metadata: Mapping[str, Any]) -> list[DecileRow]:
    """Calibration on the latest held-out period, the highest predictions first; empty where the bundle keeps none."""
    bands = _latest_backtest(metadata).get("deciles") or []
    return [
        DecileRow(
            decile=len(bands) + 1 - band["band"],
            customers=round(band["customers"]),
            predicted=band["predicted_mean"],
            realised=band["actual_mean"],
        )
        for band in reversed(bands)
    ]


def gains_in(metadata: Mapping[str, Any]) -> list[GainPoint]:
    """The lift curve of the latest held-out period; empty where the bundle keeps none."""
    return [
        GainPoint(customers_share=share, value_share=value)
        for share, value in _latest_backtest(metadata).get("gains") or []
    ]


# ---------------------------------------------------------------- from MongoDB


async def sampled_features(store: Store, customers_max: int) -> list[dict[str, float | None]]:
    """Features of customers as they are now, at most so many, taken at random."""
    found = await store.aggregate(
        CUSTOMERS, [{"$sample": {"size": customers_max}}, {"$project": {"_id": 0, "features": 1}}]
    )
    return [each["features"] for each in found]


def drift_of(rows: list[dict[str, float | None]], metadata: Mapping[str, Any]) -> tuple[list[FeatureDrift], int]:
    """The stability index of each feature that the bundle keeps a reference of, the highest first; and of how many
    customers: those with an order, since the others are in no training population."""
    matrix = feature_matrix(rows)
    matrix = matrix[~np.isnan(matrix[:, _MONETARY])]
    if not len(matrix):
        return [], 0
    kept = metadata.get("reference")
    found = []
    for place, name in enumerate(FEATURE_NAMES):
        if name in CONTEXT or not isinstance(kept, Mapping) or name not in kept:
            continue
        try:
            reference = reference_in(kept[name])
        except ValueError:
            continue  # a bundle from before references were kept
        counts = np.bincount(reference.bins(matrix[:, place]), minlength=len(reference.edges) + 2)
        found.append(FeatureDrift(name=name, psi=max(0.0, psi(reference.expected, counts))))
    return sorted(found, key=lambda each: -each.psi), len(matrix)


async def realised_models(store: Store) -> list[Realised]:
    """Predictions held against what came, by model."""
    return [_realised(each) for each in await store.aggregate(MATURED_PREDICTIONS, realised_pipeline(_SINCE))]


def _realised(sums: Document) -> Realised:
    count = sums["count"]
    return Realised(
        model_version=sums["_id"],
        customers=count,
        predicted=sums["predicted"],
        realised=sums["realised"],
        mean_absolute_error=sums["absolute_error"] / count,
        share_above_p90=sums["above_p90"] / count,
        share_below_p10=sums["below_p10"] / count,
    )


def comparison_of(champion: str, challenger: str, found: Differences) -> Comparison:
    """The differences of two models, as they are told."""
    correlation = found.rank_correlation
    return Comparison(
        champion=champion,
        challenger=challenger,
        customers=found.customers,
        champion_total=found.total_first,
        challenger_total=found.total_second,
        rank_correlation=None if math.isnan(correlation) else correlation,
        mean_difference=found.mean_difference,
        segment_differs=found.segment_differs,
    )
