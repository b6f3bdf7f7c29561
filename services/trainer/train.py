"""Training from an orders file to a bundle on disk. It must never look at what happened on the cutoff day or later, and
never write a bundle whose graph has not passed the parity gate.
"""

from dataclasses import dataclass
from importlib.metadata import version as library_version
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from domain import drift
from domain.facts import reference_rows
from domain.features import FEATURE_NAMES, FEATURES, date_of
from domain.rfm_scores import Quintiles
from schemas.model_bundle import INPUT_NAME, OUTPUT_NAMES, VALUE_QUANTILES
from services.runtime.shutdown import KnownProblem
from services.trainer.bundle_writer import write_bundle
from services.trainer.card_facts import data_facts, gone, limits
from services.trainer.evaluation import Backtest, baselines
from services.trainer.export import GraphDiffers, Parity, build_graph, check_parity, run_graph
from services.trainer.fitting import WINDOW_DAYS_MIN, FittedModel, Objective, fit_model, without_corrections
from services.trainer.history import History, TrainingSet
from services.trainer.leakage import training_sets
from services.trainer.progress import Progress, silent
from services.trainer.quality import quality
from services.trainer.sources import TrainingData

Floats = NDArray[np.float64]

HORIZON_DAYS_MAX = 3650
HOLDOUT_SHARE = 3
"""The held-out period is at most one part in so many of the training period."""
BACKTESTS_MAX = 3
BACKTEST_HISTORY_HORIZONS = 2
"""An earlier origin needs so many held-out periods of history before it."""
LIBRARIES = ("numpy", "scipy", "scikit-learn", "skl2onnx", "onnx", "onnxruntime")
"""Whose versions a bundle names."""


@dataclass(frozen=True, eq=False)
class TrainedBundle:
    """A bundle that was written, and that `current` names."""

    path: Path
    version: str
    metadata: dict[str, Any]


def train(
    data: TrainingData,
    horizon_days: int,
    output_dir: Path,
    progress: Progress = silent,
    objective: Objective = "balanced",
) -> TrainedBundle:
    """Train on all of the data, which ends at its cutoff, and write a bundle into the models folder output_dir.

    horizon_days: how far ahead it predicts. progress: told what is being done. objective: see fitting.Objective. The
    same data and arguments give the same version, whatever source the data came from. Raises KnownProblem if there is
    nothing to learn from.
    """
    # One thread: sums in another order would differ in the last bit, and so in the version, from machine to machine.
    with threadpool_limits(1):
        return _train(data, horizon_days, output_dir, progress, objective)


def _train(
    data: TrainingData, horizon_days: int, output_dir: Path, progress: Progress, objective: Objective
) -> TrainedBundle:
    if not 1 <= horizon_days <= HORIZON_DAYS_MAX:
        raise KnownProblem(f"the horizon must be 1 to {HORIZON_DAYS_MAX} days, not {horizon_days}")
    history, cutoff_day = data.history, data.cutoff_day
    if not len(history):
        raise KnownProblem(_nothing_to_learn(data))
    fitted = fit_model(history, cutoff_day, horizon_days, progress, objective)
    backtests = _backtests(history, cutoff_day, horizon_days, progress, objective)
    progress("export")
    held_out_rows = [each.features for each in backtests]
    fitted, onnx_bytes, parity = export(fitted, np.concatenate([fitted.known.features, *held_out_rows]))
    facts = quality(backtests, progress)
    completeness = data_facts(fitted.known, history.first_day, len(history), data.rejected, data.repeated)
    metadata = {
        **_metadata(fitted, history, horizon_days, data.currency, onnx_bytes),
        "counts": {
            "customers": len(fitted.known),
            "events": len(history),
            "rejected": {reason.value: count for reason, count in sorted(data.rejected.items())},
        },
        "parity": {"rows": parity.rows, "error_max": parity.error_max},
        **facts,
        "data": completeness,
        "limits": [
            *gone(data.missing),
            *limits(completeness, data.rejected, facts["backtests"], horizon_days, data.currency),
        ],
    }
    version, folder = write_bundle(output_dir, onnx_bytes, metadata, backtests)
    return TrainedBundle(folder, version, {"model_version": version, **metadata})


def export(fitted: FittedModel, rows: Floats) -> tuple[FittedModel, bytes, Parity]:
    """The model, its graph as ONNX, and how far the two were apart on the rows.

    A model whose corrections do not pass the gate goes without them, and says so. Raises GraphDiffers if what is left
    does not pass either.
    """
    onnx_bytes = build_graph(fitted.model).SerializeToString()
    try:
        return fitted, onnx_bytes, check_parity(fitted.model, onnx_bytes, rows)
    except GraphDiffers as refusal:
        if fitted.model.corrections is None:
            raise
        fitted = without_corrections(fitted, f"corrections of the purchase model were left out: {refusal}")
    onnx_bytes = build_graph(fitted.model).SerializeToString()
    return fitted, onnx_bytes, check_parity(fitted.model, onnx_bytes, rows)


