"""Point-in-time training sets: what was known of each customer before a day, and what that customer did in the days
from then on. It must never let an event of the day itself, or a later one, into the features.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from domain.customer import DAY_MS, CustomerState, apply
from domain.features import ENGINEERED, FEATURE_NAMES, INPUT_NAMES, FeatureRows, engineer, features
from domain.purchases import purchases
from domain.rfm_scores import Quintiles, fit_quintiles, score_high_is_good
from services.trainer.judged_rows import JudgedRows

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_RECENCY, _FREQUENCY, _MONETARY = (FEATURE_NAMES.index(name) for name in ("recency_days", "frequency", "monetary"))
_FREQUENCY_SCORE_INPUT = INPUT_NAMES.index("frequency_score")
_ANY_QUINTILES = Quintiles((0.0, 0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 0.0))


@dataclass(frozen=True, eq=False)
class Targets:
    """What each customer of a training set did in [origin, origin + horizon), arrays of shape (n,)."""

    orders: Floats
    """Orders placed."""
    value: Floats
    """Net value of those orders less refunds without an order in that time; may be negative. Major units."""

    @property
    def active(self) -> Floats:
        """1.0 with at least one order, else 0.0."""
        return (self.orders > 0).astype(np.float64)


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """The customers with an order before `origin_day` (days since 1970, UTC), sorted by id."""

    origin_day: int
    horizon_days: int
    customer_ids: tuple[str, ...]
    inputs: Floats
    """(n, 7), without scores until with_quintiles()."""
    features: Floats
    """(n, len(FEATURE_NAMES)), without scores until with_quintiles()."""
    targets: Targets | None
    """None where the window was not asked for."""

    def __len__(self) -> int:
        return len(self.customer_ids)

    def fit_quintiles(self) -> Quintiles:
        """Borders of the RFM scores over these customers. Raises ValueError if there are none."""
        return fit_quintiles(self.features[:, _RECENCY], self.features[:, _FREQUENCY], self.features[:, _MONETARY])

    def with_quintiles(self, quintiles: Quintiles) -> "TrainingSet":
        """The same rows with scores by these borders: what features() gives with them."""
        inputs, rows = self.inputs.copy(), self.features.copy()
        inputs[:, _FREQUENCY_SCORE_INPUT] = score_high_is_good(rows[:, _FREQUENCY], quintiles.frequency)
        rows[:, : len(ENGINEERED)] = engineer(inputs, quintiles, rows[:, _MONETARY])
        return TrainingSet(self.origin_day, self.horizon_days, self.customer_ids, inputs, rows, self.targets)

    @property
    def known_targets(self) -> Targets:
        """The targets, where there are some. Raises ValueError otherwise."""
        if self.targets is None:
            raise ValueError(f"nothing is known after day {self.origin_day}")
        return self.targets


class History:
    """The valid events before a day, by time. Built once; every training set is a replay of it."""

    def __init__(self, judged: JudgedRows, before_day: int, minor_per_major: int) -> None:
        """Raises nothing: no events are an empty history."""
        self.before_day = before_day
        self.minor_per_major = minor_per_major
        kept = np.flatnonzero(judged.valid & (judged.at_ms < before_day * DAY_MS))
        # By content, not by place in the file: the same rows in another order are the same history.
        keys = [judged.refund_ids, judged.order_ids, judged.amount_minor, judged.customer_ids, judged.at_ms]
        order = sorted(kept.tolist(), key=lambda row: tuple(column[row] for column in reversed(keys)))
        self.customer_ids = tuple(sorted(set(judged.customer_ids[kept].tolist())))
        place = {customer: index for index, customer in enumerate(self.customer_ids)}
        events = dict(judged.events()) if len(kept) else {}
        self._events = [events[row] for row in order]
        self._owner = [place[judged.customer_ids[row]] for row in order]
        self._day = judged.at_ms[np.array(order, dtype=np.int64)] // DAY_MS if order else np.zeros(0, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._events)

    @property
    def first_day(self) -> int:
        """Day of the first event. Raises ValueError without events."""
        if not len(self._day):
            raise ValueError("an empty history has no first day")
        return int(self._day[0])

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the events, hexadecimal: the same for the same rows in any file format and order."""
        digest = sha256()
        for owner, event in zip(self._owner, self._events, strict=True):
            digest.update(f"{self.customer_ids[owner]!r} {event!r}\n".encode())
        return digest.hexdigest()

    def until(self, day: int) -> "History":
        """The same history as it was known before `day`: nothing later is reachable from it."""
        earlier = object.__new__(History)
        earlier.before_day = min(day, self.before_day)
        earlier.minor_per_major = self.minor_per_major
        count = int(np.searchsorted(self._day, day))
        earlier.customer_ids = self.customer_ids
        earlier._events, earlier._owner, earlier._day = self._events[:count], self._owner[:count], self._day[:count]
        return earlier

    def states(self, days: Sequence[int]) -> Iterator[tuple[int, list[CustomerState]]]:
        """For each of the ascending days, the states of all customers from the events before that day alone.

        The states change when the iteration goes on.
        """
        states = [CustomerState() for _ in self.customer_ids]
        done = 0
        for day in days:
            until = int(np.searchsorted(self._day, day))
            for owner, event in zip(self._owner[done:until], self._events[done:until], strict=True):
                apply(states[owner], event)
            done = max(done, until)
            yield day, states

    def training_sets(self, windows: Sequence[tuple[int, int]]) -> list[TrainingSet]:
        """A set for each (origin day, horizon in days), in that order; horizon 0 means no targets.

        Features are as of the origin day, from the events before it; targets from the events before the window's end.
        Raises ValueError if a window reaches beyond the history: its end is not known.
        """
        for origin, horizon in windows:
            if origin + horizon > self.before_day:
                raise ValueError(f"day {origin} + {horizon} days is after day {self.before_day}, the history's end")
        rows: dict[int, tuple[list[int], FeatureRows]] = {}
        targets: dict[tuple[int, int], Targets] = {}
        days = {origin for origin, _ in windows} | {origin + horizon for origin, horizon in windows}
        for day, states in self.states(sorted(days)):
            if any(origin == day for origin, _ in windows):
                rows[day] = self._rows(states, day)
            for origin, horizon in windows:
                if horizon and origin + horizon == day:
                    known = [states[customer] for customer in rows[origin][0]]
                    targets[origin, horizon] = _targets(known, origin, day, self.minor_per_major)
        return [
            TrainingSet(
                origin,
                horizon,
                tuple(self.customer_ids[customer] for customer in rows[origin][0]),
                rows[origin][1].inputs,
                rows[origin][1].features,
                targets.get((origin, horizon)),
            )
            for origin, horizon in windows
        ]

    def _rows(self, states: Sequence[CustomerState], day: int) -> tuple[list[int], FeatureRows]:
        customers = [customer for customer, state in enumerate(states) if state.orders or state.folded]
        known = [states[customer] for customer in customers]
        return customers, features(known, [day] * len(known), _ANY_QUINTILES, self.minor_per_major)


def _targets(states: Sequence[CustomerState], origin: int, end: int, minor_per_major: int) -> Targets:
    found, loose = purchases(states, [end - 1] * len(states))
    orders, minor = np.zeros(len(states), dtype=np.int64), np.zeros(len(states), dtype=np.int64)
    inside = found.day >= origin
    np.add.at(orders, found.owner[inside], found.orders[inside])
    np.add.at(minor, found.owner[inside], found.net[inside])
    inside = loose.day >= origin
    np.subtract.at(minor, loose.owner[inside], loose.minor[inside])
    return Targets(orders.astype(np.float64), minor / minor_per_major)
