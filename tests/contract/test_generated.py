"""Generated files are what their generators would write now, and the generators notice when they are not."""

import subprocess
import sys
from pathlib import Path

import pytest

from schemas import generate

ROOT = generate.ROOT


@pytest.mark.parametrize("module", ["schemas.generate", "cli.docs"])
def test_generated_files_are_up_to_date(module: str):
    done = subprocess.run(  # noqa: PLW1510
        [sys.executable, "-m", module, "--check"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_check_lists_what_is_missing_changed_or_left_over_and_changes_nothing(tmp_path: Path, capsys):
    files = {Path("made/a"): "1", Path("made/b"): "2", Path("made/c"): "3"}
    (tmp_path / "made").mkdir()
    (tmp_path / "made/a").write_text("1")
    (tmp_path / "made/b").write_text("old")
    (tmp_path / "made/left").write_text("x")
    assert generate.run(files, ["made/*"], "make", ["--check"], tmp_path) == 1
    assert capsys.readouterr().out == "stale: made/b\nstale: made/c\nstale: made/left\nrun `make`\n"
    assert (tmp_path / "made/b").read_text() == "old"


def test_writing_brings_everything_up_to_date(tmp_path: Path):
    files = {Path("made/a"): "1", Path("deep/er/b"): "é"}
    (tmp_path / "made").mkdir()
    (tmp_path / "made/left").write_text("x")
    assert generate.run(files, ["made/*"], "make", [], tmp_path) == 0
    assert generate.stale(files, ["made/*"], tmp_path) == []
    assert not (tmp_path / "made/left").exists()
    assert generate.run(files, ["made/*"], "make", ["--check"], tmp_path) == 0


def test_an_unknown_argument_is_refused(capsys):
    assert generate.run({}, [], "make", ["--chek"]) == 2
    assert "usage: make [--check]" in capsys.readouterr().err


def test_generating_twice_gives_the_same_text():
    assert generate.contract_files() == generate.contract_files()


def test_formatting_the_repository_leaves_generated_documents_alone():
    """The formatter also formats Python within Markdown, and would make a page stale."""
    done = subprocess.run(
        [Path(sys.executable).parent / "ruff", "format", "--check", "docs"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout
