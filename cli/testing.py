"""`./clv test`: style, types and architecture, then the tests. Ends with pytest's own summary."""

import subprocess
import sys
import time

from cli.platform import ROOT

CHECKS = (
    ("format", ["ruff", "format", "--check", "--quiet", "."]),
    ("lint", ["ruff", "check", "--quiet", "."]),
    ("types", ["mypy", "--no-error-summary"]),
    ("architecture", ["lint-imports", "--no-cache"]),
)
# Much of the time goes into waiting for servers and for session timeouts, so two files run at a time, each with servers
# of its own.
PARALLEL = ("-n", "2", "--dist", "loadfile")
FAST = ("tests/unit", "tests/properties", "tests/contract", "tests/test_tidy.py")


def run_tests(fast: bool, arguments: list[str]) -> int:
    """Run the checks, then pytest with further arguments; the first exit code that is not 0, else 0."""
    for name, command in CHECKS:
        began = time.perf_counter()
        found = subprocess.run(
            [str(ROOT / ".venv" / "bin" / command[0]), *command[1:]],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        if found.returncode != 0:
            print(found.stdout + found.stderr, file=sys.stderr)
            print(f"clv test: {name} failed: {' '.join(command)}", file=sys.stderr)
            return found.returncode
        print(f"{name} ok ({time.perf_counter() - began:.1f} s)", flush=True)
    chosen = list(FAST) if fast else []
    command = [sys.executable, "-m", "pytest", *PARALLEL, *chosen, *arguments]
    return subprocess.run(command, cwd=ROOT, check=False).returncode
