"""Predictions of forms by the real API process: what is kept in MongoDB, which model and which population they follow,
and what happens while servers are away."""

import asyncio
import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pymongo import MongoClient

from deploy.local.mongo import LocalMongo
from deploy.local.processes import ServiceProcess
from domain.features import INPUT_NAMES
from schemas.http_api.predict import WhatIfPrediction
from schemas.model_bundle import OUTPUT_NAMES
from schemas.mongo import WHAT_IF_PREDICTIONS
from schemas.segment_thresholds import PopulationSketch, encode_sketch
from schemas.topics import SEGMENT_THRESHOLDS
from services.inference.profile_model import load_profile, what_if
from services.inference.ranking import sketch_of
from services.runtime.bundle import point_to
from services.runtime.http.key_file import Scope, encode_keys, new_key
from services.runtime.registry import Registry, connect
from tests.bundles import HORIZON_DAYS, graph, write_bundle
from tests.support import metric, produce, wait_for
from tests.unit.api.forms import FORM
from tests.unit.trainer.profile.small import trained

pytestmark = pytest.mark.integration

Start = Callable[..., ServiceProcess]


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    point_to(folder, write_bundle(folder))
    return folder


@pytest.fixture
def start(service: Any, models: Path, topics: str, mongo: LocalMongo, mongo_database: str) -> Start:
    """Start the API; `more` are settings."""

    def started(**more: str) -> ServiceProcess:
        process: ServiceProcess = service(
            "api",
            {
                "CLV_KAFKA_BOOTSTRAP_SERVERS": topics,
                "CLV_MONGO_URI": mongo.uri,
                "CLV_MONGO_DATABASE": mongo_database,
                "CLV_MODELS_DIR": str(models),
                "CLV_HTTP_REQUESTS_PER_SECOND": "0",
                "CLV_API_WHAT_IF_WAIT_MS": "2000",
                **more,
            },
        )
        return process

    return started


@pytest.fixture
def kept(mongo: LocalMongo, mongo_database: str) -> Iterator[Any]:
    """The collection, read as a majority has it."""
    with MongoClient[Any](mongo.uri, tz_aware=True, tzinfo=UTC) as client:
        yield client[mongo_database][WHAT_IF_PREDICTIONS]


