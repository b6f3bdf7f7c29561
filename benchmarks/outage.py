"""Kafka is dead for minutes while clients post orders: what was answered, what is lost, and what the services did.

Every event that a client was answered 202 for must be in `orders`, and count once in MongoDB. A service that ended is
started again, as a supervisor would; how often, and what its last words were, is reported.
"""

import asyncio
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterable
from http import HTTPStatus
from pathlib import Path
from typing import Any, Self

import psutil
from pymongo import MongoClient
from rich.console import Console

from benchmarks.http_load import Answer, HttpLoad
from cli.demo_data import cdnow_model
from cli.lag import LagReader
from cli.platform import Platform
from deploy.local.kafka import LocalKafka
from schemas.mongo import CUSTOMERS
from schemas.orders import decode_order
from schemas.topics import ORDERS
from services.runtime.kafka import new_consumer
from services.runtime.shutdown import KnownProblem

CALM_SECONDS = 10.0
RECOVERY_SECONDS_MAX = 180.0
SUPERVISOR_SECONDS = 1.0
CLIENTS = 16


def run(minutes: float, announce: Console | None = None) -> dict[str, Any]:
    """Run the benchmark; returns its figures. Raises KnownProblem if what was accepted does not arrive."""
    console = announce or Console(stderr=True)
    say = console.print
    models = cdnow_model(say)
    with tempfile.TemporaryDirectory(prefix="clv-bench-") as folder:
        platform = Platform(
            models, Path(folder), settings={"CLV_FEATURES_CLOCK": "event", "CLV_FEATURES_REFRESH_SECONDS": "0"}
        )
        with platform, Supervisor(platform) as supervisor:
            kafka = platform.stack.kafka
            if kafka is None:
                raise KnownProblem("the outage needs a Kafka of its own: unset CLV_KAFKA_BOOTSTRAP_SERVERS")
            with HttpLoad(platform.url("ingest"), clients=CLIENTS) as load:
                times = _outage(kafka, load, supervisor, minutes * 60, say)
            say("waiting for every service to have committed everything")
            asyncio.run(_drain(platform))
            drained = time.monotonic()
            return {
                "minutes": minutes,
                **_http_figures(load, times),
                **asyncio.run(_effects(platform, load)),
                "seconds_from_the_return_until_all_is_in_mongodb": round(drained - times["returned"], 1),
                "services": supervisor.report(),
            }


def _outage(kafka: LocalKafka, load: HttpLoad, supervisor: "Supervisor", seconds: float, say: Any) -> dict[str, float]:
    """Calm, outage, calm; the moments (time.monotonic) of the kill, the restart, the return and the first 202 after."""
    time.sleep(CALM_SECONDS)
    supervisor.mark()
    kafka.kill()
    killed = time.monotonic()
    say(f"Kafka is killed; {len(load.accepted)} events were accepted so far")
    time.sleep(seconds)
    restarted = time.monotonic()
    kafka.restart()
    returned, known = time.monotonic(), len(load.accepted)
    say("Kafka is back")
    while len(load.accepted) <= known + CLIENTS:
        if load.failures or time.monotonic() > returned + RECOVERY_SECONDS_MAX:
            raise KnownProblem(f"no event was accepted after the outage: {load.failures[:1]}")
        time.sleep(0.1)
    accepted_again = time.monotonic()
    time.sleep(CALM_SECONDS)
    return {"killed": killed, "restarted": restarted, "returned": returned, "accepted_again": accepted_again}


def _http_figures(load: HttpLoad, times: dict[str, float]) -> dict[str, Any]:
    if load.failures:
        raise KnownProblem(f"a client was not answered: {load.failures[0]!r}")
    during = [
        each for each in load.answers if each.began > times["killed"] and each.began + each.seconds < times["restarted"]
    ]
    return {
        "requests": len(load.answers),
        "accepted_202": load.status_count(HTTPStatus.ACCEPTED),
        "refused_503": load.status_count(HTTPStatus.SERVICE_UNAVAILABLE),
        "answered_otherwise": sum(each.status not in (202, 503) for each in load.answers),
        "accepted_while_kafka_was_dead": sum(each.status == HTTPStatus.ACCEPTED for each in during),
        "refused_without_retry_after": sum(each.status == 503 and each.retry_after is None for each in load.answers),
        "answer_seconds_max": round(max(each.seconds for each in load.answers), 2),
        "answer_seconds_median_in_outage": _median(during),
        "seconds_from_the_return_to_202": round(times["accepted_again"] - times["returned"], 1),
    }


