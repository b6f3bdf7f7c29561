"""The whole model in Python: structural expectations, corrected, calibrated, with an interval. It is what the ONNX
graph is compared with; it must never use an operation on a row that the graph cannot have.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.model_bundle import OUTPUT_NAMES
from services.trainer.calibration import Curve
from services.trainer.corrections import Corrections
from services.trainer.intervals import Intervals
from services.trainer.signals import Scale
from services.trainer.spend_shrinkage import SpendShrinkage
from services.trainer.structural import Structural, statistics

Floats = NDArray[np.float64]

VALUE_MAX = 1e12
"""Largest value that is ever predicted, major units: absurd input must give a bounded answer."""


class Raw(NamedTuple):
    """Structural expectations, corrected, with spend shrunk, not calibrated; arrays (n,)."""

    value: Floats
    orders: Floats
    p_active: Floats


@dataclass(frozen=True, eq=False)
class ValueModel:
    """A fitted model of one horizon. `curves` have one for each of corrections.TARGETS."""

    horizon_days: int
    structural: Structural
    scale: Scale
    corrections: Corrections | None
    shrinkage: SpendShrinkage | None
    curves: Mapping[str, Curve | None]
    intervals: Intervals
    factor: float | None = None
    """expected_value is the uncalibrated value times this; None: it is the calibrated one (see calibration.balance)."""

    def raw(self, matrix: Floats) -> Raw:
        """Before calibration, from features of shape (n, len(FEATURE_NAMES))."""
        found = self.structural.expect(matrix, self.horizon_days)
        if self.corrections is not None:
            found = self.corrections.corrected(matrix, found, self.horizon_days, self.scale)
        return self.shrunk(Raw(found.value, found.orders, np.minimum(found.p_active, 1.0)))

    def shrunk(self, raw: Raw) -> Raw:
        """With spend shrunk, of what is not yet."""
        value = raw.value if self.shrinkage is None else self.shrinkage(raw.value, raw.orders)
        return raw._replace(value=np.minimum(value, VALUE_MAX))

    def calibrated(self, raw: Raw) -> Raw:
        """With the factors of the windows of the past; nobody is expected to order less often than to order at all."""
        value, orders, p_active = (
            each if curve is None else curve(each)
            for each, curve in zip(raw, (self.curves[name] for name in ("value", "orders", "p_active")), strict=True)
        )
        p_active = np.minimum(p_active, 1.0)
        return Raw(np.minimum(value, VALUE_MAX), np.maximum(orders, p_active), p_active)

    def predict(self, matrix: Floats) -> dict[str, Floats]:
        """By OUTPUT_NAMES, each array (n,), from features of shape (n, len(FEATURE_NAMES))."""
        raw = self.raw(matrix)
        known = self.calibrated(raw)
        value = known.value if self.factor is None else np.minimum(raw.value * self.factor, VALUE_MAX)
        has_order = statistics(matrix).has_order
        quantiles = np.minimum(self.intervals.quantiles(known.value, known.orders, known.p_active), VALUE_MAX)
        next_order = next_order_days(known.orders, known.p_active, self.horizon_days)
        columns = (value, known.orders, known.p_active, *quantiles.T, next_order)
        return dict(zip(OUTPUT_NAMES, (np.where(has_order, each, 0.0) for each in columns), strict=True))


def next_order_days(orders: Floats, p_active: Floats, horizon_days: int) -> Floats:
    """Days until the next order if it comes within the horizon, (n,).

    Of n orders thrown evenly over a horizon H the first is expected at H / (n + 1) (order statistics of the uniform
    distribution; Kingman 1993, §2.4); n is taken as the expected orders of a customer who orders at all.
    """
    if_active = np.maximum(orders / np.maximum(p_active, 1e-6), 1.0)
    return np.asarray(horizon_days / (1.0 + if_active), dtype=np.float64)
