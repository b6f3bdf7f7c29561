"""Orders in at one end, predictions out at the other: real servers, real processes, strangers' clients."""

import asyncio
import json
import threading
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer
from pymongo import MongoClient

from cli.demo_data import DemoData, load_demo_data
from cli.lag import LagReader
from cli.platform import Platform
from cli.recompute import compare
from services.inference.model import load_model
from services.runtime.bundle import current_bundle
from tests.support import http, metric, newest_by_customer, produce, read_all, wait_for

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def data(cdnow_slice: Path) -> DemoData:
    return load_demo_data(cdnow_slice, {}, "USD", lambda _: None)


@pytest.fixture(scope="module")
def models(cdnow_models: Path) -> Path:
    return cdnow_models


SETTINGS = {
    "CLV_FEATURES_CLOCK": "event",
    "CLV_FEATURES_REFRESH_SECONDS": "0",
    "CLV_SCORER_THRESHOLDS_SECONDS": "1",
}


@pytest.fixture(scope="module")
def platform(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """One for all tests that break nothing. Whoever counts everything there is comes first."""
    with Platform(models, tmp_path_factory.mktemp("platform"), settings=SETTINGS, usual_ports=False) as running:
        yield running


@pytest.fixture
def own_platform(models: Path, tmp_path: Path) -> Iterator[Platform]:
    with Platform(models, tmp_path, settings=SETTINGS, usual_ports=False) as running:
        yield running


def stored(platform: Platform) -> dict[str, dict[str, Any]]:
    with MongoClient[dict[str, Any]](platform.addresses.mongo_uri) as client:
        return {document["_id"]: document for document in client["clv"]["customers"].find()}


def drained(bootstrap: str) -> bool:
    """Whether every service has committed everything."""

    async def read() -> dict[str, int]:
        async with LagReader(bootstrap) as lag:
            return await lag.lags()

    return not any(asyncio.run(read()).values())


def test_every_customer_of_a_slice_of_cdnow_equals_a_batch_recomputation(platform, data, models):
    bootstrap = platform.addresses.kafka_bootstrap_servers
    broken = [b"{", b"\xff\xfe", b'{"event_type":"order.placed"}', b'{"event_type":"order.eaten"}']
    good = [(None, json.dumps(event).encode()) for event in data.events]
    half = len(good) // 2
    produce(bootstrap, "clv.customer-events.v1", [*good[:half], *((None, value) for value in broken), *good[half:]])
    produce(bootstrap, "clv.customer-events.v1", good[half - 500 : half])  # an upstream team repeats itself
    wanted = data.domain_events

    def complete() -> bool:
        platform.check_alive()
        documents = stored(platform)
        return len(documents) == len(wanted) and not compare(wanted, documents.values(), model).mismatches

    model = load_model(current_bundle(models), "USD")
    wait_for(
        complete,
        "MongoDB to hold what the file says",
        90,
        lambda: str(compare(wanted, stored(platform).values(), model)),
    )
    wait_for(lambda: drained(bootstrap), "the repeated events to come through")
    predictions = newest_by_customer(bootstrap, "clv.predictions.v1")
    documents = stored(platform)
    assert predictions.keys() == documents.keys() == wanted.keys()
    for customer, message in predictions.items():
        assert documents[customer]["prediction"]["prediction_id"] == message["prediction_id"]
        assert documents[customer]["features"] == message["features"]
    reasons = sorted(
        dict(letter.headers())["clv.reason"].decode() for letter in read_all(bootstrap, "clv.dead-letters.v1")
    )
    published = [*data.events, *data.events[half - 500 : half]]
    unusable = sum(1 for event in published if float(str(event["amount"])) <= 0)
    assert reasons == sorted(
        ["invalid_json", "invalid_utf8", "missing_field", "unknown_event_type"] + ["non_positive_amount"] * unusable
    )


def test_a_stranger_publishes_an_order_and_reads_its_prediction(platform):
    """Over Kafka and over HTTP, with nothing but the documented topics and messages."""
    bootstrap = platform.addresses.kafka_bootstrap_servers
    subscriber = Consumer({"bootstrap.servers": bootstrap, "group.id": "downstream", "auto.offset.reset": "earliest"})
    subscriber.subscribe(["clv.predictions.v1"])
    event = {
        "event_id": "e-1",
        "event_type": "order.placed",
        "occurred_at": (datetime.now(UTC) - timedelta(hours=1)).isoformat(),
        "customer_id": "kafka-customer",
        "order_id": "o-1",
        "amount": "59.90",
        "currency": "USD",
    }
    produce(bootstrap, "clv.customer-events.v1", [(b"any key", json.dumps(event).encode())])
    over_http = event | {"event_id": "e-2", "customer_id": "http-customer", "order_id": "o-2"}
    request = urllib.request.Request(
        f"{platform.url('ingest')}/v1/events",
        data=json.dumps(over_http).encode(),
        headers={"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.status == 202
    found: dict[str, dict[str, Any]] = {}

    def heard() -> bool:
        for message in subscriber.consume(1000, 0.5):  # others' predictions stand before these
            if message.error() is None and message.key() in (b"kafka-customer", b"http-customer"):
                found[message.key().decode()] = json.loads(message.value())
        return len(found) == 2

    wait_for(heard, "both predictions", 60)
    subscriber.close()
    prediction = found["kafka-customer"]
    assert prediction["historical_value"] == 59.9
    assert 0 <= prediction["value_p10"] <= prediction["value_p50"] <= prediction["value_p90"]
    assert 0 <= prediction["p_active"] <= 1
    wait_for(lambda: {"kafka-customer", "http-customer"} <= stored(platform).keys(), "both customers in MongoDB", 30)


def test_metrics_and_health_of_a_running_platform(platform):
    for name, process in platform.processes.items():
        process.port = platform.ports[name]
        assert http(process, "/healthz")[0] == 200
        assert http(process, "/readyz")[0] == 200
        assert metric(process, "clv_service_info", service=name) == 1


def test_kill_9_of_every_service_in_turn_changes_no_number(own_platform, data, models):
    bootstrap = own_platform.addresses.kafka_bootstrap_servers
    good = [(None, json.dumps(event).encode()) for event in data.events]
    publishing = threading.Thread(target=produce, args=(bootstrap, "clv.customer-events.v1", good))
    publishing.start()
    for name in ("features", "ingest", "scorer", "sink"):
        process = own_platform.processes[name]
        process.kill()
        process.start()
    publishing.join()
    model = load_model(current_bundle(models), "USD")

    def complete() -> bool:
        documents = stored(own_platform)
        wanted = data.domain_events
        return len(documents) == len(wanted) and not compare(wanted, documents.values(), model).mismatches

    wait_for(
        complete,
        "MongoDB to hold what the file says",
        120,
        lambda: str([p.alive for p in own_platform.processes.values()]),
    )
