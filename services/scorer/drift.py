"""How far the customers that were scored lately differ from those that the model was trained on: bins, window, indices.

Holds no values, only which of a few bins each fell into. Must never mix the bins of two models, nor count a customer
twice: a row is a customer (services.scorer.population).
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domain.drift import BINS_MAX, Bins, Reference, psi, reference_in, reference_of_quantiles
from domain.features import FEATURE_NAMES
from services.inference.outlook import OutcomeColumns

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

OUTCOMES = ("expected_value", "p_active")
COLUMNS = (*FEATURE_NAMES, *OUTCOMES)
_MONETARY = FEATURE_NAMES.index("monetary")
_FIRST_ROWS = 1024
_OF_THE_DAY = frozenset({"as_of_year_day"})
"""Features that are the same for all customers on a day: how the population moves is not to be seen from them."""


class References:
    """What the training population of one model looked like."""

    def __init__(self, metadata: Mapping[str, Any]) -> None:
        """metadata: of the bundle. What it does not tell is not compared; `unknown` says why, by column."""
        self.unknown: dict[str, str] = {}
        self.columns: list[Reference | None] = [self._of(name, metadata) for name in COLUMNS]
        self._edges = np.full((len(COLUMNS), BINS_MAX - 2), np.inf)
        self._missing = np.zeros(len(COLUMNS), dtype=np.int64)
        for at, known in enumerate(self.columns):
            if known is not None:
                self._edges[at, : len(known.edges)] = known.edges
                self._missing[at] = len(known.edges) + 1

    def _of(self, name: str, metadata: Mapping[str, Any]) -> Reference | None:
        where = "reference_outcomes" if name in OUTCOMES else "reference"
        found = metadata.get(where)
        try:
            if name in _OF_THE_DAY:
                raise ValueError("it says nothing about customers")
            if isinstance(found, Mapping) and name in found:
                return reference_in(found[name])
            if name == "expected_value" and metadata.get("value_quantiles"):
                return reference_of_quantiles(metadata["value_quantiles"])
            raise ValueError(f"the bundle's metadata has no {where} of it")
        except (ValueError, TypeError, AttributeError) as error:
            self.unknown[name] = str(error)
            return None

    def bins(self, matrix: Floats, outcomes: OutcomeColumns) -> Bins:
        """The bins of n customers, (n, len(COLUMNS)), as Reference.bins; 0 in columns without a reference."""
        values = np.column_stack([matrix, outcomes.expected_value, outcomes.p_active])
        below = self._edges < values[:, :, np.newaxis]
        return np.where(np.isnan(values), self._missing, below.sum(axis=2)).astype(np.uint8)

    def indices(self, counts: Counts) -> dict[str, float]:
        """The stability index of each column that has a reference. counts: (len(COLUMNS), BINS_MAX), not empty."""
        return {
            name: psi(known.expected, counts[at, : len(known.edges) + 2])
            for at, (name, known) in enumerate(zip(COLUMNS, self.columns, strict=True))
            if known is not None
        }


def with_an_order(matrix: Floats) -> NDArray[np.bool_]:
    """Which customers have an order, (n,): the others are in no training population."""
    found: NDArray[np.bool_] = ~np.isnan(matrix[:, _MONETARY])
    return found


class Window:
    """The bins that one partition's customers last fell into, and when."""

    def __init__(self) -> None:
        self._clear("")

    def _clear(self, model_version: str) -> None:
        self._model = model_version
        self._bins = np.zeros((len(COLUMNS), 0), dtype=np.uint8)  # one column after the other: they are counted so
        self._at = np.zeros(0, dtype=np.float64)

    def put(self, rows: Iterable[int], bins: Bins, now_seconds: float, model_version: str) -> None:
        """Take in customers by their row; bins as of References. Those that another model scored are forgotten."""
        if model_version != self._model:
            self._clear(model_version)
        at = np.fromiter(rows, dtype=np.int64)
        if not len(at):
            return
        self._grow(int(at.max()) + 1)
        self._bins[:, at] = bins.T
        self._at[at] = now_seconds

    def forget(self, row: int) -> None:
        """The row is nobody's any more."""
        if row < len(self._at):
            self._at[row] = -np.inf
            self._bins[:, row] = 0

    def counts(self, since_seconds: float, model_version: str) -> Counts:
        """Customers by column and bin, (len(COLUMNS), BINS_MAX), of those scored by the model since then."""
        bins, at = self._bins, self._at  # this runs in a thread, and both may be replaced meanwhile
        if model_version != self._model:
            return np.zeros((len(COLUMNS), BINS_MAX), dtype=np.int64)
        size = min(bins.shape[1], len(at))
        chosen = np.flatnonzero(at[:size] >= since_seconds)
        return np.array([np.bincount(column[chosen], minlength=BINS_MAX) for column in bins], dtype=np.int64)

    def _grow(self, rows: int) -> None:
        if rows <= len(self._at):
            return
        size = max(rows, 2 * len(self._at), _FIRST_ROWS)
        bins = np.zeros((len(COLUMNS), size), dtype=np.uint8)
        bins[:, : self._bins.shape[1]] = self._bins
        at = np.full(size, -np.inf)
        at[: len(self._at)] = self._at
        self._bins, self._at = bins, at
