"""The check that no feature knows the future: training fails, with the feature's name, where one does. It must never
repair a leak, and never judge by anything but the history and the training sets that were made from it."""

from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domain.customer import DAY_MS, latest_ms
from domain.features import FEATURE_NAMES, INPUT_NAMES, date_of
from domain.metrics import spearman
from services.runtime.shutdown import KnownProblem
from services.trainer.feature_groups import group_of
from services.trainer.history import History, TrainingSet
from services.trainer.progress import Progress, silent

Floats = NDArray[np.float64]

CHECKED_CUSTOMERS_MAX = 20_000
"""Whose features are made once more; of more customers every k-th by id."""
ALARM_CORRELATION = 0.99
"""|Spearman| of one feature with the value to come that no honest feature reaches by itself."""
WITNESS_CORRELATION = 0.95
"""Where a feature of another group comes this near as well, the shop is predictable (everybody pays the same each
month), and the alarm is not raised."""
ALARM_ROWS_MIN = 200
ALARM_DISTINCT_MIN = 50
"""Fewest different values, of the feature and of the target, among which a perfect ranking is no accident."""
ALARM_ROWS_MAX = 5_000
"""Rows that are looked at: every k-th customer by id."""


def training_sets(
    history: History, windows: Sequence[tuple[int, int]], progress: Progress = silent
) -> list[TrainingSet]:
    """history.training_sets(windows), checked: the way to a training set. Raises KnownProblem if a feature leaks."""
    sets = history.training_sets(windows, progress)
    check_sets(history, sets, progress)
    return sets


def check_sets(history: History, sets: Sequence[TrainingSet], progress: Progress = silent) -> None:
    """Raises KnownProblem, with the feature's name, if a set holds anything that was not known before its origin.

    sets: as history.training_sets() made them, without quintile scores. Each is made once more from a history that ends
    at its origin, where nothing later can be reached, and must be the same to the last bit, customers included: all of
    them, or every k-th where there are many. A leak that bypasses the history is looked for by `alarm`.
    """
    step = max(1, -(-len(history.customer_ids) // CHECKED_CUSTOMERS_MAX))
    honest: dict[int, TrainingSet] = {}
    for done, each in enumerate(sets):
        progress("sets made again from the past alone", done, len(sets))
        if each.origin_day not in honest:
            honest[each.origin_day] = _honest(history, each.origin_day, step)
        _compare(each, honest[each.origin_day], frozenset(history.customer_ids[::step]))
        if each.targets is not None:
            alarm(each)
    progress("sets made again from the past alone", len(sets), len(sets))


def _honest(history: History, origin_day: int, step: int) -> TrainingSet:
    """Features of every step-th customer as of a day, from a history that holds nothing of that day or later."""
    some = islice(history.customers(), 0, None, step)
    earlier = History(some, min(origin_day, history.before_day), history.minor_per_major)
    later = sum(latest_ms(state) >= origin_day * DAY_MS for _, state in earlier.customers())
    if later:
        raise KnownProblem(
            f"training stopped: what was known before {date_of(origin_day).isoformat()} holds later events of "
            f"{later:,} customers: the history itself knows the future"
        )
    return earlier.training_sets([(origin_day, 0)])[0]


def _compare(used: TrainingSet, honest: TrainingSet, checked: frozenset[str]) -> None:
    day = date_of(used.origin_day).isoformat()
    rows = [place for place, customer in enumerate(used.customer_ids) if customer in checked]
    ids = [used.customer_ids[place] for place in rows]
    if ids != list(honest.customer_ids):
        strange = len(set(ids) ^ set(honest.customer_ids))
        raise KnownProblem(
            f"training stopped: the choice of customers knows the future. As of {day}, {strange:,} customers are in "
            "the set for what they did later, or missing for it: a customer belongs to it by an earlier order alone"
        )
    found = _differences(FEATURE_NAMES, used.features[rows], honest.features)
    inputs = _differences(INPUT_NAMES, used.inputs[rows], honest.inputs)
    found |= {f"{name} (input)": count for name, count in inputs.items()}
    if found:
        worst = sorted(found, key=lambda name: -found[name])
        named = ", ".join(f"{name} ({found[name]:,} customers)" for name in worst[:3])
        more = f" and {len(worst) - 3} more" if len(worst) > 3 else ""
        raise KnownProblem(
            f"training stopped: {'a feature knows' if len(worst) == 1 else 'features know'} the future: {named}{more}. "
            f"Made from the events before {day} alone, they come out otherwise: compute them from those alone"
        )


def _differences(names: Sequence[str], used: Floats, honest: Floats) -> dict[str, int]:
    """Names of the columns that differ, with the number of rows that do."""
    if used.shape != honest.shape:
        raise KnownProblem(
            f"training stopped: the features have the shape {used.shape}, those made from the past {honest.shape}"
        )
    differs = (used != honest) & ~(np.isnan(used) & np.isnan(honest))
    counts = differs.sum(axis=0)
    return {names[place]: count for place, count in enumerate(counts.tolist()) if count}


def correlations(known: TrainingSet) -> dict[str, float]:
    """|Spearman| of each feature with the value to come, of those with enough variety to judge by; rows without the
    feature are left out. Every k-th customer where there are many."""
    step = max(1, -(-len(known) // ALARM_ROWS_MAX))
    value, matrix = known.known_targets.value[::step], known.features[::step]
    found = {}
    for place, name in enumerate(FEATURE_NAMES):
        there = np.isfinite(matrix[:, place])
        column, target = matrix[there, place], value[there]
        if len(column) >= ALARM_ROWS_MIN and min(_distinct(column), _distinct(target)) >= ALARM_DISTINCT_MIN:
            found[name] = abs(spearman(target, column))
    return found


def _distinct(values: Floats) -> int:
    return len(np.unique(values))


def alarm(known: TrainingSet) -> None:
    """Raises KnownProblem if one feature alone ranks the customers as the future does, and nothing else comes near.

    A statistical alarm: it sees a leak that bypasses the history (a column that was filled in afterwards). Silent in
    sets that are too small or too uniform to tell.
    """
    found = correlations(known)
    for name in sorted(found, key=lambda each: -found[each]):
        if found[name] < ALARM_CORRELATION:
            return
        others = [rho for other, rho in found.items() if group_of(other) != group_of(name)]
        if max(others, default=0.0) < WITNESS_CORRELATION:
            raise KnownProblem(
                f"training stopped: {name} alone ranks the customers as of {date_of(known.origin_day).isoformat()} by "
                f"what they spent in the {known.horizon_days} days from then on (|Spearman| {found[name]:.3f}), and "
                "nothing else comes near: it knows the future. Find out where it comes from, or leave it out"
            )


def check_same_without_future(name: str, compute: Callable[[History], Any], history: History, origin_day: int) -> None:
    """Raises KnownProblem if compute(history), as of a day, is not what the history until that day gives.

    For what is learnt of the whole population (a season, a trend). compute gives a number, an array or a mapping of
    these.
    """
    if not _same(compute(history), compute(history.until(origin_day))):
        raise KnownProblem(
            f"training stopped: {name} as of {date_of(origin_day).isoformat()} knows the future: from the events "
            "before that day alone it comes out otherwise"
        )


def _same(used: Any, honest: Any) -> bool:
    if isinstance(used, Mapping):
        return (
            isinstance(honest, Mapping)
            and used.keys() == honest.keys()
            and all(_same(used[key], honest[key]) for key in used)
        )
    return bool(np.array_equal(np.asarray(used, np.float64), np.asarray(honest, np.float64), equal_nan=True))
