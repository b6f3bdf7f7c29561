"""The fold on Spark gives what one process gives, to the last bit."""

import csv
import subprocess
import sys
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from cli.__main__ import app
from domain.features import date_of, day_of
from services.runtime.bundle import current_bundle
from services.runtime.shutdown import KnownProblem
from services.trainer.sources.orders import from_file, from_table
from services.trainer.sources.states import from_states
from services.trainer.spark import (
    new_session,
    one_line_problems,
    read_orders,
    refused_rows,
    training_frame,
    training_sets,
)
from tests.conftest import ROOT
from tests.unit.trainer.shops import FIRST_DAY, shop, table

pytestmark = [pytest.mark.integration, pytest.mark.long]
pytest.importorskip("pyspark")
CUTOFF = FIRST_DAY + timedelta(days=200)
DAY_0 = day_of(FIRST_DAY)
WINDOWS = [(DAY_0 + 60, 30), (DAY_0 + 120, 80), (DAY_0 + 120, 20), (DAY_0 + 200, 0), (DAY_0 - 5, 10)]


@pytest.fixture(scope="module")
def session() -> Iterator[Any]:
    found = new_session("local[2]")
    found.sparkContext.setLogLevel("ERROR")
    found.conf.set("spark.sql.shuffle.partitions", "2")
    yield found
    found.stop()


def rows() -> list[dict[str, str]]:
    found = shop(120, 240, seed=9)
    for n, row in enumerate(list(found)):
        if n % 7 == 0:
            found.append(row | {"type": "refund", "amount": "2.50"})
        if n % 9 == 0:
            found.append(row)
        if n % 30 == 0:
            found += [row | {"amount": "-1"}, row | {"customer_id": ""}, row | {"occurred_at": "soon"}]
    return found


def test_training_sets_equal_those_of_one_process(session: Any, tmp_path: Path) -> None:
    path = tmp_path / "orders.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["type", "order_id", "customer_id", "occurred_at", "amount"])
        writer.writeheader()
        writer.writerows(rows())
    frame = training_frame(session.read.csv(str(path), header=True), WINDOWS, CUTOFF, "USD", groups=5).cache()
    wanted = from_table(table(rows()), CUTOFF, "USD").history.training_sets(WINDOWS)
    assert len(wanted[0]) > 50
    for one, other in zip(training_sets(frame, WINDOWS), wanted, strict=True):
        assert (one.origin_day, one.horizon_days) == (other.origin_day, other.horizon_days)
        assert one.customer_ids == other.customer_ids
        np.testing.assert_array_equal(one.inputs, other.inputs)
        np.testing.assert_array_equal(one.features, other.features)
        assert (one.targets is None) == (other.targets is None)
        if other.targets is not None:
            np.testing.assert_array_equal(one.known_targets.orders, other.known_targets.orders)
            np.testing.assert_array_equal(one.known_targets.value, other.known_targets.value)


def test_refused_rows_are_counted_by_reason(session: Any) -> None:
    found = refused_rows(session.createDataFrame(rows()), "USD").toPandas()
    wanted = from_table(table(rows()), date(2100, 1, 1), "USD").rejected
    assert wanted.total() > 10
    assert dict(zip(found["reason"], found["rows"], strict=True)) == {each.value: n for each, n in wanted.items()}


def test_what_cannot_be_is_said_before_anything_runs(session: Any) -> None:
    orders = session.createDataFrame(rows()[:3])
    with pytest.raises(ValueError, match="where the history ends"):
        training_frame(orders, [(DAY_0 + 190, 20)], CUTOFF, "USD")
    with pytest.raises(KnownProblem, match="no currency"):
        training_frame(orders, WINDOWS, CUTOFF, "XXX")
    with pytest.raises(KnownProblem, match="no column 'amount'"):
        training_frame(orders.drop("amount"), WINDOWS, CUTOFF, "USD")


def test_what_spark_complains_of_is_one_line(session: Any, tmp_path: Path) -> None:
    with pytest.raises(KnownProblem, match=r"Spark: .*nowhere") as problem, one_line_problems():
        read_orders(session, str(tmp_path / "nowhere.csv"))
    assert "\n" not in str(problem.value)


@pytest.mark.parametrize(
    ("hidden", "says"),
    [
        ("sys.modules['pyspark.errors'] = None", "pip install -r locks/spark.txt"),
        ("os.environ['PATH'] = ''", "Java 17"),
    ],
)
def test_what_is_missing_is_one_line(hidden: str, says: str) -> None:
    program = f"""
import os, sys
os.environ.pop("JAVA_HOME", None)
from services.trainer.spark import new_session
{hidden}
new_session()
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "KnownProblem" in done.stderr.splitlines()[-1]
    assert says in done.stderr.splitlines()[-1]


def test_the_command_writes_the_rows_and_says_what_was_refused(tmp_path: Path) -> None:
    path, output = tmp_path / "orders.csv", tmp_path / "rows.parquet"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["type", "order_id", "customer_id", "occurred_at", "amount"])
        writer.writeheader()
        writer.writerows(rows())
    command = [
        sys.executable, "-m", "cli", "training-rows", "--orders", path, "--cutoff", CUTOFF, "--horizon-days", 30,
        "--origin", FIRST_DAY + timedelta(days=60), "--origin", FIRST_DAY + timedelta(days=120), "--output", output,
        "--master", "local[2]", "--groups", 4,
    ]  # fmt: skip
    done = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    data = from_table(table(rows()), CUTOFF, "USD")
    wanted = data.history.training_sets([(DAY_0 + 60, 30), (DAY_0 + 120, 30)])
    assert f"{sum(map(len, wanted)):,} training rows" in done.stdout
    assert "rows refused: empty_customer_id" in done.stdout
    written = pd.read_parquet(output)
    for each in wanted:
        own = written[written["origin"] == date_of(each.origin_day)].sort_values("customer_id")
        assert tuple(own["customer_id"]) == each.customer_ids
        np.testing.assert_array_equal(own["target_value"], each.known_targets.value)


def test_the_spark_path_ends_in_the_model_that_a_file_gives(tmp_path: Path) -> None:
    """Down to the version, which is made from graph, card and counts of refused rows."""
    path, states = tmp_path / "orders.csv", tmp_path / "states"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["type", "order_id", "customer_id", "occurred_at", "amount"])
        writer.writeheader()
        writer.writerows(rows())
    folded = [
        "customer-states", "--orders", path, "--cutoff", CUTOFF, "--output", states, "--master", "local[2]",
        "--groups", 4,
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "cli", *map(str, folded)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    wanted = from_file(path, None, CUTOFF, "USD")
    assert f"{len(wanted.history.customer_ids):,} customers' states in" in done.stdout
    found = from_states(states, CUTOFF, "USD")
    assert found.history.fingerprint == wanted.history.fingerprint
    for name in ("currency", "rejected", "later", "repeated"):
        assert getattr(found, name) == getattr(wanted, name), name
    assert min(wanted.rejected.total(), wanted.later, wanted.repeated) > 5
    versions = set()
    for source in (["--from-states", states], ["--orders", path]):
        models = tmp_path / source[0].strip("-")
        command = ["train", *source, "--cutoff", CUTOFF, "--horizon-days", 90, "--output", models]
        trained = CliRunner().invoke(app, list(map(str, command)))
        assert trained.exception is None, trained.output
        versions.add(current_bundle(models).name)
    assert len(versions) == 1
