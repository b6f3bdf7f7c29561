"""The same orders from a file, from the stream and from MongoDB train the same model, through real services."""

import csv
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient
from pymongo import MongoClient
from typer.testing import CliRunner, Result

from cli.__main__ import app
from deploy.local.mongo import LocalMongo
from deploy.local.processes import ServiceProcess
from domain.features import day_of
from schemas.model_bundle import MODEL_FILE
from schemas.mongo import CUSTOMER_STATES, STATES_WITH_ROW
from schemas.topics import CUSTOMER_EVENTS, CUSTOMER_STATE_CHANGELOG, ORDERS
from services.runtime.bundle import current_bundle
from services.runtime.shutdown import KnownProblem
from services.trainer.orders_file import COLUMNS, customer_events, event_bytes, read_any
from services.trainer.sources import TrainingData
from services.trainer.sources.mongo import from_mongo
from services.trainer.sources.orders import from_file, from_table
from services.trainer.sources.stream import from_topic
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


def clv(env: dict[str, str], *arguments: object) -> Result:
    """The command, in this process."""
    return CliRunner().invoke(app, [*map(str, arguments)], env=env)


def test_the_command_writes_one_model_for_the_same_orders_from_anywhere(
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
    assert streamed.missing == 0
    assert told[-1][1] == told[-1][2] > 0

    bundles = []
    for place, source in enumerate((["--orders", path], ["--from-topic"], ["--from-mongo"])):
        models = tmp_path / f"models-{place}"
        done = clv(env, "train", *source, "--cutoff", CUTOFF, "--horizon-days", 90, "--output", models)
        assert done.exception is None, done.exception
        bundles.append(current_bundle(models))
    assert len({(each / MODEL_FILE).read_bytes() for each in bundles}) == 1
    assert bundles[1].name == bundles[2].name  # the file's card tells of rows that were refused: another version


def about(kind: str, customer: str, **more: str) -> dict[str, Any]:
    """A customer.merged or customer.erased of the cutoff's day."""
    at = f"{CUTOFF.isoformat()}T00:00:00Z"
    event_id = f"{kind}-{customer}"
    return {"event_id": event_id, "event_type": kind, "customer_id": customer, "occurred_at": at, **more}


class People:
    """Who was merged into whom and who was erased, and what a file would hold then."""

    def __init__(self) -> None:
        self.into: dict[str, str] = {}
        self.erased: set[str] = set()

    def events(self) -> list[dict[str, Any]]:
        merges = [about("customer.merged", one, merged_into=other) for one, other in self.into.items()]
        return merges + [about("customer.erased", customer) for customer in sorted(self.erased)]

    def survivor(self, customer: str) -> str:
        return self.survivor(self.into[customer]) if customer in self.into else customer

    def expected(self, rows: list[dict[str, str]]) -> TrainingData:
        own = [row | {"customer_id": self.survivor(row["customer_id"])} for row in rows]
        return from_table(table([row for row in own if row["customer_id"] not in self.erased]), CUTOFF, "USD")


def test_however_much_of_the_stream_the_workers_have_folded_it_trains_the_same(
    service: Start, env: dict[str, str], topics: str, mongo: LocalMongo
) -> None:
    """None of it, all of it, a part of it; with merges and erasures in each part, and repeats and late orders."""
    found, people = shop(60, DAYS, seed=6), People()
    ids = sorted({row["customer_id"] for row in found})
    people.into = {ids[n]: ids[n + 1] for n in range(0, 30, 3)} | {ids[n + 1]: ids[n + 2] for n in range(0, 12, 6)}
    people.erased = set(ids[40:45])
    services = [service("ingest", env)]

    def context() -> str:
        return "\n".join(each.log_tail(10) for each in services)

    def publish_and_wait(rows: list[dict[str, str]]) -> None:
        publish(topics, list(customer_events(table(rows), "USD")))
        publish(topics, people.events())
        wait_for(lambda: committed_lag(topics, "clv-ingest", CUSTOMER_EVENTS) == 0, "ingest", 60, context)

    publish_and_wait(found)
    wanted = people.expected(found)
    assert len(wanted.history.customer_ids) == 60 - 12 - 5
    assert_same(from_topic(topics, CUTOFF, "USD"), wanted)  # no worker has ever run

    services += [service(name, env) for name in ("features", "sink")]
    wait_for(lambda: all_done(topics), "everything", 90, context)
    assert_same(from_topic(topics, CUTOFF, "USD"), wanted)
    assert_same(from_mongo(mongo.uri, env["CLV_MONGO_DATABASE"], CUTOFF, "USD"), wanted)
    with MongoClient[dict[str, Any]](mongo.uri) as client:
        stored = {each["_id"] for each in client[env["CLV_MONGO_DATABASE"]][CUSTOMER_STATES].find(STATES_WITH_ROW)}
    assert stored.isdisjoint(people.erased)

    services[1].kill()
    new = shop(7, 40, seed=8)
    more = [row | {"customer_id": f"new-{row['customer_id']}", "order_id": f"new-{row['order_id']}"} for row in new]
    more += [row | {"order_id": f"late-{row['order_id']}", "occurred_at": "2024-01-02"} for row in found[::9]]
    more += [
        row | {"type": "refund", "refund_id": f"r{n}", "amount": "1.50"} for n, row in enumerate(found[::7])
    ] + found[::5]
    people.into[ids[50]] = ids[51]
    people.erased |= {ids[4], ids[55]}  # with ids[3], who is part of ids[4]
    publish_and_wait(more)
    assert_same(from_topic(topics, CUTOFF, "USD"), people.expected(found + more))

    lag = committed_lag(topics, "clv-features", ORDERS)
    admin = AdminClient({"bootstrap.servers": topics})
    for future in admin.delete_records([TopicPartition(ORDERS, n, -1) for n in range(4)]).values():
        future.result()
    shortened = from_topic(topics, CUTOFF, "USD")
    assert_same(shortened, wanted)
    assert shortened.missing == lag > len(more)


def test_what_is_not_there_is_one_line(topics: str, mongo: LocalMongo) -> None:
    with pytest.raises(KnownProblem, match="no Kafka broker answers"):
        from_topic("localhost:1", CUTOFF, "USD")
    with pytest.raises(
        KnownProblem, match=r"MongoDB at mongodb://localhost:1: .*: start it, or set CLV_MONGO_URI"
    ) as problem:
        from_mongo("mongodb://user:secret@localhost:1", "clv", CUTOFF, "USD")
    assert "secret" not in str(problem.value)
    with pytest.raises(KnownProblem, match="has nothing in"):
        from_mongo(mongo.uri, "nothing_there", CUTOFF, "USD")
    for source in (lambda: from_topic(topics, CUTOFF, "XXX"), lambda: from_mongo(mongo.uri, "clv", CUTOFF, "XXX")):
        with pytest.raises(KnownProblem, match="no currency"):
            source()
    assert len(from_topic(topics, CUTOFF, "USD").history) == 0
