"""The orders that the feature workers have not folded yet, folded as they will fold them. Pure.

It must never have a rule of its own: what a record does to rows is decided in services.folding alone.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from schemas.customer_rows import Progress, stored
from schemas.dead_letters import Reason
from schemas.orders import Absorbed, OrderRecord, encode_order
from services.folding.fold import SourceRecord, ToSend, fold_chunk, keys_of
from services.trainer.sources.rows import KnownRows

_SENT_CHUNK_RECORDS = 5000
_SENT_INCARNATION = 2**62
"""Of records that are sent on here. No topic was made anew so often, so that no row's replay guard refuses them."""
_ABOUT_CUSTOMERS = (Reason.CUSTOMER_ERASED, Reason.MERGE_CONFLICT)
"""Refusals that say something about the customer, not about the record."""


class Start(NamedTuple):
    """Where the tail of a partition of `orders` begins."""

    offset: int
    incarnation: int
    """Of the topic (see schemas.customer_rows.Progress)."""
    missing: int
    """Records before it that Kafka has deleted before a worker folded them."""


def start_of(known: Progress | None, *, committed: bool, begin: int, end: int) -> Start:
    """Where to begin. known: how far the workers have come, None if they never ran.

    committed: whether their group has committed an offset; begin, end: offsets of the records that are there.
    """
    if known is None:
        return Start(begin, 0, begin)
    if known.next_offset > end:
        return Start(begin, known.incarnation + 1, begin)
    missing = max(0, begin - known.next_offset)
    if not committed:
        # As the workers judge: the topic was made anew. Were it the group that was forgotten, to fold again what is
        # folded changes nothing.
        return Start(begin, known.incarnation + 1, missing)
    return Start(max(begin, known.next_offset), known.incarnation, missing)


@dataclass
class _Sent:
    key: bytes | None
    value: bytes | None
    offset: int
    timestamp: int = 0


class Tail:
    """Folds records into rows, and keeps what merges and erasures send on until everything else is folded."""

    def __init__(self, rows: KnownRows, *, start_anew: bool) -> None:
        """rows: changed as records are folded. start_anew: as the feature workers are set, see fold_chunk()."""
        self.rejected: Counter[Reason] = Counter()
        """Records that were none. Not those refused for what their customer is, which say nothing about the data."""
        self._rows, self._start_anew = rows, start_anew
        self._parts: dict[tuple[str, str], Absorbed] = {}
        self._others: list[OrderRecord] = []
        self._sent = 0

    def fold(self, records: Sequence[SourceRecord], incarnation: int) -> None:
        """Fold records of one partition, in offset order. incarnation: of its topic."""
        known = self._rows.rows_of(keys_of(records))
        folded = fold_chunk(records, known, incarnation, 0, start_anew=self._start_anew)
        self._rows.put(item for key, touched in folded.touched.items() for item in stored(key, touched.row))
        self._keep(folded.to_send)
        self.rejected.update(each.reason for each in folded.rejected if each.reason not in _ABOUT_CUSTOMERS)

    def settle(self) -> None:
        """Fold what was sent on, which the workers would send through the topic, and what that sends on in turn.

        To be called once, after all partitions. Records that workers have sent already come a second time, which
        changes nothing.
        """
        while self._parts or self._others:
            records: list[OrderRecord] = [*self._parts.values(), *self._others]
            self._parts, self._others = {}, []
            for start in range(0, len(records), _SENT_CHUNK_RECORDS):
                chunk = records[start : start + _SENT_CHUNK_RECORDS]
                self.fold([self._as_sent(record) for record in chunk], _SENT_INCARNATION)

    def _keep(self, to_send: Iterable[ToSend]) -> None:
        for record, _ in to_send:
            if isinstance(record, Absorbed):  # whole, so that the last one of each origin is enough
                self._parts[record.customer_id, record.origin] = record
            else:
                self._others.append(record)

    def _as_sent(self, record: OrderRecord) -> _Sent:
        self._sent += 1
        return _Sent(record.customer_id.encode(), encode_order(record), self._sent)
