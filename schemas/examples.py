"""Example messages, schemas/examples/<topic>/<major version>/*.json: what the documents show and the tests check.

Read only by generators and tests; must never be needed by a running service.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

EXAMPLES_DIR = Path(__file__).parent / "examples"
VERSION = "1"


class Example(NamedTuple):
    """One example file: `name` without its ending, its `text` as it stands there, and the decoded `value`."""

    name: str
    text: str
    value: Any


def examples(topic_name: str) -> list[Example]:
    """The examples of a topic (by its short name), in order of file names. Raises ValueError naming bad JSON."""
    found = []
    for path in sorted((EXAMPLES_DIR / topic_name / VERSION).glob("*.json")):
        text = path.read_text()
        try:
            found.append(Example(path.stem, text, json.loads(text)))
        except json.JSONDecodeError as error:
            raise ValueError(f"{path} is not JSON: {error}") from error
    return found


def kind_of(example: Example, kinds: set[str]) -> str:
    """Which of a topic's kinds of message an example is: its event_type, or the only kind there is.

    Raises ValueError if it is none.
    """
    if len(kinds) == 1:
        return next(iter(kinds))
    kind = example.value.get("event_type") if isinstance(example.value, dict) else None
    if kind not in kinds:
        raise ValueError(f"example {example.name}: event_type {kind!r} is none of {', '.join(sorted(kinds))}")
    return str(kind)