def _median(answers: list[Answer]) -> float | None:
    return round(sorted(each.seconds for each in answers)[len(answers) // 2], 2) if answers else None


async def _drain(platform: Platform) -> None:
    began = time.monotonic()
    async with LagReader(platform.addresses.kafka_bootstrap_servers) as lag:
        while any((await lag.lags()).values()) or not all(platform.is_ready(name) for name in platform.names):
            if time.monotonic() > began + RECOVERY_SECONDS_MAX:
                raise KnownProblem(f"after {RECOVERY_SECONDS_MAX:.0f} s records still wait: {await lag.lags()}")
            await asyncio.sleep(0.5)


async def _effects(platform: Platform, load: HttpLoad) -> dict[str, Any]:
    """Accepted events that are not in `orders`; and MongoDB's count of each customer's orders beside what was sent."""
    in_topic = await _event_ids(platform.addresses.kafka_bootstrap_servers)
    accepted = {event["event_id"] for event in load.accepted}
    wanted = Counter(event["customer_id"] for event in load.accepted)
    with MongoClient[dict[str, Any]](platform.addresses.mongo_uri) as client:
        found = {each["_id"]: int(each["inputs"]["total_orders"]) for each in client["clv"][CUSTOMERS].find()}
    differences = [found.get(customer, 0) - wanted.get(customer, 0) for customer in found.keys() | wanted.keys()]
    return {
        "lost": len(accepted - in_topic.keys()),
        "repeated_in_orders": sum(count - 1 for count in in_topic.values()),
        "missing_in_mongodb": -sum(each for each in differences if each < 0),
        "double_counted_in_mongodb": sum(each for each in differences if each > 0),
    }


async def _event_ids(bootstrap_servers: str) -> Counter[str]:
    consumer = new_consumer(bootstrap_servers, "clv-bench", None)
    await consumer.start()
    try:
        async with LagReader(bootstrap_servers) as reader:
            ends = await reader.ends(ORDERS)
        consumer.assign(list(ends))
        await consumer.seek_to_beginning(*ends)
        found: Counter[str] = Counter()
        while any([await consumer.position(source) < end for source, end in ends.items()]):
            for records in (await consumer.getmany(timeout_ms=500)).values():
                found.update(decode_order(record.value).event_id for record in records)
        return found
    finally:
        await consumer.stop()


class Supervisor:
    """Starts ended services again, and watches what memory they take. A context manager."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._ends: dict[str, list[str]] = {name: [] for name in platform.names}
        self._rss_mib: dict[str, dict[str, int]] = {name: {} for name in platform.names}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(10)

    def mark(self) -> None:
        """Take the memory in use now as that before the outage."""
        for name, mib in self._memory():
            self._rss_mib[name]["before"] = mib

    def report(self) -> dict[str, Any]:
        """By service: how often it ended and why, and its memory, MiB."""
        return {
            name: {"ended": len(ends), "last_words": sorted(set(ends)), "rss_mib": self._rss_mib[name]}
            for name, ends in self._ends.items()
        }

    def _watch(self) -> None:
        while not self._over.wait(SUPERVISOR_SECONDS):
            for name, mib in self._memory():
                self._rss_mib[name]["max"] = max(mib, self._rss_mib[name].get("max", 0))
            for name, process in self._platform.processes.items():
                if not process.alive:
                    last = (process.log_tail(1) or "nothing")[:200]
                    self._ends[name].append(f"exit code {process.exit_code}: {last}")
                    process.start()

    def _memory(self) -> Iterable[tuple[str, int]]:
        for name, process in self._platform.processes.items():
            try:
                yield name, psutil.Process(process.pid).memory_info().rss >> 20
            except psutil.Error:  # it has just ended
                continue
