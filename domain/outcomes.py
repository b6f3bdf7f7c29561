"""What became of customers in a window of days: the truth that models are trained on and predictions are held against.

One definition for both. Pure: no clock, no IO. Must never count what happened outside the window, and never what the
one who predicted already knew: a window begins on the first day of which nothing was known.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from domain.customer import CustomerState
from domain.purchases import Purchases, purchases, sum_by

Ints = NDArray[np.int64]


class Outcomes(NamedTuple):
    """What each of n customers did in their window, arrays of shape (n,)."""

    orders: Ints
    """Orders placed in the window, and not cancelled by its end."""
    minor: Ints
    """Their value net of refunds by the window's end, less refunds in the window that name no order; may be negative.
    Minor units."""


def outcomes(states: Sequence[CustomerState], begins: Sequence[int], ends: Sequence[int]) -> Outcomes:
    """What each state tells of its window [begin, end), days since 1970 (UTC); what happened from `end` on is not seen.

    Each window is a customer's own; the state must know all that happened before its end.
    """
    begin = np.asarray(begins, dtype=np.int64)
    last = np.asarray(ends, dtype=np.int64) - 1
    found, loose = purchases(states, last.tolist())
    inside = Purchases(*(column[found.day >= begin[found.owner]] for column in found))
    back = loose.day >= begin[loose.owner]
    orders = sum_by(inside.owner, inside.orders, len(states))
    net = sum_by(inside.owner, inside.net, len(states))
    return Outcomes(orders, net - sum_by(loose.owner[back], loose.minor[back], len(states)))


def window(as_of_day: int, horizon_days: int, *, knew_the_day: bool) -> tuple[int, int]:
    """The days [begin, end) that a prediction as of a day is about.

    Features are as of the end of what was known. A prediction made upon an order of its own day has counted that order
    already (knew_the_day): its window begins on the next day, or the order would be held against it as a surprise. A
    training set's features are made from the days before `as_of` alone, so its windows begin with that day.
    """
    begin = as_of_day + 1 if knew_the_day else as_of_day
    return begin, begin + horizon_days
