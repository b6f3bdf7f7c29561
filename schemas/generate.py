"""Writes what is made from the contracts: schemas/json/, schemas/asyncapi.yaml and docs/topics.md.

`python -m schemas.generate` writes; with --check it writes nothing, lists what is stale and exits 1. Must never
put a date, a version of a library or a machine's name into a file.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from schemas.asyncapi import asyncapi_document
from schemas.json_schemas import json_schemas
from schemas.topic_pages import topics_page

ROOT = Path(__file__).parent.parent
JSON_DIR = Path("schemas/json")
COMMAND = "python -m schemas.generate"

Files = Mapping[Path, str]
"""Text by path from the repository's root."""


class _PlainDumper(yaml.SafeDumper):
    """Writes no anchors: what occurs twice is written twice, for readers that do not follow them."""

    def ignore_aliases(self, _: Any) -> bool:
        return True


def yaml_text(document: Any, command: str) -> str:
    """A generated YAML file, saying what makes it."""
    body: str = yaml.dump(document, Dumper=_PlainDumper, sort_keys=False, allow_unicode=True, width=120)
    return f"# Made by `{command}`. Do not edit.\n{body}"


def contract_files() -> Files:
    """All files that this module writes."""
    found = {
        JSON_DIR / f"{name}.schema.json": json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
        for name, schema in json_schemas().items()
    }
    found[Path("schemas/asyncapi.yaml")] = yaml_text(asyncapi_document(), COMMAND)
    found[Path("docs/topics.md")] = topics_page()
    return found


def stale(files: Files, owned_globs: Sequence[str], root: Path = ROOT) -> list[Path]:
    """Files that differ from what would be written, are missing, or lie in an owned place without being made."""
    wrong = [path for path, text in files.items() if not _says(root / path, text)]
    extra = {found.relative_to(root) for pattern in owned_globs for found in root.glob(pattern)} - files.keys()
    return sorted([*wrong, *extra])


def write(files: Files, owned_globs: Sequence[str], root: Path = ROOT) -> list[Path]:
    """Bring everything up to date; returns what was changed."""
    changed = stale(files, owned_globs, root)
    for path in changed:
        if path in files:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(files[path])
        else:
            (root / path).unlink()
    return changed


def run(files: Files, owned_globs: Sequence[str], command: str, arguments: Sequence[str], root: Path = ROOT) -> int:
    """The command line of a generator: the exit code."""
    if list(arguments) not in ([], ["--check"]):
        sys.stderr.write(f"usage: {command} [--check]\n")
        return 2
    if not arguments:
        for path in write(files, owned_globs, root):
            sys.stdout.write(f"wrote {path}\n" if path in files else f"removed {path}\n")
        return 0
    found = stale(files, owned_globs, root)
    for path in found:
        sys.stdout.write(f"stale: {path}\n")
    if found:
        sys.stdout.write(f"run `{command}`\n")
    return 1 if found else 0


def _says(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text() == text


OWNED_GLOBS = (f"{JSON_DIR}/*",)

if __name__ == "__main__":
    sys.exit(run(contract_files(), OWNED_GLOBS, COMMAND, sys.argv[1:]))
