"""`./clv train` and `./clv score` on real orders: a bundle that the scorer loads, better than naive guesses on days
that nobody had seen."""

import csv
import json
import subprocess
import sys
from datetime import date, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from cli.__main__ import app
from cli.training import OUTPUTS, bundle_folder, score_customers
from deploy.local.binaries import cdnow_purchases
from domain.features import FEATURE_NAMES, day_of
from domain.metrics import normalised_gini
from services.inference.model import load_model
from services.runtime.bundle import current_bundle
from services.runtime.shutdown import KnownProblem
from services.trainer.evaluation import MEAN, SPEND_RATE, baselines, measure, model_guess
from services.trainer.fitting import fit_model
from services.trainer.history import TrainingSet
from services.trainer.orders_file import OrdersTable, read_any
from services.trainer.progress import silent
from services.trainer.sources.orders import from_table

ROOT = Path(__file__).parents[2]
CUTOFF, HORIZON_DAYS = date(1997, 10, 1), 273
Floats = NDArray[np.float64]


class Shop(NamedTuple):
    """Every eighth CDNOW customer, as a file and trained on by the command."""

    folder: Path
    orders: Path
    table: OrdersTable
    metadata: dict[str, Any]
    said: str


def clv(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The command as an operator runs it."""
    return subprocess.run(
        [sys.executable, "-m", "cli", *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    folder = tmp_path_factory.mktemp("shop")
    orders = folder / "cdnow.txt"
    lines = cdnow_purchases().read_text().splitlines()
    orders.write_text("\n".join([lines[0], *(line for line in lines[1:] if int(line.split()[0]) % 8 == 0)]) + "\n")
    done = clv(
        "train", "--orders", orders, "--cutoff", CUTOFF, "--horizon-days", HORIZON_DAYS, "--output", folder / "models",
        "--json", folder / "metadata.json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return Shop(folder, orders, read_any(orders), json.loads((folder / "metadata.json").read_text()), done.stdout)


@pytest.fixture(scope="module")
def held_out(shop: Shop) -> TrainingSet:
    """The customers as of the cutoff and what they did in the days that training could not see."""
    cutoff = day_of(CUTOFF)
    later = from_table(shop.table, CUTOFF + timedelta(days=HORIZON_DAYS), "USD").history
    (known,) = later.training_sets([(cutoff, HORIZON_DAYS)])
    head = load_model(current_bundle(shop.folder / "models"), "USD").metadata
    return known.with_quintiles(head.quintiles)


def outputs(shop: Shop, matrix: Floats) -> dict[str, Floats]:
    return load_model(current_bundle(shop.folder / "models"), "USD").predict(matrix)._asdict()


def test_the_command_names_the_bundle_and_shows_the_baselines(shop: Shop) -> None:
    assert shop.metadata["model_version"] == current_bundle(shop.folder / "models").name
    for text in (shop.metadata["model_version"], MEAN, "Pareto", "MAE"):
        assert text in shop.said
    assert 2_900 < shop.metadata["counts"]["customers"] < 3_000


def test_the_bundle_beats_naive_guesses_on_unseen_days(shop: Shop, held_out: TrainingSet) -> None:
    targets = held_out.known_targets
    model = measure(targets, model_guess(outputs(shop, held_out.features)))
    naive = {name: measure(targets, guess) for name, guess in baselines(held_out).items()}
    for name in (MEAN, SPEND_RATE):
        assert model["mae"] < 0.85 * naive[name]["mae"], (model, naive[name])  # type: ignore[operator]
    assert model["rmse"] < 0.85 * naive[SPEND_RATE]["rmse"]  # type: ignore[operator]
    assert model["rmse"] < 0.95 * naive[MEAN]["rmse"]  # type: ignore[operator]
    assert model["auc_active"] > naive[SPEND_RATE]["auc_active"] + 0.01  # type: ignore[operator]
    assert 0.78 < model["coverage_p10_p90"] < 0.95  # type: ignore[operator]
    assert model["share_above_p90"] < 0.2  # type: ignore[operator]


def test_the_graph_says_row_by_row_what_the_fitted_model_says(shop: Shop, held_out: TrainingSet) -> None:
    cutoff = day_of(CUTOFF)
    history = from_table(shop.table, CUTOFF, "USD").history
    original = fit_model(history, cutoff, HORIZON_DAYS, silent).model.predict(held_out.features)
    for name, column in outputs(shop, held_out.features).items():
        np.testing.assert_allclose(column, original[name], rtol=1e-4, atol=1e-3 if "value" in name else 1e-6)


def test_recent_and_frequent_buyers_are_likelier_to_come_back(shop: Shop, held_out: TrainingSet) -> None:
    found = outputs(shop, held_out.features)
    recency = held_out.features[:, FEATURE_NAMES.index("recency_days")]
    repeats = held_out.features[:, FEATURE_NAMES.index("frequency")]
    by_recency = [found["p_active"][group].mean() for group in np.array_split(np.argsort(recency, kind="stable"), 4)]
    assert by_recency[0] > by_recency[1] > by_recency[2]
    by_repeats = [found["expected_orders"][repeats == n].mean() for n in range(4)]
    assert by_repeats == sorted(by_repeats)


def test_scores_are_those_of_the_bundle_for_every_customer(shop: Shop, held_out: TrainingSet) -> None:
    path = shop.folder / "scores.csv"
    done = clv("score", "--orders", shop.orders, "--as-of", CUTOFF, "--model", shop.folder / "models", "--output", path)
    assert done.returncode == 0, done.stderr
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["customer_id"] for row in rows] == list(held_out.customer_ids)
    expected = outputs(shop, held_out.features)
    for name in OUTPUTS:
        assert [float(row[name]) for row in rows] == expected[name].tolist()
    shares = {segment: sum(row["segment"] == segment for row in rows) / len(rows) for segment in
              ("at_risk", "medium_value", "medium_high_value", "high_value")}  # fmt: skip
    assert all(0.24 < share < 0.26 for share in shares.values()), shares
    lowest_high = min(float(row["expected_value"]) for row in rows if row["segment"] == "high_value")
    assert normalised_gini([float(r["expected_value"]) for r in rows], [float(r["expected_value"]) for r in rows]) == 1
    assert lowest_high >= max(float(row["expected_value"]) for row in rows if row["segment"] == "medium_high_value")


@pytest.mark.long
def test_what_happens_after_the_cutoff_does_not_change_the_model(shop: Shop) -> None:
    """The same orders as Parquet, without anything from the cutoff on, under other names: the same version."""
    kept = [row for row in shop.table.rows() if row.occurred_at < CUTOFF.isoformat()]
    path = shop.folder / "before.parquet"
    columns = {
        "id": [row.order_id for row in kept],
        "customer_id": [row.customer_id for row in kept],
        "day": [date.fromisoformat(row.occurred_at) for row in kept],
        "amount": [row.amount for row in kept],
    }
    pq.write_table(pa.table(columns), path)
    done = clv(
        "train", "--orders", path, "--map", "order_id=id", "--map", "occurred_at=day", "--cutoff", CUTOFF,
        "--horizon-days", HORIZON_DAYS, "--output", shop.folder / "again",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert current_bundle(shop.folder / "again").name == shop.metadata["model_version"]


def test_a_bundle_folder_is_as_good_as_the_models_folder(shop: Shop) -> None:
    models = shop.folder / "models"
    assert bundle_folder(models) == bundle_folder(current_bundle(models)) == current_bundle(models)
    found = score_customers(shop.table, date(1997, 2, 1), bundle_folder(models))
    assert len(found["customer_id"]) < shop.metadata["counts"]["customers"]


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (["train", "--orders", "nowhere.csv", "--cutoff", "1997-10-01", "--horizon-days", "30"], "cannot be read"),
        (["train", "--orders", "{orders}", "--cutoff", "1997-13-01", "--horizon-days", "30"], "no day such as"),
        (["train", "--orders", "{orders}", "--cutoff", "1996-10-01", "--horizon-days", "30"], "no valid order before"),
        (["train", "--orders", "x", "--cutoff", "1997-10-01", "--horizon-days", "3", "--map", "x"], "name=column"),
        (["score", "--orders", "{orders}", "--as-of", "1997-10-01", "--model", "{empty}"], "train one with"),
        (["score", "--orders", "{orders}", "--as-of", "1990-10-01", "--model", "{models}"], "no customer"),
    ],
)
def test_errors_are_one_line(shop: Shop, tmp_path: Path, command: list[str], says: str) -> None:
    names = {"orders": shop.orders, "empty": tmp_path, "models": shop.folder / "models"}
    arguments = [*(part.format(**names) for part in command), "--output", str(tmp_path / "out")]
    problem = CliRunner().invoke(app, arguments).exception
    assert isinstance(problem, KnownProblem), problem
    assert says in str(problem)
    assert len(str(problem).splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_an_error_is_exit_code_2(tmp_path: Path) -> None:
    done = clv("train", "--orders", "x", "--cutoff", "soon", "--horizon-days", "3", "--output", tmp_path / "out")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1, done.stderr
