"""Training of the profile model: a table of customer profiles in, a folder with graph, metadata and card out. It must
never let a row that tests have a say in what is fitted or chosen.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version as library_version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from domain.features import INPUT_NAMES, INPUTS, date_of
from domain.metrics import root_mean_squared_error
from domain.rfm_scores import Quintiles
from schemas.currencies import minor_per_major
from schemas.profile_model import (
    COLUMNS,
    ENGINEERED_NAMES,
    INPUT_NAME,
    OUTPUT_NAME,
    TIMINGS_FIELD,
    profile_version,
)
from services.runtime.shutdown import KnownProblem
from services.trainer.profile import network
from services.trainer.profile.candidates import (
    PRODUCT,
    Candidate,
    TrainingRows,
    fit_candidates,
    unscaled_trials,
)
from services.trainer.profile.columns import columns_of, fit_preparation
from services.trainer.profile.export import Exported, GraphDiffers, export, run_graph
from services.trainer.profile.measures import importance, measure, r_squared
from services.trainer.profile.table import Bools, ProfileTable, Split, split_customers
from services.trainer.profile.writer import ProfileFiles, write_profile

Floats = NDArray[np.float64]

CUSTOMERS_MIN = 500
"""Fewer leave too few to fit to, to choose by and to test on."""
LIBRARIES = ("numpy", "scikit-learn", "skl2onnx", "onnx", "onnxruntime")
_AVERAGE, _ORDERS = INPUT_NAMES.index("average_order_value"), INPUT_NAMES.index("total_orders")


@dataclass(frozen=True, eq=False)
class TrainedProfile:
    """A profile model that was written."""

    folder: Path
    version: str
    metadata: dict[str, Any]


def _silent(_: str) -> None: ...


def train_profile(
    table: ProfileTable,
    output: Path,
    *,
    seed: int,
    with_network: bool,
    progress: Callable[[str], None] = _silent,
) -> TrainedProfile:
    """Fit all candidates, choose one, write the folder. with_network: Keras must be installed.

    The same table, seed and libraries give the same version. Raises KnownProblem for too few customers or a folder that
    cannot be written, GraphDiffers for a graph that does not say what its original says.
    """
    if len(table) < CUSTOMERS_MIN:
        raise KnownProblem(f"{len(table):,} customers with an order are too few: {CUSTOMERS_MIN} are needed")
    # One thread: sums in another order would differ in the last bit, and so in the version, from machine to machine.
    with threadpool_limits(1):
        return _train(table, output, seed, with_network, progress)


class _Fitted(NamedTuple):
    """A candidate and its graph."""

    candidate: Candidate
    graph: Exported

    def predict(self, inputs: Floats) -> Floats:
        """What the graph says, (n,): it is the graph that answers, not its Python original."""
        return run_graph(self.graph.onnx_bytes, inputs)


def _train(
    table: ProfileTable, output: Path, seed: int, with_network: bool, progress: Callable[[str], None]
) -> TrainedProfile:
    split = split_customers(table.customer_ids, seed)
    quintiles = table.fit_quintiles(split.training)
    table = table.with_quintiles(quintiles)
    rows = _training_rows(table, split, quintiles)
    fitted, left_out = _fit(rows, table.inputs[split.test], seed, with_network, progress)
    chosen = _choose(fitted, table, split)
    progress("what the columns are worth, and trees without a scale")
    libraries = (*LIBRARIES, *(network.LIBRARIES if with_network else ()))
    metadata = {
        "kind": "classic profile model",
        "chosen": chosen.candidate.name,
        "currency": table.currency,
        "quintiles": {name: list(getattr(quintiles, name)) for name in quintiles.__struct_fields__},
        **_shapes(),
        **_data(table, split),
        "seed": seed,
        "references": _references(table, split),
        "candidates": {each.candidate.name: _figures(each, table, split) for each in fitted},
        "left_out": left_out,
        "unscaled": _unscaled(rows, table, split, seed),
        "importance": _importance(chosen.candidate, table, split, seed),
        "libraries": {name: library_version(name) for name in libraries},
    }
    version = profile_version(chosen.graph.onnx_bytes, metadata)
    complete = {"model_version": version, **metadata, TIMINGS_FIELD: _timings(fitted)}
    progress("the card")
    write_profile(output, _files(chosen, fitted, complete, table, split))
    return TrainedProfile(output, version, complete)


def _fit(
    rows: TrainingRows, test_inputs: Floats, seed: int, with_network: bool, progress: Callable[[str], None]
) -> tuple[list[_Fitted], dict[str, str]]:
    """The candidates whose graphs passed the gate, and why the others did not. Raises GraphDiffers if none is left."""
    fitted, left_out = [], {}
    for candidate in fit_candidates(rows, seed, with_network, progress):
        try:
            fitted.append(_Fitted(candidate, export(candidate, test_inputs)))
        except GraphDiffers as refusal:
            if candidate.is_reference:
                raise
            left_out[candidate.name] = str(refusal)
            progress(f"left out: {refusal}")
    if all(each.candidate.is_reference for each in fitted):
        raise GraphDiffers(f"no candidate passed the gate: {'; '.join(left_out.values())}")
    return fitted, left_out


def _timings(fitted: list[_Fitted]) -> dict[str, dict[str, float]]:
    return {
        each.candidate.name: {
            "fit_seconds": each.candidate.fit_seconds,
            "microseconds_per_row": each.graph.microseconds_per_row,
        }
        for each in fitted
    }


def _files(
    chosen: _Fitted, fitted: list[_Fitted], metadata: Mapping[str, Any], table: ProfileTable, split: Split
) -> ProfileFiles:
    rows = split.test & (table.value > 0)
    return ProfileFiles(
        chosen.graph.onnx_bytes,
        metadata,
        {each.candidate.name: each.graph.onnx_bytes for each in fitted},
        {each.candidate.name: each.predict(table.inputs[rows]) / table.value[rows] - 1.0 for each in fitted},
    )


def _training_rows(table: ProfileTable, split: Split, quintiles: Quintiles) -> TrainingRows:
    columns = columns_of(table.inputs[split.training], quintiles)
    preparation = fit_preparation(columns)
    return TrainingRows(preparation.apply(columns), table.value[split.training], preparation, quintiles)


def _choose(fitted: list[_Fitted], table: ProfileTable, split: Split) -> _Fitted:
    """The lowest RMSE on the validation rows; references do not stand for choice."""
    return min(
        (each for each in fitted if not each.candidate.is_reference),
        key=lambda each: _rmse(each, table, split.validation),
    )


def _rmse(fitted: _Fitted, table: ProfileTable, rows: Bools) -> float:
    return root_mean_squared_error(table.value[rows], fitted.predict(table.inputs[rows]))


def _figures(fitted: _Fitted, table: ProfileTable, split: Split) -> dict[str, Any]:
    return {
        **measure(table.value[split.test], fitted.predict(table.inputs[split.test])),
        "validation_rmse": _rmse(fitted, table, split.validation),
        "is_reference": fitted.candidate.is_reference,
        "onnx_bytes": len(fitted.graph.onnx_bytes),
        "parity_rows": fitted.graph.parity_rows,
        "parity_error_max": fitted.graph.parity_error_max,
    }


def _importance(chosen: Candidate, table: ProfileTable, split: Split, seed: int) -> dict[str, dict[str, float]]:
    inputs, value = table.inputs[split.test], table.value[split.test]
    columns = columns_of(inputs, chosen.quintiles)
    return {
        "inputs": importance(chosen.predict, inputs, value, INPUT_NAMES, seed),
        "columns": importance(chosen.predict_columns, columns, value, COLUMNS, seed),
    }


def _references(table: ProfileTable, split: Split) -> dict[str, Any]:
    """The bare product of two inputs, against the target and against what is left after refunds."""
    product = table.inputs[:, _ORDERS] * table.inputs[:, _AVERAGE]
    spent = table.value > 0
    return {
        PRODUCT: {
            **measure(table.value[split.test], product[split.test]),
            "is_reference": True,
            "relative_error_max": float(np.abs(product[spent] / table.value[spent] - 1.0).max(initial=0.0)),
            "r2_rounded_average": r_squared(table.value[split.test], _as_typed(table)[split.test]),
            "r2_of_net_value": r_squared(table.net_value[split.test], product[split.test]),
        }
    }


def _as_typed(table: ProfileTable) -> Floats:
    """Orders times the average order value in whole minor units, as a person fills in a form."""
    unit = minor_per_major(table.currency)
    average = np.round(table.inputs[:, _AVERAGE] * unit) / unit
    return np.asarray(table.inputs[:, _ORDERS] * average, dtype=np.float64)


def _unscaled(rows: TrainingRows, table: ProfileTable, split: Split, seed: int) -> list[dict[str, Any]]:
    asked = rows.preparation.apply(columns_of(table.inputs[split.test], rows.quintiles))
    value = table.value[split.test]
    return [
        {"name": name, "target": target, "r2": r_squared(value, found)}
        for name, target, found in unscaled_trials(rows, asked, seed)
    ]


def _shapes() -> dict[str, Any]:
    return {
        "input_names": list(INPUT_NAMES),
        "input_units": [feature.unit for feature in INPUTS],
        "engineered_names": list(ENGINEERED_NAMES),
        "columns": list(COLUMNS),
        "input": {"name": INPUT_NAME, "dtype": "double", "shape": ["n", len(INPUT_NAMES)]},
        "output": {"name": OUTPUT_NAME, "dtype": "double", "shape": ["n", 1], "unit": "currency"},
    }


def _data(table: ProfileTable, split: Split) -> dict[str, Any]:
    age = table.inputs[:, INPUT_NAMES.index("customer_age")]
    first_day = table.as_of_day - int(table.inputs[:, INPUT_NAMES.index("customer_lifetime_days")].max())
    return {
        "source": dict(table.facts),
        "as_of": date_of(table.as_of_day).isoformat(),
        "first_day": date_of(first_day).isoformat(),
        "customers": {
            "all": len(table),
            "training": int(split.training.sum()),
            "validation": int(split.validation.sum()),
            "test": int(split.test.sum()),
        },
        "orders": int(table.inputs[:, _ORDERS].sum()),
        "age_missing_share": float(np.isnan(age).mean()),
        "refunded_share": float(1.0 - table.net_value.sum() / table.value.sum()),
        "data_fingerprint": table.fingerprint,
    }
