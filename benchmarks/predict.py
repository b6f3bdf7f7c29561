"""POST /v1/predict under load: the real process on one core, forms sent at a fixed rate by another process.

Open loop: a request is due at its time whether or not the one before was answered, and its latency counts from then, so
that a stall is seen by everybody who would have come meanwhile. Kafka, MongoDB and the sender share the other cores.
"""

import asyncio
import json
import os
import random
import sys
import tempfile
import time
import urllib.request
from collections import Counter, deque
from datetime import date
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from deploy.local import binaries
from deploy.local.folders import free_ports
from deploy.local.kafka import LocalKafka
from deploy.local.mongo import LocalMongo
from deploy.local.processes import ServiceProcess
from schemas.http_api.predict import ROWS_MAX
from services.runtime.bundle import read_head

CUTOFF, HORIZON_DAYS = date(1997, 10, 1), 273
CONNECTIONS = 32
WARM_UP_SECONDS = 3
_READY_SECONDS = 60.0


def run(bundle: Path | None, requests_per_second: int, seconds: int) -> dict[str, Any]:
    """Run the benchmark with a bundle, or with one trained on CDNOW for it; returns its figures."""
    with tempfile.TemporaryDirectory(prefix="clv-bench-") as folder:
        if bundle is None:
            from services.trainer.orders_file import read_cdnow
            from services.trainer.sources.orders import from_table
            from services.trainer.train import train

            table = from_table(read_cdnow(binaries.cdnow_purchases()), CUTOFF, "USD")
            bundle = train(table, HORIZON_DAYS, Path(folder) / "models").path
        core = _left_to_the_api()
        with LocalKafka() as kafka, LocalMongo() as mongo:
            environment = {
                "CLV_KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
                "CLV_MONGO_URI": mongo.uri,
                "CLV_MODELS_DIR": str(_pointed(bundle, Path(folder) / "pointed")),
                "CLV_CURRENCY": read_head(bundle).currency,
                "CLV_HTTP_REQUESTS_PER_SECOND": "0",
            }
            found: dict[str, Any] = {"model_version": bundle.name, "requests_per_second": requests_per_second}
            for name, more in {
                "micro_batched": {},
                "one_by_one": {"CLV_API_FORMS_AT_ONCE": "1", "CLV_API_GATHER_MS": "0"},
            }.items():
                with _Api(core, environment | more, Path(folder) / f"{name}.log") as api:
                    found[name] = {
                        "stored": _load(api.port, requests_per_second, seconds, "/v1/predict"),
                        "not_stored": _load(api.port, requests_per_second, seconds, "/v1/predict?store=false"),
                    }
                    if name == "micro_batched":
                        found["batch"] = _batches(api.port)
    return found


def _pointed(bundle: Path, models: Path) -> Path:
    """A models folder in which the bundle is current."""
    models.mkdir()
    (models / bundle.name).symlink_to(bundle.resolve())
    (models / "current").write_text(bundle.name + "\n")
    return models


class _Api:
    """The API as a process on one core."""

    def __init__(self, core: int, environment: dict[str, str], log: Path) -> None:
        (self.port,) = free_ports(1)
        self._process = ServiceProcess(
            "api",
            ["taskset", "-c", str(core), sys.executable, "-m", "services.api"],
            env={**environment, "CLV_API_HTTP_PORT": str(self.port), "PYTHONPATH": str(Path.cwd())},
            log_path=log,
        )

    def __enter__(self) -> "_Api":
        self._process.start()
        deadline = time.monotonic() + _READY_SECONDS
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=2):
                    return self
            except OSError:
                if time.monotonic() > deadline:
                    self._process.kill()
                    raise
                time.sleep(0.1)

    def __exit__(self, *_: object) -> None:
        self._process.stop()


def forms(count: int, seed: int = 1) -> list[dict[str, float | int | None]]:
    """Forms that fit together, all different."""
    chance = random.Random(seed)
    found: list[dict[str, float | int | None]] = []
    for _ in range(count):
        orders = 1 + int(chance.paretovariate(1.2)) % 60
        lifetime = chance.randint(40, 700)
        found.append(
            {
                "customer_age": None,
                "purchase_frequency": round(orders * 30.4375 / lifetime, 3),
                "average_order_value": round(chance.lognormvariate(3.5, 0.7), 2),
                "total_orders": orders,
                "customer_lifetime_days": lifetime,
                "days_since_last_purchase": lifetime if orders == 1 else chance.randint(0, lifetime - 1),
                "frequency_score": chance.randint(1, 5),
            }
        )
    return found


