"""Point-in-time training sets: what was known of each customer before a day, and what that customer did in the days
from then on. It must never let an event of the day itself, or a later one, into the features.

Customers are kept as packed states and unpacked a chunk at a time: memory grows with the orders' packed size alone.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256

import msgspec
import numpy as np
from numpy.typing import NDArray

from domain.customer import (
    CANCELLATION,
    DAY_MS,
    ORDER,
    REFUND,
    CustomerState,
    Profile,
    canonical,
    has_ordered,
    known_before,
)
from domain.features import ENGINEERED, FEATURE_NAMES, INPUT_NAMES, FeatureRows, date_of, engineer, features
from domain.outcomes import outcomes
from domain.purchases import purchases
from domain.rfm_scores import Quintiles, fit_quintiles, score_high_is_good
from services.trainer.progress import Progress, silent

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

CHUNK_CUSTOMERS = 5000
"""Customers unpacked at a time."""
_RECENCY, _FREQUENCY, _MONETARY = (FEATURE_NAMES.index(name) for name in ("recency_days", "frequency", "monetary"))
_FREQUENCY_SCORE_INPUT = INPUT_NAMES.index("frequency_score")
_ANY_QUINTILES = Quintiles((0.0, 0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 0.0))
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(CustomerState)


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


@dataclass(frozen=True, eq=False)
class Daily:
    """The whole shop day by day, from its first event to the last day that is known; arrays of shape (days,)."""

    day: Ints
    """Days since 1970 (UTC), without a gap."""
    orders: Ints
    """Orders placed that day that count."""
    value: Floats
    """Their net value, less refunds without an order that day; major units."""
    new_customers: Ints
    """Customers whose first order that counts it was."""


class History:
    """What is known of each customer before a day. Nothing of that day or later is reachable from it."""

    def __init__(self, customers: Iterable[tuple[str, CustomerState]], before_day: int, minor_per_major: int) -> None:
        """customers: each once, in any order; what happened on before_day (days since 1970, UTC) or later is left out.

        Raises nothing: no events are an empty history. Raises ValueError if a customer comes twice.
        """
        self.before_day = before_day
        self.minor_per_major = minor_per_major
        packed: dict[str, bytes] = {}
        self._count, first_ms = 0, None
        for customer, state in customers:
            if customer in packed:
                raise ValueError(f"customer {customer!r} comes twice")
            known = _settled(known_before(state, before_day))
            times = _times(known)
            if times:
                packed[customer] = _encoder.encode(known)
                self._count += len(times) + sum(total.orders - 1 for total in known.folded.values())
                first_ms = min(times) if first_ms is None else min(first_ms, *times)
        self._first_ms = first_ms
        self.customer_ids = tuple(sorted(packed))
        self._packed = [packed.pop(customer) for customer in self.customer_ids]

    def __len__(self) -> int:
        """Orders, refunds and cancellations, each once."""
        return self._count

    @property
    def first_day(self) -> int:
        """Day of the first event. Raises ValueError without events."""
        if self._first_ms is None:
            raise ValueError("an empty history has no first day")
        return self._first_ms // DAY_MS

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over all that is known, hexadecimal: the same for the same events from any source in any order."""
        digest = sha256()
        for customer, packed in zip(self.customer_ids, self._packed, strict=True):
            name = customer.encode()
            digest.update(b"%d %d\n" % (len(name), len(packed)) + name + packed)
        return digest.hexdigest()

    def until(self, day: int) -> "History":
        """The same history as it was known before `day`: nothing later is reachable from it."""
        if day >= self.before_day:
            return self
        return History(self.customers(), day, self.minor_per_major)

    def customers(self) -> Iterator[tuple[str, CustomerState]]:
        """Each customer's state as it is known, sorted by id. Changing it changes nothing here."""
        return zip(self.customer_ids, map(_decoder.decode, self._packed), strict=True)

    def daily(self) -> Daily:
        """Orders, value and new customers of each day. Raises ValueError without events."""
        first, days = self.first_day, max(self.before_day - self.first_day, 0)
        orders, minor, new = (np.zeros(days, dtype=np.int64) for _ in range(3))
        for _, states in self._chunks():
            found, loose = purchases(states, [self.before_day - 1] * len(states))
            np.add.at(orders, found.day - first, found.orders)
            np.add.at(minor, found.day - first, found.net)
            np.subtract.at(minor, loose.day - first, loose.minor)
            # Sorted by customer, then day.
            np.add.at(new, found.day[np.unique(found.owner, return_index=True)[1]] - first, 1)
        return Daily(np.arange(first, first + days), orders, minor / self.minor_per_major, new)

    def training_sets(self, windows: Sequence[tuple[int, int]], progress: Progress = silent) -> list[TrainingSet]:
        """A set for each (origin day, horizon in days), in that order; horizon 0 means no targets.

        Features are as of the origin day, from the events before it; targets from the events before the window's end.
        progress: told of each origin how many of all customers are done. Raises ValueError if a window reaches beyond
        the history: its end is not known.
        """
        for origin, horizon in windows:
            if origin + horizon > self.before_day:
                raise ValueError(f"day {origin} + {horizon} days is after day {self.before_day}, the history's end")
        horizons: dict[int, dict[int, list[TrainingSet]]] = {}
        for origin, horizon in windows:
            horizons.setdefault(origin, {})[horizon] = []
        joined: dict[tuple[int, int], TrainingSet] = {}
        for origin, built in horizons.items():  # each by itself: never all of it twice
            what = f"customers as of {date_of(origin)}"
            for start, states in self._chunks():
                ids = self.customer_ids[start : start + len(states)]
                for part in training_rows(ids, states, [(origin, each) for each in built], self.minor_per_major):
                    built[part.horizon_days].append(part)
                progress(what, start + len(states), len(self.customer_ids))
            for horizon in list(built):
                joined[origin, horizon] = _joined((origin, horizon), built.pop(horizon))
        return [joined[window] for window in windows]

    def _chunks(self) -> Iterator[tuple[int, list[CustomerState]]]:
        for start in range(0, len(self._packed), CHUNK_CUSTOMERS):
            yield start, [_decoder.decode(packed) for packed in self._packed[start : start + CHUNK_CUSTOMERS]]


