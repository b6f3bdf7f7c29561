"""The refresh sweep with a clock of our own: everybody in time, evenly, and unmoved by a restart."""

from itertools import pairwise

import hypothesis.strategies as st
from hypothesis import given, settings

from services.features.refresh import SLICE_CUSTOMERS_MAX, advance_sweep, customers_due
from services.features.rows import Progress, decode_progress, encode, new_progress


def tick(progress: Progress, now_ms: int, keys: list[bytes], interval: int, emitted: dict[bytes, list[int]]) -> int:
    """What the worker does every half second: emit what is due, until nothing more is."""
    total = 0
    while due := customers_due(progress, now_ms, len(keys), interval):
        found = [key for key in keys if key > (progress.sweep_cursor or b"")][:due]
        for key in found:
            emitted.setdefault(key, []).append(now_ms)
        advance_sweep(progress, found[-1] if len(found) == due else None, len(found))
        total += len(found)
    return total


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 3000), st.integers(60, 600), st.integers(0, 100))
def test_every_customer_comes_at_least_once_an_interval_without_bursts(customers, interval, restart_at):
    keys = [f"{n:05d}".encode() for n in range(customers)]
    progress, emitted, bursts = new_progress(), {}, []
    for step in range(1, interval * 2 * 3):
        bursts.append(tick(progress, 1_000_000 + step * 500, keys, interval, emitted))
        if step == restart_at:
            progress = decode_progress(encode(progress))
    gap_ms_max = max(b - a for times in emitted.values() for a, b in pairwise(times))
    assert len(emitted) == customers
    assert gap_ms_max <= interval * 1000
    mean = customers / (interval * 2 * 0.9)
    assert max(bursts[1:]) <= max(2 * mean, 2)


def test_the_sweep_is_off_when_the_interval_is_zero_or_nobody_is_there():
    assert customers_due(new_progress(), 10**12, 100, 0) == 0
    assert customers_due(new_progress(), 10**12, 0, 60) == 0


def test_a_late_sweep_catches_up_in_slices():
    progress = new_progress()
    customers_due(progress, 1_000, 5000, 10)
    assert customers_due(progress, 60_000, 5000, 10) == SLICE_CUSTOMERS_MAX
