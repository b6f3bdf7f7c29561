"""The API while MongoDB or Kafka is away: it says so, refuses with 503 and Retry-After, and goes on by itself."""

from pathlib import Path

import pytest

from deploy.local.kafka import LocalKafka
from deploy.local.mongo import LocalMongo
from deploy.local.processes import ServiceProcess
from tests.conftest import Service
from tests.integration.api_support import Seeder, ask, customer_path, ok, predicted, running_api
from tests.support import http, ready, wait_for

pytestmark = pytest.mark.integration
NOWHERE = "127.0.0.1:1"
READS = (
    "/v1/customers",
    "/v1/customers?format=csv",
    "/v1/customers/c",
    "/v1/customers/c/history",
    "/v1/customers/c/orders",
    "/v1/customers/c/explanation",
    "/v1/segments",
    "/v1/segments?from=2024-01-01&to=2024-02-01",
    "/v1/models",
    "/v1/models/0123456789abcdef",
    "/v1/models/0123456789abcdef/card",
    "/v1/live",
)


def test_without_any_server_it_starts_says_what_is_missing_and_refuses(service: Service, tmp_path: Path) -> None:
    process = service(
        "api",
        {
            "CLV_KAFKA_BOOTSTRAP_SERVERS": NOWHERE,
            "CLV_MONGO_URI": f"mongodb://{NOWHERE}/?replicaSet=clv",
            "CLV_MODELS_DIR": str(tmp_path),
            "CLV_API_KAFKA_TIMEOUT_SECONDS": "1",
        },
        wait=False,
    )
    wait_for(lambda: process.alive and _answers(process), "the process to answer", 60, lambda: process.log_tail(20))
    status, body = http(process, "/readyz")
    assert status == 503
    assert {"mongo", "kafka"} <= body["problems"].keys()
    for path in READS:
        answer = ask(process, path)
        assert answer.status == 503, (path, answer)
        assert answer.headers["content-type"] == "application/problem+json"
        assert int(answer.headers["retry-after"]) > 0
    erased = ask(process, "/v1/customers/c", "DELETE")
    assert (erased.status, erased.headers["retry-after"]) == (503, "1")
    assert process.stop() == 0


def _answers(process: ServiceProcess) -> bool:
    try:
        return http(process, "/healthz")[0] == 200
    except OSError:
        return False


def test_an_empty_database_is_no_error(kafka: LocalKafka, mongo: LocalMongo, tmp_path: Path) -> None:
    with running_api(kafka.bootstrap_servers, mongo.uri, "clv_api_never_written", tmp_path) as process:
        assert ok(process, "/v1/customers") == {"customers": [], "next_cursor": None, "total": 0}
        assert ok(process, "/v1/segments?from=2024-01-01&to=2024-02-01")["customers"] == 0
        assert ok(process, "/v1/models")["models"] == []
        assert ok(process, "/v1/live")["customers"] == 0
        assert ask(process, "/v1/customers?format=csv").status == 200


@pytest.mark.timeout(600)
def test_servers_that_come_back_are_used_again(kafka: LocalKafka, mongo: LocalMongo, tmp_path: Path) -> None:
    seeder = Seeder(mongo.uri, "clv_api_outages")
    seeder.collections()
    seeder.predictions([predicted("c", 10.0)])
    running = running_api(
        kafka.bootstrap_servers, mongo.uri, seeder.database, tmp_path, CLV_API_KAFKA_TIMEOUT_SECONDS="2"
    )
    with running as process:
        assert ok(process, customer_path("c"))["customer_id"] == "c"
        kafka.pause()
        mongo.pause()
        try:
            wait_for(lambda: {"mongo", "kafka"} <= missing(process), "both to be told", 60)
            assert ask(process, customer_path("c")).status == 503
            assert ask(process, customer_path("c"), "DELETE").status == 503
        finally:
            kafka.resume()
            mongo.resume()
        wait_for(lambda: ready(process), "the API to be ready again", 90, lambda: process.log_tail(20))
        assert ok(process, customer_path("c"))["customer_id"] == "c"
        wait_for(lambda: ask(process, customer_path("x"), "DELETE").status == 202, "an erasure", 60)


def missing(process: ServiceProcess) -> set[str]:
    """Checks of readiness that do not pass."""
    _, body = http(process, "/readyz")
    return set(body["problems"])
