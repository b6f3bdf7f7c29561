"""Where a model learns from: an orders file, the stream, MongoDB, what Spark folded. All give the same TrainingData for
the same events; none may let anything in that the day before which it ends does not know.
"""

from collections import Counter
from dataclasses import dataclass

from schemas.dead_letters import Reason
from services.trainer.history import History


@dataclass(frozen=True, eq=False)
class TrainingData:
    """All that a model may learn from."""

    name: str
    """Of the source, for people."""
    currency: str
    """ISO 4217, of all money."""
    history: History
    """Up to the cutoff, `history.before_day`."""
    rejected: Counter[Reason]
    """Rows that were refused: of a file, those before the cutoff. The other sources hold what ingest let pass;
    what is no row or no record there is counted."""
    later: int = 0
    """Valid rows from the cutoff on, where that is counted."""
    repeated: int = 0
    """Valid rows before the cutoff that repeat an event, which counts once; the other sources hold none. Of a customer
    with more orders than a state keeps one by one, refunds of the older ones are among them."""
    missing: int = 0
    """Records of the orders topic that Kafka deleted before anybody had folded them: nobody knows them any more."""

    @property
    def cutoff_day(self) -> int:
        """Nothing of this day (since 1970, UTC) or later is in the data."""
        return self.history.before_day
