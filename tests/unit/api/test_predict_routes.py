"""POST /v1/predict and /v1/predict/batch through the whole application: bodies, kinds of content, errors, and that the
answers are what schemas.http_api.predict declares. What is kept in MongoDB is tested against a real one elsewhere."""

import asyncio
import csv
import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.features import INPUT_NAMES
from schemas.http_api.predict import BatchAnswer, WhatIfPrediction
from services.api.app import build_app
from services.api.forms.csv_forms import COLUMNS
from services.api.forms.prediction import Prediction
from services.api.settings import ApiSettings
from services.runtime.bundle import point_to
from services.runtime.health import Health
from services.runtime.http.direct_routes import Handler
from services.runtime.http.key_file import Scope, encode_keys, new_key
from tests.bundles import write_bundle
from tests.effort import tries
from tests.unit.api.forms import FORM, INVALID, valid_forms

KEPT_NOT = "?store=false"
NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
JSON, CSV = {"content-type": "application/json"}, {"content-type": "text/csv"}


async def application(models: Path, **changes: Any) -> FastAPI:
    api_settings = ApiSettings(models_dir=models, http_requests_per_second=0, **changes)
    prediction = Prediction(api_settings)
    await prediction._follower.load()
    return assembled(api_settings, prediction, prediction.direct)


def assembled(api_settings: ApiSettings, prediction: Prediction, direct: dict[str, Handler]) -> FastAPI:
    return build_app(api_settings, Health(), [prediction.router], prediction.body_bytes_max_by_path, direct)


@asynccontextmanager
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as found:
        yield found


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    point_to(
        folder, write_bundle(folder, explanation_reference=None, reference={"frequency": {"deciles": [0.0, 1.0, 9.0]}})
    )
    return folder


@pytest.fixture(scope="module")
def app(models: Path) -> FastAPI:
    return asyncio.run(application(models))


@pytest.fixture
async def api(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with client(app) as found:
        yield found


async def post(api: httpx.AsyncClient, path: str, body: Any, headers: dict[str, str] = JSON) -> httpx.Response:
    content = body if isinstance(body, bytes | str) else json.dumps(body)
    return await api.post(path, content=content, headers=headers)


def problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    return answer.json()


def fields_of(answer: httpx.Response) -> set[str]:
    return {each["field"] for each in problem(answer, 422)["errors"]}


# ---------------------------------------------------------------- one form


async def test_a_form_is_answered_as_the_contract_declares(api):
    answer = await post(api, "/v1/predict" + KEPT_NOT, FORM)
    assert answer.status_code == 200
    found = WhatIfPrediction.model_validate(answer.json())
    assert found.inputs == {name: float(FORM[name]) for name in INPUT_NAMES}
    assert list(found.features)[:3] == ["recency_days", "frequency", "monetary"]
    assert len(found.features) == 18
    assert found.stored is False
    assert set(answer.json()) == set(WhatIfPrediction.model_fields)


async def test_the_direct_way_and_the_frameworks_way_answer_alike(models):
    """/v1/predict is answered before the framework sees it; the route that it declares would answer the same."""
    both = []
    for directly in (True, False):
        app = await application(models) if directly else await without_direct_way(models)
        async with client(app) as api:
            answers = [
                await post(api, "/v1/predict?store=0", FORM),
                await post(api, "/v1/predict?store=perhaps", FORM),
                await post(api, "/v1/predict?explain=2&store=no", FORM),
                await post(api, "/v1/predict" + KEPT_NOT, {**FORM, "total_orders": 0}),
                await post(api, "/v1/predict" + KEPT_NOT, FORM, {"content-type": "text/plain"}),
                await api.get("/v1/predict"),
            ]
        drop = ("prediction_id", "request_id")
        both.append([(each.status_code, {k: v for k, v in each.json().items() if k not in drop}) for each in answers])
    assert both[0] == both[1]
    assert [status for status, _ in both[0]] == [200, 422, 422, 422, 415, 405]


async def without_direct_way(models: Path) -> FastAPI:
    api_settings = ApiSettings(models_dir=models, http_requests_per_second=0)
    prediction = Prediction(api_settings)
    await prediction._follower.load()
    assert set(prediction.direct) == {"/v1/predict"}
    return assembled(api_settings, prediction, {})


@settings(max_examples=tries(60), deadline=None)
@given(form=valid_forms())
def test_every_valid_form_is_answered(app, form):
    async def ask() -> httpx.Response:
        async with client(app) as api:
            return await post(api, "/v1/predict" + KEPT_NOT, form)

    answer = asyncio.run(ask())
    assert answer.status_code == 200, answer.text
    WhatIfPrediction.model_validate(answer.json())


@settings(max_examples=tries(100), deadline=None)
@given(data=st.data(), name=st.sampled_from(INPUT_NAMES))
def test_every_form_with_one_wrong_field_is_a_problem_that_names_the_field(app, data, name):
    wrong = data.draw(INVALID[name])

    async def ask() -> httpx.Response:
        async with client(app) as api:
            return await post(api, "/v1/predict" + KEPT_NOT, {**FORM, name: wrong})

    assert fields_of(asyncio.run(ask())) >= {name}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"days_since_last_purchase": 341}, {"days_since_last_purchase"}),
        ({"total_orders": 1}, {"days_since_last_purchase"}),
        ({"shoe_size": 43}, {"shoe_size"}),
        ({"total_orders": "9", "frequency_score": 9}, {"total_orders", "frequency_score"}),
    ],
)
async def test_what_is_wrong_with_a_form_is_said_by_field(api, changes, named):
    assert fields_of(await post(api, "/v1/predict" + KEPT_NOT, {**FORM, **changes})) == named


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b'{"customer_age": 1' + b"}" * 3, b"[" * 100_000])
async def test_a_body_that_is_no_json_is_refused(api, body):
    problem(await post(api, "/v1/predict", body[:16_000]), 400)