def post(process: ServiceProcess, path: str, body: Any, **headers: str) -> tuple[int, Any]:
    request = urllib.request.Request(
        f"http://127.0.0.1:{process.port}{path}",  # type: ignore[attr-defined]
        json.dumps(body).encode(),
        {"content-type": "application/json", **{name.replace("_", "-"): value for name, value in headers.items()}},
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_an_answer_is_kept_with_all_that_led_to_it_for_a_limited_time(start, kept, tmp_path):
    made = new_key("shop", [Scope.PREDICT], datetime.now(UTC))
    keys = tmp_path / "keys"
    keys.write_text(encode_keys([made.record]))
    api = start(CLV_HTTP_KEYS_FILE=str(keys), CLV_API_WHAT_IF_DAYS="7")
    status, answer = post(api, "/v1/predict", FORM, x_api_key=made.key, x_request_id="r-1")
    assert status == 200
    assert answer["stored"] is True
    (document,) = kept.find()
    assert document["_id"] == answer["prediction_id"]
    assert (document["request_id"], document["key_id"], document["row"]) == ("r-1", made.record.id, None)
    assert document["expires_at"] - document["created_at"] == timedelta(days=7)
    assert abs(datetime.now(UTC) - document["created_at"]) < timedelta(minutes=1)
    assert document["inputs"] == answer["inputs"]
    assert {name: document["features"][name] for name in answer["features"]} == answer["features"]
    assert document["features"]["as_of_year_day"] == datetime.fromisoformat(answer["as_of"]).timetuple().tm_yday
    assert set(document["outcomes"]) == set(OUTPUT_NAMES)
    assert document["outcomes"]["expected_value"] == answer["expected_value"]
    assert document["ranking"] == {"thresholds": answer["segment_thresholds"], "customers": None}
    left_out = {"prediction_id", "as_of", "inputs", "features", "warnings", "stored", "explanation", "model_version"}
    assert set(document["prediction"]) == set(WhatIfPrediction.model_fields) - left_out
    assert all(document["prediction"][name] == answer[name] for name in document["prediction"])
    (expiry,) = [each for each in kept.index_information().values() if "expireAfterSeconds" in each]
    assert (expiry["key"], expiry["expireAfterSeconds"]) == ([("expires_at", 1)], 0)


def test_what_is_not_to_be_kept_is_not(start, kept):
    api = start()
    for path in ("/v1/predict?store=false", "/v1/predict/batch?store=false"):
        body = FORM if path.startswith("/v1/predict?") else {"rows": [FORM]}
        status, answer = post(api, path, body)
        assert status == 200
        assert '"stored": false' in json.dumps(answer)
    status, answer = post(api, "/v1/predict", FORM)  # what came before would be there by now
    assert answer["stored"] is True
    assert kept.count_documents({}) == 1


def test_a_batch_is_kept_row_by_row(start, kept):
    api = start()
    rows = [{**FORM, "average_order_value": value} for value in range(1, 701)]
    rows[5] = {**FORM, "total_orders": 0}
    status, answer = post(api, "/v1/predict/batch", {"rows": rows}, x_request_id="batch-1")
    assert (status, answer["accepted"], answer["rejected"]) == (200, 699, 1)
    assert all(each["prediction"]["stored"] for each in answer["rows"] if each["prediction"])
    found = {each["row"]: each for each in kept.find({"request_id": "batch-1"})}
    assert set(found) == set(range(700)) - {5}
    assert all(found[row]["inputs"]["average_order_value"] == row + 1 for row in found)
    assert found[0]["_id"] == answer["rows"][0]["prediction"]["prediction_id"]


def test_another_model_is_taken_into_use_without_a_request_that_fails(start, models):
    scale = {write_bundle(models, graph(each)): each for each in (1.0, 3.0)}
    api = start(CLV_API_MODEL_POLL_SECONDS="0.05")
    answers: list[tuple[int, Any]] = []
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            answers.append(post(api, "/v1/predict?store=false", FORM))

    clients = [threading.Thread(target=ask) for _ in range(4)]
    for client in clients:
        client.start()
    try:
        for turn in range(8):
            version = list(scale)[turn % 2]
            point_to(models, version)
            wait_for(
                lambda version=version: bool(answers) and answers[-1][1].get("model_version") == version,
                f"model {version} to answer",
            )
    finally:
        over.set()
        for client in clients:
            client.join()
    assert {status for status, _ in answers} == {200}
    assert {answer["model_version"] for _, answer in answers} == set(scale)
    for _, answer in answers:  # no answer is by half of one model and half of another
        orders = FORM["purchase_frequency"] * 3 * scale[answer["model_version"]]
        assert answer["expected_orders"] == pytest.approx(orders)
        assert answer["expected_value"] == pytest.approx(orders * FORM["average_order_value"])


def test_a_bundle_that_cannot_be_used_leaves_the_former_in_use(start, models):
    api = start(CLV_API_MODEL_POLL_SECONDS="0.05")
    former = post(api, "/v1/predict?store=false", FORM)[1]["model_version"]
    broken = write_bundle(models, graph(5.0))
    (models / broken / "model.onnx").write_bytes(b"no graph")
    point_to(models, broken)
    wait_for(lambda: "model_refused" in api.log_tail(50), "the bundle to be refused")
    status, answer = post(api, "/v1/predict?store=false", FORM)
    assert (status, answer["model_version"]) == (200, former)


def test_rank_and_segment_follow_the_live_population_of_the_model_in_use(start, models, topics):
    api = start(CLV_API_THRESHOLDS_SECONDS="0.1", CLV_API_MIN_POPULATION="100")
    before = post(api, "/v1/predict?store=false", FORM)[1]

    def publish(partition: int, model_version: str, values: np.ndarray) -> None:
        sketch = PopulationSketch(
            partition=partition,
            model_version=model_version,
            customers=len(values),
            made_at_ms=0,
            sketch=sketch_of(values),
        )
        produce(topics, SEGMENT_THRESHOLDS, [(str(partition).encode(), encode_sketch(sketch))])

    publish(0, "0" * 16, np.full(1000, 1e9))  # another model's
    publish(1, before["model_version"], np.linspace(0, 100, 60))  # too few
    time.sleep(1.0)
    assert post(api, "/v1/predict?store=false", FORM)[1]["segment_thresholds"] == before["segment_thresholds"]
    publish(0, before["model_version"], np.linspace(0, 1000, 1001))
    publish(1, before["model_version"], np.linspace(0, 1000, 1001))

    def followed() -> bool:  # the one partition may be read before the other
        found = post(api, "/v1/predict?store=false", FORM)[1]["segment_thresholds"]
        return bool(found == pytest.approx([250, 500, 750], abs=15))

    wait_for(followed, "the population of both partitions to be followed")
    after = post(api, "/v1/predict?store=false", FORM)[1]
    assert after["segment_thresholds"] == pytest.approx([250, 500, 750], abs=15)
    assert after["percentile"] == pytest.approx(after["expected_value"] / 10, abs=1.5)
    assert after["expected_value"] == before["expected_value"]


def test_while_mongodb_is_away_forms_are_answered_in_time_and_what_was_answered_is_kept_later(start, kept, mongo):
    api = start(CLV_API_WHAT_IF_WAIT_MS="20")
    wait_for(lambda: post(api, "/v1/predict", FORM)[1]["stored"] is True, "an answer that is stored")
    stored_before = kept.count_documents({})
    mongo.pause()
    try:
        found = []
        for _ in range(20):
            began = time.monotonic()
            status, answer = post(api, "/v1/predict", FORM)
            found.append((status, answer["stored"], answer["prediction_id"]))
            assert time.monotonic() - began < 2.0
        assert {each[:2] for each in found} == {(200, False)}
    finally:
        mongo.resume()
    wait_for(lambda: kept.count_documents({}) >= stored_before + 20, "what was answered meanwhile to be kept")
    assert {each[2] for each in found} <= {each["_id"] for each in kept.find({}, {"_id": 1})}


def test_what_waits_for_mongodb_is_bounded_and_what_is_dropped_is_counted(start, mongo):
    api = start(CLV_API_WHAT_IF_WAIT_MS="0", CLV_API_WHAT_IF_WAITING_MAX="5")
    post(api, "/v1/predict", FORM)
    wait_for(lambda: metric(api, "clv_what_if_stored_total", outcome="stored") == 1, "the first to be stored")
    mongo.pause()
    try:
        assert {post(api, "/v1/predict", FORM)[0] for _ in range(12)} == {200}
        assert metric(api, "clv_what_if_stored_total", outcome="dropped") == 7
    finally:
        mongo.resume()
    wait_for(lambda: metric(api, "clv_what_if_stored_total", outcome="stored") >= 6, "the others to be stored")


def test_a_service_that_is_stopped_first_writes_what_it_answered(start, kept):
    api = start(CLV_API_WHAT_IF_WAIT_MS="0")
    ids = {post(api, "/v1/predict", FORM)[1]["prediction_id"] for _ in range(50)}
    api.stop()
    assert api.exit_code == 0
    assert {each["_id"] for each in kept.find({}, {"_id": 1})} == ids


def test_the_horizon_and_every_input_come_back(start):
    status, answer = post(start(), "/v1/predict?store=false", FORM)
    assert (status, answer["horizon_days"]) == (200, HORIZON_DAYS)
    assert answer["inputs"] == {name: float(FORM[name]) for name in INPUT_NAMES}


def test_forms_are_answered_by_the_champion_of_the_registry_and_follow_its_promotion(
    start, models, mongo, mongo_database, tmp_path
):
    made = tmp_path / "made"
    first, second = write_bundle(made, graph(2.0)), write_bundle(made, graph(4.0))
    copies = tmp_path / "copies"
    copies.mkdir()

    async def champion(version: str) -> None:
        client = connect(mongo.uri)
        try:
            registry = Registry(client, mongo_database)
            await registry.register(made / version, "test")
            await registry.promote(version, "test", "it is better")
        finally:
            client.close()

    asyncio.run(champion(first))
    api = start(CLV_API_REGISTRY="true", CLV_MODELS_DIR=str(copies), CLV_API_MODEL_POLL_SECONDS="0.1")

    def answered_by() -> Any:
        return post(api, "/v1/predict?store=false", FORM)[1].get("model_version")

    wait_for(lambda: answered_by() == first, "the champion to answer")
    asyncio.run(champion(second))
    wait_for(lambda: answered_by() == second, "the new champion to answer")
    assert post(api, "/v1/predict?store=false", FORM)[1]["expected_orders"] == pytest.approx(
        FORM["purchase_frequency"] * 3 * 4.0
    )


def test_the_profile_models_value_stands_beside_the_prediction(start):
    profile = trained().folder
    api = start(CLV_API_PROFILE_DIR=str(profile))
    status, answer = post(api, "/v1/predict?store=false", FORM)
    model = load_profile(profile, "USD")
    assert status == 200
    assert answer["profile_value"] == pytest.approx(what_if(model, {name: FORM[name] for name in INPUT_NAMES}))
    assert answer["profile_value"] == pytest.approx(FORM["total_orders"] * FORM["average_order_value"], rel=0.05)
    assert answer["profile_model_version"] == model.head.model_version
    status, batch = post(api, "/v1/predict/batch?store=false", {"rows": [FORM]})
    assert (status, batch["rows"][0]["prediction"]["profile_value"]) == (200, answer["profile_value"])
