"""Training from an orders file to a bundle on disk. It must never look at what happened on the cutoff day or later, and
never write a bundle whose graph has not passed the parity gate.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version as library_version
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from domain.customer import DAY_MS
from domain.features import FEATURE_NAMES, FEATURES, date_of, day_of
from domain.rfm_scores import Quintiles
from schemas.currencies import minor_per_major
from schemas.model_bundle import INPUT_NAME, OUTPUT_NAMES, VALUE_QUANTILES
from services.runtime.shutdown import KnownProblem
from services.trainer.bundle_writer import write_bundle
from services.trainer.evaluation import compare
from services.trainer.export import GraphDiffers, Parity, build_graph, check_parity, run_graph
from services.trainer.fitting import WINDOW_DAYS_MIN, FittedModel, fit_model, without_trees
from services.trainer.history import History, TrainingSet
from services.trainer.judged_rows import JudgedRows, judge
from services.trainer.orders_file import OrdersTable

Floats = NDArray[np.float64]

HORIZON_DAYS_MAX = 3650
HOLDOUT_SHARE = 3
"""The held-out period is at most one part in so many of the training period."""
LIBRARIES = ("numpy", "scipy", "scikit-learn", "skl2onnx", "onnx", "onnxruntime")
"""Whose versions a bundle names."""


@dataclass(frozen=True, eq=False)
class TrainedBundle:
    """A bundle that was written, and that `current` names."""

    path: Path
    version: str
    metadata: dict[str, Any]


def _silent(_: str) -> None: ...


def train(
    orders: OrdersTable,
    cutoff: date,
    horizon_days: int,
    currency: str,
    output_dir: Path,
    progress: Callable[[str], None] = _silent,
) -> TrainedBundle:
    """Train on what happened before the cutoff (UTC) and write a bundle into the models folder output_dir.

    horizon_days: how far ahead it predicts. currency: ISO 4217, of all money. progress: told what is being done.
    The same rows and arguments give the same version. Raises KnownProblem if there is nothing to learn from.
    """
    # One thread: sums in another order would differ in the last bit, and so in the version, from machine to machine.
    with threadpool_limits(1):
        return _train(orders, cutoff, horizon_days, currency, output_dir, progress)


def _train(
    orders: OrdersTable,
    cutoff: date,
    horizon_days: int,
    currency: str,
    output_dir: Path,
    progress: Callable[[str], None],
) -> TrainedBundle:
    if not 1 <= horizon_days <= HORIZON_DAYS_MAX:
        raise KnownProblem(f"the horizon must be 1 to {HORIZON_DAYS_MAX} days, not {horizon_days}")
    progress(f"reading {len(orders):,} rows")
    judged = judge(orders, currency)
    cutoff_day = day_of(cutoff)
    history = History(judged, cutoff_day, minor_per_major(currency))
    if not len(history):
        raise KnownProblem(_nothing_to_learn(judged, cutoff))
    fitted = fit_model(history, cutoff_day, horizon_days, progress)
    progress("a later period that training does not see")
    holdout, held_out_rows = _hold_out(history, cutoff_day, horizon_days, progress)
    progress("export")
    fitted, onnx_bytes, parity = export(fitted, np.concatenate([fitted.known.features, *held_out_rows]))
    metadata = {
        **_metadata(fitted, history, horizon_days, currency, onnx_bytes),
        "counts": {
            "customers": len(fitted.known),
            "events": len(history),
            "rejected": {reason.value: count for reason, count in sorted(judged.rejected(cutoff_day * DAY_MS).items())},
        },
        "parity": {"rows": parity.rows, "error_max": parity.error_max},
        "holdout": holdout,
    }
    version, folder = write_bundle(output_dir, onnx_bytes, metadata)
    return TrainedBundle(folder, version, {"model_version": version, **metadata})


def export(fitted: FittedModel, rows: Floats) -> tuple[FittedModel, bytes, Parity]:
    """The model, its graph as ONNX, and how far the two were apart on the rows.

    A model whose trees do not pass the gate goes without them, and says so. Raises GraphDiffers if what is left does
    not pass either.
    """
    onnx_bytes = build_graph(fitted.model).SerializeToString()
    try:
        return fitted, onnx_bytes, check_parity(fitted.model, onnx_bytes, rows)
    except GraphDiffers as refusal:
        if not fitted.model.has_trees:
            raise
        fitted = without_trees(fitted, f"the trees were left out: {refusal}")
    onnx_bytes = build_graph(fitted.model).SerializeToString()
    return fitted, onnx_bytes, check_parity(fitted.model, onnx_bytes, rows)


def _nothing_to_learn(judged: JudgedRows, cutoff: date) -> str:
    valid, rejected = int(judged.valid.sum()), judged.rejected()
    reasons = ", ".join(f"{count} {reason.value}" for reason, count in rejected.most_common(5))
    refused = f"; {rejected.total()} rows were refused ({reasons})" if rejected else ""
    return f"there is no valid row before {cutoff.isoformat()}, and {valid} from then on{refused}"


def _hold_out(
    history: History, cutoff_day: int, horizon_days: int, progress: Callable[[str], None]
) -> tuple[dict[str, Any], list[Floats]]:
    """Train as of an earlier day and measure on the days from then until the cutoff; the rows that were predicted."""
    days = min(horizon_days, (cutoff_day - history.first_day) // HOLDOUT_SHARE)
    if days < WINDOW_DAYS_MIN:
        return {}, []
    origin = cutoff_day - days
    fitted = fit_model(history, origin, days, progress)
    held_out = history.training_sets([(origin, days)])[0].with_quintiles(fitted.quintiles)
    facts = {
        "from": date_of(origin).isoformat(),
        "days": days,
        "customers": len(held_out),
        "choices": fitted.choices,
        "fallbacks": fitted.fallbacks,
        "metrics": compare(held_out, fitted.model.predict(held_out.features)),
    }
    return facts, [held_out.features]


def _metadata(
    fitted: FittedModel, history: History, horizon_days: int, currency: str, onnx_bytes: bytes
) -> dict[str, Any]:
    value = run_graph(onnx_bytes, fitted.known.features)["expected_value"]
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
        "reference": _reference(fitted.known),
        "libraries": {name: library_version(name) for name in LIBRARIES},
    }


def _quintiles(quintiles: Quintiles) -> dict[str, list[float]]:
    return {name: list(getattr(quintiles, name)) for name in quintiles.__struct_fields__}


def _reference(known: TrainingSet) -> dict[str, Any]:
    """Deciles and the missing share of each feature over the training population, to see drift by."""
    found: dict[str, Any] = {}
    for place, name in enumerate(FEATURE_NAMES):
        column = known.features[:, place]
        there = column[~np.isnan(column)]
        deciles = [float(each) for each in np.quantile(there, np.linspace(0, 1, 11))] if len(there) else []
        found[name] = {"deciles": deciles, "missing_share": float(np.mean(np.isnan(column)))}
    return found
