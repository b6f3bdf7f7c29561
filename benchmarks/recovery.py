"""How long a feature worker needs until it is ready without any local state: all of it comes from the changelog.

The changelog of a real Kafka is filled with the rows of as many customers as asked for, each with a history of one to
ten orders. Timed from the start of the worker's process, imports included, until /readyz says ready. Then an order
for each of some customers is sent, and their features must contain the old orders, number by number.
"""

import asyncio
import contextlib
import json
import math
import random
import tempfile
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import msgspec
import psutil
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from benchmarks.features import QUINTILES, feature_worker
from benchmarks.orders import FIRST_DAY
from cli.lag import PARTITIONS
from cli.watch import read_metrics, total
from deploy.local.kafka import LocalKafka
from deploy.local.processes import ServiceProcess
from domain.customer import DAY_MS, CustomerState, OrderPlaced, apply, fold
from domain.features import FEATURE_NAMES, day_of, features
from schemas.customer_rows import PROGRESS_KEY, Progress, Row, encode
from schemas.orders import Placed, encode_order
from schemas.topics import CUSTOMER_FEATURES, CUSTOMER_STATE_CHANGELOG, ORDERS, topics
from services.runtime.kafka import Item, create_topics, new_producer, send_batches

HISTORIES = 10_000
SAMPLE = 200
READY_SECONDS_MAX = 600.0
LAST_DAY = FIRST_DAY + 730


def run(customers: int, chunk_records: int) -> dict[str, Any]:
    """Run the benchmark; returns its figures. Raises RuntimeError if a customer of the sample is not as before."""
    with tempfile.TemporaryDirectory(prefix="clv-bench-") as folder, LocalKafka() as kafka:
        asyncio.run(create_topics(kafka.bootstrap_servers, topics().values()))
        changelog_bytes = asyncio.run(fill_changelog(kafka.bootstrap_servers, customers))
        worker = feature_worker(Path(folder), kafka.bootstrap_servers, chunk_records)
        began = time.perf_counter()
        worker.start()
        try:
            used = wait_ready(worker)
            seconds = time.perf_counter() - began
            recovered = int(total(read_metrics(worker.url), "clv_features_recovered_rows_total"))  # type: ignore[attr-defined]
            recoveries = state_recoveries(worker)
            asyncio.run(_check(kafka.bootstrap_servers, customers))
        finally:
            worker.stop()
    return {
        "customers": customers,
        "changelog_mb": round(changelog_bytes / 2**20),
        "seconds_to_ready": round(seconds, 2),
        "seconds_reading": recoveries[0]["seconds"],
        "recovered_rows": recovered,
        "rows_per_second": round(recovered / recoveries[0]["seconds"]),
        "worker_cpu_seconds": round(used.cpu_seconds, 2),
        "worker_rss_mb_max": round(used.rss_bytes_max / 2**20),
        "recoveries": len(recoveries),
        "customers_checked": min(SAMPLE, customers),
    }


def customer_of(number: int) -> str:
    """Id of the benchmark's customer with this number, from 0."""
    return f"customer-{number}"


def history(number: int) -> list[OrderPlaced]:
    """Orders of a customer, one to ten, over two years. Customers share HISTORIES different ones."""
    rng = random.Random(number % HISTORIES)
    return [
        OrderPlaced(f"o{n}", rng.randrange(100, 30_000), (FIRST_DAY + rng.randrange(730)) * DAY_MS)
        for n in range(1 + number % 10)
    ]


def rows(customers: int) -> Iterator[tuple[bytes, bytes]]:
    """(key, value) of the changelog row of each customer."""
    encoded = [
        encode(Row(1 + number % 10, 0, number, fold(history(number)))) for number in range(min(HISTORIES, customers))
    ]
    for number in range(customers):
        yield customer_of(number).encode(), encoded[number % HISTORIES]


async def fill_changelog(bootstrap_servers: str, customers: int) -> int:
    """Write the changelog; returns its size in bytes, without what Kafka adds."""
    producer = new_producer(bootstrap_servers, "clv-bench")
    await producer.start()
    size = 0
    try:
        waiting: list[list[Item]] = [[] for _ in range(PARTITIONS[CUSTOMER_STATE_CHANGELOG])]
        await producer.client._wait_on_metadata(ORDERS)
        for number, (key, value) in enumerate(rows(customers), start=1):
            waiting[_partition_of(producer, key)].append((key, value, None, []))
            size += len(key) + len(value)
            if number % 50_000 == 0:
                await _flush(producer, waiting)
        progress = encode(Progress(1, 0, 0, LAST_DAY * DAY_MS, 0, None, 0))
        for items in waiting:
            items.append((PROGRESS_KEY, progress, None, []))
        await _flush(producer, waiting)
    finally:
        await producer.stop()
    return size


