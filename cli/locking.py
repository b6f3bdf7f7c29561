"""`./clv lock`: pins of every dependency group, with hashes, the dev group first so that all agree."""

import subprocess
import tomllib

from cli.platform import ROOT
from services.runtime.shutdown import KnownProblem

COMPILE = [
    "--generate-hashes",
    "--no-header",
    "--no-annotate",
    "--no-emit-index-url",
    "--no-emit-find-links",
    "--quiet",
]


def lock_all() -> None:
    """Write locks/<group>.txt for each group that is installed somewhere. Raises KnownProblem if uv cannot resolve."""
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    uv = ROOT / ".venv" / "bin" / "uv"
    for group in ["dev", *sorted(set(groups) - {"dev", "runtime"})]:
        constraints = [] if group == "dev" else ["-c", "locks/dev.txt"]
        command = [str(uv), "pip", "compile", "--group", group, *COMPILE, *constraints, "-o", f"locks/{group}.txt"]
        if subprocess.run(command, cwd=ROOT, check=False).returncode != 0:
            raise KnownProblem(f"group {group} of pyproject.toml cannot be resolved (above)")
