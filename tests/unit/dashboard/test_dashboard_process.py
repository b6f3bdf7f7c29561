"""How the dashboard starts, and what it needs: nothing but what its own lock installs."""

import re
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from services.dashboard.server import streamlit_options
from services.dashboard.settings import DashboardSettings

ROOT = Path(__file__).parents[3]


LOCK = ROOT / "locks" / "dashboard.txt"
_IMPORT_ALL_BUT = """
import importlib.abc, sys
class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in sys.argv[1:]:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
import services.dashboard.__main__
from services.dashboard.views import customer, live, model, predict, segments
"""


@pytest.mark.slow
def test_it_runs_with_nothing_but_what_its_lock_installs():
    locked = {normal(name) for name in re.findall(r"^([\w.-]+)==", LOCK.read_text(), re.MULTILINE)}
    missing = [
        module
        for module, distributions in packages_distributions().items()
        if not {normal(name) for name in distributions} & locked
    ]
    assert "aiokafka" in missing
    done = subprocess.run(
        [sys.executable, "-c", _IMPORT_ALL_BUT, *missing], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


def normal(name: str) -> str:
    """A distribution's name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def test_nothing_is_watched_or_reported_home():
    options = streamlit_options(DashboardSettings(dashboard_http_port=8123, http_host="127.0.0.1"))
    assert options["browser.gatherUsageStats"] is False
    assert options["server.fileWatcherType"] == "none"
    assert options["server.headless"] is True
    assert options["server.port"] == 8123
    assert options["server.address"] == "127.0.0.1"


def test_a_wrong_setting_ends_it_with_one_line():
    done = subprocess.run(
        [sys.executable, "-m", "services.dashboard"],
        cwd=ROOT,
        env={"PATH": "/usr/bin", "CLV_DASHBOARD_API_ADDRESS": "x"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    assert "unknown setting CLV_DASHBOARD_API_ADDRESS" in done.stderr
    assert "Traceback" not in done.stderr