def _nothing_to_learn(data: TrainingData) -> str:
    reasons = ", ".join(f"{count} {reason.value}" for reason, count in data.rejected.most_common(5))
    refused = f"; {data.rejected.total()} rows were refused ({reasons})" if data.rejected else ""
    cutoff = date_of(data.cutoff_day).isoformat()
    deleted = f"; {data.missing} records were deleted before anything folded them" if data.missing else ""
    return f"{data.name}: there is no valid order before {cutoff}, and {data.later} from then on{refused}{deleted}"


def _backtests(
    history: History, cutoff_day: int, horizon_days: int, progress: Progress, objective: Objective
) -> list[Backtest]:
    """Train as of earlier days and measure on the days from then on, the latest until the cutoff; ascending by day.

    None where the training period is too short for even one."""
    days = min(horizon_days, (cutoff_day - history.first_day) // HOLDOUT_SHARE)
    if days < WINDOW_DAYS_MIN:
        return []
    origins = [
        origin
        for back in range(1, BACKTESTS_MAX + 1)
        if (origin := cutoff_day - back * days) - history.first_day >= BACKTEST_HISTORY_HORIZONS * days
    ]
    sets = training_sets(history, [(origin, days) for origin in origins], progress)
    found = []
    for place, (origin, held_out) in enumerate(zip(origins, sets, strict=True), 1):
        progress(f"training again as of {date_of(origin)}, to see how good it is on what it has not seen", place)
        if len(held_out):
            fitted = fit_model(history, origin, days, silent, objective)
            found.append(_backtest(fitted, held_out.with_quintiles(fitted.quintiles)))
    return found[::-1]


def _backtest(fitted: FittedModel, held_out: TrainingSet) -> Backtest:
    return Backtest(
        origin_day=held_out.origin_day,
        days=held_out.horizon_days,
        customer_ids=held_out.customer_ids,
        features=held_out.features,
        targets=held_out.known_targets,
        outputs=fitted.model.predict(held_out.features),
        baselines=baselines(held_out),
        choices=fitted.choices,
        fallbacks=fitted.fallbacks,
        predict=fitted.model.predict,
    )


def _metadata(
    fitted: FittedModel, history: History, horizon_days: int, currency: str, onnx_bytes: bytes
) -> dict[str, Any]:
    outputs = run_graph(onnx_bytes, fitted.known.features)
    value = outputs["expected_value"]
    structural = fitted.model.structural
    return {
        "horizon_days": horizon_days,
        "currency": currency,
        "feature_names": list(FEATURE_NAMES),
        "feature_units": [feature.unit for feature in FEATURES],
        "quintiles": _quintiles(fitted.quintiles),
        "segment_thresholds": [float(each) for each in np.quantile(value, [0.25, 0.5, 0.75])],
        "value_quantiles": [float(each) for each in np.quantile(value, np.linspace(0, 1, VALUE_QUANTILES))],
        "input": {"name": INPUT_NAME, "dtype": "double", "shape": ["n", len(FEATURE_NAMES)]},
        "outputs": [{"name": name, "dtype": "double", "shape": ["n", 1]} for name in OUTPUT_NAMES],
        "cutoff": date_of(fitted.known.origin_day).isoformat(),
        "training_window": {
            "first_day": date_of(history.first_day).isoformat(),
            "last_day": date_of(fitted.known.origin_day - 1).isoformat(),
        },
        "data_fingerprint": history.fingerprint,
        "structural": {"name": structural.name, "parameters": msgspec.to_builtins(structural)},
        "choices": fitted.choices,
        "fallbacks": fitted.fallbacks,
        "calibrated_total": float(fitted.model.calibrated(fitted.model.raw(fitted.known.features)).value.sum()),
        "expected_total": float(value.sum()),
        "reference": _reference(fitted.known),
        "reference_outcomes": {
            name: msgspec.to_builtins(drift.reference(outputs[name])) for name in ("expected_value", "p_active")
        },
        "explanation_reference": _typical_customers(fitted.known.features, value),
        "libraries": {name: library_version(name) for name in LIBRARIES},
    }


def _typical_customers(features: Floats, value: Floats) -> list[list[float | None]]:
    """domain.facts.reference_rows() as metadata.json holds it: None is unknown, as JSON knows no NaN."""
    rows = reference_rows(features, value)
    return [[None if np.isnan(each) else float(each) for each in row] for row in rows]


def _quintiles(quintiles: Quintiles) -> dict[str, list[float]]:
    return {name: list(getattr(quintiles, name)) for name in quintiles.__struct_fields__}


def _reference(known: TrainingSet) -> dict[str, Any]:
    """Deciles and what drift is measured against of each feature over the training population."""
    found: dict[str, Any] = {}
    for place, name in enumerate(FEATURE_NAMES):
        column = known.features[:, place]
        there = column[~np.isnan(column)]
        deciles = [float(each) for each in np.quantile(there, np.linspace(0, 1, 11))] if len(there) else []
        found[name] = {"deciles": deciles, **msgspec.to_builtins(drift.reference(column))}
    return found
