"""Starting and ending a service: real processes and real signals, since that is what an orchestrator sends."""

import signal
import subprocess
import sys
from pathlib import Path
from textwrap import indent

import pytest

ROOT = Path(__file__).parents[3]
SCRIPT = """
import asyncio, sys
from services.runtime import shutdown
from services.runtime.logs import configure_logs
from services.runtime.shutdown import KnownProblem, run_service

async def main(stop):
{body}

configure_logs("test", "info", "json")
shutdown.GRACE_SECONDS = 0.3
run_service(main)
"""


def start(body: str) -> "subprocess.Popen[str]":
    script = SCRIPT.format(body=indent(body, "    "))
    return subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def end(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    try:
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
    return process.returncode, out, err


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_the_service_finish_its_work(signum: signal.Signals):
    process = start("print('up', flush=True)\nawait stop.wait()\nprint('finished', flush=True)")
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    process.send_signal(signum)
    code, out, err = end(process)
    assert (code, out) == (0, "finished\n")
    assert '"stopped"' in err


def test_a_service_whose_work_is_done_ends_well():
    assert end(start("return"))[0] == 0


def test_a_known_problem_is_one_line_without_a_traceback():
    code, out, err = end(start("raise KnownProblem('no broker answers: start it')"))
    assert (code, out) == (1, "")
    assert len(err.splitlines()) == 1
    assert "no broker answers: start it" in err
    assert "Traceback" not in err


def test_an_unknown_problem_ends_the_service_with_an_error_and_its_traceback():
    code, _, err = end(start("raise ZeroDivisionError('really')"))
    assert code == 1
    assert "Traceback" in err
    assert "really" in err


def test_work_that_does_not_end_in_time_is_cut_off():
    process = start("print('up', flush=True)\nwhile True:\n    await asyncio.sleep(60)")
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    code, _, err = end(process)
    assert code == 2
    assert "stopped_hard" in err


def test_an_error_while_stopping_is_not_taken_for_a_clean_end():
    process = start("print('up', flush=True)\nawait stop.wait()\nraise ValueError('could not flush')")
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    code, _, err = end(process)
    assert code == 1
    assert "could not flush" in err
