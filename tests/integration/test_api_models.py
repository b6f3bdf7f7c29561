"""Segments, models and explanations over HTTP: a real API process, a real registry, a bundle that was trained."""

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo import MongoClient

from deploy.local.kafka import LocalKafka
from deploy.local.mongo import LocalMongo
from deploy.local.processes import ServiceProcess
from domain.customer import OrderPlaced, fold
from domain.drift import reference as reference_of
from domain.features import FEATURE_NAMES, date_of
from schemas.customer_features import feature_matrix
from schemas.model_bundle import OUTPUT_NAMES
from schemas.mongo import CHALLENGER_PREDICTIONS, MATURED_PREDICTIONS, challenger_id
from services.api.segments.sums import flows_pipeline, summary_pipeline
from services.inference.model import load_model
from services.runtime.bundle import read_head
from services.runtime.registry import Registry
from tests.bundles import AS_OF_DAY, graph, write_bundle
from tests.integration.api_support import NOW, Seeder, ask, customer_path, ok, order_days, predicted, running_api
from tests.support import wait_for

pytestmark = pytest.mark.integration
DATABASE = "clv_api_models"
STATES = [
    fold(
        OrderPlaced(f"o{at}", 1_000 + 100 * number, when)
        for at, when in enumerate(order_days(*range(3, 40 + number, 9)))
    )
    for number in range(60)
]


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def bundle(models_dir: Path) -> str:
    """A bundle with all that a trained one keeps, made by hand so that the figures are known."""
    rows = np.array([[each if each is not None else np.nan for each in features] for features in _known_features()])
    reference = {}
    for place, name in enumerate(FEATURE_NAMES):
        column = rows[:, place]
        there = column[~np.isnan(column)]
        reference[name] = {
            "deciles": [float(each) for each in np.quantile(there, np.linspace(0, 1, 11))] if len(there) else [],
            **msgspec.to_builtins(reference_of(column)),
        }
    bands = [
        {"band": band, "customers": 12.5, "predicted_mean": 10.0 * band, "actual_mean": 9.0 * band}
        for band in range(1, 11)
    ]
    version = write_bundle(
        models_dir,
        cutoff="2024-01-01",
        holdout={"from": "2023-10-01", "days": 90, "metrics": {"model": {"mae": 12.5}}},
        backtests=[{"deciles": [], "gains": []}, {"deciles": bands, "gains": [[0.0, 0.0], [0.5, 0.9], [1.0, 1.0]]}],
        reference=reference,
        explanation_reference=[[None if np.isnan(each) else float(each) for each in row] for row in rows[:8]],
    )
    (models_dir / version / "model_card.html").write_text("<!doctype html><title>card</title><h1>A card</h1>")
    (models_dir / "current").write_text(version)
    return version


def _known_features() -> list[list[float | None]]:
    return [list(predicted("c", 1.0, state=state).features.values()) for state in STATES]


@pytest.fixture(scope="module")
def api(kafka: LocalKafka, mongo: LocalMongo, models_dir: Path, bundle: str) -> Iterator[ServiceProcess]:
    with running_api(
        kafka.bootstrap_servers,
        mongo.uri,
        DATABASE,
        models_dir,
        CLV_API_SUMMARY_SECONDS="0.01",
        CLV_API_MODEL_FACTS_SECONDS="0.01",
        CLV_API_DRIFT_MIN_CUSTOMERS="50",
    ) as process:
        yield process


@pytest.fixture
def seeder(mongo: LocalMongo, api: ServiceProcess, bundle: str) -> Seeder:
    """Of an empty database, which the API has seen: an answer that took long stands for a while."""
    found = Seeder(mongo.uri, DATABASE)
    found.collections()
    with MongoClient[dict[str, Any]](mongo.uri) as client:
        for name in ("models", "model_pointer", "model_bundles.files", "model_bundles.chunks"):
            client[DATABASE][name].delete_many({})
    wait_for(lambda: [row["version"] for row in ok(api, "/v1/models")["models"]] == [bundle], "the former models to go")
    return found