@pytest.mark.parametrize("body", [b"[]", b"1", b"null", b'"form"'])
async def test_json_that_is_no_form_is_refused(api, body):
    problem(await post(api, "/v1/predict", body), 422)


@pytest.mark.parametrize("media", ["", "text/plain", "text/csv", "application/json; charset=latin-1"])
async def test_another_kind_of_content_is_refused(api, media):
    problem(await post(api, "/v1/predict", FORM, {"content-type": media}), 415)


async def test_a_body_beyond_the_limit_is_refused(api):
    problem(await post(api, "/v1/predict", {**FORM, "shoe_size": "x" * 20_000}), 413)


async def test_an_explanation_adds_up_to_the_prediction(api):
    answer = (await post(api, "/v1/predict?store=false&explain=true", FORM)).json()
    told = WhatIfPrediction.model_validate(answer).explanation
    assert told is not None
    assert told.prediction == pytest.approx(answer["expected_value"], rel=1e-9)
    assert told.base + sum(each.amount for each in told.contributions) == pytest.approx(told.prediction)
    assert told.as_of == answer["as_of"]
    assert told.customer_id is None


async def test_without_a_model_the_answer_is_503_and_says_what_to_do(tmp_path):
    async with client(await application(tmp_path)) as api:
        for path, body in (("/v1/predict", FORM), ("/v1/predict/batch", {"rows": [FORM]})):
            answer = await post(api, path, body)
            assert "./clv train" in problem(answer, 503)["detail"]
            assert int(answer.headers["retry-after"]) >= 1


