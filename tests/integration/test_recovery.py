"""Recovery of feature workers against real Kafka: from local state, any changelog, standby copies."""

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    OffsetSpec,
    ResourceType,
)

from deploy.local.processes import ServiceProcess
from domain.customer import DAY_MS, OrderPlaced, fold
from schemas.customer_rows import Row, encode
from schemas.orders import Placed, encode_order
from schemas.topics import CUSTOMER_FEATURES, CUSTOMER_STATE_CHANGELOG, ORDERS
from tests.integration.features_support import FIRST_DAY, assert_features_equal_batch, history, lag, publish
from tests.support import http, metric, newest_by_customer, partitions_of, produce, wait_for

pytestmark = pytest.mark.integration

CHUNK_RECORDS = 200
PARTITIONS = 4


def recovered(worker: ServiceProcess) -> float:
    """Rows that this process has read for partitions of its own: its counters begin with it."""
    return metric(worker, "clv_features_recovered_rows_total")


def copied(worker: ServiceProcess) -> float:
    return metric(worker, "clv_features_standby_rows_total")


def order(customer: str, number: int, day: int = FIRST_DAY) -> Placed:
    return Placed(
        event_id=f"{customer}-{number}",
        customer_id=customer,
        occurred_at_ms=day * DAY_MS,
        order_id=f"o{number}",
        amount_minor=100 + number,
        original_amount="1.00",
        original_currency="USD",
    )


def ends(bootstrap: str, topic: str) -> dict[int, int]:
    """Offset after the last one, by partition."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    partitions = partitions_of(admin, topic)
    asked = admin.list_offsets({TopicPartition(topic, p): OffsetSpec.latest() for p in partitions})
    return {place.partition: future.result().offset for place, future in asked.items()}


# --- local state -----------------------------------------------------------------------------------------------------


def test_a_restart_reads_nothing_after_a_clean_stop_and_at_most_a_chunk_a_partition_after_kill_9(
    service, environment, topics
):
    worker = service("features", environment)
    records = history(customers=3000, events=9000, seed=21)
    publish(topics, records[:5000])
    wait_for(lambda: lag(topics) == 0, "the first part", context=worker.log_tail)
    assert worker.stop() == 0
    worker = service("features", environment)
    assert recovered(worker) == 0

    publish(topics, records[5000:])
    wait_for(lambda: metric(worker, "clv_records_processed_total") > 500, "some more", context=worker.log_tail)
    worker.kill()
    rows = sum(ends(topics, CUSTOMER_STATE_CHANGELOG).values())
    worker = service("features", environment)
    # Acknowledged but not stored: of each partition the one chunk in hand, with the partition's own row.
    assert recovered(worker) <= PARTITIONS * (CHUNK_RECORDS + 1) < rows / 4
    wait_for(lambda: lag(topics) == 0, "the second part", context=worker.log_tail)
    assert_features_equal_batch(topics, records)


# --- changelogs of all shapes ----------------------------------------------------------------------------------------


def alter(bootstrap: str, kind: ResourceType, name: str, **settings: str) -> None:
    entries = [
        ConfigEntry(key.replace("_", "."), value, incremental_operation=AlterConfigOpType.SET)
        for key, value in settings.items()
    ]
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for future in admin.incremental_alter_configs([ConfigResource(kind, name, incremental_configs=entries)]).values():
        future.result()


@pytest.fixture
def eager_compaction(topics: str) -> Iterator[None]:
    alter(topics, ResourceType.BROKER, "1", log_cleaner_backoff_ms="200")
    alter(
        topics,
        ResourceType.TOPIC,
        CUSTOMER_STATE_CHANGELOG,
        cleanup_policy="compact,delete",  # records are deleted in front only from a topic whose policy has it
        segment_ms="200",
        min_cleanable_dirty_ratio="0.001",
        delete_retention_ms="0",
    )
    yield
    alter(topics, ResourceType.BROKER, "1", log_cleaner_backoff_ms="15000")


def values_left(bootstrap: str, partition: int) -> list[bytes | None]:
    reader = Consumer({"bootstrap.servers": bootstrap, "group.id": "test", "enable.partition.eof": True})
    reader.assign([TopicPartition(CUSTOMER_STATE_CHANGELOG, partition, 0)])
    found = []
    while (message := reader.poll(10)) is not None and message.error() is None:
        found.append(message.value())
    reader.close()
    return found


def changelog_row(customer: str, orders: int) -> tuple[bytes, bytes]:
    state = fold(OrderPlaced(f"o{n}", 100 + n, FIRST_DAY * DAY_MS) for n in range(orders))
    return customer.encode(), encode(Row(orders, 0, -1, state))


def in_a_transaction(bootstrap: str, partition: int, rows: list[tuple[bytes, bytes]]) -> None:
    """The last offset is then the transaction's marker, which is no record."""
    producer = Producer({"bootstrap.servers": bootstrap, "transactional.id": "test-recovery"})
    producer.init_transactions(30)
    producer.begin_transaction()
    for key, value in rows:
        producer.produce(CUSTOMER_STATE_CHANGELOG, key=key, value=value, partition=partition)
    producer.commit_transaction(30)


