"""`./clv chaos`: run the harness, print what came of it, and end with exit code 1 if anything was wrong."""

import json
import tempfile
from pathlib import Path

from rich.console import Console

from cli.chaos.report import as_json, show
from cli.chaos.run import Options, run
from cli.demo_data import cdnow_model


def main(options: Options, json_file: Path | None, keep: Path | None = None) -> int:
    """The exit code. keep: folder for the logs and local state, which go away otherwise."""
    console = Console()

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    models = cdnow_model(say)
    with tempfile.TemporaryDirectory(prefix="clv-chaos-", ignore_cleanup_errors=True) as folder:
        outcome = run(options, models, keep or Path(folder), say)
    show(outcome, console)
    if json_file is not None:
        json_file.write_text(json.dumps(as_json(outcome), indent=2) + "\n")
    return 0 if outcome.findings.clean else 1
