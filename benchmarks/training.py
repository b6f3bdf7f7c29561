"""How long it takes, and how much memory, from orders to training sets or a model, in a process of its own.

From a file, from `orders` that nobody has folded, from a feature worker's states, or the sink's copy of them.
"""

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import date, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pymongo import MongoClient

from benchmarks.features import feature_worker
from cli.platform import ROOT
from cli.publishing import publish
from cli.watch import read_metrics, total
from deploy.local.folders import free_ports
from deploy.local.kafka import LocalKafka
from deploy.local.mongo import LocalMongo
from deploy.local.processes import ServiceProcess
from domain.customer import DAY_MS
from domain.features import date_of, day_of
from schemas.mongo import CUSTOMER_STATES
from schemas.orders import Placed, Refunded, encode_order
from schemas.topics import ORDERS, topics
from services.runtime.kafka import create_topics
from services.trainer.sources import TrainingData
from services.trainer.sources.mongo import from_mongo
from services.trainer.sources.orders import from_file
from services.trainer.sources.stream import from_topic
from services.trainer.train import train

FIRST_DAY = 18_993  # 2022-01-01
YEARS = 3
HORIZON_DAYS = 60
WHOLE_HORIZON_DAYS = 180
REFUND_EVERY = 25
DATABASE = "clv"
_WRITE_ROWS = 100_000
_STORED_SECONDS_MAX = 1800.0


class Source(StrEnum):
    """Where training reads from."""

    FILE = "file"
    TOPIC = "topic"
    """`orders`, which no feature worker has folded."""
    STATES = "states"
    """The changelog of a feature worker that has folded everything."""
    MONGO = "mongo"


READ: dict[Source, Callable[[str, date], TrainingData]] = {
    Source.FILE: lambda path, cutoff: from_file(Path(path), None, cutoff, "USD"),
    Source.TOPIC: lambda servers, cutoff: from_topic(servers, cutoff, "USD"),
    Source.STATES: lambda servers, cutoff: from_topic(servers, cutoff, "USD"),
    Source.MONGO: lambda uri, cutoff: from_mongo(uri, DATABASE, cutoff, "USD"),
}


class Sale(NamedTuple):
    """An order of the benchmark, `amount` in major units."""

    number: int
    owner: int
    day: int
    second: int
    amount: float

    @property
    def is_refunded(self) -> bool:
        """Whether a third of it comes back."""
        return self.number % REFUND_EVERY == 0


def run(customers: int, orders: int, windows: int, whole: bool, source: Source = Source.FILE) -> dict[str, Any]:
    """Figures of reading so many orders, and of making so many training sets of them; or, whole, of a model."""
    with (
        tempfile.TemporaryDirectory(prefix="clv-bench-") as folder,
        _there(source, Path(folder), customers, orders) as at,
    ):
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.training", source, at, "0" if whole else str(windows)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        figures: dict[str, Any] = json.loads(done.stdout)
        return {"source": source.value, **figures}


@contextmanager
def _there(source: Source, folder: Path, customers: int, orders: int) -> Iterator[str]:
    """The orders where the source has them: its path, Kafka's addresses or MongoDB's. Only servers run meanwhile."""
    if source is Source.FILE:
        path = folder / "orders.csv"
        write_orders(path, customers, orders)
        yield str(path)
        return
    with ExitStack() as stack:
        servers = stack.enter_context(LocalKafka()).bootstrap_servers
        asyncio.run(create_topics(servers, topics().values()))
        records = asyncio.run(publish(servers, _messages(customers, orders), topic=ORDERS))
        if source is Source.TOPIC:
            yield servers
            return
        worker = feature_worker(folder, servers, 10_000)
        mongo = stack.enter_context(LocalMongo()) if source is Source.MONGO else None
        sink = None if mongo is None else _sink(folder, servers, mongo.uri)
        services = [worker] if sink is None else [worker, sink]
        for each in services:
            each.start()
        try:
            _wait(lambda: _events_folded(worker) == records, services)
            if mongo is not None:
                uri = mongo.uri
                _wait(lambda: _events_stored(uri) == records, services)
        finally:
            for each in services:
                each.stop()
        yield servers if mongo is None else mongo.uri


def _sink(folder: Path, servers: str, uri: str) -> ServiceProcess:
    (port,) = free_ports(1)
    environment = {
        "PYTHONPATH": str(ROOT),
        "CLV_KAFKA_BOOTSTRAP_SERVERS": servers,
        "CLV_MONGO_URI": uri,
        "CLV_MONGO_DATABASE": DATABASE,
        "CLV_SINK_HTTP_PORT": str(port),
    }
    return ServiceProcess("sink", [sys.executable, "-m", "services.sink"], environment, folder / "sink.log")


def _events_folded(worker: ServiceProcess) -> int:
    return int(total(read_metrics(worker.url), "clv_records_processed_total"))  # type: ignore[attr-defined]


def _events_stored(uri: str) -> int:
    with MongoClient[dict[str, Any]](uri) as client:
        events = {"$group": {"_id": None, "events": {"$sum": "$events_applied"}}}
        return next((int(each["events"]) for each in client[DATABASE][CUSTOMER_STATES].aggregate([events])), 0)


