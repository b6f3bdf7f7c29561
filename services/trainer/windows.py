"""Which windows of the past teach the model: rolling origins, each with days after it that the training period holds.
It must never plan a window that ends after the cutoff.
"""

from dataclasses import dataclass

WINDOW_DAYS_MIN = 7
LONG_HISTORY_HORIZONS = 3
"""From so many horizons of history on, windows are as long as the horizon itself."""
WINDOWS_MAX = 4
SHRINKS = (1.0, 0.8, 0.64)
"""Of windows in a shorter history: each is a smaller copy of the one before."""
YEAR_DAYS = 365
SEASON_HISTORY_DAYS_MIN = 120
"""Before an origin a year before the cutoff: less would be no history to fit to."""


@dataclass(frozen=True)
class Plan:
    """Windows as (origin day, days), by their end, the latest last; days since 1970. Every one ends by the cutoff."""

    windows: tuple[tuple[int, int], ...]
    full: bool
    """Whether they are as long as the horizon. Otherwise they are as long, in proportion to the history before them, as
    the horizon is to the whole history: a purchase model errs by how far ahead it must look for what it has seen, so
    windows of the same proportion err alike (on CDNOW: totals 24 % too low in the window, 19 % after the cutoff)."""


def plan_windows(first_day: int, cutoff_day: int, horizon_days: int) -> Plan:
    """The windows for a history from first_day until before cutoff_day; none where even the longest is too short."""
    history = cutoff_day - first_day
    if history >= LONG_HISTORY_HORIZONS * horizon_days:
        return Plan(_rolling(first_day, cutoff_day, horizon_days), full=True)
    found = []
    for shrink in SHRINKS:
        before = int(history * history / (history + horizon_days) * shrink)
        days = int(history * horizon_days / (history + horizon_days) * shrink)
        if before >= WINDOW_DAYS_MIN and days >= WINDOW_DAYS_MIN:
            found.append((first_day + before, days))
    return Plan(tuple(sorted(found, key=sum)), full=False)


def _rolling(first_day: int, cutoff_day: int, days: int) -> tuple[tuple[int, int], ...]:
    if days < WINDOW_DAYS_MIN:
        return ()
    step = max(days // 2, 1)
    latest = cutoff_day - days
    found = {latest - step * back for back in range(WINDOWS_MAX) if latest - step * back - first_day >= 2 * days}
    year_before = cutoff_day - YEAR_DAYS
    if year_before - first_day >= SEASON_HISTORY_DAYS_MIN and year_before <= latest:
        found.add(year_before)
    return tuple((origin, days) for origin in sorted(found))
