"""When which customers are emitted anew although nothing happened to them. The clock is passed in; no IO.

Each partition is walked in key order, over and over, a few customers at a time. Where the walk stands is part of the
partition's progress row, so that a restart neither skips nor restarts it. Must never emit at more than CATCH_UP times
the mean pace, whatever was missed, unless somebody asked for it.

While the worker runs and the number of customers stays within a tenth of what it was an interval ago, nobody's newest
emission is older than the interval. After a pause (the worker was down, or the clock jumped) it is older by the pause
at most (and by one late tick, a second or a thousandth of the interval, where a restart repeats a slice that was
emitted but not noted down), and after interval / CATCH_UP of running nobody's is older than the interval again. A
population that multiplies within an interval may stretch it to one and a half.
"""

from schemas.customer_rows import Progress

PACE = 0.9
"""A sweep takes this share of the interval, so that customers that move back in key order still stay below it."""
CATCH_UP = 1.8
"""The fastest pace of a sweep that is late, in customers ÷ interval. Below 2, so that late ticks stay below it too."""
SLICE_CUSTOMERS_MAX = 500
"""Customers emitted at a time, so that events wait only briefly. It bounds the pace: two slices a second."""
AT_ONCE = 2.0
"""Customers that may be emitted without having waited, in a population too small to be spread: after a restart one is
perhaps repeated, and the next is due."""
TICK_LATE_MS_MAX = 1000
"""What a tick that comes later than this (or a thousandth of the interval) did not emit is left to later ones."""


class Pacer:
    """How many customers each partition's sweep may emit now.

    Holds nothing that a restart must keep: the schedule is in the progress row. A new one may emit AT_ONCE at once.
    """

    def __init__(self, interval_seconds: int, *, spread: bool) -> None:
        """interval_seconds: 0 is never. spread: keep to the pace; without, what is late comes in slices at once, as
        fits an event clock, which stands still and jumps.
        """
        interval_ms = interval_seconds * 1000
        self._sweep_ms = interval_ms * PACE
        self._fastest_sweep_ms = interval_ms / CATCH_UP if spread else 0.0
        self._saved_ms_max = max(TICK_LATE_MS_MAX, interval_ms / 1000)
        self._saved: dict[int, tuple[float, int]] = {}
        """By partition: customers that may be emitted, counted up to a clock time."""

    def due(self, partition: int, progress: Progress, now_ms: int, customers: int) -> int:
        """How many customers to emit now, at most one slice; they count as emitted. Starts the next sweep in time.

        progress: its sweep is changed in place; the first begins late, as nobody knows what was before it.
        customers: in the partition now.
        """
        if self._sweep_ms <= 0 or customers <= 0:
            return 0
        each_ms = self._keep_schedule(progress, now_ms, customers)
        if progress.sweep_cursor is None:
            begins_ms = int(progress.sweep_started_ms + progress.sweep_done * each_ms)
            if now_ms < begins_ms:
                return 0
            begin_sweep(progress, begins_ms)
        late = int((now_ms - progress.sweep_started_ms) / each_ms) + 1 - progress.sweep_done
        return self._spend(partition, min(late, SLICE_CUSTOMERS_MAX), now_ms, customers)

    def advance(self, progress: Progress, last_key: bytes | None, emitted: int, now_ms: int, customers: int) -> None:
        """Note what was emitted, in place. last_key None: the end of the partition was reached."""
        progress.sweep_cursor = last_key
        progress.sweep_done += emitted
        self._keep_schedule(progress, now_ms, customers)

    def _keep_schedule(self, progress: Progress, now_ms: int, customers: int) -> float:
        """Move the beginning so that the sweep is neither early nor too late; milliseconds from customer to customer.

        Early by one customer at most: where fewer were left than counted, or somebody asked for all of them, the walk
        goes on at the usual pace instead of waiting. Late by so much at most that the fastest pace makes it up in just
        one round: after it, everybody is fresh.
        """
        each_ms = self._sweep_ms / max(customers, progress.sweep_done, 1)
        earliest_ms = now_ms - progress.sweep_done * each_ms - (self._sweep_ms - self._fastest_sweep_ms)
        latest_ms = now_ms - (progress.sweep_done - 1) * each_ms
        progress.sweep_started_ms = int(min(max(progress.sweep_started_ms, earliest_ms), latest_ms))
        return each_ms

    def _spend(self, partition: int, wanted: int, now_ms: int, customers: int) -> int:
        """As many of the wanted customers as the fastest pace allows by now."""
        if not self._fastest_sweep_ms:
            return max(0, wanted)
        saved, counted_ms = self._saved.get(partition, (AT_ONCE, now_ms))
        pace = customers / self._fastest_sweep_ms
        saved = min(AT_ONCE + self._saved_ms_max * pace, saved + max(0, now_ms - counted_ms) * pace)
        granted = max(0, min(wanted, int(saved)))
        self._saved[partition] = saved - granted, now_ms
        return granted


def begin_sweep(progress: Progress, now_ms: int) -> None:
    """Start walking from the first customer."""
    progress.sweep_started_ms, progress.sweep_cursor, progress.sweep_done = now_ms, b"", 0
