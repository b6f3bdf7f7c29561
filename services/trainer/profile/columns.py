"""From the seven inputs to what candidates are fitted to: the 21 columns, then two finite matrices, one for trees and
one for smooth models, and the scale that the value is learned in units of. It must never use an operation that the ONNX
graph (nodes.py) cannot repeat, nor look at the target.

The scale is the largest power of two that is not above the customer's total spending, so that the ratio value ÷ scale
lies between 1 and 2 for small and large customers alike. Trees answer in steps and do not extrapolate: fitted to money
itself, or to its logarithm, they miss the few customers who make up most of the variance.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from domain.features import ENGINEERED, INPUT_NAMES, engineer
from domain.rfm_scores import Quintiles
from schemas.profile_model import COLUMNS, VALUE_MAX

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

SCALES = tuple(2.0**power for power in range(-7, 41))
"""From below a cent to VALUE_MAX."""
COLUMN_MAX = 1e12
STANDARD_MAX = 3.0
"""Smooth models see standardised logarithms within ±3: a customer unlike all others is not taken beyond what was
seen."""
SIGNIFICAND_MEAN, SIGNIFICAND_STD = 1.5, 0.29
"""Of a uniform number between 1 and 2."""
TOTAL = COLUMNS.index("total_spending")
SIGNIFICAND = "total_spending ÷ scale"
_FRESH = tuple(place for place, feature in enumerate(ENGINEERED) if feature.name not in INPUT_NAMES)


def columns_of(inputs: Floats, quintiles: Quintiles) -> Floats:
    """(n, 21) in COLUMNS order from the inputs, (n, 7), by the product's one definition of the features."""
    with np.errstate(all="ignore"):
        return np.column_stack([inputs, engineer(inputs, quintiles)[:, _FRESH]])


def scale_of(columns: Floats) -> Floats:
    """The power of two that each row's value is measured in, (n,), major units."""
    powers = np.array(SCALES)
    return powers[np.maximum(np.searchsorted(powers, _total(columns), side="right") - 1, 0)]


def _total(columns: Floats) -> Floats:
    total = columns[:, TOTAL]
    return np.where(np.isnan(total), 0.0, np.clip(total, 0.0, VALUE_MAX))


@dataclass(frozen=True, eq=False)
class Prepared:
    """n rows, ready for candidates."""

    trees: NDArray[np.float32]
    """(n, len(Preparation.tree_names)); float32, which is what converted trees compare."""
    smooth: Floats
    """(n, the same number of columns)."""
    scale: Floats
    has_spent: Bools
    """Rows with a total spending above nothing; the others have the value 0."""


@dataclass(frozen=True, eq=False)
class Preparation:
    """What was learned about the columns from the training rows. Arrays over COLUMNS."""

    fill: Floats
    """Stands in for a missing number: the mean of the known ones."""
    log_mean: Floats
    log_std: Floats
    flagged: tuple[int, ...]
    """Columns that may be missing, as the age may: a further column says so."""

    @property
    def tree_names(self) -> tuple[str, ...]:
        """The names of the prepared columns."""
        return (*COLUMNS, *(f"{COLUMNS[place]} missing" for place in self.flagged), SIGNIFICAND)

    def apply(self, columns: Floats) -> Prepared:
        """Prepare rows of shape (n, 21)."""
        missing = np.isnan(columns)
        filled = np.where(missing, self.fill, np.clip(columns, -COLUMN_MAX, COLUMN_MAX))
        flags = missing[:, self.flagged].astype(np.float64)
        scale = scale_of(columns)
        significand = _total(columns) / scale
        logs = np.log(np.maximum(filled, 0.0) + 1.0)
        standard = np.clip((logs - self.log_mean) / self.log_std, -STANDARD_MAX, STANDARD_MAX)
        return Prepared(
            np.column_stack([filled, flags, significand]).astype(np.float32),
            np.column_stack([standard, flags, (significand - SIGNIFICAND_MEAN) / SIGNIFICAND_STD]),
            scale,
            columns[:, TOTAL] > 0,
        )


def fit_preparation(columns: Floats) -> Preparation:
    """From the training rows, (n, 21)."""
    missing = np.isnan(columns)
    counts = np.maximum((~missing).sum(axis=0), 1)
    fill = np.where(missing, 0.0, columns).sum(axis=0) / counts
    logs = np.log(np.maximum(np.where(missing, fill, columns), 0.0) + 1.0)
    std = logs.std(axis=0)
    flagged = tuple(place for place in range(len(COLUMNS)) if missing[:, place].any())
    return Preparation(fill, logs.mean(axis=0), np.where(std > 0, std, 1.0), flagged)