async def register(mongo: LocalMongo, folder: Path, champion: str | None = None, challenger: str | None = None) -> None:
    client: AsyncIOMotorClient[Any] = AsyncIOMotorClient(mongo.uri, tz_aware=True)
    registry = Registry(client, DATABASE)
    await registry.register(folder, "somebody")
    if champion is not None:
        await registry.promote(champion, "somebody")
    if challenger is not None:
        await registry.challenge(challenger, "somebody")
    client.close()


# ---------------------------------------------------------------- segments


def test_segments_add_up_to_the_population(api: ServiceProcess, seeder: Seeder) -> None:
    values = [0.0, 5.0, 39.9, 40.0, 60.0, 95.0, 150.0, 200.0, 1_000.0, 25_000.0]
    seeder.predictions(predicted(f"c{at}", value, historical_value=at or None) for at, value in enumerate(values))
    found = ok(api, "/v1/segments")
    assert (found["customers"], found["currency"], found["horizon_days"]) == (10, "USD", 90)
    assert found["expected_value"] == pytest.approx(sum(values))
    assert found["as_of"] == "2024-03-18"
    assert found["thresholds"] == [40.0, 90.0, 200.0]
    assert [(each["segment"], each["customers"]) for each in found["segments"]] == [
        ("high_value", 3), ("medium_high_value", 2), ("medium_value", 2), ("at_risk", 3),
    ]  # fmt: skip
    assert found["segments"][3]["historical_value"] == 3.0
    assert found["segments"][3]["mean_expected_value"] == pytest.approx(44.9 / 3)
    for each in found["segments"]:
        inside = [value for value in values if (each["from_value"] or -1) <= value < (each["to_value"] or 1e99)]
        for part in each["distribution"]:
            assert part["customers"] == sum(part["from_value"] <= value < part["to_value"] for value in inside)
        assert sum(part["customers"] for part in each["distribution"]) == each["customers"]
    assert found["migration"] is None


def test_a_migration_goes_by_the_last_prediction_as_of_each_date(api: ServiceProcess, seeder: Seeder) -> None:
    first, last = AS_OF_DAY - 30, AS_OF_DAY
    stays = [predicted("stays", 500.0, events=1, day=first - 3), predicted("stays", 600.0, events=1, day=last)]
    rises = [
        predicted("rises", 10.0, events=1, day=first - 9),
        predicted("rises", 50.0, events=2, day=first),
        predicted("rises", 10.0, events=2, day=first + 1),
        predicted("rises", 500.0, events=3, day=last - 2),
        predicted("rises", 10.0, events=4, day=last + 1),
    ]
    is_new = [predicted("new", 100.0, events=1, day=first + 5)]
    comes_later = [predicted("later", 100.0, events=1, day=last + 5)]
    seeder.predictions([*stays, *rises, *is_new, *comes_later])
    days = f"from={date_of(first)}&to={date_of(last)}"
    wait_for(lambda: ok(api, "/v1/segments")["customers"] == 4, "the four customers to be seen")
    found = ok(api, f"/v1/segments?{days}")
    assert found["migration"]["flows"] == [
        {"from_segment": "high_value", "to_segment": "high_value", "customers": 1},
        {"from_segment": "medium_value", "to_segment": "high_value", "customers": 1},
        {"from_segment": None, "to_segment": "medium_high_value", "customers": 1},
    ]
    assert found["first_date"] == date_of(first - 9).isoformat()


@pytest.mark.parametrize(
    ("query", "field"),
    [("from=2024-01-01", "to"), ("to=2024-01-01", "from"), ("from=2024-02-01&to=2024-01-01", "from")],
)
def test_a_migration_needs_two_dates_in_order(api: ServiceProcess, seeder: Seeder, query: str, field: str) -> None:
    answer = ask(api, f"/v1/segments?{query}")
    assert answer.status == 422
    assert [each["field"] for each in answer.body["errors"]] == [field]


