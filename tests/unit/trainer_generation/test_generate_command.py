"""`./clv generate`: what it writes, prints and refuses."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.__main__ import app
from services.runtime.shutdown import KnownProblem
from services.trainer.generation import generate, preset
from services.trainer.orders_file import read_orders


def run(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["generate", *map(str, arguments)])
    if isinstance(done.exception, KnownProblem):
        raise done.exception
    return done.exit_code, done.output


def test_the_same_seed_writes_the_same_bytes(tmp_path: Path):
    for name, seed in (("one", 5), ("two", 5), ("three", 6)):
        status, said = run("--customers", 300, "--years", 2, "--seed", seed, "--output", tmp_path / f"{name}.csv")
        assert status == 0
        assert "300 customers from 2022-01-01 to 2023-12-31" in said
    one, two, three = ((tmp_path / f"{name}.csv").read_bytes() for name in ("one", "two", "three"))
    assert one == two != three


def test_the_file_and_the_truth_are_those_of_the_spec(tmp_path: Path):
    orders, truth = tmp_path / "orders.parquet", tmp_path / "truth.json"
    status, _ = run(
        "--customers", 200, "--years", 1, "--seed", 3, "--shop", "wholesale", "--start", "2020-02-29",
        "--currency", "JPY", "--set", "refund_share=0.3", "--set", "weekly=1,1,1,1,1,0,0",
        "--output", orders, "--truth", truth,
    )  # fmt: skip
    assert status == 0
    made = generate(
        preset("wholesale", customers=200, years=1, seed=3, start="2020-02-29", currency="JPY", refund_share=0.3,
               weekly=(1, 1, 1, 1, 1, 0, 0))
    )  # fmt: skip
    assert read_orders(orders).fingerprint == made.table.fingerprint
    told = json.loads(truth.read_text())
    assert told == json.loads(json.dumps(made.truth()))
    assert (told["spec"]["refund_share"], told["spec"]["currency"]) == (0.3, "JPY")
    assert {len(column) for column in told["customers"].values()} == {200}
    assert sum(told["customers"]["orders"]) == told["counts"]["orders"]


def test_check_tells_how_complete_the_file_is(tmp_path: Path):
    status, said = run("--customers", 3000, "--seed", 2, "--check", "--output", tmp_path / "orders.csv")
    assert status == 0
    assert "0 valid rows that never happened" in said
    assert "of the feature cells" in said


def test_check_fails_where_too_much_is_lost(tmp_path: Path):
    status, said = run("--customers", 500, "--set", "lost_share=0.02", "--check", "--output", tmp_path / "orders.csv")
    assert status == 1
    assert "98.0" in said


def test_parameters_are_listed_and_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    status, said = run("--parameters", "--shop", "young")
    assert status == 0
    for word in ("textbook", "refund_share", "half_life_days", "120.0"):
        assert word in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--set", "refund_share"), "name=value"),
        (("--set", "nothing=1"), "no parameter"),
        (("--shop", "bazaar"), "no shop"),
        (("--customers", "0"), "customers"),
        (("--output", "no/such/folder.csv", "--customers", "3"), "cannot write"),
    ],
)
def test_what_cannot_be_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(KnownProblem, match=message):
        run(*arguments)
