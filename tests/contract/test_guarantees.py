"""docs/guarantees.md: every sentence names the tests that prove it, and each of these exists."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "guarantees.md"
_TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def promises() -> list[str]:
    """The bullets of the page, each with what follows it up to the next."""
    bullets: list[str] = []
    for line in PAGE.read_text().partition("## Not guaranteed")[0].splitlines():
        if line.startswith("- "):
            bullets.append(line)
        elif bullets and line.startswith("  "):
            bullets[-1] += "\n" + line
    return bullets


@pytest.mark.parametrize("promise", promises(), ids=lambda text: text[2:60])
def test_every_promise_names_tests_that_exist(promise: str):
    named = _TEST.findall(promise)
    assert named, "no test is named"
    for file, name in named:
        path = ROOT / file
        assert path.exists(), file
        kinds = ast.FunctionDef | ast.AsyncFunctionDef
        functions = {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, kinds)}
        assert name in functions, f"{file} has no {name}"


def test_there_are_promises_of_every_part():
    headings = [line for line in PAGE.read_text().splitlines() if line.startswith("## ")]
    assert len(headings) >= 8
    assert len(promises()) >= 25
