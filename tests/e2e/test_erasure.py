"""A customer is erased from the whole product: every place of the list, down to the files of the broker's logs."""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import pytest
from pymongo import MongoClient

from cli.platform import Platform
from deploy.local.kafka import LocalKafka
from deploy.local.mongo import LocalMongo
from schemas.dead_letters import Reason, from_record
from schemas.mongo import MATURED_PREDICTIONS, PREDICTION_HISTORY
from schemas.personal_data import PLACES, Goes, Store
from schemas.predictions import decode_prediction, encode_prediction
from schemas.topics import CHALLENGER_PREDICTIONS, CUSTOMER_EVENTS, DEAD_LETTERS, ORDERS, PREDICTIONS, Topic
from schemas.topics import topics as declared_topics
from services.runtime.bundle import point_to
from services.runtime.kafka import create_topics
from tests.bundles import write_bundle
from tests.conftest import ROOT
from tests.support import produce, read_all, wait_for

pytestmark = pytest.mark.e2e

ERASED, MERGED, OTHER = "erin-who-is-erased", "mara-merged-into-erin", "olga-who-stays"
HASTY = {
    "segment.ms": 300,
    "max.compaction.lag.ms": 300,
    "delete.retention.ms": 100,
    "min.cleanable.dirty.ratio": 0.0,
    "file.delete.delay.ms": 100,
}
"""Compaction within seconds instead of within days: the same steps, sooner."""
numbers = count()


def hasty(topic: Topic) -> Topic:
    return msgspec.structs.replace(topic, config={**topic.config, **HASTY}) if topic.is_compacted else topic


@pytest.fixture
def kafka_of_its_own() -> Iterator[LocalKafka]:
    settings = {"log.cleaner.backoff.ms": "100", "log.retention.check.interval.ms": "1000"}
    with LocalKafka(settings=settings) as server:
        asyncio.run(create_topics(server.bootstrap_servers, map(hasty, declared_topics().values())))
        yield server


@pytest.fixture
def platform(kafka_of_its_own: LocalKafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Platform]:
    models = tmp_path / "models"
    point_to(models, write_bundle(models))
    with LocalMongo() as mongo:
        monkeypatch.setenv("CLV_KAFKA_BOOTSTRAP_SERVERS", kafka_of_its_own.bootstrap_servers)
        monkeypatch.setenv("CLV_MONGO_URI", mongo.uri)
        with Platform(models, tmp_path, usual_ports=False) as running:
            yield running


def event(customer: str, kind: str = "order.placed", **changes: Any) -> bytes:
    number = next(numbers)
    fields = {
        "event_id": f"e{number}",
        "event_type": kind,
        "occurred_at": (datetime.now(UTC) - timedelta(seconds=1)).isoformat(),
        "customer_id": customer,
    }
    if kind == "order.placed":
        fields |= {"order_id": f"o{number}", "amount": "12.50", "currency": "USD"}
    return json.dumps(fields | changes).encode()


def bad_events(customer: str) -> list[bytes]:
    return [
        event(customer, amount="-5"),
        event(customer)[:-9],  # cut in the middle
        event("").replace(b'"customer_id": ""', b'"userId": "' + customer.encode() + b'"'),
        event("x", "customer.merged") if customer == OTHER else event("x", "customer.merged", into=customer),
    ]


def publish(servers: str, *events: bytes) -> None:
    produce(servers, CUSTOMER_EVENTS, [(None, each) for each in events])


def clv(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "cli", *arguments]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False, env=dict(os.environ)
    )


def held(customer: str) -> dict[str, list[dict[str, Any]]]:
    """What `./clv export` finds, by place; places without anything are left out."""
    done = clv("export", "--customer", customer)
    assert done.returncode == 0, done.stderr
    return {place["name"]: place["records"] for place in json.loads(done.stdout)["places"] if place["records"]}


