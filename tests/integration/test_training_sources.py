"""The same orders from a file, from the stream and from MongoDB train the same model, through real services."""

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pymongo import MongoClient

from deploy.local.mongo import LocalMongo
from deploy.local.processes import ServiceProcess
from domain.features import day_of
from schemas.mongo import CUSTOMER_STATES, STATES_WITH_ROW
from schemas.topics import CUSTOMER_EVENTS, CUSTOMER_STATE_CHANGELOG, ORDERS
from services.runtime.shutdown import KnownProblem
from services.trainer.orders_file import COLUMNS, customer_events, event_bytes, read_any
from services.trainer.sources import TrainingData
from services.trainer.sources.changelog import from_topic
from services.trainer.sources.mongo import from_mongo
from services.trainer.sources.orders import from_file, from_table
from tests.conftest import ROOT
from tests.support import committed_lag, produce, wait_for
from tests.unit.trainer.shops import FIRST_DAY, shop, table

pytestmark = pytest.mark.integration
Start = Callable[..., ServiceProcess]
DAYS = 240
CUTOFF = FIRST_DAY + timedelta(days=200)
WINDOWS = [(day_of(FIRST_DAY) + day, 30) for day in (90, 120, 170)] + [(day_of(CUTOFF), 0)]


def rows() -> list[dict[str, str]]:
    """A shop with partial, loose and early refunds, rows that come again, and rows that are no orders."""
    found = shop(150, DAYS, seed=5)
    extra = []
    for n, row in enumerate(found):
        if n % 6 == 0:
            extra.append(row | {"type": "refund", "amount": "3.50", "order_id": row["order_id"] if n % 12 else ""})
        if n % 25 == 0:
            extra.append(row | {"type": "refund", "refund_id": f"r{n}", "amount": "900.00", "occurred_at": later(row)})
        if n % 10 == 0:
            extra.append(row)
        if n % 40 == 0:
            extra += [row | {"amount": "-1"}, row | {"occurred_at": "yesterday"}, row | {"type": "gift"}]
    return found + extra


def later(row: dict[str, str]) -> str:
    return (date.fromisoformat(row["occurred_at"]) + timedelta(days=45)).isoformat()


def written(path: Path, found: list[dict[str, str]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="")
        writer.writeheader()
        writer.writerows(found)
    return path


@pytest.fixture
def env(environment: dict[str, str], mongo: LocalMongo, mongo_database: str) -> dict[str, str]:
    return environment | {"CLV_MONGO_URI": mongo.uri, "CLV_MONGO_DATABASE": mongo_database}


def publish(bootstrap: str, events: list[dict[str, Any]]) -> None:
    produce(bootstrap, CUSTOMER_EVENTS, ((str(e["customer_id"]).encode(), event_bytes(e)) for e in events))


def all_done(bootstrap: str) -> bool:
    groups = {"clv-ingest": CUSTOMER_EVENTS, "clv-features": ORDERS, "clv-sink-states": CUSTOMER_STATE_CHANGELOG}
    return all(committed_lag(bootstrap, group, topic) <= allowed(topic) for group, topic in groups.items())


def allowed(topic: str) -> int:
    """Kafka's own records at the end of a transaction are no one's to commit."""
    return 4 if topic == CUSTOMER_STATE_CHANGELOG else 0


def assert_same(found: TrainingData, wanted: TrainingData) -> None:
    """Field by field, to the last bit."""
    assert found.history.customer_ids == wanted.history.customer_ids
    assert found.history.fingerprint == wanted.history.fingerprint
    assert len(found.history) == len(wanted.history)
    sets = zip(found.history.training_sets(WINDOWS), wanted.history.training_sets(WINDOWS), strict=True)
    for one, other in sets:
        assert one.customer_ids == other.customer_ids
        np.testing.assert_array_equal(one.inputs, other.inputs)
        np.testing.assert_array_equal(one.features, other.features)
        if other.targets is not None:
            np.testing.assert_array_equal(one.known_targets.orders, other.known_targets.orders)
            np.testing.assert_array_equal(one.known_targets.value, other.known_targets.value)


def clv(env: dict[str, str], *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cli", *map(str, arguments)],
        cwd=ROOT, capture_output=True, text=True, check=False, env={"PATH": "", **env},
    )  # fmt: skip


def test_the_stream_and_mongodb_train_what_the_file_trains(
    service: Start, env: dict[str, str], topics: str, tmp_path: Path
) -> None:
    path = written(tmp_path / "orders.csv", rows())
    services = [service(name, env) for name in ("ingest", "features", "sink")]
    publish(topics, list(customer_events(read_any(path), "USD")))
    wait_for(lambda: all_done(topics), "everything", 90, lambda: "\n".join(s.log_tail(10) for s in services))

    from_the_file = from_file(path, None, CUTOFF, "USD")
    assert from_the_file.rejected.total() > 5
    told: list[tuple[str, int, int | None]] = []
    streamed = from_topic(topics, CUTOFF, "USD", lambda what, done=0, total=None: told.append((what, done, total)))
    stored = from_mongo(env["CLV_MONGO_URI"], env["CLV_MONGO_DATABASE"], CUTOFF, "USD")
    for found in (streamed, stored):
        assert_same(found, from_the_file)
        assert not found.rejected
    assert streamed.behind == 0
    assert told[-1][1] == told[-1][2] > 0


def test_the_command_writes_one_bundle_for_the_same_orders_from_anywhere(
    service: Start, env: dict[str, str], topics: str, tmp_path: Path
) -> None:
    path = written(tmp_path / "orders.csv", shop(80, DAYS, seed=7))
    services = [service(name, env) for name in ("ingest", "features", "sink")]
    publish(topics, list(customer_events(read_any(path), "USD")))
    wait_for(lambda: all_done(topics), "everything", 90, lambda: "\n".join(s.log_tail(10) for s in services))
    versions = set()
    for place, source in enumerate((["--orders", path], ["--from-topic"], ["--from-mongo"])):
        done = clv(
            env, "train", *source, "--cutoff", CUTOFF, "--horizon-days", 30, "--output", tmp_path / f"models-{place}",
            "--json", tmp_path / "metadata.json",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        versions.add(json.loads((tmp_path / "metadata.json").read_text())["model_version"])
    assert len(versions) == 1


def test_merged_customers_are_one_and_erased_ones_are_gone(
    service: Start, env: dict[str, str], topics: str, mongo: LocalMongo
) -> None:
    found = shop(60, DAYS, seed=6)
    ids = sorted({row["customer_id"] for row in found})
    into = {ids[n]: ids[n + 1] for n in range(0, 30, 3)} | {ids[n + 1]: ids[n + 2] for n in range(0, 12, 6)}
    erased = set(ids[40:45])
    services = [service(name, env) for name in ("ingest", "features", "sink")]
    publish(topics, list(customer_events(table(found), "USD")))

    def survivor(customer: str) -> str:
        return survivor(into[customer]) if customer in into else customer

    common = {"occurred_at": f"{CUTOFF.isoformat()}T00:00:00Z", "source": "test"}
    publish(
        topics,
        [
            {"event_id": f"m{a}", "event_type": "customer.merged", "customer_id": a, "merged_into": b, **common}
            for a, b in into.items()
        ]
        + [{"event_id": f"e{a}", "event_type": "customer.erased", "customer_id": a, **common} for a in erased],
    )
    wait_for(lambda: all_done(topics), "everything", 90, lambda: "\n".join(s.log_tail(10) for s in services))

    kept = [row | {"customer_id": survivor(row["customer_id"])} for row in found if row["customer_id"] not in erased]
    wanted = from_table(table(kept), CUTOFF, "USD")
    assert_same(from_topic(topics, CUTOFF, "USD"), wanted)
    assert_same(from_mongo(mongo.uri, env["CLV_MONGO_DATABASE"], CUTOFF, "USD"), wanted)
    with MongoClient[dict[str, Any]](mongo.uri) as client:
        stored = {each["_id"] for each in client[env["CLV_MONGO_DATABASE"]][CUSTOMER_STATES].find(STATES_WITH_ROW)}
    assert stored.isdisjoint(erased)


def test_orders_that_the_workers_have_not_folded_yet_are_counted(
    service: Start, env: dict[str, str], topics: str
) -> None:
    found = shop(30, 100)
    services = [service(name, env) for name in ("ingest", "features")]
    publish(topics, list(customer_events(table(found), "USD")))
    wait_for(lambda: committed_lag(topics, "clv-features", ORDERS) == 0 and from_topic(topics, CUTOFF, "USD").history
             .customer_ids != (), "the orders", 60)  # fmt: skip
    services[1].kill()
    publish(topics, list(customer_events(table(shop(7, 3), "more.csv"), "USD")))
    wait_for(lambda: committed_lag(topics, "clv-ingest", CUSTOMER_EVENTS) == 0, "ingest", 30)
    assert from_topic(topics, CUTOFF, "USD").behind == len(shop(7, 3))


def test_what_is_not_there_is_one_line(topics: str, mongo: LocalMongo) -> None:
    with pytest.raises(KnownProblem, match="no Kafka broker answers"):
        from_topic("localhost:1", CUTOFF, "USD")
    with pytest.raises(KnownProblem, match="MongoDB at mongodb://localhost:1: ") as problem:
        from_mongo("mongodb://user:secret@localhost:1", "clv", CUTOFF, "USD")
    assert "secret" not in str(problem.value)
    with pytest.raises(KnownProblem, match="has nothing in"):
        from_mongo(mongo.uri, "nothing_there", CUTOFF, "USD")
    for source in (lambda: from_topic(topics, CUTOFF, "XXX"), lambda: from_mongo(mongo.uri, "clv", CUTOFF, "XXX")):
        with pytest.raises(KnownProblem, match="no currency"):
            source()
    assert len(from_topic(topics, CUTOFF, "USD").history) == 0