def _load(port: int, requests_per_second: int, seconds: int, path: str) -> dict[str, Any]:
    """Send forms from another process, and what came of it."""
    with get_context("spawn").Pool(1) as pool:
        latencies, statuses, stored = pool.apply(_send, (port, requests_per_second, seconds, path))
    milliseconds = 1000 * np.array(latencies)
    return {
        "answers": len(latencies),
        "errors": sum(count for status, count in statuses.items() if status != 200),
        "ms_p50": round(float(np.median(milliseconds)), 2),
        "ms_p90": round(float(np.quantile(milliseconds, 0.9)), 2),
        "ms_p99": round(float(np.quantile(milliseconds, 0.99)), 2),
        "ms_max": round(float(milliseconds.max()), 2),
        "share_said_stored": round(stored / max(1, len(latencies)), 4),
    }


def _left_to_the_api() -> int:
    """A core that this process, and whatever it starts from now on, keeps off, if there is another one."""
    cores = os.sched_getaffinity(0)
    core = min(cores)
    if len(cores) > 1:
        os.sched_setaffinity(0, cores - {core})
    return core


def _send(port: int, rate: int, seconds: int, path: str) -> tuple[list[float], dict[int, int], int]:
    async def sent() -> tuple[list[float], dict[int, int], int]:
        return await _Sender(port, path).send(rate, seconds)

    return asyncio.run(sent())


class _Sender:
    """Connections that are kept open, and requests handed to whichever is free. It shares a processor with the servers,
    perhaps even with the API's core behind the scenes, so it does as little as it can."""

    def __init__(self, port: int, path: str) -> None:
        self._port = port
        self._requests = []
        for form in forms(2000):
            body = json.dumps(form).encode()
            head = [f"POST {path} HTTP/1.1", "host: 127.0.0.1", "content-type: application/json"]
            head += [f"content-length: {len(body)}", "", ""]
            self._requests.append("\r\n".join(head).encode() + body)
        self.free: deque[_Connection] = deque()
        self.waiting: deque[tuple[float, bytes]] = deque()
        self.answers: list[tuple[float, float, bytes]] = []
        """(when it was due, seconds, the whole answer)"""
        self._whole: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._expected = 0

    async def send(self, rate: int, seconds: int) -> tuple[list[float], dict[int, int], int]:
        loop = asyncio.get_running_loop()
        self._expected = rate * (seconds + WARM_UP_SECONDS)
        for _ in range(CONNECTIONS):
            _, connection = await loop.create_connection(lambda: _Connection(self), "127.0.0.1", self._port)
            self.free.append(connection)
        began = loop.time() + 0.5
        for number in range(self._expected):
            at = began + number / rate
            if (wait := at - loop.time()) > 0:
                await asyncio.sleep(wait)
            self.waiting.append((at, self._requests[number % len(self._requests)]))
            if self.free:
                self.free.popleft().send(*self.waiting.popleft())
        await self._whole
        counted = [(took, answer) for at, took, answer in self.answers if at >= began + WARM_UP_SECONDS]
        statuses = Counter(int(answer.split(b" ", 2)[1]) for _, answer in counted)
        return [took for took, _ in counted], dict(statuses), sum(b'"stored":true' in answer for _, answer in counted)

    def take(self, answer: tuple[float, float, bytes]) -> None:
        self.answers.append(answer)
        if len(self.answers) == self._expected:
            self._whole.set_result(None)

    def lost(self, error: Exception | None) -> None:
        if not self._whole.done():
            self._whole.set_exception(ConnectionError(f"the API closed a connection: {error}"))


class _Connection(asyncio.Protocol):
    """One request at a time; the next one is sent as soon as the answer is whole."""

    def __init__(self, sender: _Sender) -> None:
        self._sender, self._loop = sender, asyncio.get_running_loop()
        self._answer, self._whole = b"", 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        self._sender.lost(error)

    def send(self, due: float, request: bytes) -> None:
        self._due, self._answer, self._whole = due, b"", 0
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._answer += data
        if not self._whole and (head := self._answer.find(b"\r\n\r\n")) >= 0:
            length = self._answer[:head].lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
            self._whole = head + 4 + int(length)
        if not self._whole or len(self._answer) < self._whole:
            return
        self._sender.take((self._due, self._loop.time() - self._due, self._answer))
        if self._sender.waiting:
            self.send(*self._sender.waiting.popleft())
        else:
            self._sender.free.append(self)


def _batches(port: int) -> dict[str, Any]:
    """Rows a second of whole batches, one after the other."""
    body = json.dumps({"rows": forms(ROWS_MAX)}).encode()
    seconds = []
    for query in ("store=false", "store=false", "store=true"):
        began = time.perf_counter()
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/v1/predict/batch?{query}", body, {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=120) as answer:
            assert json.load(answer)["accepted"] == ROWS_MAX
        seconds.append(time.perf_counter() - began)
    return {
        "rows": ROWS_MAX,
        "rows_per_second": round(ROWS_MAX / seconds[1]),
        "rows_per_second_stored": round(ROWS_MAX / seconds[2]),
    }
