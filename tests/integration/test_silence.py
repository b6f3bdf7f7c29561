"""The refresh sweep of real processes on a real Kafka: killed in the middle, and all the way to the prediction."""

import time
from collections import defaultdict
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest
from confluent_kafka import Message
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from domain.customer import DAY_MS
from domain.features import day_of
from domain.segments import Segment
from schemas.orders import Placed, encode_order
from schemas.topics import CUSTOMER_FEATURES, ORDERS, PREDICTIONS
from services.features.refresh import SLICE_CUSTOMERS_MAX
from services.trainer.sources.orders import from_table
from services.trainer.train import train
from tests.support import metric, newest_by_customer, produce, read_all, ready, wait_for
from tests.unit.trainer.shops import FIRST_DAY, shop, table

pytestmark = pytest.mark.integration

HISTORY_DAYS, HORIZON_DAYS = 340, 60
DAY_ONE = day_of(FIRST_DAY)
CUSTOMERS, INTERVAL_SECONDS, PARTITIONS = 2_000, 12, 4
LONG_AGO_MS = 1_500_000_000_000
"""Kafka timestamp of the orders: what carries a later one was emitted by the sweep."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    cutoff = FIRST_DAY + timedelta(days=HISTORY_DAYS)
    train(from_table(table(shop(200, HISTORY_DAYS + HORIZON_DAYS)), cutoff, "USD"), HORIZON_DAYS, folder)
    return folder


@pytest.fixture
def environment(topics: str, models: Path, tmp_path: Path) -> dict[str, str]:
    return {
        "CLV_KAFKA_BOOTSTRAP_SERVERS": topics,
        "CLV_MODELS_DIR": str(models),
        "CLV_FEATURES_DATA_DIR": str(tmp_path / "data"),
        "CLV_SCORER_MIN_POPULATION": "1000000",
    }


def order(customer: str, day: int, order_id: str) -> Placed:
    return Placed(
        event_id=f"{customer}-{order_id}", customer_id=customer, occurred_at_ms=day * DAY_MS, order_id=order_id,
        amount_minor=5_000, original_amount="50.00", original_currency="USD",
    )  # fmt: skip


def publish(servers: str, orders: list[Placed], **extra: int) -> None:
    produce(
        servers,
        ORDERS,
        ((each.customer_id.encode(), encode_order(each)) for each in orders),
        timestamp=LONG_AGO_MS,
        **extra,
    )


# --- killed in the middle --------------------------------------------------------------------------------------------


class Emitted(NamedTuple):
    """A customer emitted by the sweep."""

    key: bytes
    at_ms: int


def swept(records: list[Message]) -> dict[int, list[Emitted]]:
    """What the sweep emitted, by partition, in order."""
    found: dict[int, list[Emitted]] = defaultdict(list)
    for record in sorted(records, key=lambda record: record.offset()):
        if record.timestamp()[1] > LONG_AGO_MS:
            found[record.partition()].append(Emitted(record.key(), record.timestamp()[1]))
    return found


def refuse_features(servers: str, *, refuse: bool) -> None:
    """Make Kafka refuse whatever is written to customer-features, or take it again."""
    change = AlterConfigOpType.SET if refuse else AlterConfigOpType.DELETE
    entry = ConfigEntry("max.message.bytes", "1", incremental_operation=change)
    resource = ConfigResource(ResourceType.TOPIC, CUSTOMER_FEATURES, incremental_configs=[entry])
    admin = AdminClient({"bootstrap.servers": servers})
    for future in admin.incremental_alter_configs([resource]).values():
        future.result()


def test_neither_kill_9_nor_a_slice_that_kafka_refuses_skips_anybody_or_starts_the_sweep_over(
    service, environment, topics
):
    environment |= {"CLV_FEATURES_CLOCK": "wall", "CLV_FEATURES_REFRESH_SECONDS": str(INTERVAL_SECONDS)}
    worker = service("features", environment)
    publish(topics, [order(f"c{n:05d}", DAY_ONE, "o") for n in range(CUSTOMERS)])

    def wait_for_sweep(share: float) -> None:
        wait_for(
            lambda: metric(worker, "clv_features_emitted_total", cause="refresh") > share * CUSTOMERS,
            f"{share} of the customers to be emitted",
            90,
            worker.log_tail,
        )

    wait_for_sweep(0.6)
    worker.kill()
    ended_ms = [time.time() * 1000]
    worker.start()
    wait_for(lambda: ready(worker), "the worker to be back", 60, worker.log_tail)
    wait_for_sweep(0.5)
    refuse_features(topics, refuse=True)  # a slice that is not emitted must not count as emitted
    assert worker.wait(30) != 0
    ended_ms.append(time.time() * 1000)
    refuse_features(topics, refuse=False)
    worker.start()
    wait_for(lambda: ready(worker), "the worker to be back", 60, worker.log_tail)
    wait_for_sweep(1.1)

    found = swept(read_all(topics, CUSTOMER_FEATURES))
    assert len({each.key for made in found.values() for each in made}) == CUSTOMERS
    down_ms = 0
    for made in found.values():
        restarts = [next(n for n, each in enumerate(made) if each.at_ms > at_ms) for at_ms in ended_ms]
        down_ms = max(down_ms, sum(made[n].at_ms - made[n - 1].at_ms for n in restarts))
        assert_goes_round(made, restarts)
    for made in found.values():
        assert_in_time(made, INTERVAL_SECONDS * 1000 + down_ms)
    assert_no_burst(sorted(each.at_ms for made in found.values() for each in made))


def assert_goes_round(made: list[Emitted], restarts: list[int]) -> None:
    """Customer after customer in key order; a restart may repeat a slice and skips nobody."""
    order_of = {key: n for n, key in enumerate(sorted({each.key for each in made}))}
    for n, (before, after) in enumerate(pairwise(made), start=1):
        repeated = (order_of[before.key] + 1 - order_of[after.key]) % len(order_of)
        assert repeated <= (SLICE_CUSTOMERS_MAX // 4 if n in restarts else 0), f"of {len(order_of)}, at {n}"


def assert_in_time(made: list[Emitted], gap_ms_max: int) -> None:
    times: dict[bytes, list[int]] = defaultdict(list)
    for each in made:
        times[each.key].append(each.at_ms)
    assert min(len(found) for found in times.values()) >= 2
    assert max(after - before for found in times.values() for before, after in pairwise(found)) <= gap_ms_max


def assert_no_burst(times_ms: list[int]) -> None:
    """Twice the mean in any three seconds: a tick may be a second late, and each partition emits two at once."""
    window_ms = 3_000
    most = 2 * CUSTOMERS / INTERVAL_SECONDS * (window_ms / 1000 + 1) + 2 * 2 * PARTITIONS
    begin = 0
    for end, at_ms in enumerate(times_ms):
        while times_ms[begin] < at_ms - window_ms:
            begin += 1
        assert end - begin + 1 <= most


# --- to the prediction -----------------------------------------------------------------------------------------------


def test_a_silent_customers_published_prediction_falls_without_any_event_of_its_own(service, environment, topics):
    """The clock is the partitions' latest event: one customer in each partition turns it, the others say nothing."""
    worker = service("features", environment | {"CLV_FEATURES_CLOCK": "event"}, wait=False)
    scorer = service("scorer", environment)
    silent = {f"silent-{n}" for n in range(30)}
    last_day = DAY_ONE + 300
    publish(topics, [order(name, day, f"o{day}") for name in silent for day in range(DAY_ONE, last_day + 1, 15)])
    path = defaultdict(list)
    for day in range(last_day, last_day + 301, 100):
        for partition in range(PARTITIONS):
            publish(topics, [order(f"clock-{partition}", day, f"o{day}")], partition=partition)
        as_of = date.fromordinal(date(1970, 1, 1).toordinal() + day).isoformat()

        def all_of_that_day(as_of: str = as_of) -> bool:
            newest = newest_by_customer(topics, PREDICTIONS)
            return silent <= newest.keys() and {newest[name]["as_of"] for name in silent} == {as_of}

        wait_for(all_of_that_day, f"predictions as of {as_of}", 60, lambda: worker.log_tail() + scorer.log_tail())
        for name, made in newest_by_customer(topics, PREDICTIONS).items():
            path[name].append((made["p_active"], made["segment"], made["feature_version"] // 100_000))
    for name in silent:
        active, segments, events = zip(*path[name], strict=True)
        assert all(before > after for before, after in pairwise(active))
        assert active[0] > 0.6
        assert active[-1] < 0.05
        assert (segments[0], segments[-1]) == (Segment.HIGH_VALUE.value, Segment.AT_RISK.value)
        assert len(set(events)) == 1, "no event of its own"
