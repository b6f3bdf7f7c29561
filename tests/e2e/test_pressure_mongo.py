"""MongoDB is slow, hangs and dies under load: the sink alone is held back, and it catches up.

That it does so in bounded memory: tests/integration/test_pressure_sink.py.
"""

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from pymongo import MongoClient

from cli.lag import LagReader
from cli.platform import Platform
from deploy.local.mongo import LocalMongo
from schemas.topics import CUSTOMER_EVENTS, PREDICTIONS
from services.runtime.bundle import point_to
from tests.bundles import write_bundle
from tests.support import newest_by_customer, produce, wait_for

pytestmark = pytest.mark.e2e

CUSTOMERS = 2000
UPSTREAM = ("ingest", "features", "scorer")


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    models = tmp_path / "models"
    point_to(models, write_bundle(models))
    settings = {
        "CLV_FEATURES_CLOCK": "event",
        "CLV_FEATURES_REFRESH_SECONDS": "0",
        "CLV_SINK_RETRY_SECONDS_MAX": "0.5",
        "CLV_SINK_MONGO_TIMEOUT_SECONDS": "3",
    }
    with Platform(models, tmp_path / "work", settings=settings, usual_ports=False) as running:
        yield running


class Line:
    """The platform's line as this test looks at it."""

    def __init__(self, platform: Platform) -> None:
        self.platform = platform
        self.rounds = 0

    @property
    def mongo(self) -> LocalMongo:
        assert self.platform.stack.mongo is not None
        return self.platform.stack.mongo

    def publish_round(self) -> float:
        """An order of each customer; the seconds until ingest, features and scorer have committed it all."""
        self.rounds += 1
        began = time.monotonic()
        produce(self._servers, CUSTOMER_EVENTS, (self._event(number) for number in range(CUSTOMERS)))
        wait_for(
            lambda: not any(self.lags()[name] for name in UPSTREAM), "the services before the sink", 90, self._logs
        )
        return time.monotonic() - began

    def _event(self, number: int) -> tuple[bytes, bytes]:
        event = {
            "event_id": f"e{self.rounds}-{number}",
            "event_type": "order.placed",
            "occurred_at": f"2024-01-{self.rounds:02d}T12:00:00Z",
            "customer_id": f"c{number}",
            "order_id": f"o{self.rounds}-{number}",
            "amount": "10.00",
            "currency": "USD",
        }
        return f"c{number}".encode(), json.dumps(event).encode()

    @property
    def _servers(self) -> str:
        return self.platform.addresses.kafka_bootstrap_servers

    def lags(self) -> dict[str, int]:
        self.platform.check_alive()

        async def read() -> dict[str, int]:
            async with LagReader(self._servers) as lag:
                return await lag.lags()

        return asyncio.run(read())

    def sink_caught_up(self, seconds: float) -> None:
        wait_for(lambda: self.lags()["sink"] == 0, "the sink to catch up", seconds, self._logs)

    def _logs(self) -> str:
        return f"{self.lags()}\n{self.platform.processes['sink'].log_tail(5)}"

    def assert_the_newest_stand(self) -> None:
        newest = newest_by_customer(self._servers, PREDICTIONS)
        assert len(newest) == CUSTOMERS
        with MongoClient[dict[str, Any]](self.mongo.uri) as client:
            documents = {each["_id"]: each for each in client["clv"]["customers"].find()}
        assert documents.keys() == newest.keys()
        for customer, message in newest.items():
            assert message["inputs"]["total_orders"] == self.rounds
            assert documents[customer]["prediction"]["prediction_id"] == message["prediction_id"]
            assert documents[customer]["inputs"] == message["inputs"]


@contextmanager
def slowed(mongo: LocalMongo, stopped_share: float) -> Iterator[None]:
    """MongoDB gets only a part of the time: stopped and continued ten times a second."""
    over = threading.Event()

    def alternate() -> None:
        while not over.is_set():
            mongo.pause()
            over.wait(0.1 * stopped_share)
            mongo.resume()
            over.wait(0.1 * (1 - stopped_share))

    thread = threading.Thread(target=alternate)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_mongodb_hanging_slow_or_dead_holds_back_the_sink_alone(platform: Platform):
    line = Line(platform)
    usual_seconds = line.publish_round()
    line.sink_caught_up(90)

    def sink_says() -> dict[str, str]:
        problems: dict[str, str] = httpx.get(f"{platform.url('sink')}/readyz", timeout=5).json()["problems"]
        return problems

    def upstream_goes_on() -> None:
        """At its usual pace, which is this machine's, so only a standstill is told apart for certain."""
        assert line.publish_round() < 3 * usual_seconds + 10
        assert all(platform.is_ready(name) for name in UPSTREAM)

    with slowed(line.mongo, stopped_share=0.8):
        upstream_goes_on()
        line.sink_caught_up(90)
    line.mongo.pause()
    upstream_goes_on()
    upstream_goes_on()
    wait_for(lambda: "mongo" in sink_says(), "readiness to say why", 30, lambda: str(sink_says()))
    assert "primary" in sink_says()["mongo"] or "timed out" in sink_says()["mongo"]
    assert line.lags()["sink"] >= 2 * CUSTOMERS
    line.mongo.resume()
    line.mongo.kill()
    upstream_goes_on()
    assert line.lags()["sink"] >= 3 * CUSTOMERS
    line.mongo.restart()
    line.sink_caught_up(120)
    line.assert_the_newest_stand()
    wait_for(lambda: platform.is_ready("sink"), "readiness to come back")
