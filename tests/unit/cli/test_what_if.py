"""`./clv what-if`: one form, answered by the profile model that the command is given."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.__main__ import app
from services.runtime.shutdown import KnownProblem
from tests.unit.trainer.profile.small import trained

FORM = {
    "--total-orders": "7",
    "--average-order-value": "31.5",
    "--purchase-frequency": "0.6",
    "--customer-lifetime-days": "400",
    "--days-since-last-purchase": "20",
    "--frequency-score": "4",
}


@pytest.fixture(scope="module")
def model() -> Path:
    return trained().folder


def run(model: Path, *more: str, **changes: str):
    form = FORM | {f"--{name.replace('_', '-')}": value for name, value in changes.items()}
    arguments = [each for pair in form.items() for each in pair]
    return CliRunner().invoke(app, ["what-if", "--model", str(model), *arguments, *more], env={"COLUMNS": "200"})


def test_the_answer_is_orders_times_average_and_says_so(model: Path):
    done = run(model)
    assert done.exit_code == 0, done.output
    assert "monetary value 220." in done.output
    assert "orders × average order value is 220.50" in done.output


def test_as_json_it_names_model_and_currency(model: Path):
    told = json.loads(run(model, "--json", customer_age="44").output)
    assert told["monetary_value"] == pytest.approx(220.5, rel=0.01)
    assert (told["currency"], len(told["model_version"])) == ("USD", 16)


@pytest.mark.parametrize("absurd", ["1e300", "-1e300", "inf", "-5", "0"])
def test_absurd_input_has_a_bounded_answer(model: Path, absurd: str):
    value = json.loads(run(model, "--json", total_orders=absurd).output)["monetary_value"]
    assert 0 <= value <= 1e12


def test_what_cannot_be_answered_is_one_line(model: Path, tmp_path: Path):
    assert isinstance(run(tmp_path).exception, KnownProblem)
    refused = run(model, total_orders="nan").exception
    assert isinstance(refused, KnownProblem)
    assert "total_orders is no number" in str(refused)
