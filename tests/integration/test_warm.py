"""What is forked with libraries in it behaves as `python -m` does, whatever a test does to it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from deploy.local import processes
from deploy.local.processes import ServiceProcess
from tests import warm
from tests.conftest import ROOT
from tests.support import wait_for

pytestmark = pytest.mark.integration

PROGRAM = """
import os, signal, sys
print("fastapi.responses" in sys.modules, __name__, sys.argv[1:], os.getcwd(), os.environ.get("CLV_OWN"), flush=True)
print(os.getpid() == os.getpgrp(), "domain" in sys.modules, "HOME" in os.environ, sys.path[0], flush=True)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
print("to standard error", file=sys.stderr)
if "raise" in sys.argv:
    raise ValueError("what went wrong")
while True:
    signal.pause()
"""
STARTER = """
import os, sys, time
from deploy.local.processes import ServiceProcess
from tests import warm

def main():
    ServiceProcess.launch = staticmethod(warm.launch)
    process = ServiceProcess("own", [sys.executable, "-m", "own"], log_path="own.log", cwd=".")
    process.start()
    print(process.pid, flush=True)
    time.sleep(600)

if __name__ == "__main__":
    main()
"""


def own(folder: Path, *arguments: str, launch: processes.Launch = warm.launch) -> ServiceProcess:
    (folder / "own.py").write_text(PROGRAM)
    argv = [sys.executable, "-m", "own", *arguments]
    process = ServiceProcess("own", argv, {"CLV_OWN": "yes", "HOME": None}, folder / "own.log", cwd=folder)
    process.launch = launch  # type: ignore[misc]
    process.start()
    return process


@pytest.mark.parametrize("launch", [warm.launch, processes.launch])
def test_both_ways_give_the_same_process(tmp_path: Path, launch: processes.Launch):
    process = own(tmp_path, "--an", "argument", launch=launch)
    wait_for(lambda: "standard error" in process.log_tail(), "it to run", context=process.log_tail)
    is_warm = launch is warm.launch
    assert process.log_tail().splitlines()[:2] == [
        f"{is_warm} __main__ ['--an', 'argument'] {tmp_path} yes",
        f"True False False {tmp_path}",
    ]
    process.pause()
    wait_for(lambda: psutil.Process(process.pid).status() == psutil.STATUS_STOPPED, "it to stand still")
    assert process.stop() == 7
    process.start()
    assert process.alive
    assert process.kill() == -signal.SIGKILL
    assert process.wait(0.1) == -signal.SIGKILL


def test_an_error_is_told_in_its_log(tmp_path: Path):
    process = own(tmp_path, "raise")
    assert process.wait(30) == 1
    assert "ValueError: what went wrong" in process.log_tail()


def test_it_dies_with_the_test_process_even_by_kill_9(tmp_path: Path):
    (tmp_path / "own.py").write_text(PROGRAM)
    (tmp_path / "starter.py").write_text(STARTER)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "starter.py"]
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        pid = int(starter.stdout.readline())
        assert psutil.pid_exists(pid)
        starter.kill()
    wait_for(lambda: not psutil.pid_exists(pid), "the forked process to be gone")


def test_what_python_or_a_library_reads_first_makes_it_start_anew():
    argv = [sys.executable, "-m", "services.ingest"]
    assert warm.fits(argv, {**os.environ, "CLV_OWN": "yes", "PYTHONPATH": "/anywhere"})
    assert not warm.fits(argv, {**os.environ, "OMP_NUM_THREADS": "17"})
    assert not warm.fits([sys.executable, "-c", "pass"], dict(os.environ))
