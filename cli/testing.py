"""`./clv test`: style, types and architecture, and the tests. Ends with pytest's own summary, unless a check fails."""

import os
import subprocess
import sys
import time
from enum import Enum
from typing import NamedTuple

from cli.platform import ROOT


class Check(NamedTuple):
    """A command of the development environment that says nothing where all is well."""

    name: str
    command: tuple[str, ...]

    def start(self) -> "subprocess.Popen[str]":
        """The running command, its output kept."""
        return subprocess.Popen(
            [str(ROOT / ".venv" / "bin" / self.command[0]), *self.command[1:]],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def end(self, running: "subprocess.Popen[str]") -> int:
        """Its exit code, once it has ended; what it found is printed."""
        found, _ = running.communicate()
        if running.returncode != 0:
            print(found, file=sys.stderr)
            print(f"clv test: {self.name} failed: {' '.join(self.command)}", file=sys.stderr)
        return running.returncode


CHECKS = (
    Check("format", ("ruff", "format", "--check", "--quiet", ".")),
    Check("lint", ("ruff", "check", "--quiet", ".")),
    Check("architecture", ("lint-imports", "--no-cache")),
)
# Takes most of a minute in a fresh folder, on one core: everything else runs meanwhile.
TYPES = Check("types", ("mypy", "--no-error-summary"))
# Files run side by side, each with servers of its own. They begin with those that take longest (tests/conftest.py),
# not with those of most tests, as is the default: one worker would be left alone with the chaos tests at the end.
PARALLEL = ("--dist", "loadfile", "--no-loadscope-reorder")
SPARING = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


class Tier(Enum):
    """How much is tested: pytest's arguments."""

    # A plugin takes seconds to load in each process, and is for tests with servers.
    FAST = (
        "-n",
        "2",
        "-p",
        "no:schemathesis",
        "tests/unit",
        "tests/properties",
        "tests/contract",
        "tests/test_tidy.py",
        "-m",
        "not (integration or e2e or slow)",
    )
    # Much of the time goes into waiting for servers and for session timeouts: three files keep two cores busy.
    USUAL = ("-n", "3", "-m", "not long")
    ALL = ("-n", "3")


def _environment(tier: Tier) -> dict[str, str]:
    """Of the tests, which start hundreds of processes: each would otherwise compile all that it imports anew.

    Who wants no bytecode beside the code still gets none. One thread each for OpenMP and BLAS: the workers share two
    cores, and threads that wait for one another there spin most of the time away.
    """
    kept = {**SPARING, **({"CLV_TEST_FEWER_EXAMPLES": "true"} if tier is not Tier.ALL else {}), **os.environ}
    if kept.pop("PYTHONDONTWRITEBYTECODE", None):
        kept.setdefault("PYTHONPYCACHEPREFIX", str(ROOT / ".clv" / "bytecode"))
    return kept


def run_tests(tier: Tier, arguments: list[str]) -> int:
    """Run the checks, and pytest with further arguments; the first exit code that is not 0, else 0."""
    if tier is not Tier.FAST:
        subprocess.run([ROOT / "deploy" / "packages" / "install.sh"], check=False)  # says itself what it could not do
    types = TYPES.start()
    try:
        for check in CHECKS:
            began = time.perf_counter()
            if code := check.end(check.start()):
                return code
            print(f"{check.name} ok ({time.perf_counter() - began:.1f} s)", flush=True)
        print(f"{TYPES.name} are checked while the tests run", flush=True)
        tests = subprocess.run(
            [sys.executable, "-m", "pytest", *PARALLEL, *tier.value, *arguments],
            cwd=ROOT,
            env=_environment(tier),
            check=False,
        )
        return TYPES.end(types) or tests.returncode
    finally:
        types.kill()