def test_sums_are_read_from_one_index_alone(seeder: Seeder, mongo: LocalMongo) -> None:
    seeder.predictions(predicted(f"c{at}", float(at)) for at in range(100))
    with MongoClient[dict[str, Any]](mongo.uri) as client:
        for collection, pipeline, index in (
            ("customers", summary_pipeline([0.0, 10.0, 100.0]), "segments_by_value"),
            ("prediction_history", flows_pipeline("2024-01-01", "2024-12-31"), "segments_by_day"),
        ):
            command = {"aggregate": collection, "pipeline": pipeline, "cursor": {}, "hint": index}
            explained = client[DATABASE].command("explain", command, verbosity="executionStats")
            stats = (
                explained["stages"][0]["$cursor"]["executionStats"]
                if "stages" in explained
                else explained["executionStats"]
            )
            assert stats["totalKeysExamined"] >= 100
            assert stats["totalDocsExamined"] == 0, collection


# ---------------------------------------------------------------- models


def test_without_a_registry_the_bundle_in_use_is_told(api: ServiceProcess, seeder: Seeder, bundle: str) -> None:
    found = ok(api, "/v1/models")
    assert (found["champion"], found["challenger"]) == (bundle, None)
    assert [row["version"] for row in found["models"]] == [bundle]
    assert found["models"][0]["registered_at"] is None
    assert found["models"][0]["metrics"]["metrics"]["model"]["mae"] == 12.5
    detail = ok(api, f"/v1/models/{bundle}")
    assert detail["has_card"] is True
    assert [row["decile"] for row in detail["deciles"]] == list(range(1, 11))
    assert (detail["deciles"][0]["predicted"], detail["deciles"][0]["realised"]) == (100.0, 90.0)
    assert detail["gains"][1] == {"customers_share": 0.5, "value_share": 0.9}
    assert (detail["drift"], detail["realised"], detail["comparison"]) == ([], [], None)
    card = ask(api, f"/v1/models/{bundle}/card")
    assert card.status == 200
    assert card.headers["content-type"].startswith("text/html")
    assert "sandbox" in card.headers["content-security-policy"]
    assert "A card" in card.body


def test_the_registry_decides_which_models_there_are(
    api: ServiceProcess, seeder: Seeder, mongo: LocalMongo, tmp_path: Path
) -> None:
    first = write_bundle(tmp_path, holdout={"days": 60})
    second = write_bundle(tmp_path, graph(2.0), holdout={"days": 61})
    (tmp_path / second / "model_card.html").write_text("<h1>Second</h1>")
    asyncio.run(register(mongo, tmp_path / first, champion=first))
    asyncio.run(register(mongo, tmp_path / second, challenger=second))
    wait_for(lambda: ok(api, "/v1/models")["challenger"] == second, "the registry to be seen")
    found = ok(api, "/v1/models")
    assert (found["champion"], found["challenger"]) == (first, second)
    assert {row["version"]: row["status"] for row in found["models"]} == {first: "champion", second: "challenger"}
    values = [10.0, 20.0, 30.0, 40.0]
    seeder.predictions(predicted(f"c{at}", value, model=first) for at, value in enumerate(values))
    with MongoClient[dict[str, Any]](mongo.uri) as client:
        client[DATABASE][CHALLENGER_PREDICTIONS].insert_many(
            {
                "_id": challenger_id(f"c{at}", second),
                "customer_id": f"c{at}",
                "feature_version": predicted("x", 1.0).feature_version,
                "prediction": {"model_version": second, "expected_value": value * 2, "p_active": 0.5},
            }
            for at, value in enumerate(values)
        )
        client[DATABASE][MATURED_PREDICTIONS].insert_many(
            {
                "_id": str(at),
                "customer_id": f"c{at}",
                "model_version": first,
                "week": at,
                "compared_at": NOW,
                "expected_value": 10.0,
                "realised_value": 4.0 * at,
                "realised_orders": at,
                "value_p10": 1.0,
                "value_p90": 9.0,
                "p_active": 0.5,
            }
            for at in range(4)
        )
    detail = ok(api, f"/v1/models/{second}")
    assert detail["comparison"] == {
        "champion": first,
        "challenger": second,
        "customers": 4,
        "champion_total": 100.0,
        "challenger_total": 200.0,
        "rank_correlation": pytest.approx(1.0),
        "mean_difference": 25.0,
        "segment_differs": 0.0,
    }
    assert detail["realised"] == [
        {
            "model_version": first,
            "customers": 4,
            "predicted": 40.0,
            "realised": 24.0,
            "mean_absolute_error": 5.0,
            "share_above_p90": 0.25,
            "share_below_p10": 0.25,
        }
    ]
    assert detail["model"]["metrics"] == {"days": 61}
    assert ask(api, f"/v1/models/{second}/card").body == "<h1>Second</h1>"
    assert ask(api, f"/v1/models/{first}/card").status == 404
    assert ask(api, "/v1/models/0000000000000000").status == 404
    assert ask(api, "/v1/models/..%2F..%2Fetc").status == 404
    assert ask(api, "/v1/models/xyz").status == 422


