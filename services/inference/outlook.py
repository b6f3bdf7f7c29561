"""From a model's outcomes to what is said of a customer: which outcomes can be used, and when the next order comes.

Pure. Shared by whatever predicts, so that a stream, a file and a form say the same of the same outcomes.
"""

from datetime import date, timedelta
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

NEXT_ORDER_P_MIN = 0.2
"""An order less likely than this is not expected: the date of something that hardly ever comes would mislead."""


class OutcomeColumns(Protocol):
    """Outcomes of n customers, each (n,), as services.inference.model.Outcomes."""

    @property
    def expected_value(self) -> Floats: ...
    @property
    def expected_orders(self) -> Floats: ...
    @property
    def p_active(self) -> Floats: ...
    @property
    def value_p10(self) -> Floats: ...
    @property
    def value_p50(self) -> Floats: ...
    @property
    def value_p90(self) -> Floats: ...
    @property
    def next_order_days(self) -> Floats: ...


def usable(outcomes: OutcomeColumns) -> NDArray[np.bool_]:
    """Which rows have a finite number in every outcome; (n,)."""
    columns = [outcomes.expected_value, outcomes.expected_orders, outcomes.p_active]
    columns += [outcomes.value_p10, outcomes.value_p50, outcomes.value_p90, outcomes.next_order_days]
    return np.asarray(np.isfinite(np.array(columns)).all(axis=0))


def next_order_at(as_of: str, p_active: float, next_order_days: float) -> str | None:
    """The day on which the next order is expected if it comes within the horizon; None where that is unlikely.

    next_order_days: from as_of, as the model says. Below NEXT_ORDER_P_MIN no order is expected at all.
    """
    if p_active < NEXT_ORDER_P_MIN:
        return None
    try:
        return (date.fromisoformat(as_of) + timedelta(days=round(next_order_days))).isoformat()
    except OverflowError:  # an as_of at the end of the year 9999
        return None
