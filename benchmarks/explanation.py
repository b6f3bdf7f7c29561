"""How long one customer's explanation takes, beside one prediction by the same model: for the API's request path.

On one thread, as the services run the model. Explains customers of CDNOW from the least to the most valuable.
"""

import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.local import binaries
from domain.facts import reference_rows
from domain.features import day_of
from schemas.model_bundle import OUTPUT_NAMES
from services.inference.explain import Explainer
from services.inference.model import Model, load_model
from services.runtime.bundle import read_head
from services.trainer.orders_file import read_cdnow
from services.trainer.sources.orders import from_table
from services.trainer.train import train

Floats = NDArray[np.float64]
CUTOFF, HORIZON_DAYS = date(1997, 10, 1), 273


def run(bundle: Path | None, customers: int) -> dict[str, Any]:
    """Run the benchmark with a bundle, or with one trained for it; returns its figures."""
    table = read_cdnow(binaries.cdnow_purchases())
    with tempfile.TemporaryDirectory(prefix="clv-bench-") as folder:
        if bundle is None:
            bundle = train(from_table(table, CUTOFF, "USD"), HORIZON_DAYS, Path(folder)).path
        model = load_model(bundle, read_head(bundle).currency)
    (known,) = from_table(table, CUTOFF, "USD").history.training_sets([(day_of(CUTOFF), 0)])
    rows = known.with_quintiles(model.metadata.quintiles).features
    return {"model_version": model.version, "customers": customers, **measure(model, rows, customers)}


def measure(model: Model, rows: Floats, customers: int) -> dict[str, float]:
    """Explain so many of the rows, evenly spread over the values that the model gives them."""
    values = model.predict(rows).expected_value
    chosen = np.argsort(values)[np.linspace(0, len(rows) - 1, customers).astype(int)]
    counting = _Counting(model)
    explainer = Explainer(counting, reference_rows(rows, values))
    explainer.explain(rows[chosen[0]])  # the weights of coalitions are worked out once a process
    counting.rows = 0
    errors: list[float] = []

    def explain(at: int) -> None:
        for found in explainer.explain(rows[at], OUTPUT_NAMES):
            errors.append(abs(found.sum_error) / (max(found.prediction, found.base) or 1.0))

    explaining = _milliseconds(explain, chosen)
    predicting = _milliseconds(lambda at: model.predict(rows[at][np.newaxis]), chosen)
    batch = _milliseconds(lambda _: model.predict(rows[:1000]), chosen[:20])
    return {
        "explanation_ms_p50": round(float(np.median(explaining)), 2),
        "explanation_ms_p99": round(float(np.quantile(explaining, 0.99)), 2),
        "prediction_ms_p50": round(float(np.median(predicting)), 3),
        "prediction_ms_a_row_of_1000": round(float(np.median(batch)) / 1000, 4),
        "explanation_over_prediction": round(float(np.median(explaining) / np.median(predicting)), 1),
        "mixes_a_customer": round(counting.rows / customers, 1),
        "sum_error_relative_max": max(errors),
    }


class _Counting:
    """The model, and how many rows it was asked for."""

    def __init__(self, model: Model) -> None:
        self.metadata = model.metadata
        self.rows = 0
        self._model = model

    def predict(self, matrix: Floats) -> object:
        self.rows += len(matrix)
        return self._model.predict(matrix)


def _milliseconds(call: Callable[[int], object], places: NDArray[np.int64]) -> list[float]:
    found = []
    for at in places.tolist():
        began = time.perf_counter()
        call(at)
        found.append(1000 * (time.perf_counter() - began))
    return found
