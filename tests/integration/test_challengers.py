"""What models on trial say is kept beside the predictions in use, newest by customer and model, and never mixed in."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from pymongo.database import Database

from deploy.local.processes import ServiceProcess
from schemas.dead_letters import from_record
from schemas.mongo import (
    CHALLENGER_PREDICTIONS,
    CUSTOMERS,
    ERASURES,
    PREDICTION_HISTORY,
    challenger_id,
    erasure_id,
    stored_prediction,
)
from schemas.predictions import Prediction, encode_prediction
from schemas.tombstones import Cause, cause_headers
from schemas.topics import CHALLENGER_PREDICTIONS as CHALLENGERS_TOPIC
from schemas.topics import DEAD_LETTERS
from tests.integration.line_support import publish_predictions
from tests.support import metric, produce, read_all, wait_for
from tests.unit.sink.examples import prediction

pytestmark = pytest.mark.integration
Start = Callable[..., ServiceProcess]
Mongo = Database[dict[str, Any]]


@pytest.fixture
def process(sink_environment: dict[str, str], service: Start) -> ServiceProcess:
    return service("sink", sink_environment)


def found(database: Mongo) -> dict[str, Prediction]:
    return {each["_id"]: stored_prediction(each) for each in database[CHALLENGER_PREDICTIONS].find()}


def test_the_newest_of_each_customer_and_model_stands_apart_from_the_predictions_in_use(
    topics: str, process: ServiceProcess, database: Mongo
) -> None:
    used = [prediction(f"c{number}", 3, value=1.0) for number in range(50)]
    tried = [
        prediction(f"c{number}", version, value=float(version), model=model)
        for version in (1, 3, 2)
        for number in range(50)
        for model in ("x", "y")
    ]
    publish_predictions(topics, used)
    publish_predictions(topics, [*tried, *tried], CHALLENGERS_TOPIC)
    newest = {challenger_id(each.customer_id, each.model_version): each for each in tried if each.feature_version == 3}
    wait_for(lambda: metric(process, "clv_records_processed_total", topic=CHALLENGERS_TOPIC) == 600, "all", 30)
    wait_for(lambda: found(database) == newest, "the newest", 30, process.log_tail)
    wait_for(lambda: database[CUSTOMERS].count_documents({}) == 50, "the customers", 30, process.log_tail)
    assert {each["_id"]: stored_prediction(each) for each in database[CUSTOMERS].find()} == {
        each.customer_id: each for each in used
    }
    assert {each["_id"] for each in database[PREDICTION_HISTORY].find()} == {each.prediction_id for each in used}
    document = database[CHALLENGER_PREDICTIONS].find_one()
    assert document is not None
    assert abs((datetime.now(UTC) - document["updated_at"].replace(tzinfo=UTC)).total_seconds()) < 60
    expiry = database[CHALLENGER_PREDICTIONS].index_information()["expiry"]
    assert (expiry["key"], expiry["expireAfterSeconds"]) == ([("updated_at", 1)], 400 * 86_400)


def test_an_erased_customer_goes_and_it_is_known_when(topics: str, process: ServiceProcess, database: Mongo) -> None:
    both = [prediction(name, 1, model=model) for name in ("gone", "stays") for model in ("x", "y")]
    publish_predictions(topics, both, CHALLENGERS_TOPIC)
    wait_for(lambda: len(found(database)) == 4, "the predictions", 30, process.log_tail)
    at_ms = int(time.time() * 1000)
    produce(topics, CHALLENGERS_TOPIC, [(b"gone", None)], headers=cause_headers(Cause.ERASED), timestamp=at_ms)
    wait_for(lambda: len(found(database)) == 2, "the erasure", 30, process.log_tail)
    assert {each.customer_id for each in found(database).values()} == {"stays"}

    def remembered() -> bool:
        erasure = database[ERASURES].find_one({"_id": erasure_id("gone")})
        return erasure is not None and erasure["challengers_erased_at"].replace(tzinfo=UTC).timestamp() * 1000 == at_ms

    wait_for(remembered, "the time of the erasure", 30, process.log_tail)


def test_a_message_that_is_no_prediction_is_a_dead_letter(
    topics: str, process: ServiceProcess, database: Mongo
) -> None:
    produce(topics, CHALLENGERS_TOPIC, [(b"bad", b"{"), (b"other", encode_prediction(prediction("c")))])
    publish_predictions(topics, [prediction("good", model="x")], CHALLENGERS_TOPIC)
    letters = [from_record(each.key(), each.value(), each.headers()) for each in read_all(topics, DEAD_LETTERS, 2)]
    assert {(each.key, each.reason.value) for each in letters} == {(b"bad", "invalid_json"), (b"other", "key_mismatch")}
    assert {each.origin.topic for each in letters} == {CHALLENGERS_TOPIC}
    wait_for(lambda: len(found(database)) == 1, "the good one", 30, process.log_tail)
