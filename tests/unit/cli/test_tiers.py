"""`./clv test` in three sizes: the options choose one, and the one that CI runs leaves nothing out."""

import pytest
from typer.testing import CliRunner

from cli import testing
from cli.__main__ import app
from cli.testing import Tier
from services.runtime.shutdown import KnownProblem
from tests.conftest import ROOT


@pytest.mark.parametrize(
    ("arguments", "tier"), [([], Tier.USUAL), (["--fast"], Tier.FAST), (["--all"], Tier.ALL), (["-k", "x"], Tier.USUAL)]
)
def test_the_options_choose_what_runs(monkeypatch, arguments: list[str], tier: Tier) -> None:
    ran: list[tuple[Tier, list[str]]] = []

    def run_tests(tier: Tier, given: list[str]) -> int:
        ran.append((tier, given))
        return 3

    monkeypatch.setattr(testing, "run_tests", run_tests)
    done = CliRunner().invoke(app, ["test", *arguments])
    assert done.exit_code == 3
    assert ran == [(tier, [each for each in arguments if each not in ("--fast", "--all")])]


def test_two_sizes_at_once_are_refused() -> None:
    done = CliRunner().invoke(app, ["test", "--fast", "--all"])
    assert isinstance(done.exception, KnownProblem)


def test_ci_leaves_nothing_out(monkeypatch) -> None:
    monkeypatch.delenv("CLV_TEST_FEWER_EXAMPLES", raising=False)
    assert "\n./clv test --all\n" in (ROOT / ".ci" / "run").read_text()
    assert not {"-m", "-k", "--deselect", "--ignore"} & set(Tier.ALL.value)
    assert "CLV_TEST_FEWER_EXAMPLES" not in testing._environment(Tier.ALL)
    assert "CLV_TEST_FEWER_EXAMPLES" in testing._environment(Tier.USUAL)
