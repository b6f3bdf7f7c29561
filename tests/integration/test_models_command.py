"""`./clv models` as an operator runs it, against a real MongoDB; what it compares is recomputed by other means."""

import json
import random
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pymongo import MongoClient
from scipy.stats import spearmanr
from typer.testing import CliRunner

from cli.__main__ import app
from deploy.local.folders import free_ports
from deploy.local.mongo import LocalMongo
from schemas.mongo import CHALLENGER_PREDICTIONS, MATURED_PREDICTIONS, PREDICTION_HISTORY, challenger_id
from schemas.predictions import prediction_id
from services.runtime.bundle import challenger_bundle, current_bundle, point_to
from services.runtime.shutdown import KnownProblem
from tests.bundles import graph, write_bundle

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]


@pytest.fixture
def clv(mongo: LocalMongo, mongo_database: str):
    """Run a command of `./clv models` in this process; its standard output. fails: the one line that it must end with
    says this. That such a line means exit code 2 is tested with a process of its own below."""

    def run(*arguments: str, fails: str | None = None) -> str:
        environment = {"CLV_MONGO_URI": mongo.uri, "CLV_MONGO_DATABASE": mongo_database, "COLUMNS": "200"}
        done = CliRunner().invoke(app, ["models", *arguments], env=environment)
        if fails is None:
            assert done.exception is None, done.exception
            return done.stdout
        assert isinstance(done.exception, KnownProblem), (done.exception, done.stdout)
        assert fails in str(done.exception)
        assert "\n" not in str(done.exception)
        return ""

    return run


@pytest.fixture
def trained(tmp_path: Path) -> tuple[Path, list[str]]:
    folder = tmp_path / "trained"
    quality = {"from": "2026-01-01", "days": 90, "metrics": {"model": {"mae": 31.5, "ngini": 0.7}}}
    return folder, [write_bundle(folder, graph(scale=scale), holdout=quality) for scale in (1.0, 2.0, 3.0)]


def test_the_life_of_three_models(clv, trained, tmp_path: Path):
    folder, (one, two, three) = trained
    point_to(folder, one)
    assert "no model is registered" in clv("list")
    clv("rollback", fails="no former champion")
    assert "it is the champion, as there was none" in clv("register", str(folder))
    assert "is registered" in clv("register", str(folder / two), "--by", "ann")
    assert "was registered already" in clv("register", str(folder / two))
    clv("register", str(folder / three))
    clv("register", str(tmp_path), fails="no model in")
    clv("challenge", fails="name one model")
    assert f"champion {one}, challenger {two}" in clv("challenge", two)
    assert f"champion {one}, challenger {two}" in clv("fetch", str(tmp_path / "cache"))
    assert (current_bundle(tmp_path / "cache").name, challenger_bundle(tmp_path / "cache").name) == (one, two)
    assert f"champion {two}, challenger –" in clv("promote", two[:8], "--by", "ann", "--why", "better on trial")
    clv("promote", two, fails="is the champion already")
    clv("promote", "nothing", fails="no model in the registry is 'nothing'")
    assert f"champion {three}" in clv("promote", three)
    assert f"champion {two}" in clv("rollback", "--why", "three was worse")
    found = json.loads(clv("list", "--json"))
    assert {each["version"]: each["status"] for each in found["models"]} == {
        one: "archived",
        two: "champion",
        three: "archived",
    }
    assert (found["pointer"]["champion"], found["pointer"]["former"]) == (two, [one])
    (shown,) = [line for line in clv("list").splitlines() if line.split()[:1] == [two]]
    assert shown.split()[:2] == [two, "champion"]
    assert shown.split()[-2:] == ["31.500", "0.700"]
    story = [line.split("  ")[-1] for line in clv("show", two).splitlines()[1:]]
    assert [each.split(" by ")[0] for each in story] == [
        "registered",
        "registered → challenger",
        "challenger → champion",
        "champion → archived",
        "archived → champion",
    ]
    assert story[2].endswith("by ann: better on trial")


def test_a_bundle_that_scorers_would_refuse_does_not_come_into_question(clv, tmp_path: Path):
    broken = write_bundle(tmp_path, segment_thresholds=(3.0, 2.0, 1.0))
    clv("register", str(tmp_path / broken), fails="segment_thresholds are not ascending")
    assert json.loads(clv("list", "--json"))["models"] == []


