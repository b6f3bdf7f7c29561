"""When which customers are emitted anew although nothing happened to them. Pure: the clock is passed in.

Each partition is walked in key order, a slice at a time, evenly over the interval. Where the walk stands is part of the
partition's progress row, so a restart neither skips nor restarts it.
"""

from services.features.rows import Progress

PACE = 0.9
"""A sweep takes this share of the interval, so that customers that move back in key order still stay below it."""
SLICE_CUSTOMERS_MAX = 500
"""Customers emitted at a time, so that events wait only briefly."""


def customers_due(progress: Progress, now_ms: int, customers: int, interval_seconds: int) -> int:
    """How many customers the running sweep should emit now, at most one slice. Starts the first sweep, or the next one.

    progress is changed in place when a sweep begins. customers: in the partition now.
    """
    if interval_seconds <= 0 or customers == 0:
        return 0
    pace_ms = interval_seconds * 1000 * PACE
    running = progress.sweep_cursor is not None
    if progress.sweep_started_ms == 0 or (not running and now_ms - progress.sweep_started_ms >= pace_ms):
        begin_sweep(progress, now_ms)
    elif not running:
        return 0
    share = min(1.0, (now_ms - progress.sweep_started_ms) / pace_ms)
    due = int(share * customers) - progress.sweep_done
    # The last customers may be more than counted at the start; at the end of the time the rest is due.
    return SLICE_CUSTOMERS_MAX if share >= 1.0 else max(0, min(due, SLICE_CUSTOMERS_MAX))


def begin_sweep(progress: Progress, now_ms: int) -> None:
    """Start walking from the first customer."""
    progress.sweep_started_ms, progress.sweep_cursor, progress.sweep_done = now_ms, b"", 0


def advance_sweep(progress: Progress, last_key: bytes | None, emitted: int) -> None:
    """Note what was emitted. last_key None: the end of the partition was reached."""
    progress.sweep_cursor = last_key
    progress.sweep_done += emitted
