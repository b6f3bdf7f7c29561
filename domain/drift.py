"""How far a population has moved from the one that a model was trained on: the population stability index (PSI).

Pure: arrays in, numbers out; whose values they are, and of when, is the caller's. Must never compare counts that were
binned by different references.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bins = NDArray[np.uint8]

SMOOTHING = 1e-4
"""Added to each bin's share on both sides, which are then scaled to 1 again: an empty bin would make the index
infinite.

A bin that is empty on both sides adds nothing; one that is empty on one side adds about s · ln(s / SMOOTHING) for a
share s on the other.
"""
DECILES = 10
BINS_MAX = DECILES + 1
"""Ten bins of values at most, and one of missing values."""


class Reference(msgspec.Struct, frozen=True):
    """How a quantity was distributed over the reference population, each customer once.

    Bin i holds the values in (edges[i − 1], edges[i]], the first has no lower and the last no upper end. Edges are the
    distinct deciles, so a value that many customers share has a bin that ends with it. Shares are of all customers:
    shares and missing_share sum to 1.
    """

    edges: tuple[float, ...]
    """Strictly ascending."""
    shares: tuple[float, ...]
    """One more than edges."""
    missing_share: float

    @property
    def expected(self) -> Floats:
        """Shares of all bins, (len(edges) + 2,); the last is that of missing values."""
        return np.array([*self.shares, self.missing_share])

    def bins(self, values: Floats) -> Bins:
        """The bin of each value; of NaN the last, len(edges) + 1."""
        found = np.searchsorted(np.array(self.edges), values, side="left")
        return np.where(np.isnan(values), len(self.edges) + 1, found).astype(np.uint8)


def reference(values: Floats) -> Reference:
    """The reference that values, one a customer, make; NaN is missing. Raises ValueError for none at all."""
    if not len(values):
        raise ValueError("a reference population needs at least one customer")
    there = values[~np.isnan(values)]
    inner = np.linspace(0, 1, DECILES + 1)[1:-1]
    # A decile that is itself a value: an interpolated one would move by rounding, and then past a shared value.
    edges = np.unique(np.quantile(there, inner, method="higher")) if len(there) else np.empty(0)
    counts = np.bincount(np.searchsorted(edges, there, side="left"), minlength=len(edges) + 1)
    return Reference(
        tuple(edges.tolist()), tuple((counts / len(values)).tolist()), float((len(values) - len(there)) / len(values))
    )


def reference_of_quantiles(quantiles: Sequence[float], missing_share: float = 0.0) -> Reference:
    """The reference that evenly spaced quantiles tell of, the least and the greatest value included; ascending.

    Where several quantiles are one value its exact share is not known, and may be off by the distance of two quantiles:
    give percentiles where values are shared.
    No quantiles: all values are missing. Raises ValueError if the quantiles are not ascending numbers.
    """
    found = np.array(quantiles, dtype=np.float64)
    if not len(found):
        return Reference((), (0.0,), 1.0)
    if len(found) < 2 or np.isnan(found).any() or (np.diff(found) < 0).any():
        raise ValueError("quantiles must be two or more ascending numbers")
    ranks = np.linspace(0.0, 1.0, len(found))
    edges = np.unique(np.interp(np.linspace(0, 1, DECILES + 1)[1:-1], ranks, found))
    last = np.searchsorted(found, edges, side="right") - 1  # the last quantile that is no greater than the edge
    beyond = np.minimum(last + 1, len(found) - 1)
    gap = found[beyond] - found[last]
    part = np.divide(edges - found[last], gap, out=np.zeros_like(gap), where=gap > 0)
    reached = ranks[last] + part * (ranks[beyond] - ranks[last])
    kept = (
        np.diff([0.0, *reached]) >= 0.5 / DECILES
    )  # a thin bin's share would mostly be what the quantiles do not tell
    shares = np.diff([0.0, *reached[kept], 1.0]) * (1.0 - missing_share)
    return Reference(tuple(edges[kept].tolist()), tuple(shares.tolist()), float(missing_share))


def reference_in(metadata: Mapping[str, Any]) -> Reference:
    """The reference in a bundle's metadata: `edges`, `shares` and `missing_share`; or `deciles` and `missing_share`.

    Raises ValueError if it holds neither, numbers that make no reference, or deciles that are equal: by a tenth of the
    customers in the wrong bin the index would be above 0.1 without any change.
    """
    if "edges" not in metadata:
        try:
            deciles, missing = list(metadata["deciles"]), float(metadata["missing_share"])
        except (KeyError, TypeError) as error:
            raise ValueError(f"a reference needs edges and shares, or deciles: {error!r}") from None
        if len(set(deciles)) != len(deciles):
            raise ValueError("equal deciles do not tell how many customers share that value")
        return reference_of_quantiles(deciles, missing)
    try:
        found = msgspec.convert({name: metadata.get(name) for name in Reference.__struct_fields__}, Reference)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from None
    if len(found.shares) != len(found.edges) + 1 or list(found.edges) != sorted(set(found.edges)):
        raise ValueError("a reference has ascending edges and one share more than edges")
    if len(found.edges) + 2 > BINS_MAX or abs(sum(found.shares) + found.missing_share - 1) > 1e-6:
        raise ValueError(f"a reference has {BINS_MAX} bins at most, and its shares sum to 1")
    return found


def psi(expected: Floats, counts: NDArray[np.int64]) -> float:
    """Population stability index of counts against expected shares, bin by bin; both (bins,). At least 0.

    Σ (a − e) · ln(a / e) over the bins, a and e the shares after SMOOTHING (Siddiqi, "Credit Risk Scorecards", 2006,
    chapter 9; it is Jeffreys' symmetric divergence of the two distributions, Kullback and Leibler 1951, equation 2.6).
    By Siddiqi's convention below 0.1 is no change to speak of, above 0.25 a great one. Without any change its mean is
    about (bins − 1) × (1/n + 1/m) for n and m customers (Yurdakul, "Statistical properties of population stability
    index", 2018): 0.05 for 200 customers and eleven bins. Raises ValueError for no customers or unequal lengths.
    """
    total = int(counts.sum())
    if expected.shape != counts.shape or total <= 0:
        raise ValueError(
            f"cannot compare {total} customers in {counts.shape} bins with {expected.shape} expected shares"
        )
    width = 1.0 + SMOOTHING * len(expected)
    was = (expected + SMOOTHING) / width
    now = (counts / total + SMOOTHING) / width
    return float(np.sum((now - was) * np.log(now / was)))
