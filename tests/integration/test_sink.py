"""The sink as a real process against real Kafka and MongoDB: the newest stands through repeats, crashes, outages."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo import MongoClient
from pymongo.database import Database

from deploy.local.mongo import LocalMongo
from deploy.local.processes import ServiceProcess
from schemas.dead_letters import from_record
from schemas.mongo import CUSTOMERS, PREDICTION_HISTORY, RETIRED_INDEXES, stored_prediction
from schemas.predictions import Prediction, encode_prediction
from schemas.topics import DEAD_LETTERS, PREDICTIONS
from services.runtime.bundle import point_to
from services.sink.documents import Erased, Plan, Write, judge, plan
from services.sink.mongo import Store, connect, ensure_collections
from services.sink.settings import SinkSettings
from tests.bundles import feature_messages, write_bundle
from tests.effort import tries
from tests.integration.line_support import ending_cleanly, publish_predictions
from tests.support import http, metric, produce, read_all, ready, wait_for
from tests.unit.sink.examples import prediction

pytestmark = pytest.mark.integration
Start = Callable[..., ServiceProcess]
Mongo = Database[dict[str, Any]]
NOW = datetime(2024, 1, 1, tzinfo=UTC)


@pytest.fixture
def service(service: Start) -> Iterator[Start]:
    yield from ending_cleanly(service)


@pytest.fixture
def env(sink_environment: dict[str, str]) -> dict[str, str]:
    return sink_environment


def versions(database: Mongo) -> dict[str, int]:
    return {each["_id"]: each["feature_version"] for each in database[CUSTOMERS].find({}, {"feature_version": 1})}


def everything(database: Mongo) -> list[dict[str, Any]]:
    return [*database[CUSTOMERS].find().sort("_id"), *database[PREDICTION_HISTORY].find().sort("_id")]


# ---------------------------------------------------------------- the process


def test_predictions_are_stored_whole_in_both_collections(
    topics: str, env: dict[str, str], database: Mongo, service: Start
) -> None:
    process = service("sink", env)
    messages = [prediction(f"c{number}", version, value=number) for version in (1, 2) for number in range(100)]
    publish_predictions(topics, messages)
    wait_for(lambda: database[PREDICTION_HISTORY].count_documents({}) == 200, "the history", 30, process.log_tail)
    wait_for(lambda: Counter(versions(database).values()) == {2: 100}, "the newest", 30, process.log_tail)
    newest = {each.customer_id: each for each in messages}
    assert {each["_id"]: stored_prediction(each) for each in database[CUSTOMERS].find()} == newest
    history = {each["_id"]: stored_prediction(each) for each in database[PREDICTION_HISTORY].find()}
    assert history == {each.prediction_id: each for each in messages}
    customer = database[CUSTOMERS].find_one()
    assert customer is not None
    assert abs((datetime.now(UTC) - customer["updated_at"].replace(tzinfo=UTC)).total_seconds()) < 60
    wait_for(lambda: metric(process, "clv_mongo_writes_total", collection=PREDICTION_HISTORY) == 200, "the count")
    wait_for(lambda: metric(process, "clv_stored_latency_seconds_count") == 200, "the latencies")


def test_redelivery_changes_nothing_but_the_time(
    topics: str, env: dict[str, str], database: Mongo, service: Start
) -> None:
    process = service("sink", env)
    messages = [prediction(f"c{number}", 1, value=number) for number in range(50)]
    publish_predictions(topics, messages)
    wait_for(lambda: database[PREDICTION_HISTORY].count_documents({}) == 50, "the history")
    wait_for(lambda: len(versions(database)) == 50, "the customers")
    before = everything(database)
    publish_predictions(topics, [*messages, *messages])
    wait_for(lambda: metric(process, "clv_records_processed_total") == 150, "the repeats")
    without_time = [[{**each, "updated_at": None} for each in state] for state in (before, everything(database))]
    assert without_time[0] == without_time[1]


def test_an_older_prediction_after_a_newer_is_refused_and_counted(
    topics: str, env: dict[str, str], database: Mongo, service: Start
) -> None:
    process = service("sink", env)
    publish_predictions(topics, [prediction("c", 5, value=5.0)])
    wait_for(lambda: versions(database) == {"c": 5}, "the newer")
    publish_predictions(topics, [prediction("c", 4, value=4.0)])
    wait_for(lambda: database[PREDICTION_HISTORY].count_documents({}) == 2, "both in the history")
    wait_for(lambda: metric(process, "clv_mongo_stale_writes_total") == 1, "the older to be counted")
    found = database[CUSTOMERS].find_one({"_id": "c"})
    assert found is not None
    assert stored_prediction(found) == prediction("c", 5, value=5.0)


def test_poison_is_a_dead_letter_and_the_rest_goes_on(
    topics: str, env: dict[str, str], database: Mongo, service: Start
) -> None:
    process = service("sink", env)
    database.command("collMod", CUSTOMERS, validator={"as_of": {"$ne": "1999-12-31"}})
    unwanted = encode_prediction(prediction("bad")).replace(b"2024-01-31", b"1999-12-31")
    pairs = [
        (b"c1", encode_prediction(prediction("c1"))),
        (b"bad", unwanted),
        (b"c2", b"{"),
        (b"c3", encode_prediction(prediction("c2"))),
        (b"c4", encode_prediction(prediction("c4")).replace(b'"monetary"', b'"mone\\u0000tary"')),
        (b"c5", encode_prediction(prediction("c5"))),
    ]
    produce(topics, PREDICTIONS, pairs)
    letters = [from_record(r.key(), r.value(), r.headers()) for r in read_all(topics, DEAD_LETTERS, at_least=4)]
    found = {each.key: each.reason.value for each in letters}
    assert found == {b"bad": "invalid_field", b"c2": "invalid_json", b"c3": "key_mismatch", b"c4": "invalid_field"}
    assert {each.key: each.value for each in letters}[b"bad"] == unwanted
    wait_for(lambda: set(versions(database)) == {"c1", "c5"}, "the good ones", 30, process.log_tail)
    publish_predictions(topics, [prediction("c6")])
    wait_for(lambda: set(versions(database)) == {"c1", "c5", "c6"}, "the line to go on", 30, process.log_tail)


def test_a_tombstone_deletes_the_customer_from_both_collections(
    topics: str, env: dict[str, str], database: Mongo, service: Start
) -> None:
    process = service("sink", env)
    publish_predictions(topics, [prediction("gone", 1), prediction("gone", 2), prediction("stays", 1)])
    wait_for(lambda: len(versions(database)) == 2, "the customers")
    produce(topics, PREDICTIONS, [(b"gone", None)])
    wait_for(lambda: set(versions(database)) == {"stays"}, "the erasure", 30, process.log_tail)
    wait_for(lambda: database[PREDICTION_HISTORY].count_documents({"customer_id": "gone"}) == 0, "the history's too")


def test_after_kill_9_in_the_middle_nothing_is_missing(
    topics: str, env: dict[str, str], database: Mongo, service: Start
) -> None:
    process = service("sink", {**env, "CLV_SINK_BATCH_RECORDS": "500"})
    count = 0
    for version in (1, 2, 3):
        publish_predictions(topics, [prediction(f"c{number}", version) for number in range(4000)])
        count += 4000
        wait_for(lambda n=count: database[PREDICTION_HISTORY].estimated_document_count() > n - 3900, "the flow", 60)
        process.kill()
        process.start()
    wait_for(
        lambda: database[PREDICTION_HISTORY].count_documents({}) == count, "all of the history", 60, process.log_tail
    )
    wait_for(lambda: Counter(versions(database).values()) == {3: 4000}, "every customer's newest", 60)


def test_a_second_sink_may_come_and_go_while_streaming(
    topics: str, env: dict[str, str], database: Mongo, service: Start
) -> None:
    service("sink", env)
    publish_predictions(topics, [prediction(f"a{number}") for number in range(3000)])
    other = service("sink", env, wait=False)
    for prefix in "bcde":
        publish_predictions(topics, [prediction(f"{prefix}{number}") for number in range(3000)])
    wait_for(lambda: ready(other), "the second sink", 60, lambda: other.log_tail(30))
    publish_predictions(topics, [prediction(f"y{number}") for number in range(3000)])
    assert other.stop() == 0
    publish_predictions(topics, [prediction(f"z{number}") for number in range(3000)])
    wait_for(lambda: database[CUSTOMERS].count_documents({}) == 21_000, "all customers", 60)
    wait_for(lambda: database[PREDICTION_HISTORY].count_documents({}) == 21_000, "all of the history")


def test_it_catches_up_after_mongodb_was_killed_while_streaming(
    topics: str, env: dict[str, str], own_mongo: LocalMongo, service: Start
) -> None:
    process = service("sink", {**env, "CLV_MONGO_URI": own_mongo.uri, "CLV_SINK_BATCH_RECORDS": "500"})
    publish_predictions(topics, [prediction(f"c{number}", 1) for number in range(8000)])
    with MongoClient[dict[str, Any]](own_mongo.uri) as client:
        database = client[env["CLV_MONGO_DATABASE"]]
        wait_for(lambda: database[CUSTOMERS].estimated_document_count() > 0, "the stream to flow")
        own_mongo.kill()
        publish_predictions(topics, [prediction(f"c{number}", 2) for number in range(8000)])
        wait_for(lambda: metric(process, "clv_mongo_retries_total") > 0, "an attempt to fail")
        wait_for(lambda: not ready(process), "readiness to tell")
        assert "mongo" in http(process, "/readyz")[1]["problems"]
        own_mongo.restart()
        wait_for(lambda: Counter(versions(database).values()) == {2: 8000}, "every customer's newest", 60)
        wait_for(lambda: database[PREDICTION_HISTORY].count_documents({}) == 16_000, "all of the history", 60)
    wait_for(lambda: ready(process), "readiness to come back", 30)


@pytest.mark.parametrize("outage", ["killed", "paused"])
def test_sigterm_ends_it_within_ten_seconds_while_mongodb_is_away(
    topics: str, env: dict[str, str], own_mongo: LocalMongo, service: Start, outage: str
) -> None:
    process = service("sink", {**env, "CLV_MONGO_URI": own_mongo.uri})
    if outage == "killed":
        own_mongo.kill()
    else:
        own_mongo.pause()
    publish_predictions(topics, [prediction("c")])
    wait_for(lambda: not ready(process) or "mongo_away" in process.log_tail(50), "the outage to be seen", 30)
    began = time.monotonic()
    assert process.stop(15) == 0, process.log_tail(20)
    assert time.monotonic() - began < 10
    own_mongo.resume()
    own_mongo.restart()
    process.start()
    with MongoClient[dict[str, Any]](own_mongo.uri) as client:
        database = client[env["CLV_MONGO_DATABASE"]]
        wait_for(lambda: versions(database) == {"c": 1}, "the prediction in hand to come again", 30, process.log_tail)


def test_it_waits_for_mongodb_at_the_start(
    topics: str, env: dict[str, str], own_mongo: LocalMongo, service: Start
) -> None:
    own_mongo.kill()
    process = service("sink", {**env, "CLV_MONGO_URI": own_mongo.uri}, wait=False)
    wait_for(lambda: "mongo_away" in process.log_tail(), "the sink to wait", 30)
    own_mongo.restart()
    wait_for(lambda: ready(process), "the sink to be ready", 30, process.log_tail)


def test_what_the_scorer_predicts_is_what_mongodb_holds(
    topics: str, env: dict[str, str], database: Mongo, tmp_path: Path, service: Start
) -> None:
    from schemas.customer_features import encode_features
    from schemas.topics import CUSTOMER_FEATURES

    models = tmp_path / "models"
    version = write_bundle(models)
    point_to(models, version)
    service("scorer", {**env, "CLV_MODELS_DIR": str(models)}, wait=False)
    process = service("sink", env)
    messages = {each.customer_id: each for each in feature_messages(500)}
    produce(topics, CUSTOMER_FEATURES, [(name.encode(), encode_features(each)) for name, each in messages.items()])
    wait_for(lambda: len(versions(database)) == 500, "all customers", 60, process.log_tail)
    for document in database[CUSTOMERS].find():
        message = messages[document["_id"]]
        assert (document["inputs"], document["features"]) == (message.inputs, message.features)
        assert (document["as_of"], document["feature_version"]) == (message.as_of, message.feature_version)
        assert document["prediction"]["model_version"] == version


# ---------------------------------------------------------------- the store, in this process


@dataclass
class FakeRecord:
    key: bytes | None
    value: bytes | None
    timestamp: int = 7
    partition: int = 0
    offset: int = 0
    headers: tuple[tuple[str, bytes], ...] = ()


def judged(message: Prediction, offset: int = 0) -> Write:
    verdict = judge(FakeRecord(message.customer_id.encode(), encode_prediction(message), offset=offset), NOW)
    assert isinstance(verdict, Write)
    return verdict


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    found = asyncio.new_event_loop()
    yield found
    found.close()


@pytest.fixture
def client(mongo: LocalMongo, loop: asyncio.AbstractEventLoop) -> Iterator["AsyncIOMotorClient[Any]"]:
    async def made() -> "AsyncIOMotorClient[Any]":
        return connect(SinkSettings(mongo_uri=mongo.uri))

    found = loop.run_until_complete(made())
    yield found
    found.close()


steps = st.tuples(st.sampled_from("abcd"), st.integers(0, 4) | st.none(), st.integers(0, 9))


def test_any_batches_in_any_order_leave_the_newest(
    client: "AsyncIOMotorClient[Any]", loop: asyncio.AbstractEventLoop, database: Mongo, mongo_database: str
) -> None:
    store = Store(client[mongo_database], 3)

    @settings(max_examples=tries(60), deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(st.lists(steps, max_size=8), max_size=5))
    def check(batches: list[list[tuple[str, int | None, int]]]) -> None:
        database[CUSTOMERS].delete_many({})
        database[PREDICTION_HISTORY].delete_many({})
        newest: dict[str, Prediction] = {}
        history: dict[str, Prediction] = {}
        for batch in batches:
            work: list[Write | Erased] = []
            for name, version, value in batch:
                if version is None:
                    work.append(Erased(name))
                    newest.pop(name, None)
                    history = {key: each for key, each in history.items() if each.customer_id != name}
                    continue
                message = prediction(name, version, value=float(value))
                work.append(judged(message))
                if name not in newest or version >= newest[name].feature_version:
                    newest[name] = message
                history.setdefault(message.prediction_id, message)
            result = loop.run_until_complete(store.write(plan(work)))
            assert result.refused == []
        assert {each["_id"]: stored_prediction(each) for each in database[CUSTOMERS].find()} == newest
        assert {each["_id"]: stored_prediction(each) for each in database[PREDICTION_HISTORY].find()} == history

    check()


def test_writers_at_the_same_time_leave_the_newest(
    client: "AsyncIOMotorClient[Any]", loop: asyncio.AbstractEventLoop, database: Mongo, mongo_database: str
) -> None:
    """As two sinks do for a moment, when one of them has lost its partitions and does not know yet."""

    async def race() -> None:
        await asyncio.gather(*(write(number) for number in range(6)))

    async def write(number: int) -> None:
        store = Store(client[mongo_database], 50)
        for version in range(number, 60, 6):
            await store.write(Plan([], [judged(prediction(f"c{each}", version)) for each in range(100)], []))

    loop.run_until_complete(race())
    assert Counter(versions(database).values()) == {59: 100}


def test_one_refused_document_does_not_hold_up_its_neighbours(
    client: "AsyncIOMotorClient[Any]", loop: asyncio.AbstractEventLoop, database: Mongo, mongo_database: str
) -> None:
    database.create_collection(CUSTOMERS, validator={"prediction.expected_value": {"$lt": 100}})
    database.create_collection(PREDICTION_HISTORY, validator={"prediction.expected_value": {"$lt": 50}})
    values = [1.0, 70.0, 2.0, 200.0, 3.0]
    writes = [judged(prediction(f"c{at}", value=value), at) for at, value in enumerate(values)]
    result = loop.run_until_complete(Store(client[mongo_database], 1000).write(Plan([], writes, writes)))
    assert sorted(write.offset for write, _ in result.refused) == [1, 3]
    assert all("validation" in why for _, why in result.refused)
    assert set(versions(database)) == {"c0", "c1", "c2", "c4"}
    assert {each["customer_id"] for each in database[PREDICTION_HISTORY].find()} == {"c0", "c2", "c4"}


def test_collections_and_indexes_can_be_ensured_again_and_the_expiry_changed(
    client: "AsyncIOMotorClient[Any]", loop: asyncio.AbstractEventLoop, database: Mongo, mongo_database: str
) -> None:
    for days in (400, 400, 30):
        loop.run_until_complete(ensure_collections(client[mongo_database], days))
        indexes = database[PREDICTION_HISTORY].index_information()
        assert indexes["expiry"]["expireAfterSeconds"] == days * 86_400
        assert indexes["customer_by_version"]["key"] == [("customer_id", 1), ("feature_version", -1)]
    by_segment = database[CUSTOMERS].index_information()["segments_by_value"]
    assert by_segment["key"][:2] == [("prediction.segment", 1), ("prediction.expected_value", 1)]


def test_an_index_of_an_earlier_version_is_dropped(
    client: "AsyncIOMotorClient[Any]", loop: asyncio.AbstractEventLoop, database: Mongo, mongo_database: str
) -> None:
    for collection, name in RETIRED_INDEXES:
        database[collection].create_index([("prediction.segment", 1)], name=name)
    loop.run_until_complete(ensure_collections(client[mongo_database], 400))
    for collection, name in RETIRED_INDEXES:
        assert name not in database[collection].index_information()
