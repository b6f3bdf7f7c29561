"""The sufficient statistics (x, t_x, T) of many customers, checked and folded to unique rows with counts, which is what
makes a likelihood over a million customers cheap. It must never drop or alter a customer silently."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from domain.btyd.parameters import FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class PurchaseHistories:
    """Unique histories and how many customers share each; all arrays have shape (rows,), sorted by (x, t_x, T)."""

    x: FloatArray  # repeat purchase days (the first purchase day is not counted)
    t_x_days: FloatArray  # last − first purchase day; 0 where x = 0
    age_days: FloatArray  # T: as_of − first purchase day
    customers: FloatArray  # weight of the row

    @property
    def customers_total(self) -> int:
        """Customers over all rows."""
        return int(self.customers.sum())

    @property
    def repeat_buyers(self) -> int:
        """Customers with at least one repeat purchase day."""
        return int(self.customers[self.x > 0].sum())

    def scaled(self, days_per_unit: float) -> "PurchaseHistories":
        """The same histories with time counted in units of `days_per_unit`."""
        return PurchaseHistories(self.x, self.t_x_days / days_per_unit, self.age_days / days_per_unit, self.customers)

    def thinned(self, rows_max: int) -> "PurchaseHistories":
        """About `rows_max` of the sorted rows, evenly spread: enough to tell good starting points from bad ones."""
        each = evenly(self.x.size, rows_max)
        return PurchaseHistories(self.x[each], self.t_x_days[each], self.age_days[each], self.customers[each])


def evenly(rows: int, rows_max: int) -> slice:
    """At most `rows_max` of so many rows, evenly spread."""
    return slice(None, None, max(1, -(-rows // rows_max)))


def purchase_histories(
    x: ArrayLike, t_x_days: ArrayLike, age_days: ArrayLike, customers: ArrayLike | None = None
) -> PurchaseHistories:
    """Check and fold histories of shape (n,). `customers` are the rows' counts (default: one each).

    Raises ValueError, naming the first bad row, unless 0 ≤ t_x ≤ T, x is a whole number ≥ 0, and t_x = 0 exactly where
    x = 0.
    """
    columns = [np.atleast_1d(np.asarray(column, dtype=np.float64)) for column in (x, t_x_days, age_days)]
    counts = np.ones(columns[0].shape) if customers is None else np.atleast_1d(np.asarray(customers, dtype=np.float64))
    if columns[0].ndim != 1 or any(column.shape != columns[0].shape for column in (*columns, counts)):
        raise ValueError("x, t_x_days, age_days and customers must be one-dimensional and equally long")
    if columns[0].size == 0:
        raise ValueError("no customers: a purchase model needs at least one history")
    _check_rows(columns[0], columns[1], columns[2], counts)
    order = np.lexsort(columns[::-1])
    sorted_columns = [column[order] for column in columns]
    is_new = np.ones(order.size, dtype=bool)
    is_new[1:] = np.logical_or.reduce([column[1:] != column[:-1] for column in sorted_columns])
    first = np.flatnonzero(is_new)
    unique_x, unique_t_x, unique_age = (column[first] for column in sorted_columns)
    return PurchaseHistories(unique_x, unique_t_x, unique_age, np.add.reduceat(counts[order], first))


def _check_rows(x: FloatArray, t_x_days: FloatArray, age_days: FloatArray, counts: FloatArray) -> None:
    finite = np.isfinite(x) & np.isfinite(t_x_days) & np.isfinite(age_days)
    rules = {
        "x, t_x and T must be finite": finite,
        "x must be a whole number of repeat purchase days, 0 or more": (x >= 0) & (x == np.floor(x)),
        "0 ≤ t_x ≤ T must hold (BTYD t_x is last − first purchase, not days since the last one)": (t_x_days >= 0)
        & (t_x_days <= age_days),
        "t_x must be 0 exactly where x is 0": (x > 0) == (t_x_days > 0),
        "customers must be finite and > 0": np.isfinite(counts) & (counts > 0),
    }
    for rule, holds in rules.items():
        if not holds.all():
            row = int(np.flatnonzero(~holds)[0])
            raise ValueError(
                f"{rule}; row {row} has x={x[row]}, t_x={t_x_days[row]}, T={age_days[row]}, n={counts[row]}"
            )
