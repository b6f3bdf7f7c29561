"""The API and ingest as their OpenAPI documents say: a generated fuzz of every route against real processes.

No answer is a 5xx, and none is outside of the document. The stream is left out: it does not end.
"""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from deploy.local.kafka import LocalKafka
from deploy.local.mongo import LocalMongo
from deploy.local.processes import ServiceProcess
from domain.customer import OrderPlaced, fold
from schemas.customer_rows import Row
from tests.bundles import write_bundle
from tests.conftest import Service
from tests.integration.api_support import Seeder, ok, order_days, predicted, running_api

pytestmark = pytest.mark.integration
DATABASE = "clv_api_schema"
LEFT_OUT = "/v1/stream"
EXAMPLES = 10
STATE = fold([OrderPlaced("o1", 5_000, order_days(20)[0])])
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


@pytest.fixture(scope="module")
def seeded(
    kafka: LocalKafka, mongo: LocalMongo, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[ServiceProcess, dict[str, str]]]:
    """The process, and path parameters of what is there."""
    folder = tmp_path_factory.mktemp("models")
    version = write_bundle(folder)
    (folder / version / "model_card.html").write_text("<h1>A card</h1>")
    (folder / "current").write_text(version)
    seeder = Seeder(mongo.uri, DATABASE)
    seeder.collections()
    seeder.predictions(predicted(f"c{at}", float(at), state=STATE, model=version) for at in range(120))
    seeder.rows({"c7": Row(1, 0, 0, STATE)})
    with running_api(kafka.bootstrap_servers, mongo.uri, DATABASE, folder, CLV_API_DRIFT_MIN_CUSTOMERS="50") as process:
        yield process, {"customer_id": "c7", "version": version}


def fuzz(process: ServiceProcess, known: dict[str, str]) -> set[str]:
    """Ask every route; the routes that were asked."""
    schema = schemathesis.openapi.from_url(f"http://127.0.0.1:{process.port}/openapi.json")  # type: ignore[attr-defined]
    asked = set()
    for result in schema.get_all_operations():
        operation = result.ok()
        if operation.path == LEFT_OUT:
            continue
        asked.add(f"{operation.method.upper()} {operation.path}")
        names = [name for name in known if f"{{{name}}}" in operation.path]
        ways: list[dict[str, Any]] = [{}]
        if names:
            ways.append({"path_parameters": {name: known[name] for name in names}})
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            for fixed in ways if mode is GenerationMode.POSITIVE else ways[:1]:
                _ask(operation, mode, fixed)
    return asked


def _ask(operation: Any, mode: GenerationMode, fixed: dict[str, Any]) -> None:
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.generate],
    )
    @given(case=operation.as_strategy(mode, **fixed))
    def ask(case: Any) -> None:
        case.call_and_validate(checks=CHECKS, timeout=20)

    with suppress(Unsatisfiable):  # a route without parameters cannot be asked wrongly
        ask()


@pytest.mark.timeout(300)
def test_no_answer_of_the_api_is_a_fault_or_outside_of_its_document(
    seeded: tuple[ServiceProcess, dict[str, str]],
) -> None:
    process, known = seeded
    asked = fuzz(process, known)
    assert {
        "GET /v1/customers",
        "GET /v1/customers/{customer_id}",
        "GET /v1/customers/{customer_id}/history",
        "GET /v1/customers/{customer_id}/orders",
        "GET /v1/customers/{customer_id}/explanation",
        "DELETE /v1/customers/{customer_id}",
        "GET /v1/segments",
        "GET /v1/models",
        "GET /v1/models/{version}",
        "GET /v1/models/{version}/card",
        "GET /v1/live",
        "POST /v1/predict",
        "POST /v1/predict/batch",
    } <= asked


@pytest.mark.timeout(300)
def test_no_answer_of_ingest_is_a_fault_or_outside_of_its_document(service: Service, kafka: LocalKafka) -> None:
    process = service("ingest", {"CLV_KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers})
    assert "POST /v1/events" in fuzz(process, {})


def test_every_route_of_the_document_has_a_summary_and_an_example(
    seeded: tuple[ServiceProcess, dict[str, str]],
) -> None:
    process, _ = seeded
    document = ok(process, "/openapi.json")
    for path, operations in document["paths"].items():
        if not path.startswith("/v1/"):
            continue
        for method, operation in operations.items():
            where = f"{method} {path}"
            assert operation.get("summary"), where
            found = next(
                operation["responses"][status] for status in ("200", "202") if status in operation["responses"]
            )
            for media, content in found["content"].items():
                named = content["schema"].get("$ref", "").rpartition("/")[2]
                schema = document["components"]["schemas"].get(named, {})
                assert (content.keys() | schema.keys()) & {"example", "examples"}, f"{where} {media}"
    assert "swagger" in ok(process, "/docs").lower()
