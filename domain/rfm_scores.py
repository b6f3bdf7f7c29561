"""RFM quintile scores, 1 (worst) to 5 (best), against borders fixed when the model was trained.

Pure. One definition, used online, in training and in the API. Source: Hughes, Strategic Database Marketing (1994).
"""

from collections.abc import Sequence
from hashlib import sha256
from typing import cast

import msgspec
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Quintiles(msgspec.Struct, frozen=True):
    """Four ascending borders for each of the three measures, from the training population, each customer once.

    recency_days in days; frequency in repeat orders; monetary in major units of the reporting currency.
    """

    recency_days: tuple[float, float, float, float]
    frequency: tuple[float, float, float, float]
    monetary: tuple[float, float, float, float]

    @property
    def fingerprint(self) -> str:
        """A short name for these borders, so that a score can say which borders it was made with."""
        return sha256(msgspec.json.encode(self)).hexdigest()[:12]


def fit_quintiles(recency_days: Floats, frequency: Floats, monetary: Floats) -> Quintiles:
    """The 20th, 40th, 60th and 80th percentile of each measure over a population. Raises ValueError if it is empty."""
    if len(recency_days) == 0:
        raise ValueError("quintiles need at least one customer")
    return Quintiles(_borders(recency_days), _borders(frequency), _borders(monetary))


def _borders(values: Floats) -> tuple[float, float, float, float]:
    found = tuple(float(value) for value in np.quantile(values, [0.2, 0.4, 0.6, 0.8]))
    return cast("tuple[float, float, float, float]", found)


def score_high_is_good(values: Floats, borders: Sequence[float]) -> Floats:
    """1 + the number of borders below the value: 5 for the top fifth. NaN stays NaN."""
    scores = 1.0 + np.searchsorted(np.asarray(borders), values, side="left")
    return np.where(np.isnan(values), np.nan, scores)


def score_low_is_good(values: Floats, borders: Sequence[float]) -> Floats:
    """5 for the lowest fifth (recency: the fewer days, the better). NaN stays NaN."""
    return 6.0 - score_high_is_good(values, borders)


def rfm_cell(recency_score: Floats, frequency_score: Floats, monetary_score: Floats) -> Floats:
    """The RFM cell as a number, 111 to 555: hundreds recency, tens frequency, ones monetary."""
    return 100.0 * recency_score + 10.0 * frequency_score + monetary_score
