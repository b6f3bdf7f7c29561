"""The whole model in Python: structural expectations, corrected, with an interval. It is what the ONNX graph is
compared with; it must never use an operation on a row that the graph cannot have.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from schemas.model_bundle import OUTPUT_NAMES
from services.trainer.corrections import Correction
from services.trainer.intervals import Intervals
from services.trainer.structural import Structural, statistics

Floats = NDArray[np.float64]

VALUE_MAX = 1e12
"""Largest value that is ever predicted, major units: absurd input must give a bounded answer."""


@dataclass(frozen=True, eq=False)
class ValueModel:
    """A fitted model of one horizon. `corrections` has one for each of corrections.TARGETS."""

    horizon_days: int
    structural: Structural
    corrections: Mapping[str, Correction]
    intervals: Intervals

    @property
    def has_trees(self) -> bool:
        """Whether any tree has a say."""
        return self.intervals.trees is not None or any(each.trees is not None for each in self.corrections.values())

    def predict(self, matrix: Floats) -> dict[str, Floats]:
        """By OUTPUT_NAMES, each array (n,), from features of shape (n, len(FEATURE_NAMES))."""
        expected = self.structural.expect(matrix, self.horizon_days)
        factors = {name: correction.factor(matrix) for name, correction in self.corrections.items()}
        value = np.minimum(expected.value * factors["value"], VALUE_MAX)
        p_active = np.minimum(expected.p_active * factors["p_active"], 1.0)
        quantiles = np.minimum(self.intervals.quantiles(matrix, value, p_active), VALUE_MAX)
        quantiles = np.where(statistics(matrix).has_order[:, None], quantiles, 0.0)
        columns = (value, expected.orders * factors["orders"], p_active, *quantiles.T)
        return dict(zip(OUTPUT_NAMES, columns, strict=True))