def _partition_of(producer: AIOKafkaProducer, key: bytes) -> int:
    return int(producer._partition(ORDERS, None, key, None, key, None))


async def _flush(producer: AIOKafkaProducer, waiting: list[list[Item]]) -> None:
    for partition, items in enumerate(waiting):
        await asyncio.gather(*await send_batches(producer, CUSTOMER_STATE_CHANGELOG, partition, items))
        items.clear()


class Used(NamedTuple):
    """What a worker used until it was ready."""

    cpu_seconds: float
    rss_bytes_max: int


def wait_ready(worker: ServiceProcess) -> Used:
    """Until the worker is ready. Raises RuntimeError if it ends, or takes too long."""
    process = psutil.Process(worker.pid)
    deadline, rss = time.monotonic() + READY_SECONDS_MAX, 0
    while time.monotonic() < deadline:
        if not worker.alive:
            raise RuntimeError(f"the worker ended:\n{worker.log_tail(30)}")
        rss = max(rss, process.memory_info().rss)
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"{worker.url}/readyz", timeout=2).status_code == 200:  # type: ignore[attr-defined]
                return Used(sum(process.cpu_times()[:2]), rss)
        time.sleep(0.05)
    raise RuntimeError(f"not ready after {READY_SECONDS_MAX:.0f} s:\n{worker.log_tail(30)}")


def state_recoveries(worker: ServiceProcess) -> list[dict[str, Any]]:
    """What the worker's log says of each recovery that came to its end."""
    lines = [json.loads(line) for line in worker.log_path.read_text().splitlines() if line.startswith("{")]
    return [line for line in lines if line.get("event") == "state_recovered"]


async def _check(bootstrap_servers: str, customers: int) -> None:
    sample = random.Random(0).sample(range(customers), min(SAMPLE, customers))
    await _send_orders(bootstrap_servers, sample)
    seen = await _read_features(bootstrap_servers, {customer_of(number) for number in sample})
    for number in sample:
        state = fold(history(number))
        apply(state, OrderPlaced("new", 1000 + number % 1000, LAST_DAY * DAY_MS))
        _compare(seen[customer_of(number)], state)


async def _send_orders(bootstrap_servers: str, sample: list[int]) -> None:
    producer = new_producer(bootstrap_servers, "clv-bench")
    await producer.start()
    try:
        for number in sample:
            order = Placed(
                event_id=f"new-{number}",
                customer_id=customer_of(number),
                occurred_at_ms=LAST_DAY * DAY_MS,
                order_id="new",
                amount_minor=1000 + number % 1000,
                original_amount="10.00",
                original_currency="USD",
            )
            await producer.send_and_wait(ORDERS, key=customer_of(number).encode(), value=encode_order(order))
    finally:
        await producer.stop()


async def _read_features(bootstrap_servers: str, wanted: set[str]) -> dict[str, dict[str, Any]]:
    consumer = AIOKafkaConsumer(
        CUSTOMER_FEATURES, bootstrap_servers=bootstrap_servers, auto_offset_reset="earliest", enable_auto_commit=False
    )
    await consumer.start()
    seen: dict[str, dict[str, Any]] = {}
    try:
        async with asyncio.timeout(60):
            while seen.keys() != wanted:
                message = msgspec.json.decode((await consumer.getone()).value)
                seen[message["customer_id"]] = message
    finally:
        await consumer.stop()
    return seen


def _compare(message: dict[str, Any], state: CustomerState) -> None:
    day = day_of(date.fromisoformat(message["as_of"]))
    wanted = features([state], [day], QUINTILES, 100).features[0].tolist()
    for name, value in zip(FEATURE_NAMES, wanted, strict=True):
        if message["features"][name] != (None if math.isnan(value) else value):
            raise RuntimeError(f"{message['customer_id']}: {name} is {message['features'][name]}, not {value}")