async def test_a_key_needs_the_scope_predict(models, tmp_path):
    made = {scope: new_key(scope, [scope], NOW) for scope in (Scope.PREDICT, Scope.READ)}
    keys = tmp_path / "keys"
    keys.write_text(encode_keys([each.record for each in made.values()]))
    keys.chmod(0o600)
    async with client(await application(models, http_keys_file=keys)) as api:
        for path, body in (("/v1/predict", FORM), ("/v1/predict/batch", {"rows": [FORM]})):
            problem(await post(api, path + KEPT_NOT, body), 401)
            problem(await post(api, path + KEPT_NOT, body, {**JSON, "x-api-key": made[Scope.READ].key}), 403)
            taken = await post(api, path + KEPT_NOT, body, {**JSON, "x-api-key": made[Scope.PREDICT].key})
            assert taken.status_code == 200, taken.text


async def test_the_openapi_document_tells_of_both_routes_and_of_the_scope(models, tmp_path):
    keys = tmp_path / "keys"
    keys.write_text(encode_keys([new_key("k", [Scope.PREDICT], NOW).record]))
    keys.chmod(0o600)
    paths = (await application(models, http_keys_file=keys)).openapi()["paths"]
    for path in ("/v1/predict", "/v1/predict/batch"):
        told = paths[path]["post"]
        assert ["predict"] in [scopes for each in told["security"] for scopes in each.values()]
        assert {"200", "400", "401", "403", "413", "415", "422", "429", "503"} <= set(told["responses"])
        assert "store" in [each["name"] for each in told["parameters"]]
    form = paths["/v1/predict"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert set(form["properties"]) == set(INPUT_NAMES)
    assert set(paths["/v1/predict/batch"]["post"]["requestBody"]["content"]) == {"application/json", "text/csv"}


# ---------------------------------------------------------------- batches


def lines(answer: httpx.Response) -> list[dict[str, str]]:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    reader = csv.DictReader(io.StringIO(answer.text, newline=""))
    assert tuple(reader.fieldnames or ()) == COLUMNS
    return list(reader)


def as_csv(forms: list[dict[str, Any]], separator: str = ",", newline: str = "\n") -> str:
    rows = [separator.join(INPUT_NAMES)]
    rows += [separator.join("" if form[name] is None else str(form[name]) for name in INPUT_NAMES) for form in forms]
    return newline.join(rows) + newline


async def test_each_row_of_a_batch_is_judged_for_itself_and_answered_as_a_single_form(api):
    rows = [FORM, {**FORM, "total_orders": 0}, {}, {**FORM, "average_order_value": 10}]
    answer = await post(api, "/v1/predict/batch" + KEPT_NOT, {"rows": rows})
    found = BatchAnswer.model_validate(answer.json())
    assert [each.index for each in found.rows] == [0, 1, 2, 3]
    assert (found.accepted, found.rejected) == (2, 2)
    assert found.request_id == answer.headers["x-request-id"]
    assert [each.field for each in found.rows[1].errors] == ["total_orders"]
    assert {each.field for each in found.rows[2].errors} == set(INPUT_NAMES) - {"customer_age"}
    for place in (0, 3):
        single = (await post(api, "/v1/predict" + KEPT_NOT, rows[place])).json()
        batched = answer.json()["rows"][place]
        assert batched["errors"] == []
        assert {**batched["prediction"], "prediction_id": ""} == {**single, "prediction_id": ""}


async def test_a_batch_of_more_rows_than_one_call_keeps_their_order(api):
    rows = [{**FORM, "average_order_value": value} for value in range(1, 1300)]
    rows[700] = {**FORM, "frequency_score": 0}
    found = (await post(api, "/v1/predict/batch" + KEPT_NOT, {"rows": rows})).json()["rows"]
    assert [each["index"] for each in found] == list(range(1299))
    assert found[700]["prediction"] is None
    for each in found:
        if each["prediction"]:
            assert each["prediction"]["inputs"]["average_order_value"] == each["index"] + 1


@pytest.mark.parametrize(
    "text",
    [
        as_csv([FORM, {**FORM, "customer_age": None}]),
        "\ufeff" + as_csv([FORM, {**FORM, "customer_age": None}], newline="\r\n"),
        as_csv([FORM, {**FORM, "customer_age": None}], ";"),
        as_csv([FORM, {**FORM, "customer_age": None}], "\t") + "\n\n",
    ],
)
async def test_csv_is_taken_as_spreadsheets_write_it(api, text):
    first, second = lines(await post(api, "/v1/predict/batch" + KEPT_NOT, text.encode(), CSV))
    single = (await post(api, "/v1/predict" + KEPT_NOT, FORM)).json()
    for name in ("expected_value", "p_active", "percentile"):
        assert float(first[name]) == single[name]
    assert (first["segment"], first["stored"], first["errors"]) == (single["segment"], "false", "")
    assert (first["customer_age"], second["customer_age"]) == ("41.0", "")


async def test_rows_of_csv_keep_their_order_and_say_what_is_wrong_with_them(api):
    text = as_csv([FORM, {**FORM, "total_orders": "9,5"}, FORM], ";") + "1;2\n" + as_csv([FORM], ";").partition("\n")[2]
    found = lines(await post(api, "/v1/predict/batch" + KEPT_NOT, text, CSV))
    assert [each["row"] for each in found] == ["0", "1", "2", "3", "4"]
    assert found[1]["errors"] == "total_orders is no number: decimals are written with a point"
    assert found[3]["errors"] == "has 2 cells, the header has 7"
    assert [bool(each["expected_value"]) for each in found] == [True, False, True, False, True]


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (b"", "first line"),
        (b"\xff\xfe", "UTF-8"),
        (b"shoe_size\n1\n", "unknown columns"),
        ((",".join(INPUT_NAMES) + ",total_orders\n").encode(), "twice"),
        (",".join(INPUT_NAMES[:-1]).encode() + b"\n", "lacks columns: frequency_score"),
        (as_csv([]).encode(), "no row"),
        (as_csv([FORM]).encode() + b'"1', "line 3"),
    ],
)
async def test_csv_that_cannot_be_read_as_a_whole_says_why(api, text, word):
    assert word in problem(await post(api, "/v1/predict/batch" + KEPT_NOT, text, CSV), 422)["detail"]


