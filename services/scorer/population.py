"""What was last predicted for each customer of one partition: to name the previous segment and to sketch the values.

Pure and compact: arrays, and one dictionary from customer to row. A function of the partition's predictions in order,
so that reading the predictions topic rebuilds it exactly. Must never hold more of a customer than that.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from domain.segments import ASCENDING, Segment
from services.scorer.drift import Window

_NONE = -1
_FIRST_ROWS = 1024
_INDEX = {segment.value: index for index, segment in enumerate(ASCENDING)}


class Last(NamedTuple):
    """The last prediction of a customer."""

    feature_version: int
    segment: Segment
    previous_segment: Segment | None
    """Segment of the last prediction from older features."""
    features_offset: int
    """Of the record that it was made from, in this partition of customer-features; −1 if that is not known."""


class Population:
    """The customers of one partition."""

    def __init__(self) -> None:
        self._row: dict[str, int] = {}
        self._free: list[int] = []
        self._models: dict[str, int] = {}
        self._version = np.zeros(_FIRST_ROWS, dtype=np.int64)
        self._value = np.full(_FIRST_ROWS, np.nan)
        self._segment = np.full(_FIRST_ROWS, _NONE, dtype=np.int8)
        self._previous = np.full(_FIRST_ROWS, _NONE, dtype=np.int8)
        self._offset = np.full(_FIRST_ROWS, _NONE, dtype=np.int64)
        self._model = np.full(_FIRST_ROWS, _NONE, dtype=np.int16)
        self.window = Window()
        """What the customers fell into when they were last scored, by row: kept by whoever scores, not rebuilt."""
        self.changes = 0
        """Grows with each change, so that an unchanged population need not be sketched again."""

    def __len__(self) -> int:
        return len(self._row)

    def last(self, customer_id: str) -> Last | None:
        """The customer's last prediction, or None if there is none."""
        row = self._row.get(customer_id)
        if row is None:
            return None
        previous = self._previous[row]
        return Last(
            int(self._version[row]),
            ASCENDING[self._segment[row]],
            None if previous == _NONE else ASCENDING[previous],
            int(self._offset[row]),
        )

    def record(
        self,
        customer_id: str,
        *,
        feature_version: int,
        expected_value: float | None,
        segment: str,
        previous_segment: str | None,
        model_version: str,
        features_offset: int = _NONE,
    ) -> int | None:
        """Take in a prediction; the customer's row. One from older features than the last is ignored, and None.

        expected_value: None for a customer without an order, who is in no sketch. features_offset: see Last.
        """
        row = self._row.get(customer_id)
        if row is None:
            row = self._row[customer_id] = self._new_row()
        elif feature_version < self._version[row]:
            return None
        self._version[row] = feature_version
        self._value[row] = np.nan if expected_value is None else expected_value
        self._segment[row] = _INDEX[segment]
        self._previous[row] = _NONE if previous_segment is None else _INDEX[previous_segment]
        self._model[row] = self._models.setdefault(model_version, len(self._models))
        self._offset[row] = features_offset
        self.changes += 1
        return row

    def forget(self, customer_id: str) -> None:
        """Remove a customer; no trace remains."""
        row = self._row.pop(customer_id, None)
        if row is not None:
            self._value[row] = np.nan
            self._offset[row] = _NONE
            self._model[row] = _NONE
            self.window.forget(row)
            self._free.append(row)
            self.changes += 1

    def values(self, model_version: str) -> NDArray[np.float64]:
        """expected_value of each customer with an order whose last prediction is by this model; a copy."""
        model = self._models.get(model_version)
        if model is None:
            return np.empty(0)
        found: NDArray[np.float64] = self._value[(self._model == model) & ~np.isnan(self._value)]
        return found

    @property
    def buyers(self) -> int:
        """Customers with an order, whichever model saw them last."""
        return int(np.count_nonzero(~np.isnan(self._value)))

    def _new_row(self) -> int:
        if self._free:
            return self._free.pop()
        row = len(self._row)
        if row == len(self._version):
            for name, blank in (
                ("version", 0),
                ("value", np.nan),
                ("segment", _NONE),
                ("previous", _NONE),
                ("model", _NONE),
                ("offset", _NONE),
            ):
                old = getattr(self, f"_{name}")
                setattr(self, f"_{name}", np.concatenate([old, np.full(len(old), blank, dtype=old.dtype)]))
        return row
