"""What of a generated shop stands in its file, and in which order: good rows, repeats, broken copies, broken rows. It
must never change an event.

A row stands where it arrived. Most arrive when they happened, late ones later, a repeat after the row that it repeats,
a broken copy a moment before or after the good row.
"""

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from domain.customer import DAY_MS
from services.trainer.generation.breakages import BREAKAGES, FORMS
from services.trainer.generation.events import Events
from services.trainer.generation.spec import ShopSpec

KINDS = tuple(BREAKAGES)
UNBROKEN = -1
TIDY = -1


@dataclass(frozen=True, eq=False)
class FileRows:
    """The rows in the file's order, arrays (rows,), and how each event is written, arrays (events,)."""

    event: NDArray[np.int64]
    breakage: NDArray[np.int8]
    """UNBROKEN, or the place in KINDS."""
    variant: NDArray[np.int8]
    is_duplicate: NDArray[np.bool_]

    form: NDArray[np.int8]
    """TIDY, or the place in FORMS."""
    is_late: NDArray[np.bool_]
    is_lost: NDArray[np.bool_]
    """No good row of the event is in the file."""

    def __len__(self) -> int:
        return len(self.event)


def draw_rows(spec: ShopSpec, events: Events, chance: Generator) -> FileRows:
    """Each event on its own is untidy, late, repeated or has a broken copy, by the spec's shares.

    Lost events are as many as the share allows, rounded down, so that a small shop does not lose more by chance. They
    are neither repeated nor have they a copy beside them.
    """
    n = len(events)
    form = np.where(chance.random(n) < spec.untidy_share, chance.integers(0, len(FORMS), n), TIDY).astype(np.int8)
    of_orders_alone = [place for place, each in enumerate(FORMS) if not each.of_refunds]
    form[np.isin(form, of_orders_alone) & events.is_refund] = TIDY
    is_late = chance.random(n) < spec.late_share
    delay_ms = DAY_MS + np.ceil(chance.exponential(spec.late_days * DAY_MS, n)).astype(np.int64)
    arrival_ms = events.at_ms + np.where(is_late, delay_ms, 0)
    is_lost = np.zeros(n, dtype=bool)
    is_lost[chance.choice(n, int(spec.lost_share * n), replace=False)] = True

    repeated = np.flatnonzero((chance.random(n) < spec.duplicate_share) & ~is_lost)
    again_ms = arrival_ms[repeated] + np.ceil(chance.exponential(DAY_MS / 2, len(repeated))).astype(np.int64)
    dirty = np.flatnonzero((chance.random(n) < spec.dirty_share) & ~is_lost)
    beside_ms = arrival_ms[dirty] + chance.choice(np.array([-1, 1]), len(dirty))

    event = np.concatenate([np.arange(n), repeated, dirty])
    is_broken = np.concatenate([is_lost, np.zeros(len(repeated), bool), np.ones(len(dirty), bool)])
    is_duplicate = np.repeat([False, True, False], [n, len(repeated), len(dirty)])
    breakage = np.full(len(event), UNBROKEN, dtype=np.int8)
    broken = np.flatnonzero(is_broken)
    breakage[broken] = _kinds(spec, events.is_refund[event[broken]], chance)
    variant = chance.integers(0, 120, len(event)).astype(np.int8)
    in_file = np.argsort(np.concatenate([arrival_ms, again_ms, beside_ms]), kind="stable")
    return FileRows(
        event=event[in_file],
        breakage=breakage[in_file],
        variant=variant[in_file],
        is_duplicate=is_duplicate[in_file],
        form=form,
        is_late=is_late,
        is_lost=is_lost,
    )


def _kinds(spec: ShopSpec, is_refund: NDArray[np.bool_], chance: Generator) -> NDArray[np.int8]:
    """A kind of breakage for each broken row; a refund is given another where the kind would not break it."""
    if not len(is_refund):
        return np.zeros(0, dtype=np.int8)
    of_orders = np.array([KINDS.index(kind) for kind in spec.dirty_kinds], dtype=np.int8)
    of_refunds = np.array([kind for kind in of_orders if BREAKAGES[KINDS[kind]].of_refunds], dtype=np.int8)
    if not len(of_refunds):
        of_refunds = np.array([KINDS.index("bad_time")], dtype=np.int8)
    u = chance.random(len(is_refund))
    picks = [pool[np.minimum((u * len(pool)).astype(np.int64), len(pool) - 1)] for pool in (of_refunds, of_orders)]
    return np.where(is_refund, *picks)
