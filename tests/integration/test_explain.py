"""`./clv explain` as an operator runs it: on a customer that MongoDB holds, and on one of an orders file."""

import csv
import json
import subprocess
import sys
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from pymongo import MongoClient
from pymongo.database import Database
from typer.testing import CliRunner, Result

from cli.__main__ import app
from cli.training import score_customers
from deploy.local.folders import free_ports
from deploy.local.mongo import LocalMongo
from domain import facts
from schemas.customer_features import CustomerFeatures, feature_matrix
from schemas.model_bundle import OUTPUT_NAMES
from schemas.mongo import CUSTOMERS
from schemas.predictions import encode_prediction
from services.inference.explain import Explanation
from services.inference.model import load_model
from services.runtime.bundle import point_to
from services.runtime.shutdown import KnownProblem
from services.sink.documents import Write, judge
from services.trainer.orders_file import read_any
from tests.bundles import feature_messages, graph, write_bundle
from tests.unit.sink.examples import OUTCOMES, prediction
from tests.unit.trainer.shops import shop

ROOT = Path(__file__).parents[2]
MESSAGES = feature_messages(40, seed=7)
AS_OF = "2024-09-01"
Mongo = Database[dict[str, Any]]


def clv(*arguments: object) -> Result:
    """The command, in this process: what it printed, and the problem that it raised."""
    return CliRunner().invoke(app, ["explain", *map(str, arguments)], env={"COLUMNS": "200"})


def explained(*arguments: object) -> Explanation:
    """What the command writes to standard output as JSON."""
    done = clv(*arguments, "--json", "-")
    assert done.exception is None, done.exception
    return msgspec.json.decode(done.stdout, type=Explanation)


def problem(done: Result) -> str:
    """The one line that the operator gets."""
    assert isinstance(done.exception, KnownProblem), done.exception
    (line,) = str(done.exception).splitlines()
    return line


def adds_up(found: Explanation) -> bool:
    return found.base + sum(each.amount for each in found.contributions) == pytest.approx(found.prediction, rel=1e-12)


def bundle(models: Path, scale: float = 1.0) -> str:
    """A bundle that keeps typical customers, as training writes it, and that is made the current one."""
    rows = feature_matrix([each.features for each in MESSAGES if each.features["monetary"] is not None])
    values = rows[:, 2]
    version = write_bundle(models, graph(scale), explanation_reference=facts.reference_rows(rows, values).tolist())
    point_to(models, version)
    return version


# ---------------------------------------------------------------- from MongoDB


@dataclass
class Record:
    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]] = field(default_factory=list)
    timestamp: int = 1_700_000_000_000
    partition: int = 0
    offset: int = 0


@dataclass(frozen=True)
class Stored:
    """A database with one customer as the sink stores it, and the models folder of the bundle that scored it."""

    uri: str
    database: str
    models: Path
    customer: CustomerFeatures
    version: str

    @property
    def options(self) -> list[object]:
        return ["--mongo-uri", self.uri, "--mongo-database", self.database, "--model", self.models]


@pytest.fixture
def stored(mongo: LocalMongo, mongo_database: str, tmp_path: Path) -> Stored:
    version = bundle(tmp_path / "models")
    message = next(each for each in MESSAGES if (each.features["frequency"] or 0) > 3)
    outcomes = load_model(tmp_path / "models" / version, "USD").predict(feature_matrix([message.features]))
    made = msgspec.structs.replace(
        prediction(message.customer_id, model=version),
        as_of=message.as_of,
        features=message.features,
        inputs=message.inputs,
        **{name: float(getattr(outcomes, name)[0]) for name in OUTPUT_NAMES if name in OUTCOMES},
    )
    write = judge(Record(message.customer_id.encode(), encode_prediction(made)), datetime(2024, 1, 1, tzinfo=UTC))
    assert isinstance(write, Write)
    with MongoClient[dict[str, Any]](mongo.uri) as client:
        client[mongo_database][CUSTOMERS].insert_one(write.customer)  # type: ignore[arg-type]
    return Stored(mongo.uri, mongo_database, tmp_path / "models", message, version)


@pytest.mark.integration
def test_the_stored_prediction_is_explained_by_the_model_that_made_it(stored: Stored):
    newer = bundle(stored.models, scale=2.0)
    assert newer != stored.version
    with MongoClient[dict[str, Any]](stored.uri) as client:
        document = client[stored.database][CUSTOMERS].find_one({"_id": stored.customer.customer_id})
    assert document is not None
    for output in OUTCOMES:
        found = explained("--customer", stored.customer.customer_id, "--of", output, *stored.options)
        assert found.prediction == document["prediction"][output] > 0
        assert (found.model_version, found.as_of) == (stored.version, stored.customer.as_of)
        assert adds_up(found)
        told = {each.feature: each.value for part in found.contributions for each in part.features}
        assert told["frequency"] == stored.customer.features["frequency"]


@pytest.mark.integration
def test_another_models_explanation_says_that_it_is_not_the_stored_one(stored: Stored, tmp_path: Path):
    other = replace(stored, models=tmp_path / "others")
    version = bundle(other.models, scale=2.0)
    done = clv("--customer", stored.customer.customer_id, *other.options)
    assert done.exception is None, done.exception
    assert f"by model {stored.version}" in done.stderr
    assert f"model {version}" in done.stdout
    with MongoClient[dict[str, Any]](stored.uri) as client:
        client[stored.database][CUSTOMERS].update_one({}, {"$set": {"prediction.expected_value": 12.5}})
    done = clv("--customer", stored.customer.customer_id, *stored.options)
    assert "the stored expected_value is 12.5" in done.stderr


