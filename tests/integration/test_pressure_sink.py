"""Many predictions wait while MongoDB is away: the sink holds a bounded part of them, and stores all of them later."""

from collections.abc import Callable
from typing import Any

import msgspec
import psutil
import pytest
from pymongo import MongoClient

from cli.lag import GROUPS
from deploy.local.mongo import LocalMongo
from deploy.local.processes import ServiceProcess
from domain.features import FEATURE_NAMES
from schemas.mongo import CUSTOMERS, PREDICTION_HISTORY
from schemas.predictions import encode_prediction
from schemas.topics import PREDICTIONS
from tests.support import committed_lag, http, produce, ready, wait_for
from tests.unit.sink.examples import prediction

pytestmark = pytest.mark.integration

WAITING = 40_000
GROWTH_BYTES_MAX = 150 * 1024 * 1024
"""Of the sink while predictions wait: what it has fetched ahead (9 MiB a partition), and the batch in hand."""


def publish(servers: str, version: int, count: int) -> None:
    """A prediction of each customer, as large as the scorer's are."""
    features = {name: 1234.5678 + at for at, name in enumerate(FEATURE_NAMES)}
    full = [msgspec.structs.replace(prediction(f"c{at}", version), features=features) for at in range(count)]
    produce(servers, PREDICTIONS, [(each.customer_id.encode(), encode_prediction(each)) for each in full])


@pytest.mark.long
def test_the_sink_waits_for_mongodb_in_bounded_memory(
    topics: str, own_mongo: LocalMongo, service: Callable[..., ServiceProcess]
):
    process = service("sink", {"CLV_KAFKA_BOOTSTRAP_SERVERS": topics, "CLV_MONGO_URI": own_mongo.uri})

    def lag() -> int:
        return committed_lag(topics, GROUPS["sink"][0], PREDICTIONS)

    def rss_bytes() -> int:
        return psutil.Process(process.pid).memory_info().rss

    publish(topics, 1, 10_000)
    wait_for(lambda: lag() == 0, "the first predictions", 60, process.log_tail)
    before_bytes = rss_bytes()
    own_mongo.pause()
    publish(topics, 2, WAITING // 2)
    own_mongo.resume()
    own_mongo.kill()
    publish(topics, 3, WAITING // 2)
    wait_for(lambda: not ready(process), "readiness to tell", 30)
    problems = http(process, "/readyz")[1]["problems"]
    assert list(problems) == ["mongo"]
    assert problems["mongo"]
    assert lag() > WAITING - 10_000
    waiting_bytes = rss_bytes()
    assert waiting_bytes < before_bytes + GROWTH_BYTES_MAX
    own_mongo.restart()
    wait_for(lambda: lag() == 0, "the sink to catch up", 180, process.log_tail)
    assert rss_bytes() < before_bytes + GROWTH_BYTES_MAX
    print(f"rss MiB: {before_bytes >> 20} before, {waiting_bytes >> 20} waiting, {rss_bytes() >> 20} after")
    wait_for(lambda: ready(process), "readiness to come back", 30)
    with MongoClient[dict[str, Any]](own_mongo.uri) as client:
        versions = [each["feature_version"] for each in client["clv"][CUSTOMERS].find({}, {"feature_version": 1})]
        assert versions == [3] * (WAITING // 2)
        assert client["clv"][PREDICTION_HISTORY].count_documents({}) == WAITING + 10_000
