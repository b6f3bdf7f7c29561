"""Services for tests without the seconds that Python takes to load their libraries.

Tests start hundreds of services, and each would load FastAPI, Faust and NumPy anew, for 1.5 to 3 seconds of a core.
A server that has loaded them once forks for each instead. What is forked is a process like any other, which loads
the project's own code, reads its own environment, and can be killed with `kill -9`; only libraries are there already.
Services from the command line, those of the demo and those with the libraries of their lock alone start as everywhere.
"""

import atexit
import multiprocessing
import os
import runpy
import subprocess
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import BinaryIO

from deploy.local import processes
from deploy.local.die_with_parent import ask_to_die_with_parent

LIBRARIES = (
    "aiohttp.web",
    "aiokafka.admin",
    "datasketches",
    "fastapi.responses",
    "faust.app",
    "faust.auth",
    "faust.channels",
    "faust.tables",
    "faust.windows",
    "httpx",
    "intervaltree",
    "iso4217",
    "mode.threads",
    "motor.motor_asyncio",
    "msgspec.json",
    "numpy.typing",
    "onnxruntime",
    "orjson",
    "prometheus_client",
    "pydantic_settings",
    "python_multipart",
    "rocksdict",
    "sse_starlette",
    "structlog.dev",
    "terminaltables",
    "uvicorn",
    "yaml",
)
"""What services import. One that is missing here costs time, nothing else."""
READ_AT_START = ("PYTHON", "OMP_", "OPENBLAS_", "MALLOC_", "LD_", "GLIBC_")
LATER = ("PYTHONPATH", "PYTHONUNBUFFERED")
"""Variables that Python or a library reads before any code of ours; and those that can still be seen to afterwards."""

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["tests.warm_server"])


def fits(argv: Sequence[str], environment: Mapping[str, str]) -> bool:
    """Whether it is a module of ours that would find everything as in a process of its own."""

    def read(variables: Mapping[str, str]) -> dict[str, str]:
        return {key: text for key, text in variables.items() if key.startswith(READ_AT_START) and key not in LATER}

    return list(argv[:2]) == [sys.executable, "-m"] and read(environment) == read(os.environ)


def launch(
    argv: Sequence[str], environment: Mapping[str, str], cwd: Path | str | None, log: BinaryIO
) -> processes.Launched:
    """As processes.launch: modules of ours from the server, everything else as ever."""
    if not fits(argv, environment):
        return processes.launch(argv, environment, cwd, log)
    report, running = _context.Pipe(duplex=False)
    child = _context.Process(
        target=_become, args=(argv[2:], dict(environment), cwd or Path.cwd(), log.name, running), daemon=True
    )
    with running:
        child.start()
    with report:
        return processes.Launched(_Forked(child), os.fdopen(os.dup(report.fileno()), "rb"))


class _Forked:
    """What subprocess.Popen has, of a process that the server forked."""

    def __init__(self, process: multiprocessing.process.BaseProcess) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        code = self._process.exitcode
        if code is None:
            assert timeout is not None
            raise subprocess.TimeoutExpired(str(self._process.name), timeout)
        return code


def _become(
    argv: Sequence[str], environment: Mapping[str, str], cwd: Path | str, log: str, running: Connection
) -> None:
    """Be `python -m` with these arguments, in the process that the server has just forked."""
    os.setsid()
    ask_to_die_with_parent()
    output = os.open(log, os.O_WRONLY | os.O_APPEND)
    for descriptor in (1, 2):
        os.dup2(output, descriptor)
    os.close(output)
    sys.stdout.reconfigure(write_through=True)  # type: ignore[union-attr]
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    sys.path[:0] = [str(cwd), *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
    sys.argv = list(argv)
    running.close()
    try:
        runpy.run_module(argv[0], run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()  # multiprocessing ends without
