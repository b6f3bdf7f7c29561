"""How good the trained model is on a later period of a shop, beside naive and BTYD baselines on the same customers.

Trains on what happened before the cutoff alone, as `./clv train` does, then looks at what really happened after it. To
tell what a wrong total costs from what nobody could have told apart, predictions are also measured as they would be if
somebody had known afterwards by what factor to multiply them; and how low their MAE could be at all with a good total.
"""

import tempfile
import time
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog

from benchmarks.shops import REFERENCE
from deploy.local import binaries
from domain.features import day_of
from domain.metrics import (
    band_of,
    calibration_table,
    coverage_by_band,
    decile_mape,
    mean_absolute_error,
    root_mean_squared_error,
    total_bias,
)
from schemas.model_bundle import OUTPUT_NAMES
from services.inference.model import load_model
from services.trainer.evaluation import MODEL, guesses, measure
from services.trainer.fitting import Objective
from services.trainer.orders_file import read_any, read_cdnow
from services.trainer.sources.orders import from_table
from services.trainer.train import train

Floats = NDArray[np.float64]

DECILES = 10
GOALS = {"bias_within_goal": (0.05, 1.0), "decile_mape_within_goal": (1.0, 0.15), "both_within_goal": (0.05, 0.15)}
"""Largest |bias| and decile MAPE that are wished for beside the lowest MAE; 1 is no bound."""
_SIZES = np.linspace(0.0, 2.0, 401)
"""Of a tenth's total, by the right one, between which the lowest MAE is looked for."""


def run(
    orders: Path | None, cutoff: date, horizon_days: int, currency: str, objective: Objective = "balanced"
) -> dict[str, Any]:
    """Run the benchmark on CDNOW, or on a file of one's own; returns its figures."""
    table = read_any(orders) if orders else read_cdnow(binaries.cdnow_purchases())
    with tempfile.TemporaryDirectory(prefix="clv-bench-") as folder:
        began = time.perf_counter()
        bundle = train(from_table(table, cutoff, currency), horizon_days, Path(folder), objective=objective)
        seconds = time.perf_counter() - began
        model = load_model(bundle.path, currency)
    origin = day_of(cutoff)
    history = from_table(table, cutoff + timedelta(days=horizon_days), currency).history
    (held_out,) = history.training_sets([(origin, horizon_days)])
    held_out = held_out.with_quintiles(model.metadata.quintiles)
    outcomes = model.predict(held_out.features)
    found = guesses(held_out, {name: getattr(outcomes, name) for name in OUTPUT_NAMES})
    targets = held_out.known_targets
    rivals = {name: found[name].value for name in (MODEL, REFERENCE) if name in found}
    return {
        "cutoff": cutoff.isoformat(),
        "horizon_days": horizon_days,
        "objective": objective,
        "customers": len(held_out),
        "training_seconds": round(seconds, 1),
        "model_version": model.version,
        "metrics": {name: measure(targets, guess) for name, guess in found.items()},
        "share_above_p90_by_decile": [
            round(each.above, 4)
            for each in coverage_by_band(
                targets.value, outcomes.value_p10, outcomes.value_p90, outcomes.expected_value, DECILES
            )
        ],
        "in_hindsight": {name: in_hindsight(targets.value, value) for name, value in rivals.items()},
        "lowest_mae_in_hindsight": {
            name: {goal: lowest_mae(targets.value, value, *bounds) for goal, bounds in GOALS.items()}
            for name, value in rivals.items()
        },
    }


def in_hindsight(actual: Floats, predicted: Floats) -> dict[str, dict[str, float]]:
    """MAE, RMSE, bias and decile MAPE of predictions, (n,), times the factor that what came, (n,), shows to be right.

    total: one factor for all; deciles: one for each tenth of the customers by prediction. No model can know them.
    """
    rows = calibration_table(actual, predicted, DECILES)
    factors = [row.actual_mean / row.predicted_mean if row.predicted_mean > 0 else 0.0 for row in rows]
    rescaled = {
        "total": predicted * (actual.sum() / max(float(predicted.sum()), 1e-9)),
        "deciles": predicted * np.maximum(np.array(factors)[band_of(predicted, DECILES)], 0.0),
    }
    return {
        name: {
            "mae": mean_absolute_error(actual, each),
            "rmse": root_mean_squared_error(actual, each),
            "bias": total_bias(actual, each),
            "decile_mape": decile_mape(actual, each),
        }
        for name, each in rescaled.items()
    }


def lowest_mae(actual: Floats, predicted: Floats, bias_max: float, mape_max: float) -> float | None:
    """The lowest MAE that predictions, (n,), reach times ten factors, one for each tenth of them, chosen knowing what
    came, (n,), such that |bias| and the mean error of the tenths' totals are at most these. None: no factors do that.

    A linear programme: absolute errors and the errors of totals are convex in each factor, so a mixture of two sizes of
    one tenth, of which _SIZES are offered, is no better than the size between them; nor, as they are close, worse by
    more than a few millionths of the MAE."""
    tenth = band_of(predicted, DECILES)
    came, foretold = (np.bincount(tenth, each, DECILES) for each in (actual, predicted))
    sizes = np.where(foretold[:, None] > 0, _SIZES, 0.0)
    right = np.divide(came, foretold, out=np.zeros(DECILES), where=foretold > 0)
    rescaled = predicted[:, None] * (right[:, None] * sizes)[tenth]
    errors = np.abs(actual[:, None] - rescaled) / len(actual)
    cost = np.zeros_like(sizes)
    np.add.at(cost, tenth, errors)
    total = sizes * (came / came.sum())[:, None]
    off = np.abs(sizes - 1.0) / DECILES
    found = linprog(
        cost.ravel(),
        A_ub=np.array([total.ravel(), -total.ravel(), off.ravel()]),
        b_ub=[1.0 + bias_max, bias_max - 1.0, mape_max],
        A_eq=np.kron(np.eye(DECILES), np.ones(len(_SIZES))),
        b_eq=np.ones(DECILES),
    )
    return None if found.fun is None else float(found.fun)