def training_rows(
    customer_ids: Sequence[str],
    states: Sequence[CustomerState],
    windows: Iterable[tuple[int, int]],
    minor_per_major: int,
) -> Iterator[TrainingSet]:
    """For each (origin day, horizon in days), the rows of those of the customers who had ordered before the origin.

    states: all that is known, of the window and after it too. Order and neighbours of a customer do not matter.
    """
    by_origin: dict[int, list[int]] = {}
    for origin, horizon in windows:
        by_origin.setdefault(origin, []).append(horizon)
    for origin, horizons in by_origin.items():
        before = [known_before(state, origin) for state in states]
        there = [place for place, state in enumerate(before) if has_ordered(state)]
        known = [before[place] for place in there]
        rows = features(known, [origin] * len(known), _ANY_QUINTILES, minor_per_major) if known else _NO_ROWS
        ids = tuple(customer_ids[place] for place in there)
        for horizon in horizons:
            targets = _targets([states[place] for place in there], origin, origin + horizon, minor_per_major)
            yield TrainingSet(origin, horizon, ids, rows.inputs, rows.features, targets if horizon else None)


_NO_ROWS = FeatureRows(np.zeros((0, len(INPUT_NAMES))), np.zeros((0, len(FEATURE_NAMES))))


def _joined(window: tuple[int, int], parts: Sequence[TrainingSet]) -> TrainingSet:
    ids = tuple(customer for part in parts for customer in part.customer_ids)
    inputs = np.concatenate([_NO_ROWS.inputs, *(part.inputs for part in parts)])
    rows = np.concatenate([_NO_ROWS.features, *(part.features for part in parts)])
    targets = None
    if window[1]:
        none = np.zeros(0)
        orders = np.concatenate([none, *(part.known_targets.orders for part in parts)])
        targets = Targets(orders, np.concatenate([none, *(part.known_targets.value for part in parts)]))
    return TrainingSet(*window, ids, inputs, rows, targets)


def _targets(states: Sequence[CustomerState], origin: int, end: int, minor_per_major: int) -> Targets:
    found = outcomes(states, [origin] * len(states), [end] * len(states))
    return Targets(found.orders.astype(np.float64), found.minor / minor_per_major)


def _settled(state: CustomerState) -> CustomerState:
    """What is known, without how it came to be known: equal, byte by byte, for the same events from any source."""
    fresh, profile = CustomerState(), state.profile
    return msgspec.structs.replace(
        canonical(state),
        profile=Profile(0, profile.birth_year) if profile is not None and profile.birth_year is not None else None,
        folded=dict(sorted(state.folded.items())),
        folded_through_day=fresh.folded_through_day,
        folded_ids=fresh.folded_ids,
    )


def _times(state: CustomerState) -> list[int]:
    """When each thing that the state knows of happened, epoch milliseconds; of a folded day its beginning."""
    return [
        *(at_ms for _, at_ms, _ in ORDER.iter_unpack(state.orders)),
        *(at_ms for _, _, at_ms, _ in REFUND.iter_unpack(state.refunds)),
        *(at_ms for _, at_ms in CANCELLATION.iter_unpack(state.cancelled)),
        *(day * DAY_MS for day in state.folded),
    ]
