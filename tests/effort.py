"""How many examples a property tries: all of them (`./clv test --all`), or a quarter of them where somebody waits."""

import os

USUAL = 100
"""What a property tries that does not say."""
_FEWER = os.environ.get("CLV_TEST_FEWER_EXAMPLES") == "true"
_FEWEST = 10


def tries(examples: int) -> int:
    """Of a property that would try so many."""
    return max(_FEWEST, examples // 4) if _FEWER else examples
