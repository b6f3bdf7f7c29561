"""How much time work that nobody waits for may take from work that somebody waits for.

Pure: the clock is passed in, seconds of any monotonic clock.
"""

BURST_SECONDS = 0.5
"""Time that can be saved up: the longest that what matters waits at once, but for one step that took longer."""


class Allowance:
    """A share of all time. What a step takes beyond it is taken from later steps."""

    def __init__(self, share: float, now_seconds: float) -> None:
        self._share = share
        self._saved, self._counted = BURST_SECONDS, now_seconds

    def left(self, now_seconds: float) -> float:
        """Seconds that may be spent now; 0 or less if there are none."""
        self._saved = min(BURST_SECONDS, self._saved + self._share * max(0.0, now_seconds - self._counted))
        self._counted = max(self._counted, now_seconds)
        return self._saved

    def spend(self, seconds: float) -> None:
        """Note what a step has taken."""
        self._saved -= seconds