def orders_by_customer(bootstrap: str) -> dict[str, int]:
    messages = newest_by_customer(bootstrap, CUSTOMER_FEATURES)
    return {customer: message["inputs"]["total_orders"] for customer, message in messages.items()}


def test_recovery_ends_whatever_compaction_left_of_the_changelog(service, environment, topics, eager_compaction):
    """By partition: tombstones alone at the end and holes before; nothing at all but an offset; no record at the end;
    never written."""
    rows = [changelog_row(f"a{n}", 3) for n in range(300)]
    gone = [(key, None) for key, _ in rows[100:]]
    produce(topics, CUSTOMER_STATE_CHANGELOG, [*rows, *gone], partition=0)
    produce(topics, CUSTOMER_STATE_CHANGELOG, [changelog_row("b", 3)] * 50, partition=1)
    in_a_transaction(topics, 2, [changelog_row("c", 3)])
    admin = AdminClient({"bootstrap.servers": topics})
    (deleted,) = admin.delete_records([TopicPartition(CUSTOMER_STATE_CHANGELOG, 1, 50)]).values()
    deleted.result()

    def compacted() -> bool:
        # A segment is compacted once another one follows it, which begins with a record.
        produce(topics, CUSTOMER_STATE_CHANGELOG, [(b"a299", None)], partition=0)
        left = values_left(topics, 0)
        return len(left) < 200 and left[-1] is None

    wait_for(compacted, "Kafka's compaction", 60)

    worker = service("features", environment)
    for partition, customers in enumerate((["a0", "a299"], ["b"], ["c"], ["d"])):
        new = [(customer.encode(), encode_order(order(customer, 9))) for customer in customers]
        produce(topics, ORDERS, new, partition=partition)
    expected = {"a0": 4, "a299": 1, "b": 1, "c": 4, "d": 1}
    wait_for(lambda: orders_by_customer(topics) == expected, "their features", context=worker.log_tail)
    assert recovered(worker) < 300


# --- standby copies --------------------------------------------------------------------------------------------------


@pytest.fixture
def one_partition(topics: str) -> str:
    """Orders and changelog of one partition each: then two workers are more than there is work for."""
    admin = AdminClient({"bootstrap.servers": topics})
    names = [ORDERS, CUSTOMER_STATE_CHANGELOG]
    for future in admin.delete_topics(names).values():
        future.result()
    wait_for(lambda: not set(names) & set(admin.list_topics(timeout=10).topics), "old topics to be gone")
    for future in admin.create_topics([NewTopic(name, 1) for name in names]).values():
        future.result()
    wait_for(lambda: set(names) <= set(admin.list_topics(timeout=10).topics), "new topics to be there")
    return topics


def test_workers_with_a_copy_alone_or_with_nothing_are_ready_and_the_copy_takes_over(
    service, environment, one_partition, tmp_path
):
    def start(name: str) -> ServiceProcess:
        return service("features", environment | {"CLV_FEATURES_DATA_DIR": str(tmp_path / name)})

    owner = start("owner")
    records = history(customers=300, events=1500, seed=22)
    publish(one_partition, records[:1000])
    wait_for(lambda: lag(one_partition) == 0, "the first part", context=owner.log_tail)
    others = [start("second"), start("third")]
    rows = sum(ends(one_partition, CUSTOMER_STATE_CHANGELOG).values())
    wait_for(lambda: sorted(map(copied, others)) == [0, rows], "one copy", context=others[0].log_tail)
    publish(one_partition, records[1000:1300])
    wait_for(lambda: lag(one_partition) == 0, "the second part", context=owner.log_tail)
    rows = sum(ends(one_partition, CUSTOMER_STATE_CHANGELOG).values())
    wait_for(lambda: sorted(map(copied, others)) == [0, rows], "the copy to follow", context=others[0].log_tail)
    heir = max(others, key=copied)
    assert owner.stop() == 0
    publish(one_partition, records[1300:])
    wait_for(lambda: lag(one_partition) == 0, "the rest", context=heir.log_tail)
    assert metric(heir, "clv_records_processed_total") >= len(records) - 1300
    assert recovered(heir) == 0
    assert_features_equal_batch(one_partition, records)


