"""What a comparison found wrong, counted by kind, with the first examples."""

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum

EXAMPLES_MAX = 20


class Wrong(StrEnum):
    """Ways to be wrong."""

    LOST = "lost"
    """An accepted event, or its effect, is missing."""
    DOUBLE_COUNTED = "double_counted"
    """An event has an effect more than once."""
    STALE = "stale"
    """An output is older than what it is made from, or an older one stands after a newer one."""
    MISMATCH = "mismatches"
    """Anything else that differs."""


@dataclass
class Findings:
    """Counts, and examples to look at."""

    counts: Counter[Wrong] = field(default_factory=Counter)
    examples: dict[Wrong, list[str]] = field(default_factory=dict)
    compared: Counter[str] = field(default_factory=Counter)
    """How much was looked at, by what it is: a comparison of nothing proves nothing."""

    def add(self, wrong: Wrong, example: str, count: int = 1) -> None:
        """Count something wrong and keep the first examples."""
        self.counts[wrong] += count
        kept = self.examples.setdefault(wrong, [])
        if len(kept) < EXAMPLES_MAX:
            kept.append(example)

    @property
    def clean(self) -> bool:
        """Whether nothing is wrong."""
        return not any(self.counts.values())