def documents(uri: str, customer: str) -> list[Any]:
    with MongoClient[dict[str, Any]](uri) as client:
        database = client["clv"]
        wanted = [("customers", "_id"), ("prediction_history", "customer_id"), ("dead_letters", "customer_ids")]
        return [list(database[name].find({field: customer}).sort("_id")) for name, field in wanted]


def unchanging(found: list[Any]) -> list[Any]:
    """Of a customer's documents what neither the refresh nor a new day nor other customers change."""
    customers, history, letters = found
    return [[(each["_id"], each["features"]["monetary"]) for each in customers], len(history) > 0, letters]


def logs_with(kafka: LocalKafka, *customers: str) -> set[str]:
    """Partitions of topics whose files hold the bytes of an id."""
    found = set()
    for path in (kafka.data_dir / "broker-1" / "data").rglob("*"):
        try:
            data = path.read_bytes() if path.is_file() else b""
        except FileNotFoundError:
            continue  # compacted away meanwhile
        if any(each.encode() in data for each in customers):
            found.add(path.parent.name)
    return found


def topics_of(partitions: set[str]) -> set[str]:
    return {name.rpartition("-")[0] for name in partitions}


def plant_what_takes_months(servers: str, uri: str) -> None:
    """What a model on trial would say, and what predictions came to: neither is there on a product's first day."""
    said = [each for each in read_all(servers, PREDICTIONS) if each.value() is not None]
    trials = [
        (each.key(), msgspec.structs.replace(decode_prediction(each.value()), model_version="x")) for each in said
    ]
    produce(servers, CHALLENGER_PREDICTIONS, [(key, encode_prediction(each)) for key, each in trials])
    with MongoClient[dict[str, Any]](uri) as client:
        database = client["clv"]
        for each in database[PREDICTION_HISTORY].find():
            week = {"_id": each["_id"], "customer_id": each["customer_id"], "week": each["feature_version"]}
            database[MATURED_PREDICTIONS].replace_one({"_id": each["_id"]}, week, upsert=True)


def search(what: Callable[[], bool], message: str, seconds: float, platform: Platform) -> None:
    def context() -> str:
        platform.check_alive()
        return "\n".join(process.log_tail(5) for process in platform.processes.values())

    wait_for(what, message, seconds, context)


