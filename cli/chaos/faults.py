"""The fault kinds, and when each strikes: a schedule that is a function of seed, length and number of brokers.

Pure. Must never plan two faults of one process at a time: a fault is meant to meet a service that runs, or one that is
recovering from the fault of another.
"""

from collections.abc import Iterator
from enum import StrEnum
from random import Random
from typing import NamedTuple

SESSION_TIMEOUT_SECONDS = 10.0
"""Of all consumer groups of the product: a member that is silent for longer loses its partitions."""
PAUSE_SECONDS = 16.0
SERVICES = ("ingest", "scorer", "sink")
WORKERS = ("features", "features-2")
EXTRA_WORKER = "features-3"
KAFKA, MONGO = "kafka", "mongo"
_FIRST_SECONDS = 3.0
_LAST_SECONDS = 5.0


class Kind(StrEnum):
    """What is done to the running product."""

    KILL_INGEST = "kill_ingest"
    KILL_FEATURES = "kill_features"
    KILL_SCORER = "kill_scorer"
    KILL_SINK = "kill_sink"
    KILL_TWO = "kill_two"
    KILL_MID_CHUNK = "kill_features_mid_chunk"
    PAUSE_FEATURES = "pause_features"
    PAUSE_MID_CHUNK = "pause_features_mid_chunk"
    PAUSE_INGEST = "pause_ingest"
    PAUSE_SCORER = "pause_scorer"
    PAUSE_SINK = "pause_sink"
    BROKER_RESTART = "broker_restart"
    MONGO_RESTART = "mongo_restart"
    MONGO_STEP_DOWN = "mongo_step_down"
    REBALANCE = "worker_added_or_removed"
    REBALANCE_MID_CHUNK = "partition_revoked_mid_chunk"
    STATE_DELETED = "local_state_deleted"


class Fault(NamedTuple):
    """One fault. targets: processes, servers or `kafka-<broker>`; seconds: how long it is kept down or stopped.

    seconds_in: of the kinds that strike in the middle of a chunk, how long after the first chunk of a pile of work.
    """

    number: int
    at_seconds: float
    kind: Kind
    targets: tuple[str, ...]
    seconds: float = 0.0
    seconds_in: float = 0.0


_TARGETS: dict[Kind, tuple[str, ...]] = {
    Kind.KILL_INGEST: ("ingest",),
    Kind.KILL_FEATURES: WORKERS,
    Kind.KILL_SCORER: ("scorer",),
    Kind.KILL_SINK: ("sink",),
    Kind.KILL_MID_CHUNK: WORKERS,
    Kind.PAUSE_FEATURES: WORKERS,
    Kind.PAUSE_MID_CHUNK: WORKERS,
    Kind.PAUSE_INGEST: ("ingest",),
    Kind.PAUSE_SCORER: ("scorer",),
    Kind.PAUSE_SINK: ("sink",),
    Kind.MONGO_RESTART: (MONGO,),
    Kind.MONGO_STEP_DOWN: (MONGO,),
    Kind.REBALANCE: (EXTRA_WORKER,),
    Kind.REBALANCE_MID_CHUNK: (EXTRA_WORKER,),
    Kind.STATE_DELETED: WORKERS,
}
"""What each kind strikes: one of these."""
_DOWN_SECONDS = {
    Kind.BROKER_RESTART: (0.0, 3.0),
    Kind.MONGO_RESTART: (0.0, 3.0),
    Kind.MONGO_STEP_DOWN: (3.0, 6.0),
    Kind.PAUSE_FEATURES: (PAUSE_SECONDS, PAUSE_SECONDS + 2),
    Kind.PAUSE_MID_CHUNK: (PAUSE_SECONDS, PAUSE_SECONDS + 2),
    Kind.PAUSE_INGEST: (PAUSE_SECONDS, PAUSE_SECONDS),
    Kind.PAUSE_SCORER: (PAUSE_SECONDS, PAUSE_SECONDS),
    Kind.PAUSE_SINK: (PAUSE_SECONDS, PAUSE_SECONDS),
}
_MID_CHUNK_KINDS = (Kind.KILL_MID_CHUNK, Kind.PAUSE_MID_CHUNK)
_SECONDS_IN = (0.03, 0.4)
_RESTART_SECONDS = 7.0
"""Until a killed process can be expected to work again: before that, it is no target."""


def schedule(
    seed: int, seconds: float, brokers: int, mean_gap_seconds: float = 7.0, kinds: tuple[Kind, ...] = tuple(Kind)
) -> list[Fault]:
    """Faults within a run of so many seconds, in time order. Every kind comes once before one comes twice."""
    rng = Random(f"faults {seed}")  # noqa: S311 - a schedule, not a secret
    plan = _Plan(rng, brokers, kinds)
    at, found = _FIRST_SECONDS, list[Fault]()
    while at < seconds - _LAST_SECONDS:
        fault = plan.next(len(found), at)
        if fault is not None:
            found.append(fault)
        at += mean_gap_seconds * rng.uniform(0.4, 1.6)
    return found


class _Plan:
    def __init__(self, rng: Random, brokers: int, kinds: tuple[Kind, ...]) -> None:
        self._rng, self._brokers, self._kinds = rng, brokers, kinds
        self._bag: list[Kind] = []
        self._busy_until: dict[str, float] = {}

    def next(self, number: int, at: float) -> Fault | None:
        """A fault at this moment whose targets are free, or None."""
        for kind in self._candidates():
            targets = self._free_targets(kind, at)
            if targets:
                self._bag.remove(kind)
                seconds = round(self._rng.uniform(*_DOWN_SECONDS[kind]), 2) if kind in _DOWN_SECONDS else 0.0
                until = at + seconds + _RESTART_SECONDS * (2 if kind in _MID_CHUNK_KINDS else 1)
                self._busy_until.update((_resource(target), until) for target in targets)
                seconds_in = round(self._rng.uniform(*_SECONDS_IN), 3) if kind in _MID_CHUNK_KINDS else 0.0
                return Fault(number, round(at, 2), kind, targets, seconds, seconds_in)
        return None

    def _candidates(self) -> Iterator[Kind]:
        if not self._bag:
            self._bag = list(self._kinds)
            self._rng.shuffle(self._bag)
        yield from list(self._bag)

    def _free_targets(self, kind: Kind, at: float) -> tuple[str, ...]:
        if kind is Kind.KILL_TWO:
            free = [name for name in (*SERVICES, *WORKERS) if self._is_free(name, at)]
            return tuple(self._rng.sample(free, 2)) if len(free) >= 2 else ()
        if kind is Kind.BROKER_RESTART:
            broker = f"{KAFKA}-{self._rng.randint(1, self._brokers)}"
            return (broker,) if self._is_free(broker, at) else ()
        free = [name for name in _TARGETS[kind] if self._is_free(name, at)]
        return (self._rng.choice(free),) if free else ()

    def _is_free(self, target: str, at: float) -> bool:
        return self._busy_until.get(_resource(target), 0.0) <= at


def _resource(target: str) -> str:
    """Brokers are one: only one of them may be away at a time."""
    return KAFKA if target.startswith(KAFKA) else target
