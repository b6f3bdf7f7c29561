"""The refresh sweep with a clock of our own: everybody in time, evenly, and unmoved by a restart."""

import random
from bisect import bisect_right, insort
from collections import deque

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from schemas.customer_rows import Progress, decode_progress, encode, new_progress
from services.features.refresh import AT_ONCE, CATCH_UP, PACE, SLICE_CUSTOMERS_MAX, Pacer, begin_sweep
from tests.effort import tries

START_MS = 1_700_000_000_000


class Partition:
    """A partition and its worker, as far as the sweep goes: customers by key, a clock, a stored progress row."""

    def __init__(self, customers: int, interval_seconds: int, rng: random.Random, *, spread: bool = True) -> None:
        self.interval_ms, self.rng, self.spread = interval_seconds * 1000, rng, spread
        self.tick_ms_max = max(1000, interval_seconds)  # at worst a tick may be as late as is made good again
        self.window_ms = max(10_000, self.interval_ms // 100)
        self.now_ms = START_MS
        self.keys = sorted(f"{n / customers:.9f}".encode() for n in range(customers))
        self.last_ms = dict.fromkeys(self.keys, START_MS)
        self.stored = self.stored_before = encode(new_progress())
        self.slices: list[tuple[int, list[bytes]]] = []
        self.recent: deque[tuple[int, int]] = deque()
        self.recent_restarts: deque[int] = deque()
        self.paused: list[tuple[int, int]] = []
        self.gap_ms_max = self.gap_running_ms_max = self.oldest_ms_max = 0
        self.start_worker()

    def start_worker(self) -> None:
        self.progress: Progress = decode_progress(self.stored)
        self.pacer = Pacer(self.interval_ms // 1000, spread=self.spread)

    def arrive(self, key: bytes) -> None:
        """An event of a customer, who is new or not: emitted at once."""
        if key not in self.last_ms:
            insort(self.keys, key)
        self.last_ms[key] = self.now_ms

    def pause(self, length_ms: int, *, torn: bool) -> None:
        """The worker is killed and started again later. torn: the last slice was emitted, but not noted down."""
        if torn:
            self.stored = self.stored_before
        self.paused.append((self.now_ms, self.now_ms + length_ms))
        self.now_ms += length_ms
        self.recent_restarts.append(self.now_ms)
        self.start_worker()

    def tick(self) -> None:
        self.now_ms += self.rng.randrange(self.tick_ms_max // 4, self.tick_ms_max)
        self.oldest_ms_max = max(self.oldest_ms_max, self.excused_age_ms())
        due = self.pacer.due(0, self.progress, self.now_ms, len(self.keys))
        assert due <= SLICE_CUSTOMERS_MAX
        if due:
            emitted = self.emit(due)
            self._assert_no_burst(emitted)

    def emit(self, due: int) -> int:
        at = bisect_right(self.keys, self.progress.sweep_cursor or b"")
        found, at_end = self.keys[at : at + due], at + due >= len(self.keys)
        self.pacer.advance(self.progress, None if at_end else found[-1], len(found), self.now_ms, len(self.keys))
        self.stored_before, self.stored = self.stored, encode(self.progress)
        self.slices.append((self.now_ms, found))
        for key in found:
            self._measure(key)
            self.last_ms[key] = self.now_ms
        return len(found)

    def excused_age_ms(self) -> int:
        """Age of the oldest customer; 0 as long as a pause excuses it."""
        since_ms = self.now_ms - (self.paused[-1][1] if self.paused else START_MS)
        excused = bool(self.paused) and since_ms < self.interval_ms / CATCH_UP + 5 * self.tick_ms_max
        return 0 if excused else self.now_ms - min(self.last_ms.values())

    def _measure(self, key: bytes) -> None:
        last_ms = self.last_ms[key]
        gap_ms = self.now_ms - last_ms
        paused_ms = sum(end - begin for begin, end in self.paused if begin >= last_ms)
        self.gap_ms_max = max(self.gap_ms_max, gap_ms)
        self.gap_running_ms_max = max(self.gap_running_ms_max, gap_ms - paused_ms)

    def _assert_no_burst(self, emitted: int) -> None:
        """In any hundredth of an interval (or ten seconds) no more than twice the mean, and two for each start."""
        self.recent.append((self.now_ms, emitted))
        for timeline in (self.recent, self.recent_restarts):
            while timeline and (first := timeline[0]) is not None:
                if (first if isinstance(first, int) else first[0]) > self.now_ms - self.window_ms:
                    break
                timeline.popleft()
        mean = len(self.keys) * self.window_ms / self.interval_ms
        assert sum(count for _, count in self.recent) <= 2 * mean + AT_ONCE * (1 + len(self.recent_restarts))

    def run(self, intervals: float) -> None:
        end_ms = self.now_ms + intervals * self.interval_ms
        while self.now_ms < end_ms:
            self.tick()


populations = st.one_of(st.integers(1, 12), st.integers(1, 400))
intervals = st.sampled_from([20, 60, 600, 86_400])
rngs = st.integers(0, 2**32).map(random.Random)


@settings(max_examples=tries(30), deadline=None)
@given(populations, intervals, rngs)
def test_without_any_event_everybody_comes_once_an_interval_and_evenly(customers, interval, rng):
    partition = Partition(customers, interval, rng)
    partition.run(2.5)
    assert partition.gap_ms_max <= partition.interval_ms
    assert partition.oldest_ms_max <= partition.interval_ms
    emitted = sum(len(found) for _, found in partition.slices)
    rounds = (partition.now_ms - START_MS) / partition.interval_ms / PACE
    head_start = 1 - 1 / (CATCH_UP * PACE)
    assert (rounds - 1) * customers <= emitted <= (rounds + head_start) * customers + 2, "at the pace that was planned"


@settings(max_examples=tries(30), deadline=None)
@given(
    populations, intervals, rngs, st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1)), max_size=40)
)
def test_customers_who_arrive_while_it_sweeps_make_nobody_wait(customers, interval, rng, arrivals):
    """Up to a tenth of new customers within an interval, wherever their keys are, and events of old ones."""
    partition = Partition(customers, interval, rng)
    partition.run(rng.random() * 2)
    begin_ms = partition.now_ms
    for share, where, is_new in sorted(arrivals[: max(1, 2 * (customers // 10))]):
        partition.run(max(0.0, share - (partition.now_ms - begin_ms) / partition.interval_ms))
        if is_new > 0.5 and len(partition.keys) < customers + customers // 10:
            partition.arrive(f"{where:.9f}x".encode())
        else:
            partition.arrive(rng.choice(partition.keys))
    partition.run(2)
    assert partition.oldest_ms_max <= partition.interval_ms


@settings(max_examples=tries(40), deadline=None)
@given(
    populations,
    intervals,
    rngs,
    st.lists(st.tuples(st.floats(0, 1.2), st.floats(0, 4), st.booleans()), min_size=1, max_size=5),
)
def test_after_a_pause_of_any_length_it_catches_up_soon_and_without_a_burst(customers, interval, rng, pauses):
    partition = Partition(customers, interval, rng)
    for run, length, torn in pauses:
        partition.run(run)
        partition.pause(int(length * partition.interval_ms), torn=torn)
    partition.run(2)
    repeated = sum(torn for _, _, torn in pauses)
    allowed_ms = partition.interval_ms + repeated * partition.tick_ms_max
    assert partition.gap_running_ms_max <= allowed_ms, "counting only the time in which the worker runs"
    assert partition.oldest_ms_max <= allowed_ms, "once it has had time to catch up"


@settings(max_examples=tries(40), deadline=None)
@given(
    st.integers(1, 400),
    st.sampled_from([20, 600]),
    rngs,
    st.lists(st.tuples(st.floats(0, 0.6), st.booleans()), min_size=1, max_size=8),
)
def test_a_restart_neither_skips_nor_restarts_the_sweep(customers, interval, rng, restarts):
    partition = Partition(customers, interval, rng)
    first_after: dict[int, bool] = {}
    for run, torn in restarts:
        partition.run(run)
        first_after[len(partition.slices)] = torn or first_after.get(len(partition.slices), False)
        partition.pause(5_000, torn=torn)
    partition.run(1)
    order = {key: n for n, key in enumerate(partition.keys)}
    for n, (_, found) in enumerate(partition.slices[1:], start=1):
        before = partition.slices[n - 1][1]
        repeats = first_after.get(n, False)
        expected = order[before[0]] if repeats else (order[before[-1]] + 1) % customers
        positions = [order[key] for key in found]
        assert positions == list(range(expected, expected + len(found)))


def test_pauses_that_come_all_the_time_do_not_starve_the_only_customer():
    partition = Partition(1, 86_400, random.Random(1))
    for _ in range(40):
        partition.run(0.1)
        partition.pause(60_000, torn=False)
    assert partition.gap_ms_max <= partition.interval_ms


@pytest.mark.parametrize("factor", [2, 5, 20])
def test_a_population_that_multiplies_stretches_the_interval_by_half_at_most(factor):
    """At the worst moment and place: just before the customers who would have come next."""
    partition = Partition(50, 600, random.Random(factor))
    partition.run(2 * PACE - 0.05)
    for n in range(50 * (factor - 1)):
        partition.arrive(f"0.9{n:08d}".encode())
    partition.run(3)
    assert partition.oldest_ms_max <= 1.5 * partition.interval_ms


def test_a_clock_that_is_set_back_or_forward_stops_nobody():
    for step in (-5.0, -0.3, 0.3, 5.0):
        partition = Partition(100, 600, random.Random(2))
        partition.run(1.3)
        partition.now_ms += int(step * partition.interval_ms)
        partition.last_ms = dict.fromkeys(partition.keys, partition.now_ms)
        partition.recent.clear()
        partition.run(1)
        assert min(partition.last_ms.values()) > partition.now_ms - partition.interval_ms
        assert {key for at, found in partition.slices for key in found if at > partition.now_ms - 600_000} == set(
            partition.keys
        )


def test_the_sweep_is_off_when_the_interval_is_zero_or_nobody_is_there():
    assert Pacer(0, spread=True).due(0, new_progress(), 10**12, 100) == 0
    assert Pacer(60, spread=True).due(0, new_progress(), 10**12, 0) == 0


def test_an_event_clock_that_jumps_makes_everybody_due_once_in_slices():
    partition = Partition(1_700, 86_400, random.Random(4), spread=False)

    def emit_all() -> list[int]:
        sizes = []
        while due := partition.pacer.due(0, partition.progress, partition.now_ms, 1_700):
            sizes.append(partition.emit(due))
        return sizes

    emit_all()
    partition.now_ms += 30 * 86_400_000
    sizes = emit_all()
    assert set(partition.last_ms.values()) == {partition.now_ms}
    assert sizes[:3] == [SLICE_CUSTOMERS_MAX] * 3
    assert 1_700 <= sum(sizes) <= 1_702
    assert emit_all() == []


@settings(max_examples=tries(20), deadline=None)
@given(st.integers(1, 400), rngs, st.floats(0, 1), st.integers(1, 5))
def test_a_sweep_that_was_asked_for_is_followed_by_a_usual_one_whatever_restarts(customers, rng, share, restarts):
    partition = Partition(customers, 600, rng)
    partition.run(1 + share)
    begin_sweep(partition.progress, partition.now_ms)
    while partition.progress.sweep_cursor is not None:
        partition.emit(SLICE_CUSTOMERS_MAX)
    for _ in range(restarts):
        partition.run(0.1)
        partition.pause(0, torn=False)
    partition.run(2)
    assert partition.gap_ms_max <= partition.interval_ms
