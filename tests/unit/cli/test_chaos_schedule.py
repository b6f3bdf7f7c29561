"""The load and the faults are functions of the seed, and hold everything that they promise."""

from collections import Counter
from itertools import islice, pairwise

import pytest

from cli.chaos.faults import EXTRA_WORKER, PAUSE_SECONDS, SESSION_TIMEOUT_SECONDS, WORKERS, Kind, schedule
from cli.chaos.load import DAY_MS, Channel, Shape, burst, history, live
from cli.chaos.oracle import at_ms, minor

FIRST_MS = 1_700_000_000_000
SHAPE = Shape(customers=50, wholesale=2, wholesale_orders=1100)


def stream(seed: int, count: int = 5000):
    return list(islice(live(seed, SHAPE, FIRST_MS, 100), count))


def test_the_same_seed_gives_the_same_load_and_another_seed_another():
    assert stream(1) == stream(1)
    assert stream(1) != stream(2)
    assert burst(1, 3, SHAPE, FIRST_MS, 100) == burst(1, 3, SHAPE, FIRST_MS, 100)
    assert burst(1, 3, SHAPE, FIRST_MS, 100) != burst(1, 4, SHAPE, FIRST_MS, 100)


def test_events_of_history_load_and_bursts_have_different_ids():
    found = [
        stream(1),
        history(1, SHAPE, FIRST_MS),
        burst(1, 0, SHAPE, FIRST_MS, 500),
        burst(1, 1, SHAPE, FIRST_MS, 500),
    ]
    ids = [{planned.event["event_id"] for planned in planned_events} for planned_events in found]
    assert sum(map(len, ids)) == len(set().union(*ids))


def test_the_load_holds_every_kind_of_event_that_it_promises():
    planned = stream(1)
    events = [each.event for each in planned]
    assert {each.channel for each in planned} == set(Channel)
    assert {each.partition for each in planned} == set(range(SHAPE.partitions))
    kinds = Counter(str(event["event_type"]) for event in events)
    assert min(kinds[kind] for kind in ("order.placed", "order.refunded", "order.cancelled", "customer.updated")) > 100
    ids = Counter(event["event_id"] for event in events)
    assert sum(count - 1 for count in ids.values()) > 100, "exact duplicates"
    placed = {str(e["order_id"]): (n, e) for n, e in enumerate(events) if e["event_type"] == "order.placed"}
    refunds = [(n, e) for n, e in enumerate(events) if e["event_type"] == "order.refunded"]
    orders = [(n, e, placed.get(str(e["order_id"]))) for n, e in refunds if "order_id" in e]
    assert sum("order_id" not in e for _, e in refunds) > 10
    assert sum(order is None for _, _, order in orders) > 10, "refunds of unknown orders"
    assert sum(order is not None and order[0] > n for n, _, order in orders) > 10, "refunds before their order"
    known = [(e, order[1]) for _, e, order in orders if order is not None]
    assert sum(minor(e) == minor(order) for e, order in known) > 10, "full"
    assert sum(minor(e) > minor(order) for e, order in known) > 10, "over"
    assert sum(minor(e) < minor(order) for e, order in known) > 10, "partial"
    times = [at_ms(event) for event in events]
    assert sum(at < FIRST_MS - 90 * DAY_MS for at in times) > 100, "months late"
    assert sum(b < a for a, b in pairwise(times)) > 500, "out of order"
    assert max(times) <= FIRST_MS + 5000 * 1000 / 100, "nothing lies in the future"


def test_wholesale_customers_have_more_orders_than_are_kept_one_by_one():
    counts = Counter(str(each.event["customer_id"]) for each in history(1, SHAPE, FIRST_MS))
    assert counts == {"wholesale-0": 1100, "wholesale-1": 1100}
    late = [e.event for e in stream(1) if str(e.event["customer_id"]).startswith("wholesale")]
    assert sum(at_ms(event) < FIRST_MS - 280 * DAY_MS for event in late) > 50


@pytest.mark.parametrize("brokers", [1, 3])
@pytest.mark.parametrize("seed", range(5))
def test_ten_minutes_hold_at_least_sixty_faults_of_every_kind(seed: int, brokers: int):
    faults = schedule(seed, 600, brokers)
    assert faults == schedule(seed, 600, brokers)
    assert len(faults) >= 60
    assert {fault.kind for fault in faults} == set(Kind)
    assert max(fault.at_seconds for fault in faults) <= 600
    assert [fault.number for fault in faults] == list(range(len(faults)))


def test_two_faults_never_meet_in_one_process_and_one_broker_is_away_at_a_time():
    for seed in range(20):
        busy: dict[str, float] = {}
        for fault in schedule(seed, 600, 3):
            assert len(set(fault.targets)) == len(fault.targets) == (2 if fault.kind is Kind.KILL_TWO else 1)
            for target in fault.targets:
                resource = "kafka" if target.startswith("kafka") else target
                assert busy.get(resource, 0) <= fault.at_seconds
                busy[resource] = fault.at_seconds + fault.seconds


def test_pauses_outlast_the_session_and_workers_take_turns():
    faults = schedule(1, 6000, 1)
    for fault in faults:
        if fault.kind.value.startswith("pause"):
            assert fault.seconds >= PAUSE_SECONDS > SESSION_TIMEOUT_SECONDS
    targets = Counter(target for fault in faults for target in fault.targets)
    assert min(targets[name] for name in (*WORKERS, EXTRA_WORKER)) > 20