def test_drift_is_told_once_there_are_enough_customers(api: ServiceProcess, seeder: Seeder, bundle: str) -> None:
    seeder.predictions(predicted(f"c{at}", 1.0, state=state) for at, state in enumerate(STATES[:49]))
    assert ok(api, f"/v1/models/{bundle}")["drift"] == []
    seeder.predictions(predicted(f"c{at}", 1.0, state=state) for at, state in enumerate(STATES))

    def drift() -> dict[str, float]:
        return {each["name"]: each["psi"] for each in ok(api, f"/v1/models/{bundle}")["drift"]}

    wait_for(lambda: bool(drift()), "enough customers to be seen")
    same = drift()
    assert set(same) == set(FEATURE_NAMES) - {"as_of_year_day"}
    assert max(same.values()) < 0.1
    seeder.predictions(
        predicted(f"c{at}", 1.0, state=fold([OrderPlaced("o", 90_000, order_days(300)[0])]), events=9)
        for at in range(len(STATES))
    )
    wait_for(lambda: drift() != same, "the customers' change to be seen")
    moved = drift()
    assert moved["recency_days"] > 1
    assert list(moved.values()) == sorted(moved.values(), reverse=True)
    assert ok(api, f"/v1/models/{bundle}")["drift_customers"] == len(STATES)


# ---------------------------------------------------------------- explanations


@pytest.mark.parametrize("output", OUTPUT_NAMES)
def test_an_explanation_adds_up_to_the_stored_prediction(
    api: ServiceProcess, seeder: Seeder, bundle: str, models_dir: Path, output: str
) -> None:
    message = predicted("c", 1.0, state=STATES[5], model=bundle)
    outcome = load_model(models_dir / bundle, "USD").predict(feature_matrix([message.features]))
    seeder.predictions([message])
    found = ok(api, customer_path("c", f"/explanation?output={output}"))
    assert found["model_version"] == bundle
    assert found["prediction"] == pytest.approx(getattr(outcome, output)[0])
    assert found["base"] + sum(each["amount"] for each in found["contributions"]) == pytest.approx(found["prediction"])
    assert found["base"] + sum(each["amount"] for each in found["unions"]) == pytest.approx(found["prediction"])
    assert (found["customer_id"], found["as_of"]) == ("c", "2024-03-18")


def test_a_prediction_is_explained_by_the_model_that_made_it_or_not_at_all(
    api: ServiceProcess, seeder: Seeder, mongo: LocalMongo, models_dir: Path, bundle: str, tmp_path: Path
) -> None:
    other = shutil.copytree(models_dir / bundle, tmp_path / "copy")
    metadata = msgspec.json.decode((other / "metadata.json").read_bytes())
    del metadata["model_version"]
    version = write_bundle(tmp_path, graph(3.0), **metadata)
    seeder.predictions([predicted("c", 1.0, state=STATES[5], model=version)])
    gone = ask(api, customer_path("c", "/explanation"))
    assert gone.status == 409
    assert version in gone.body["detail"]
    asyncio.run(register(mongo, tmp_path / version))
    assert ok(api, customer_path("c", "/explanation"))["model_version"] == version
    assert not (models_dir / version).exists()  # the folder of others is left alone
    assert read_head(models_dir / bundle).model_version == bundle