def _wait(done: Callable[[], bool], services: list[ServiceProcess]) -> None:
    deadline = time.monotonic() + _STORED_SECONDS_MAX
    while not done():
        for each in services:
            if not each.alive or time.monotonic() > deadline:
                raise RuntimeError(f"{each.name} does not get to the end:\n{each.log_tail(30)}")
        time.sleep(1)


def sales(customers: int, orders: int, seed: int = 1) -> Iterator[Sale]:
    """Orders of customers whose rates differ widely, in the order of time."""
    rng = np.random.default_rng(seed)
    rates = rng.gamma(0.7, 1.0, customers)
    owners = rng.choice(customers, orders, p=rates / rates.sum())
    days = np.sort(rng.integers(0, YEARS * 365, orders))
    seconds = rng.integers(0, 86_400, orders)
    amounts = rng.lognormal(3.4, 0.6, orders)
    for start in range(0, orders, _WRITE_ROWS):
        part = slice(start, start + _WRITE_ROWS)
        columns = (column[part].tolist() for column in (owners, days, seconds, amounts))
        for number, row in enumerate(zip(*columns, strict=True), start):
            yield Sale(number, *row)


def write_orders(path: Path, customers: int, orders: int) -> None:
    """The sales as CSV, some refunded."""
    dates = [date_of(FIRST_DAY + day).isoformat() for day in range(YEARS * 365)]
    with path.open("w") as file:
        file.write("type,order_id,customer_id,occurred_at,amount,currency\n")
        for sale in sales(customers, orders):
            second = sale.second
            at = f"{dates[sale.day]}T{second // 3600:02d}:{second // 60 % 60:02d}:{second % 60:02d}Z"
            ids = f"o{sale.number},c{sale.owner:07d},{at}"
            file.write(f"order,{ids},{sale.amount + 0.01:.2f},USD\n")
            if sale.is_refunded:
                file.write(f"refund,{ids},{sale.amount / 3 + 0.01:.2f},USD\n")


def _messages(customers: int, orders: int) -> Iterator[tuple[bytes, bytes]]:
    """The same as records of `orders`."""
    for sale in sales(customers, orders):
        common: dict[str, Any] = {
            "customer_id": f"c{sale.owner:07d}",
            "occurred_at_ms": (FIRST_DAY + sale.day) * DAY_MS + sale.second * 1000,
            "order_id": f"o{sale.number}",
            "original_currency": "USD",
        }
        key = common["customer_id"].encode()
        amount = f"{sale.amount + 0.01:.2f}"
        placed = Placed(event_id=f"e{sale.number}", amount_minor=_minor(amount), original_amount=amount, **common)
        yield key, encode_order(placed)
        if sale.is_refunded:
            amount = f"{sale.amount / 3 + 0.01:.2f}"
            common |= {"event_id": f"f{sale.number}", "refund_id": f"r{sale.number}"}
            yield key, encode_order(Refunded(amount_minor=_minor(amount), original_amount=amount, **common))


def _minor(amount: str) -> int:
    return int(amount.replace(".", ""))


def measure(source: Source, at: str, windows: int) -> dict[str, Any]:
    """The figures, of this process."""
    began = time.perf_counter()
    cutoff = date_of(FIRST_DAY) + timedelta(days=YEARS * 365)
    history = READ[source](at, cutoff).history
    read_seconds, read_megabytes = time.perf_counter() - began, _peak_megabytes()
    last = day_of(cutoff) - HORIZON_DAYS
    sets = history.training_sets([(last - 30 * back, HORIZON_DAYS) for back in range(windows)])
    seconds = time.perf_counter() - began
    sets_bytes = sum(each.inputs.nbytes + each.features.nbytes for each in sets)
    return {
        "events": len(history),
        "customers": len(history.customer_ids),
        "windows": windows,
        "training_rows": sum(map(len, sets)),
        "history_seconds": round(read_seconds, 1),
        "training_sets_seconds": round(seconds - read_seconds, 1),
        "seconds": round(seconds, 1),
        "history_peak_megabytes": read_megabytes,
        "peak_megabytes": _peak_megabytes(),
        "training_sets_megabytes": round(sets_bytes / 1e6),
    }


def measure_whole(source: Source, at: str) -> dict[str, Any]:
    """The figures of this process for all that `./clv train` does, held-out periods and card included."""
    began = time.perf_counter()
    cutoff = date_of(FIRST_DAY) + timedelta(days=YEARS * 365)
    data = READ[source](at, cutoff)
    read_seconds = time.perf_counter() - began
    with tempfile.TemporaryDirectory(prefix="clv-bench-") as folder:
        bundle = train(data, WHOLE_HORIZON_DAYS, Path(folder))
    return {
        "events": len(data.history),
        "customers": len(data.history.customer_ids),
        "held_out_periods": len(bundle.metadata["backtests"]),
        "history_seconds": round(read_seconds, 1),
        "seconds": round(time.perf_counter() - began, 1),
        "processor_seconds": round(time.process_time(), 1),
        "peak_megabytes": _peak_megabytes(),
    }


def _peak_megabytes() -> int:
    import resource

    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)


if __name__ == "__main__":
    kind, place, sets = Source(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    print(json.dumps(measure(kind, place, sets) if sets else measure_whole(kind, place)))
