"""Child processes that log to files, stop in bounded time and cannot outlive the process that started them.

Must never leave a process behind: not on an error, not on Ctrl-C, not when the parent itself is killed with SIGKILL.
The last is the kernel's doing (see die_with_parent.py), so it holds on Linux, for the child itself. Children that the
child starts are in its process group: they are signalled with it, but are on their own when the parent is killed.
"""

import atexit
import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import BinaryIO, ClassVar, NamedTuple, Protocol

from deploy.local.errors import LocalStackError

_LAUNCHER = Path(__file__).with_name("die_with_parent.py")
_LOG_TAIL_BYTES = 64 * 1024
STOP_TIMEOUT_S = 10.0


class Child(Protocol):
    """A program that runs, or has run, as subprocess.Popen tells of it."""

    @property
    def pid(self) -> int:
        """Process id, and that of its process group."""

    def poll(self) -> int | None:
        """Exit code, negative for a signal; None while it runs."""

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, once it has ended. Raises subprocess.TimeoutExpired after so many seconds."""


class Launched(NamedTuple):
    """A child, and what it says of its start."""

    child: Child
    report: BinaryIO
    """Ends without a word once the program runs, else with the reason."""


class Launch(Protocol):
    """A way to start programs."""

    def __call__(
        self, argv: Sequence[str], environment: Mapping[str, str], cwd: Path | str | None, log: BinaryIO
    ) -> Launched:
        """Start one with its output to `log`, and return at once.

        It is in a process group of its own and dies with the thread that started it.
        """


def launch(argv: Sequence[str], environment: Mapping[str, str], cwd: Path | str | None, log: BinaryIO) -> Launched:
    """Start any program of this machine."""
    report, report_fd = os.pipe()
    try:
        child = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_LAUNCHER), str(os.getpid()), str(report_fd), *argv],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=cwd,
            pass_fds=(report_fd,),
            # Ctrl-C in a terminal goes to the whole foreground group: who started it decides when it stops.
            start_new_session=True,
        )
    except BaseException:
        os.close(report)
        raise
    finally:
        os.close(report_fd)
    return Launched(child, os.fdopen(report, "rb"))


class _Spawner:
    """Starts all children from one thread that lives as long as the process.

    The kernel's "parent" of PR_SET_PDEATHSIG is the *thread* that forked: a child started from a pool's thread would be
    killed when that thread ends, in the middle of its work.
    """

    def __init__(self) -> None:
        self._requests: queue.SimpleQueue[tuple[Callable[[], Launched], Future[Launched]]] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="clv-spawner", daemon=True).start()

    def _run(self) -> None:
        while True:
            start, answer = self._requests.get()
            try:
                answer.set_result(start())
            except BaseException as error:  # noqa: BLE001 (handed to the caller, who raises it)
                answer.set_exception(error)

    def spawn(self, start: Callable[[], Launched]) -> Launched:
        answer: Future[Launched] = Future()
        self._requests.put((start, answer))
        return answer.result()


_spawners: dict[int, _Spawner] = {}  # by the process that they live in: none survives a fork
_spawners_lock = threading.Lock()
_running: "weakref.WeakSet[ServiceProcess]" = weakref.WeakSet()


def _the_spawner() -> _Spawner:
    with _spawners_lock:
        if os.getpid() not in _spawners:
            _spawners[os.getpid()] = _Spawner()
        return _spawners[os.getpid()]


@atexit.register
def _stop_what_is_left() -> None:
    """Give children that nobody stopped the chance to shut down cleanly, all at once."""
    left = [process for process in _running if process.owned and process.alive]
    for process in left:
        process.signal(signal.SIGCONT)
        process.signal(signal.SIGTERM)
    for process in left:
        process.stop()


class ServiceProcess:
    """One child process with its log file.

    name: for messages. argv: program and arguments. env: changes to this process's environment; None takes a variable
    out. log_path: stdout and stderr are appended to it; its folder is made. cwd: working folder, default this one's.
    The object can be started again after it ended. Its methods may be called from any thread, not from two at once.
    """

    launch: ClassVar[Launch] = staticmethod(launch)
    """How all programs are started. Tests, which start hundreds, have a faster one."""

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        env: Mapping[str, str | None] | None = None,
        log_path: Path | str = os.devnull,
        *,
        cwd: Path | str | None = None,
    ) -> None:
        self.name = name
        self.argv = list(argv)
        self.env = dict(env or {})
        self.log_path = Path(log_path)
        self.cwd = cwd
        self._process: Child | None = None
        self._owner_pid = 0
        self._paused = False

    def start(self) -> None:
        """Start the program. Raises LocalStackError if it runs already or cannot be run at all."""
        if self.alive:
            raise LocalStackError(f"{self.name} is already running (pid {self.pid})")
        if not sys.platform.startswith("linux"):
            raise LocalStackError(f"{self.name} cannot be started here: the local stack needs Linux")
        environment = {key: value for key, value in {**os.environ, **self.env}.items() if value is not None}
        if self.log_path != Path(os.devnull):
            self.log_path.parent.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("ab") as log:
            self._process, report = _the_spawner().spawn(lambda: self.launch(self.argv, environment, self.cwd, log))
        self._owner_pid = os.getpid()
        self._paused = False
        _running.add(self)
        # Until the program runs, a pause would also keep it from asking to die with this process.
        with report:
            failure = report.read().decode(errors="replace")
        if failure:
            self.wait()
            raise LocalStackError(f"{self.name} cannot be started: {failure}")

    @property
    def owned(self) -> bool:
        """Whether this very process started it (a copy of the object in a forked process did not)."""
        return self._process is not None and self._owner_pid == os.getpid()

    @property
    def pid(self) -> int | None:
        """Process id, also after its end; None before the first start."""
        return None if self._process is None else self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it runs (a paused process does)."""
        return self._process is not None and self._process.poll() is None

    @property
    def paused(self) -> bool:
        """Whether `pause` was called and `resume` was not."""
        return self._paused and self.alive

    @property
    def exit_code(self) -> int | None:
        """Exit code of the ended process, negative for a signal; None while it runs or before the first start."""
        return None if self._process is None else self._process.poll()

    def wait(self, timeout_s: float | None = None) -> int | None:
        """Wait for its end; the exit code, or None if it still runs after `timeout_s`."""
        if self._process is None:
            return None
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def signal(self, number: int) -> None:
        """Send a signal to its process group; nothing happens if it has ended."""
        if self._process is not None and self.alive:
            # The group has the child's id (start_new_session); until it is waited for, that id cannot be reused.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> int | None:
        """SIGTERM, then SIGKILL if it still runs after `timeout_s`. The exit code; None if it was never started."""
        self.resume()
        self.signal(signal.SIGTERM)
        if self.wait(timeout_s) is None:
            return self.kill()
        return self.exit_code

    def kill(self) -> int | None:
        """SIGKILL, and wait for the end. The exit code; None if it was never started."""
        self.signal(signal.SIGKILL)
        self._paused = False
        return self.wait()

    def pause(self) -> None:
        """SIGSTOP: it keeps its sockets and its memory, but does nothing until `resume`."""
        self.signal(signal.SIGSTOP)
        self._paused = True

    def resume(self) -> None:
        """SIGCONT after `pause`; nothing otherwise."""
        if self._paused:
            self.signal(signal.SIGCONT)
            self._paused = False

    def log_tail(self, lines: int = 20) -> str:
        """The last lines of its log, for error messages; empty if there is none."""
        return file_tail(self.log_path, lines)

    def __enter__(self) -> "ServiceProcess":
        if not self.alive:
            self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def file_tail(path: Path, lines: int = 20) -> str:
    """The last lines of a text file of any size; empty if there is no such file."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _LOG_TAIL_BYTES))
            return "\n".join(file.read().decode("utf-8", "replace").splitlines()[-lines:])
    except OSError:
        return ""


def wait_until(ready: Callable[[], bool], alive: Callable[[], bool], timeout_s: float, poll_s: float = 0.02) -> bool:
    """Poll `ready` until it holds; False when `alive` no longer does or `timeout_s` is over.

    For servers, which have no event to wait for: only their answer says that they are up.
    """
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if ready():
            return True
        if not alive():
            return False
        time.sleep(poll_s)
    return False
