"""What a second feature worker's copy is worth: how long nothing comes out after one of two is killed with SIGKILL.

Both have all customers' state, each for half of the partitions. Orders come all the time. Measured are the longest
times without features after the kill, of the dead worker's partitions (10 s of them are its session's) and of the other
worker's own ones, and how much of the changelog the other worker reads before it goes on.
"""

import asyncio
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from benchmarks.features import feature_worker
from benchmarks.recovery import customer_of, fill_changelog, state_recoveries, wait_ready
from cli.lag import PARTITIONS
from cli.watch import read_metrics, total
from deploy.local.kafka import LocalKafka
from deploy.local.processes import ServiceProcess
from domain.customer import DAY_MS
from schemas.orders import Placed, encode_order
from schemas.topics import CUSTOMER_FEATURES, ORDERS, topics
from services.runtime.kafka import create_topics, new_producer

FIRST_DAY = 20_000
STEADY_SECONDS = 3.0
"""Of features from a partition: before the kill, and after the takeover until the measuring ends."""
SECONDS_MAX = 180.0


def run(customers: int, orders_per_second: int) -> dict[str, Any]:
    """Run the benchmark with a copy and without; returns the figures of both."""
    return {f"{replicas}_standby_replicas": _run(customers, orders_per_second, replicas) for replicas in (1, 0)} | {
        "customers": customers,
        "orders_per_second": orders_per_second,
    }


def _run(customers: int, orders_per_second: int, replicas: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="clv-bench-") as folder, LocalKafka() as kafka:
        servers = kafka.bootstrap_servers
        asyncio.run(create_topics(servers, topics().values()))
        asyncio.run(fill_changelog(servers, customers))
        more = {"CLV_FEATURES_STANDBY_REPLICAS": str(replicas)}
        workers = [feature_worker(Path(folder), servers, 10_000, name, more) for name in ("one", "two")]
        try:
            for worker in workers:
                worker.start()
                wait_ready(worker)
            return asyncio.run(_measure(servers, customers, orders_per_second, workers))
        finally:
            for worker in workers:
                worker.stop()


async def _measure(servers: str, customers: int, per_second: int, workers: list[ServiceProcess]) -> dict[str, Any]:
    dying, heir = workers
    seen: dict[int, list[float]] = defaultdict(list)
    load = asyncio.create_task(_order(servers, customers, per_second))
    watch = asyncio.create_task(_note_features(servers, seen))
    try:
        async with asyncio.timeout(SECONDS_MAX):
            await _until(lambda: _steady(seen, time.monotonic() - STEADY_SECONDS))
            before = await asyncio.to_thread(read_metrics, heir.url)  # type: ignore[attr-defined]
            own = {int(labels["partition"]) for labels, _ in before["clv_features_customers"]}
            known = len(state_recoveries(heir))
            killed = time.monotonic()
            await asyncio.to_thread(dying.kill)
            others = set(range(PARTITIONS[ORDERS])) - own
            await _until(lambda: len(state_recoveries(heir)) > known)
            taken_over = time.monotonic()
            await _until(lambda: _steady(seen, taken_over))
    finally:
        for task in (load, watch):
            task.cancel()
        await asyncio.gather(load, watch, return_exceptions=True)
    last = state_recoveries(heir)[-1]
    after = await asyncio.to_thread(read_metrics, heir.url)  # type: ignore[attr-defined]
    rows = "clv_features_recovered_rows_total"
    return {
        "rows_read_before_going_on": int(total(after, rows) - total(before, rows)),
        "seconds_reading": last["seconds"],
        "longest_gap_of_the_dead_workers_partitions_seconds": _longest_gap(seen, others, killed),
        "longest_gap_of_the_others_own_partitions_seconds": _longest_gap(seen, own, killed),
    }


async def _until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - it is other processes that make it true
        await asyncio.sleep(0.1)


def _steady(seen: dict[int, list[float]], since: float) -> bool:
    """Whether features of each partition have come for some time since an instant."""
    return all(
        (late := [at for at in seen[partition] if at > since]) and late[-1] - late[0] > STEADY_SECONDS / 2
        for partition in range(PARTITIONS[ORDERS])
    )


def _longest_gap(seen: dict[int, list[float]], partitions: set[int], since: float) -> float:
    gaps = [
        later - earlier
        for partition in partitions
        for earlier, later in pairwise([since, *(at for at in seen[partition] if at > since)])
    ]
    return round(max(gaps), 2)


async def _order(servers: str, customers: int, per_second: int) -> None:
    producer = new_producer(servers, "clv-bench")
    await producer.start()
    try:
        began, sent = time.monotonic(), 0
        while True:
            due = int((time.monotonic() - began) * per_second)
            for number in range(sent, due):
                customer = customer_of(number * 7919 % customers)
                order = Placed(
                    event_id=f"load-{number}",
                    customer_id=customer,
                    occurred_at_ms=FIRST_DAY * DAY_MS,
                    order_id=f"load-{number}",
                    amount_minor=1000,
                    original_amount="10.00",
                    original_currency="USD",
                )
                await producer.send(ORDERS, key=customer.encode(), value=encode_order(order))
            sent = due
            await asyncio.sleep(0.02)
    finally:
        await producer.stop()


async def _note_features(servers: str, seen: dict[int, list[float]]) -> None:
    consumer = AIOKafkaConsumer(bootstrap_servers=servers, enable_auto_commit=False, auto_offset_reset="earliest")
    await consumer.start()
    try:
        consumer.assign([TopicPartition(CUSTOMER_FEATURES, n) for n in range(PARTITIONS[CUSTOMER_FEATURES])])
        while True:
            for place in await consumer.getmany(timeout_ms=100):
                seen[place.partition].append(time.monotonic())
    finally:
        await consumer.stop()