def test_models_are_compared_on_the_customers_that_both_have_seen(clv, trained, mongo: LocalMongo, mongo_database: str):
    folder, (one, two, _) = trained
    for version in (one, two):
        clv("register", str(folder / version))
    clv("compare", fails="there is no champion or no challenger")
    clv("challenge", two)
    chance = random.Random(4)
    pairs: list[tuple[float, float, float, float]] = []
    with MongoClient(mongo.uri) as client:
        database = client[mongo_database]
        told, said = [], []
        for number in range(5000):
            name, value = f"c{number}", chance.choice([0.0, chance.lognormvariate(3, 1)])
            its, active = 0.8 * value + chance.uniform(0, 9), chance.random()
            challengers = {"model_version": two, "expected_value": its, "p_active": active}
            told.append(
                {"_id": challenger_id(name, two), "customer_id": name, "feature_version": 7, "prediction": challengers}
            )
            seen = 7 if number % 5 else 8  # of every fifth the champion saw other features
            champions = {"model_version": one, "expected_value": value, "p_active": active / 2}
            said.append(
                {
                    "_id": prediction_id(name, seen, one),
                    "customer_id": name,
                    "feature_version": seen,
                    "prediction": champions,
                }
            )
            if seen == 7:
                pairs.append((value, its, active / 2, active))
        database[CHALLENGER_PREDICTIONS].insert_many(told)
        database[PREDICTION_HISTORY].insert_many(said)
        for number, (predicted, came) in enumerate([(10.0, 0.0), (10.0, 40.0), (20.0, 20.0)]):
            database[MATURED_PREDICTIONS].insert_one(
                {
                    "_id": str(number),
                    "model_version": one,
                    "compared_at": datetime(2026, 5, 1, tzinfo=UTC),
                    "expected_value": predicted,
                    "realised_value": came,
                    "realised_orders": int(came > 0),
                    "p_active": 0.5,
                    "value_p10": 0.0,
                    "value_p90": 30.0,
                }
            )
    found: dict[str, Any] = json.loads(clv("compare", "--json"))
    first, second, active_first, active_second = np.array(pairs).T
    same = found["on_same_customers"]
    assert same["customers"] == 4000
    assert (same["total_first"], same["total_second"]) == pytest.approx((first.sum(), second.sum()))
    assert same["rank_correlation"] == pytest.approx(spearmanr(first, second).statistic)
    assert same["mean_difference"] == pytest.approx(np.mean([abs(b - a) for a, b, _, _ in pairs]))
    assert same["active_difference"] == pytest.approx(np.mean(active_second - active_first))

    def quarter(values: Any, value: float) -> int:
        return sum(value >= border for border in np.quantile(values, [0.25, 0.5, 0.75]))

    differs = np.mean([quarter(first, a) != quarter(second, b) for a, b, _, _ in pairs])
    assert same["segment_differs"] == pytest.approx(differs)
    assert found["realised"] == {
        one: {
            "predictions": 3,
            "mae": pytest.approx(40 / 3),
            "bias": pytest.approx(40 / 60 - 1),
            "share_above_p90": pytest.approx(1 / 3),
            "share_below_p10": 0.0,
            "brier": pytest.approx(0.25),
            "share_active": pytest.approx(2 / 3),
        }
    }
    text = clv("compare", two, one)
    assert "4,000 customers were predicted by both" in text
    assert text.splitlines()[0].split() == [two, "(challenger)", one, "(champion)"]
    backwards = json.loads(clv("compare", two, one, "--json"))["on_same_customers"]
    assert (backwards["total_first"], backwards["total_second"]) == pytest.approx((second.sum(), first.sum()))
    assert backwards["segment_differs"] == same["segment_differs"]


def test_without_a_server_it_is_one_line(tmp_path: Path):
    (port,) = free_ports(1)
    done = subprocess.run(
        [sys.executable, "-m", "cli", "models", "list", "--mongo-uri", f"mongodb://u:secret@127.0.0.1:{port}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "MongoDB does not answer" in done.stderr
    assert "secret" not in done.stderr


def test_training_registers_where_a_registry_is_named(mongo: LocalMongo, mongo_database: str, clv, tmp_path: Path):
    chance = random.Random(1)
    lines = ["order_id,customer_id,occurred_at,amount,currency"]
    for number in range(400):
        day = date(2025, 1, 1) + timedelta(days=chance.randrange(200))
        amount = f"{chance.lognormvariate(3, 0.5):.2f}"
        lines.append(f"o{number},c{chance.randrange(80)},{day},{amount},USD")
    (tmp_path / "orders.csv").write_text("\n".join(lines) + "\n")
    command = ["train", "--orders", str(tmp_path / "orders.csv"), "--cutoff", "2025-06-01", "--horizon-days", "60"]
    environment = {"CLV_MONGO_URI": mongo.uri, "CLV_MONGO_DATABASE": mongo_database, "COLUMNS": "200"}
    done = CliRunner().invoke(app, [*command, "--output", str(tmp_path / "trained")], env=environment)
    assert done.exception is None, done.exception
    assert "it is the champion, as there was none" in done.stdout
    (model,) = json.loads(clv("list", "--json"))["models"]
    assert model["version"] == current_bundle(tmp_path / "trained").name
    assert (model["status"], model["cutoff"], model["horizon_days"]) == ("champion", "2025-06-01", 60)
    names = {each["name"] for each in model["files"]}
    assert names >= {"model.onnx", "metadata.json", "model_card.md"}
    clv("fetch", str(tmp_path / "cache"))
    for name in names:
        fetched = (current_bundle(tmp_path / "cache") / name).read_bytes()
        assert fetched == (current_bundle(tmp_path / "trained") / name).read_bytes()
