"""How many examples a property tries: all of them, or a quarter of them where somebody waits (`./clv test --fast`)."""

import os

USUAL = 100
"""What a property tries that does not say."""
_FAST = os.environ.get("CLV_TEST_FAST") == "true"
_FEWEST = 10


def tries(examples: int) -> int:
    """Of a property that would try so many."""
    return max(_FEWEST, examples // 4) if _FAST else examples
