"""How many order events a second one feature worker folds on one core, with real Kafka, full state and all features.

The worker is confined to one core, Kafka to the others. Every customer has a history before the clock starts. Counted
from the first processed record to the last; effects are acknowledged (changelog, features) before a record counts.
"""

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import psutil

from benchmarks.orders import order_records
from cli.platform import ROOT
from cli.publishing import publish
from cli.watch import read_metrics, total
from deploy.local.folders import free_ports
from deploy.local.kafka import LocalKafka
from deploy.local.processes import ServiceProcess
from domain.features import FEATURE_NAMES
from domain.rfm_scores import Quintiles
from schemas.topics import ORDERS, topics
from services.runtime.bundle import BundleHead, point_to
from services.runtime.kafka import create_topics
from services.runtime.shutdown import KnownProblem

QUINTILES = Quintiles((30, 60, 120, 240), (1, 3, 6, 12), (100, 300, 700, 1500))


def run(customers: int, history_events: int, events: int, chunk_records: int) -> dict[str, Any]:
    """Run the benchmark; returns its figures."""
    cores = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="clv-bench-") as folder, LocalKafka() as kafka:
        others = cores[1:] or cores
        psutil.Process(kafka.process().pid).cpu_affinity(others)
        asyncio.run(create_topics(kafka.bootstrap_servers, topics().values()))
        worker = feature_worker(Path(folder), kafka.bootstrap_servers, chunk_records)
        _publish(kafka.bootstrap_servers, customers, history_events, seed=1)
        worker.start()
        _confine(worker, cores[0])
        _wait_processed(worker, history_events)
        worker.stop()
        _publish(kafka.bootstrap_servers, customers, events, seed=2)
        worker.start()
        _confine(worker, cores[0])
        timed = _wait_processed(worker, events)
        worker.stop()
    counted = events - timed.records_before
    if not counted:
        raise KnownProblem(f"{events:,} events were folded before the clock could start: time more (--events)")
    return {
        "customers": customers,
        "history_events": history_events,
        "events": counted,
        "seconds": round(timed.seconds, 3),
        "events_per_second": round(counted / timed.seconds),
        "worker_cpu_seconds": round(timed.cpu_seconds, 3),
        "events_per_worker_cpu_second": round(counted / timed.cpu_seconds),
        "worker_rss_mb_max": round(timed.rss_bytes_max / 2**20),
        "worker_cores": 1,
        "chunk_records": chunk_records,
        "features": len(FEATURE_NAMES),
    }


def feature_worker(
    folder: Path,
    bootstrap_servers: str,
    chunk_records: int,
    name: str = "worker",
    more: Mapping[str, str] | None = None,
) -> ServiceProcess:
    """A feature worker, not started, with its address in `.url`.

    name: of its data folder and log, in `folder`. more: further settings.
    """
    bundle = folder / "models" / "bench"
    bundle.mkdir(parents=True, exist_ok=True)
    head = BundleHead("bench", 90, "USD", list(FEATURE_NAMES), QUINTILES, (1.0, 2.0, 3.0))
    (bundle / "metadata.json").write_bytes(msgspec.json.encode(head))
    point_to(folder / "models", "bench")
    (port,) = free_ports(1)
    environment = {
        "PYTHONPATH": str(ROOT),
        "CLV_KAFKA_BOOTSTRAP_SERVERS": bootstrap_servers,
        "CLV_MODELS_DIR": str(folder / "models"),
        "CLV_FEATURES_DATA_DIR": str(folder / f"{name}-data"),
        "CLV_FEATURES_HTTP_PORT": str(port),
        "CLV_FEATURES_CLOCK": "event",
        "CLV_FEATURES_REFRESH_SECONDS": "0",
        "CLV_FEATURES_CHUNK_RECORDS": str(chunk_records),
        **(more or {}),
    }
    command = [sys.executable, "-m", "services.features"]
    worker = ServiceProcess("features", command, environment, folder / f"{name}.log")
    worker.url = f"http://127.0.0.1:{port}"  # type: ignore[attr-defined]
    return worker


def _confine(worker: ServiceProcess, core: int) -> None:
    process = psutil.Process(worker.pid)
    for one in [process, *process.children(recursive=True)]:
        one.cpu_affinity([core])


def _publish(bootstrap_servers: str, customers: int, events: int, seed: int) -> None:
    asyncio.run(publish(bootstrap_servers, order_records(customers, events, seed), topic=ORDERS))


class Timed(NamedTuple):
    """From the first records seen processed to the last. cpu_seconds: what the worker used of its core meanwhile."""

    seconds: float
    cpu_seconds: float
    records_before: int
    rss_bytes_max: int


def _wait_processed(worker: ServiceProcess, events: int) -> Timed:
    url: str = worker.url  # type: ignore[attr-defined]
    process = psutil.Process(worker.pid)
    began, cpu_began, first, rss = 0.0, 0.0, 0, 0
    while True:
        if not worker.alive:
            raise RuntimeError(f"the worker ended:\n{worker.log_tail(30)}")
        done = int(total(read_metrics(url), "clv_records_processed_total"))
        now, cpu = time.perf_counter(), sum(process.cpu_times()[:2])
        rss = max(rss, process.memory_info().rss)
        if done and not began:
            began, cpu_began, first = now, cpu, done
        if done >= events:
            return Timed(now - began, cpu - cpu_began, first, rss)
        time.sleep(0.1)