@pytest.mark.integration
@pytest.mark.parametrize(
    ("change", "arguments", "says"),
    [
        ({}, ["--customer", "nobody"], "holds no customer 'nobody'"),
        ({}, ["--of", "value"], "--of value: it must be one of"),
        ({}, ["--as-of", AS_OF], "go with --orders"),
        ({}, ["--mongo-uri", "mongodb://localhost:{port}"], "MongoDB at mongodb://localhost:{port}"),
        ({}, ["--model", "{empty}"], "train one with"),
        ({"$set": {"prediction.currency": "EUR"}}, [], "is in EUR, but bundle"),
        ({"$unset": {"features.btyd_x": 1}}, [], "of another version"),
        ({"$unset": {"features": 1}}, [], "of another version"),
        ({"$set": {"features.btyd_x": "x"}}, [], "of another version"),
    ],
)
def test_what_cannot_be_explained_is_one_line(
    stored: Stored, tmp_path: Path, change: dict[str, Any], arguments: list[str], says: str
):
    if change:
        with MongoClient[dict[str, Any]](stored.uri) as client:
            client[stored.database][CUSTOMERS].update_one({}, change)
    (port,) = free_ports(1)
    names = {"port": port, "empty": tmp_path / "empty"}
    done = clv(
        "--customer", stored.customer.customer_id, *stored.options, *(part.format(**names) for part in arguments)
    )
    assert says.format(**names) in problem(done)


# ---------------------------------------------------------------- from an orders file


@dataclass(frozen=True)
class OrdersFile:
    path: Path
    models: Path

    @property
    def options(self) -> list[object]:
        return ["--orders", self.path, "--as-of", AS_OF, "--model", self.models, "--map", "amount=paid"]


@pytest.fixture(scope="module")
def orders(tmp_path_factory: pytest.TempPathFactory) -> OrdersFile:
    folder = tmp_path_factory.mktemp("orders")
    rows = shop(60, 300, seed=2)
    names = {name: {"amount": "paid"}.get(name, name) for name in rows[0]}
    with (folder / "orders.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, names.values())
        writer.writeheader()
        writer.writerows({names[name]: value for name, value in row.items()} for row in rows)
    bundle(folder / "models")
    return OrdersFile(folder / "orders.csv", folder / "models")


def test_the_customer_of_a_file_gets_the_prediction_that_score_gives(orders: OrdersFile):
    table = read_any(orders.path, {"amount": "paid"})
    version = (orders.models / "current").read_text().strip()
    scores = score_customers(table, date.fromisoformat(AS_OF), orders.models / version)
    at = len(scores["customer_id"]) // 2
    found = explained("--customer", scores["customer_id"][at], *orders.options)
    assert found.prediction == scores["expected_value"][at]
    assert (found.customer_id, found.as_of, found.unit) == (scores["customer_id"][at], AS_OF, "USD")
    assert adds_up(found)


def test_the_table_reads_as_a_sum(orders: OrdersFile, tmp_path: Path):
    done = clv("--customer", "c00001", *orders.options)
    assert done.exception is None, done.exception
    lines = [line.strip() for line in done.stdout.splitlines()]
    assert lines[0] == f"Customer c00001 as of {AS_OF}: expected value within 90 days, in USD"
    assert lines[1].startswith("Typical customers")
    assert any(line.startswith("Average order value") and "USD average order (typical:" in line for line in lines)
    assert any("Without influence" in line and "Refunds" in line for line in lines)
    done = clv("--customer", "c00001", *orders.options, "--json", tmp_path / "why.json")
    assert done.exception is None, done.exception
    written = json.loads((tmp_path / "why.json").read_text())
    total = next(line for line in lines if line.startswith("This customer"))
    assert total.split()[-1] == f"{written['prediction']:,.2f}"
    probability = clv("--customer", "c00001", *orders.options, "--of", "p_active").stdout
    assert "probability of another order" in probability
    assert " %" in probability


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--customer", "nobody"], "no valid order of customer 'nobody' before 2024-09-01"),
        (["--as-of", "2023-01-01"], "no valid order of customer 'c00001' before 2023-01-01"),
        (["--as-of", "soon"], "a day such as 2026-01-31"),
        (["--orders", "nowhere.csv"], "cannot be read"),
        (["--model", "nowhere"], "train one with"),
        (["--json", "nowhere/why.json"], "cannot write nowhere"),
    ],
)
def test_what_a_file_does_not_tell_is_one_line(orders: OrdersFile, arguments: list[str], says: str):
    done = clv("--customer", "c00001", *orders.options, *arguments)
    assert says in problem(done)


def test_an_orders_file_needs_a_day(orders: OrdersFile):
    arguments = ["--customer", "c00001", "--orders", orders.path, "--model", orders.models]
    assert "--orders needs --as-of" in problem(clv(*arguments))
    done = subprocess.run(
        [sys.executable, "-m", "cli", "explain", *map(str, arguments)], cwd=ROOT, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == "clv: --orders needs --as-of, a day such as 2026-01-31\n"
