"""`./clv test` begins with the files that take longest, so that both workers end at about the same time."""

from types import SimpleNamespace
from typing import Any

from cli.testing import PARALLEL
from tests.conftest import ROOT, SECONDS, pytest_collection_modifyitems

LONG, SHORT = max(SECONDS, key=lambda name: SECONDS[name]), "tests/unit/cli/test_order_of_tests.py"


def ordered(config: Any) -> list[str]:
    items: list[Any] = [SimpleNamespace(path=ROOT / name) for name in (SHORT, "tests/integration/test_new.py", LONG)]
    pytest_collection_modifyitems(config, items)
    return [item.path.relative_to(ROOT).as_posix() for item in items]


def test_workers_begin_with_the_longest_files():
    assert ordered(SimpleNamespace(workerinput={})) == [LONG, "tests/integration/test_new.py", SHORT]
    assert "--no-loadscope-reorder" in PARALLEL, "or the files of most tests come first, whatever the order here"


def test_a_single_process_keeps_the_order_of_files():
    assert ordered(SimpleNamespace()) == [SHORT, "tests/integration/test_new.py", LONG]


def test_every_file_said_to_take_long_is_there():
    assert [name for name in SECONDS if not (ROOT / name).is_file()] == []
