"""Child processes: stopped in bounded time, restartable, and gone when whoever started them is gone."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from deploy.local.errors import LocalStackError
from deploy.local.processes import ServiceProcess, file_tail

SLEEPS = "import time; print('up', flush=True); time.sleep(600)"
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
POLITE = (
    "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(7)); print('up', flush=True);"
    " time.sleep(600)"
)


def eventually(condition: object, timeout_s: float = 20.0) -> bool:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if condition():  # type: ignore[operator]
            return True
        time.sleep(0.02)
    return False


@pytest.fixture
def started(tmp_path: Path) -> Iterator[object]:
    made: list[ServiceProcess] = []

    def start(code: str, **options: object) -> ServiceProcess:
        process = ServiceProcess("worker", [sys.executable, "-c", code], log_path=tmp_path / "worker.log", **options)
        made.append(process)
        process.start()
        return process

    yield start
    for process in made:
        process.kill()


def is_up(process: ServiceProcess) -> bool:
    return eventually(lambda: "up" in process.log_tail())


def test_a_process_that_handles_sigterm_ends_with_its_own_exit_code(started) -> None:
    process = started(POLITE)
    assert is_up(process)
    assert process.stop() == 7
    assert not process.alive
    assert process.exit_code == 7


def test_a_process_that_ignores_sigterm_is_killed_when_the_time_is_over(started) -> None:
    process = started(DEAF)
    assert is_up(process)
    begin = time.monotonic()
    assert process.stop(timeout_s=0.3) == -signal.SIGKILL
    assert 0.3 <= time.monotonic() - begin < 5


def test_a_paused_process_does_nothing_and_can_still_be_stopped_politely(started) -> None:
    process = started(POLITE)
    assert is_up(process)
    process.pause()
    assert process.paused
    assert eventually(lambda: psutil.Process(process.pid).status() == psutil.STATUS_STOPPED)
    assert process.stop() == 7


def test_a_resumed_process_goes_on(started) -> None:
    process = started(SLEEPS)
    assert is_up(process)
    process.pause()
    assert eventually(lambda: psutil.Process(process.pid).status() == psutil.STATUS_STOPPED)
    process.resume()
    assert not process.paused
    assert eventually(lambda: psutil.Process(process.pid).status() == psutil.STATUS_SLEEPING)


def test_a_killed_process_can_be_started_again_and_appends_to_its_log(started) -> None:
    process = started(SLEEPS)
    assert is_up(process)
    first = process.pid
    assert process.kill() == -signal.SIGKILL
    process.start()
    assert process.pid != first
    assert eventually(lambda: process.log_tail().count("up") == 2)


def test_a_running_process_is_not_started_twice(started) -> None:
    process = started(SLEEPS)
    with pytest.raises(LocalStackError, match="already running"):
        process.start()


def test_the_environment_is_this_ones_with_the_changes(started, monkeypatch) -> None:
    monkeypatch.setenv("KEPT", "1")
    monkeypatch.setenv("TAKEN_OUT", "1")
    process = started(
        "import os; print(os.getenv('KEPT'), os.getenv('TAKEN_OUT'), os.getenv('ADDED'))",
        env={"TAKEN_OUT": None, "ADDED": "2"},
    )
    assert process.wait(20) == 0
    assert process.log_tail() == "1 None 2"


def test_a_program_that_is_not_there_is_told_by_start(tmp_path: Path) -> None:
    process = ServiceProcess("worker", ["no-such-program-anywhere"], log_path=tmp_path / "worker.log")
    with pytest.raises(LocalStackError, match="worker cannot be started: no-such-program-anywhere: No such file"):
        process.start()
    assert not process.alive


def test_a_child_inherits_no_open_file(tmp_path: Path) -> None:
    process = ServiceProcess("shell", ["ls", "/proc/self/fd"], log_path=tmp_path / "log")
    process.start()
    assert process.wait(20) == 0
    assert process.log_tail().split()[:3] == ["0", "1", "2"]
    assert len(process.log_tail().split()) == 4  # the last is what ls itself reads the folder with


def test_a_broken_pipe_kills_a_child_as_it_would_in_a_shell(tmp_path: Path) -> None:
    """Python ignores SIGPIPE and exec hands that on: the launcher has to undo it."""
    process = ServiceProcess("shell", ["sh", "-c", "grep SigIgn /proc/self/status"], log_path=tmp_path / "log")
    process.start()
    assert process.wait(20) == 0
    ignored = int(process.log_tail().split()[1], 16)
    assert ignored & (1 << (signal.SIGPIPE - 1)) == 0


def test_a_child_outlives_the_thread_that_started_it(started) -> None:
    made: list[ServiceProcess] = []
    thread = threading.Thread(target=lambda: made.append(started(SLEEPS)))
    thread.start()
    thread.join()
    assert is_up(made[0])
    assert made[0].wait(0.3) is None
    assert made[0].alive


def test_children_of_the_child_are_stopped_with_it(started) -> None:
    process = started(
        "import subprocess, sys, time;"
        "print('grandchild', subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']).pid, flush=True);"
        "time.sleep(600)"
    )
    assert eventually(lambda: "grandchild" in process.log_tail())
    grandchild = int(process.log_tail().split()[-1])
    process.stop()
    assert eventually(lambda: not psutil.pid_exists(grandchild) or is_zombie(grandchild))


def is_zombie(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


PARENT = """
import sys, time
from concurrent.futures import ThreadPoolExecutor
from deploy.local.processes import ServiceProcess
code = "import signal, time; signal.signal(signal.SIGTERM, lambda *_: (print('polite', flush=True), exit(0)));" \
    "print('up', flush=True); time.sleep(600)"
def start(number):
    process = ServiceProcess("child", [sys.executable, "-c", code], log_path=f"{sys.argv[1]}/{number}.log")
    process.start()
    return process
with ThreadPoolExecutor(2) as pool:
    processes = list(pool.map(start, range(2)))
processes[1].pause() if sys.argv[2] == "paused" else None
print(*[process.pid for process in processes], flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def parent(tmp_path: Path, request):
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    command = [sys.executable, "-c", PARENT, str(tmp_path), getattr(request, "param", "running")]
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        children = [int(pid) for pid in process.stdout.readline().split()]
        assert len(children) == 2
        yield process, children
        process.kill()


@pytest.mark.parametrize("parent", ["running", "paused"], indirect=True)
def test_killing_the_parent_leaves_no_child_behind(parent) -> None:
    process, children = parent
    assert all(psutil.pid_exists(pid) and not is_zombie(pid) for pid in children)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert eventually(lambda: all(is_zombie(pid) for pid in children))


def test_a_parent_that_ends_by_itself_stops_its_children_politely(parent, tmp_path: Path) -> None:
    process, children = parent
    assert eventually(lambda: all("up" in file_tail(tmp_path / f"{number}.log") for number in range(2)))
    process.stdin.write("\n")
    process.stdin.close()
    assert process.wait(20) == 0
    assert all(is_zombie(pid) for pid in children)
    assert [file_tail(tmp_path / f"{number}.log", 1) for number in range(2)] == ["polite", "polite"]


def test_the_tail_of_a_log_is_its_last_lines_whatever_its_size(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert file_tail(log) == ""
    log.write_text("".join(f"line {number}\n" for number in range(100_000)))
    assert file_tail(log, 2) == "line 99998\nline 99999"
    log.write_bytes(b"\xff\xfe broken\n")
    assert file_tail(log, 5).endswith("broken")