@pytest.mark.timeout(600)
def test_after_an_erasure_no_place_of_the_list_holds_the_customer(
    platform: Platform, kafka_of_its_own: LocalKafka
) -> None:
    servers, uri = platform.addresses.kafka_bootstrap_servers, platform.addresses.mongo_uri
    for customer in (ERASED, MERGED, OTHER):
        publish(servers, *(event(customer) for _ in range(3)), *bad_events(customer))
    publish(servers, event(MERGED, "customer.merged", merged_into=ERASED))
    expiring = {place.name for place in PLACES if place.goes is Goes.EXPIRES and place.store is Store.TOPIC}
    forgetting = {place.name for place in PLACES if place.find.name != "NONE"} - expiring

    def arrived() -> bool:
        found = [documents(uri, each) for each in (ERASED, OTHER, MERGED)]
        orders = [[each["inputs"]["total_orders"] for each in customers] for customers, _, _ in found]
        return orders == [[6], [3], []] and all(letters for _, _, letters in found)

    search(arrived, "the customers, one of them merged, and their letters", 120, platform)
    plant_what_takes_months(servers, uri)
    search(lambda: set(held(OTHER)) >= forgetting, "every place to hold customers", 30, platform)
    before = held(ERASED)
    assert set(before) == expiring | forgetting
    rows = {each["key"]: each["value"] for each in before["clv.customer-state-changelog.v1"]}
    assert rows.keys() == {ERASED, MERGED}, "the merged customer's row names her, and so holds her too"
    assert [each["amount_minor"] for each in rows[ERASED]["state"]["orders"]] == [1250] * 3
    assert rows[ERASED]["links"]["parts"].keys() == {MERGED}
    other_before = documents(uri, OTHER)
    assert topics_of(logs_with(kafka_of_its_own, ERASED)) > expiring

    began = time.monotonic()
    done = clv("erase", "--customer", ERASED)
    assert done.returncode == 0, done.stderr
    print(done.stdout, f"{time.monotonic() - began:.1f} s")
    assert "clv.orders.v1 (gone after 31 days)" in done.stdout
    assert set(held(ERASED)) <= expiring
    search(lambda: set(held(MERGED)) <= expiring, "the merged customer to be erased with her", 30, platform)

    publish(servers, event(ERASED, occurred_at=datetime.now(UTC).isoformat()))

    def refused() -> list[Any]:
        letters = [
            (each.key(), each.value(), each.headers())
            for each in read_all(servers, DEAD_LETTERS)
            if each.value() is not None
        ]
        return [found for each in letters if (found := from_record(*each)).reason is Reason.CUSTOMER_ERASED]

    search(lambda: len(refused()) == 1, "the later order to be refused", 30, platform)
    assert (refused()[0].key, refused()[0].value or b"", refused()[0].origin.topic) == (None, b"", ORDERS)
    assert set(held(ERASED)) <= expiring

    def compacted() -> bool:
        """The cleaner leaves the newest file of each partition alone, so others have to go on."""
        publish(servers, *(event(f"passer-by-{number}") for number in range(60)))
        publish(servers, *(event(f"passer-by-{number}", amount="0") for number in range(60)))
        produce(servers, CHALLENGER_PREDICTIONS, [(f"passer-by-{number}".encode(), None) for number in range(60)])
        time.sleep(0.5)
        return topics_of(logs_with(kafka_of_its_own, ERASED, MERGED)) <= expiring

    search(compacted, "the cleaner", 240, platform)
    for name in platform.processes:
        log = platform.log_of(name).read_text()
        assert not any(each in log for each in (ERASED, MERGED, OTHER)), name
    assert unchanging(documents(uri, OTHER)) == unchanging(other_before)
    assert set(held(OTHER)) == expiring | forgetting
    again = clv("erase", "--customer", ERASED)
    assert again.returncode == 0, again.stderr


def test_what_is_not_held_is_said_plainly_and_erasing_it_is_no_error(platform: Platform, tmp_path: Path) -> None:
    out = tmp_path / "nobody.json"
    done = clv("export", "--customer", "nobody", "--out", str(out))
    assert (done.returncode, done.stdout) == (0, "")
    assert "nothing is held of this customer" in done.stderr
    written = json.loads(out.read_text())
    assert written["records"] == 0
    assert {each["name"] for each in written["places"]} | {each["name"] for each in written["not_searched"]} == {
        place.name for place in PLACES
    }
    done = clv("erase", "--customer", "nobody")
    assert done.returncode == 0, done.stderr

    platform.processes["scorer"].stop()
    done = clv("erase", "--customer", "nobody", "--timeout-seconds", "3")
    assert done.returncode == 1
    assert "do all services run?" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("command", ["erase", "export"])
def test_a_server_that_does_not_answer_is_said_in_one_line(
    command: str, kafka: LocalKafka, topics: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLV_KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    done = clv(command, "--customer", "c")
    assert (done.returncode, done.stdout) == (2, "")
    assert "no Kafka broker answers at 127.0.0.1:1" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    monkeypatch.setenv("CLV_KAFKA_BOOTSTRAP_SERVERS", topics)
    monkeypatch.setenv("CLV_MONGO_URI", "mongodb://user:secret@127.0.0.1:1/?replicaSet=clv")
    done = clv(command, "--customer", "c")
    assert (done.returncode, done.stdout) == (2, "")
    assert "MongoDB at 127.0.0.1:1" in done.stderr.replace("mongodb://", "")
    assert "secret" not in done.stderr
    assert len(done.stderr.splitlines()) == 1