class Load(threading.Thread):
    """A steady load of orders, spread over all partitions, until `stop`."""

    def __init__(self, bootstrap: str, records: list[Any], per_second: int) -> None:
        super().__init__()
        self.bootstrap, self.records, self.per_second = bootstrap, records, per_second
        self.sent: list[Any] = []
        self._ending = threading.Event()

    def run(self) -> None:
        for n in range(0, len(self.records), batch := max(1, self.per_second // 10)):
            publish(self.bootstrap, self.records[n : n + batch])
            self.sent += self.records[n : n + batch]
            if self._ending.wait(0.1):
                return

    def stop(self) -> None:
        self._ending.set()
        self.join()


class Watch(threading.Thread):
    """When what came: features by partition, and each rise of the committed offsets."""

    def __init__(self, bootstrap: str) -> None:
        super().__init__()
        self.features: dict[int, list[float]] = defaultdict(list)
        self.commits: dict[int, list[float]] = defaultdict(list)
        self.bootstrap = bootstrap
        self._ending = threading.Event()

    def run(self) -> None:
        common = {"bootstrap.servers": self.bootstrap, "enable.auto.commit": False}
        reader, group = Consumer({**common, "group.id": "watch"}), Consumer({**common, "group.id": "clv-features"})
        reader.assign([TopicPartition(CUSTOMER_FEATURES, p, 0) for p in range(PARTITIONS)])
        committed: dict[int, int] = {}
        while not self._ending.is_set():
            for message in reader.consume(1000, timeout=0.1):
                self.features[message.partition()].append(time.monotonic())
            for place in group.committed([TopicPartition(ORDERS, p) for p in range(PARTITIONS)]):
                if place.offset > committed.get(place.partition, -1):
                    committed[place.partition] = place.offset
                    self.commits[place.partition].append(time.monotonic())
        reader.close()
        group.close()

    def stop(self) -> None:
        self._ending.set()
        self.join()


def longest_gap(times: list[float], begin: float, end: float) -> float:
    within = [begin, *(at for at in times if begin < at < end), end]
    return max(later - earlier for earlier, later in pairwise(within))


@pytest.fixture
def running() -> Iterator[Callable[[Any], Any]]:
    threads: list[Any] = []

    def start(thread: Any) -> Any:
        thread.start()
        threads.append(thread)
        return thread

    yield start
    for thread in threads:
        thread.stop()


def test_a_standby_takes_over_from_its_copy_while_features_and_commits_of_its_own_go_on(
    service, environment, topics, tmp_path, running
):
    customers, first = 3000, 6000
    records = history(customers, events=20_000, seed=23)
    publish(topics, records[:first])
    workers = [
        service("features", environment | {"CLV_FEATURES_DATA_DIR": str(tmp_path / name)}) for name in ("one", "two")
    ]
    wait_for(lambda: lag(topics) == 0, "the first part", 60, workers[0].log_tail)
    load, watch = running(Load(topics, records[first:], per_second=200)), running(Watch(topics))
    wait_for(lambda: all(len(watch.commits[p]) > 3 for p in range(PARTITIONS)), "a steady load")
    dying, heir = workers
    owned = http(heir, "/metrics")[1]
    own = [p for p in range(PARTITIONS) if f'clv_features_customers{{partition="{p}"}}' in owned]
    before = recovered(heir)
    assert copied(heir) > customers / 4

    dying.kill()
    killed = time.monotonic()
    others = sorted(set(range(PARTITIONS)) - set(own))
    wait_for(lambda: all(watch.features[p][-1] > killed + 2 for p in others), "the takeover", 60, heir.log_tail)
    wait_for(lambda: all(watch.commits[p][-1] > killed + 2 for p in others), "its commits", 60, heir.log_tail)
    ended = time.monotonic()
    load.stop()
    wait_for(lambda: lag(topics) == 0, "all that was sent", 60, heir.log_tail)
    watch.stop()
    gaps = {
        f"{what} of {whose}": round(max(longest_gap(times[p], killed, ended) for p in partitions), 2)
        for what, times in (("features", watch.features), ("commits", watch.commits))
        for whose, partitions in (("the heir's own", own), ("the dead worker's", others))
    }
    print("longest gaps, seconds:", gaps)
    assert own
    assert others
    # A copy is as old as the chunk in hand of each partition, and what the heir had not yet fetched.
    assert recovered(heir) - before <= PARTITIONS * (CHUNK_RECORDS + 1) < customers / 3
    assert gaps["features of the heir's own"] < 5
    assert gaps["commits of the heir's own"] < 7
    assert gaps["features of the dead worker's"] < 25
    assert_features_equal_batch(topics, records[:first] + load.sent)
