"""Orders in at one end, predictions out at the other: real servers, real processes, strangers' clients."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
from confluent_kafka import Consumer
from pymongo import MongoClient

from cli.demo_data import DemoData, load_demo_data
from cli.lag import LagReader
from cli.platform import Platform
from cli.recompute import compare
from deploy.local import binaries
from services.inference.model import load_model
from services.runtime.bundle import current_bundle
from tests.conftest import ROOT
from tests.support import http, metric, newest_by_customer, produce, read_all, wait_for

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def data(cdnow_slice: Path) -> DemoData:
    return load_demo_data(cdnow_slice, {}, "USD", lambda _: None)


@pytest.fixture
def models(cdnow_models: Path) -> Path:
    return cdnow_models


@pytest.fixture
def platform(models: Path, tmp_path: Path) -> Iterator[Platform]:
    settings = {
        "CLV_FEATURES_CLOCK": "event",
        "CLV_FEATURES_REFRESH_SECONDS": "0",
        "CLV_SCORER_THRESHOLDS_SECONDS": "1",
    }
    with Platform(models, tmp_path, settings=settings) as running:
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
        message = subscriber.poll(0.5)
        if message is not None and message.error() is None:
            found[message.key().decode()] = json.loads(message.value())
        return found.keys() == {"kafka-customer", "http-customer"}

    wait_for(heard, "both predictions", 30)
    subscriber.close()
    prediction = found["kafka-customer"]
    assert prediction["historical_value"] == 59.9
    assert 0 <= prediction["value_p10"] <= prediction["value_p50"] <= prediction["value_p90"]
    assert 0 <= prediction["p_active"] <= 1
    wait_for(lambda: {"kafka-customer", "http-customer"} <= stored(platform).keys(), "both customers in MongoDB", 30)


def test_kill_9_of_every_service_in_turn_changes_no_number(platform, data, models):
    bootstrap = platform.addresses.kafka_bootstrap_servers
    good = [(None, json.dumps(event).encode()) for event in data.events]
    publishing = threading.Thread(target=produce, args=(bootstrap, "clv.customer-events.v1", good))
    publishing.start()
    for name in ("features", "ingest", "scorer", "sink"):
        process = platform.processes[name]
        process.kill()
        process.start()
    publishing.join()
    model = load_model(current_bundle(models), "USD")

    def complete() -> bool:
        documents = stored(platform)
        wanted = data.domain_events
        return len(documents) == len(wanted) and not compare(wanted, documents.values(), model).mismatches

    wait_for(
        complete, "MongoDB to hold what the file says", 120, lambda: str([p.alive for p in platform.processes.values()])
    )


def clv(*arguments: str, **kwargs: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cli", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False, **kwargs)


def processes_with(variable: str, value: str) -> list[str]:
    """Processes that this variable was handed down to."""
    found = []
    for process in psutil.process_iter(["name", "environ"]):
        if (process.info["environ"] or {}).get(variable) == value:
            found.append(process.info["name"])
    return found


def test_the_demo_takes_the_users_own_file_and_leaves_nothing_behind(tmp_path):
    rows = ["kind,order_id,client,when,total,currency"]
    for n in range(1200):
        day = date(2024, 1, 1) + timedelta(days=(n * 37) % 500)
        rows.append(f"order,o{n},c{n * 7 % 211},{day.isoformat()},{5 + n % 90}.50,USD")
    rows += [
        "refund,o3,c21,2024-06-01,4.50,USD",
        "refund,,c21,2025-05-01 10:00,1.00,USD",
        "refund,,c21,2025-05-01 10:00,1.00,USD",
    ]
    rows += ["order,bad1,c1,2024-02-01,-5,USD", "order,bad2,c1,not a date,5,USD", "order,bad3,,2024-02-01,5,USD"]
    rows += ["order,bad4,c1,2024-02-01,5,XXX", "gift,bad5,c1,2024-02-01,5,USD", "order,,c1,2024-02-01,5,USD"]
    (tmp_path / "orders.csv").write_text("\n".join(rows) + "\n")
    mark = str(tmp_path)
    mapping = ["type=kind", "customer_id=client", "occurred_at=when", "amount=total"]
    arguments = [argument for pair in mapping for argument in ("--map", pair)]
    done = clv(
        "demo", "--orders", str(tmp_path / "orders.csv"), *arguments, "--exit", "--json", str(tmp_path / "s.json"),
        env={**os.environ, "DEMO_OF_TEST": mark},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads((tmp_path / "s.json").read_text())
    assert summary["events_published"] == 1209
    assert summary["events_valid"] == 1203
    assert summary["dead_letters"] == {
        "non_positive_amount": 1,
        "invalid_timestamp": 1,
        "empty_customer_id": 1,
        "unknown_currency": 1,
        "unknown_event_type": 1,
        "missing_field": 1,
    }
    assert summary["recompute_mismatches"] == 0
    assert summary["customers"] == summary["mongo_customers"] == summary["predictions_topic_customers"] == 211
    assert sum(summary["segments"].values()) == 211
    assert processes_with("DEMO_OF_TEST", mark) == []


def test_the_demo_runs_twice_on_servers_named_in_the_environment(tmp_path, kafka, mongo, topics, cdnow_slice):
    few = cdnow_slice.read_text().splitlines()[:600]
    (tmp_path / "few.txt").write_text("\n".join(few) + "\n")
    named = {"CLV_KAFKA_BOOTSTRAP_SERVERS": topics, "CLV_MONGO_URI": mongo.uri}
    for _ in range(2):
        arguments = ["demo", "--orders", str(tmp_path / "few.txt"), "--exit", "--json", str(tmp_path / "s.json")]
        done = clv(*arguments, env={**os.environ, **named})
        assert done.returncode == 0, done.stdout + done.stderr
        summary = json.loads((tmp_path / "s.json").read_text())
        assert summary["recompute_mismatches"] == 0
        assert summary["mongo_customers"] == summary["customers"] > 100
    assert kafka.process().alive
    assert mongo.process.alive


def test_up_writes_its_addresses_serves_and_ends_on_ctrl_c(tmp_path, models):
    process = subprocess.Popen(
        [sys.executable, "-m", "cli", "up", "--model", str(models), "--json", str(tmp_path / "up.json")],
        cwd=ROOT,
        env={**os.environ, "CLV_HOME": str(binaries.home_dir())},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        wait_for(lambda: (tmp_path / "up.json").exists() or process.poll() is not None, "the addresses", 120)
        assert process.poll() is None, process.stdout.read()
        addresses = json.loads((tmp_path / "up.json").read_text())
        for url in addresses["services"].values():
            with urllib.request.urlopen(f"{url}/readyz", timeout=5) as answer:
                assert answer.status == 200
            with urllib.request.urlopen(f"{url}/metrics", timeout=5) as answer:
                assert b"clv_" in answer.read()
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(40)
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["demo", "--orders", "no-such-file.csv", "--exit"], "no-such-file.csv"),
        (
            ["score", "--orders", "no-such-file.csv", "--as-of", "2020-01-01", "--model", ".", "--output", "x.csv"],
            "no-such",
        ),
        (["up", "--model", "no-such-folder"], "./clv train"),
    ],
)
def test_what_is_missing_is_said_in_one_line(arguments, line):
    done = clv(*arguments)
    assert done.returncode == 2
    assert line in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_a_server_that_does_not_answer_is_said_in_one_line():
    done = clv("up", env={**os.environ, "CLV_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"})
    assert done.returncode == 2
    assert "no Kafka answers at 127.0.0.1:1" in done.stderr
    assert "Traceback" not in done.stderr


def test_metrics_and_health_of_a_running_platform(platform):
    for name, process in platform.processes.items():
        process.port = platform.ports[name]
        assert http(process, "/healthz")[0] == 200
        assert http(process, "/readyz")[0] == 200
        assert metric(process, "clv_service_info", service=name) == 1
