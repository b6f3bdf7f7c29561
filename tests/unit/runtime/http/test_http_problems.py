"""Whatever goes wrong, a client reads one form, and never what is none of its business."""

import json
from collections.abc import AsyncIterator
from http import HTTPStatus

import httpx
import pytest
from structlog.testing import capture_logs

from schemas.http_api.problem import PROBLEM_JSON, Problem
from services.runtime.http.problems import problem_response
from tests.unit.runtime.http.application import SECRET, build, client_of

JSON = {"content-type": "application/json"}


async def chunks(count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield b"x" * 100


@pytest.mark.parametrize(
    ("method", "path", "request_parts", "status"),
    [
        ("GET", "/nowhere", {}, 404),
        ("PUT", "/v1/forms", {}, 405),
        ("POST", "/v1/forms", {"json": {"orders": 0}}, 422),
        ("POST", "/v1/forms", {}, 422),
        ("GET", "/v1/nested/x", {}, 422),
        ("POST", "/v1/forms", {"content": b"{", "headers": JSON}, 400),
        ("POST", "/v1/forms", {"content": b"\xff\xfe", "headers": JSON}, 400),
        ("POST", "/v1/forms", {"content": b"[" * 1999, "headers": JSON}, 400),
        ("POST", "/v1/forms", {"content": b'{"orders": 1}', "headers": {"content-type": "text/plain"}}, 415),
        ("POST", "/v1/forms", {"content": b'{"orders": 1}'}, 415),
        ("POST", "/v1/forms", {"content": b"x" * 2001, "headers": JSON}, 413),
        ("POST", "/v1/forms", {"content": 21, "headers": JSON}, 413),
        ("GET", "/v1/refused", {}, 409),
        ("GET", "/v1/framework", {}, 418),
        ("GET", "/v1/fault", {}, 500),
    ],
)
async def test_every_error_is_a_problem_with_the_requests_id(method: str, path: str, request_parts, status: int):
    if isinstance(request_parts.get("content"), int):
        request_parts = request_parts | {"content": chunks(request_parts["content"])}
    async with client_of(build()) as client:
        answer = await client.request(method, path, **request_parts)
    assert answer.status_code == status
    assert answer.headers["content-type"] == PROBLEM_JSON
    problem = Problem.model_validate(answer.json(), extra="forbid")
    assert problem.status == status
    assert problem.detail
    assert problem.request_id == answer.headers["x-request-id"]
    assert ("errors" in answer.json()) == (status in (409, 422))


async def test_each_wrong_field_is_named_from_the_outside_in():
    async with client_of(build()) as client:
        fields = (await client.post("/v1/forms", json={"days": "x", "more": 1})).json()["errors"]
        together = (await client.post("/v1/forms", json={"orders": 1, "days": 13})).json()["errors"]
        in_path = (await client.get("/v1/nested/x")).json()["errors"]
    assert {each["field"] for each in fields} == {"orders", "days", "more"}
    assert all(each["detail"] for each in fields)
    assert together == [{"field": "", "detail": "thirteen days do not fit"}]
    assert [each["field"] for each in in_path] == ["number"]


async def test_a_problem_never_repeats_what_was_sent():
    async with client_of(build()) as client:
        wrong = await client.post("/v1/forms", json={"orders": SECRET, "days": [SECRET]})
        no_json = await client.post("/v1/forms", content=f'{{"orders": {SECRET}'.encode(), headers=JSON)
        no_number = await client.get(f"/v1/nested/{SECRET}")
    assert [each.status_code for each in (wrong, no_json, no_number)] == [422, 400, 422]
    assert all(SECRET not in each.text for each in (wrong, no_json, no_number))


async def test_a_problem_is_bounded_however_many_fields_are_wrong():
    app = build()
    body = json.dumps({"y" * 250: 1} | {f"{number}": 1 for number in range(120)}).encode()
    async with client_of(app) as client:
        errors = (await client.post("/v1/forms", content=body, headers=JSON)).json()["errors"]
    assert len(errors) == 100
    assert max(len(each["field"]) for each in errors) <= 200


async def test_405_names_every_method_of_the_path():
    async with client_of(build()) as client:
        answer = await client.put("/v1/nested/1")
        assert (await client.put("/v1/forms")).headers["allow"] == "POST"
    assert answer.headers["allow"] == "DELETE, GET"
    assert "DELETE, GET" in answer.json()["detail"]


async def test_what_a_route_refuses_keeps_its_fields_and_headers():
    async with client_of(build()) as client:
        answer = await client.get("/v1/refused")
    assert answer.json()["errors"] == [{"field": "a.b", "detail": "is taken"}]
    assert (answer.json()["detail"], answer.headers["x-which"]) == ("it is there already", "1")


async def test_a_fault_is_told_by_its_id_alone_and_the_log_says_the_rest():
    async with client_of(build()) as client:
        with capture_logs() as logs:
            answer = await client.get("/v1/fault", headers={"x-request-id": "mine", "authorization": "Bearer clv_x"})
    assert SECRET not in answer.text
    assert "Traceback" not in answer.text
    (line,) = [each for each in logs if each["event"] == "request_failed"]
    assert "RuntimeError" in line["problem"]
    assert "Traceback" in line["traceback"]
    assert "clv_x" not in str(line)


async def test_an_answer_that_began_is_broken_off_and_not_mended():
    async with client_of(build()) as client:
        with capture_logs() as logs:
            answer = await client.get("/v1/late-fault")
    assert (answer.status_code, answer.text) == (200, "one")
    assert [each["event"] for each in logs if each["log_level"] == "error"] == ["request_failed"]


def test_a_problem_without_fields_has_no_member_errors():
    answer = problem_response(HTTPStatus.SERVICE_UNAVAILABLE, "later", "id", headers={"Retry-After": "2"})
    assert json.loads(bytes(answer.body)).keys() == {"type", "title", "status", "detail", "request_id"}
    assert answer.headers["retry-after"] == "2"


async def openapi(app) -> dict:
    async with client_of(app) as client:
        answer: httpx.Response = await client.get("/openapi.json")
    return answer.json()


async def test_the_openapi_document_knows_the_problems_and_no_other_errors():
    document = await openapi(build())
    text = json.dumps(document)
    assert "HTTPValidationError" not in text
    for path, operations in document["paths"].items():
        for operation in operations.values():
            found = operation["responses"]
            wanted = {"429", "500"} | ({"400", "413", "415"} if "requestBody" in operation else set())
            assert wanted <= found.keys(), path
            for status, each in found.items():
                assert status < "400" or list(each["content"]) == [PROBLEM_JSON]
    references = {part.split('"')[0] for part in text.split('"$ref": "#/components/schemas/')[1:]}
    assert {"Problem", "Form"} <= references <= document["components"]["schemas"].keys()
