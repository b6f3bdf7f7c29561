"""`./clv train` learns from one source, and says so."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.__main__ import app
from services.runtime.shutdown import KnownProblem

COMMON = ["train", "--cutoff", "2024-01-01", "--horizon-days", "30", "--output"]


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ([], "name one source"),
        (["--from-topic", "--from-mongo"], "name one source"),
        (["--orders", "x.csv", "--from-topic"], "name one source"),
        (["--from-states", "x", "--from-mongo"], "name one source"),
        (["--from-states", "nowhere"], "nowhere is no finished folder"),
        (["--from-mongo", "--map", "amount=total"], "goes with --orders alone"),
        (["--orders", "nowhere.csv"], "nowhere.csv cannot be read"),
    ],
)
def test_what_contradicts_itself_is_one_line(tmp_path: Path, more: list[str], says: str) -> None:
    found = CliRunner().invoke(app, [*COMMON, str(tmp_path / "models"), *more])
    assert isinstance(found.exception, KnownProblem)
    assert says in str(found.exception)
    assert "\n" not in str(found.exception)
    assert not (tmp_path / "models").exists()


def test_the_help_names_the_sources() -> None:
    text = re.sub(r"\x1b\[[0-9;]*m", "", CliRunner().invoke(app, ["train", "--help"]).output)
    for option in ("--orders", "--from-topic", "--from-mongo", "--from-states"):
        assert option in text


@pytest.mark.parametrize(
    "command",
    [
        ["bench", "model", "--cutoff", "soon"],
        ["train", "--orders", "x.csv", "--cutoff", "soon", "--horizon-days", "30", "--output", "models"],
    ],
)
def test_a_cutoff_that_is_no_day_is_one_line(command: list[str]) -> None:
    found = CliRunner().invoke(app, command)
    assert isinstance(found.exception, KnownProblem)
    assert str(found.exception) == "--cutoff 'soon' is no day such as 2026-01-31"