@pytest.mark.parametrize(
    ("sent", "accept", "kind"),
    [
        (CSV, "application/json", "application/json"),
        (JSON, "text/csv", "text/csv; charset=utf-8"),
        (JSON, "*/*", "application/json"),
        (CSV, "*/*", "text/csv; charset=utf-8"),
        (JSON, "text/csv;q=0.1, application/json", "application/json"),
    ],
)
async def test_accept_decides_what_the_answer_is(api, sent, accept, kind):
    body = as_csv([FORM]) if sent is CSV else {"rows": [FORM]}
    answer = await post(api, "/v1/predict/batch" + KEPT_NOT, body, {**sent, "accept": accept})
    assert answer.headers["content-type"] == kind


async def test_more_rows_than_a_batch_may_have_are_refused(api):
    small = dict.fromkeys(INPUT_NAMES, 1)
    assert problem(await post(api, "/v1/predict/batch" + KEPT_NOT, {"rows": [small] * 10_001}), 422)
    problem(await post(api, "/v1/predict/batch" + KEPT_NOT, as_csv([small] * 10_001), CSV), 413)
    problem(await post(api, "/v1/predict/batch" + KEPT_NOT, {"rows": []}), 422)


@settings(max_examples=tries(60), deadline=None)
@given(text=st.text(max_size=300) | st.text(alphabet=',;"\n\r0123456789.e-+', max_size=200))
def test_no_text_whatever_is_a_fault_of_the_service(app, text):
    async def ask() -> list[httpx.Response]:
        async with client(app) as api:
            below = as_csv([]) + text
            return [
                await post(api, "/v1/predict/batch" + KEPT_NOT, each.encode("utf-8", "replace"), CSV)
                for each in (text, below)
            ]

    assert {each.status_code for each in asyncio.run(ask())} <= {200, 422}
