"""Rows of the feature workers' table as training data, wherever they were read from. It must never let an older row
stand against a newer one, nor bring back a customer who was erased.
"""

from collections import Counter
from collections.abc import Iterable, Iterator

import msgspec

from domain.customer import CustomerState
from schemas.currencies import exponent_of, minor_per_major
from schemas.customer_rows import (
    OWN_PREFIX,
    PROGRESS_KEY,
    Progress,
    Row,
    better,
    decode_progress,
    decode_row,
    erased_key,
    events_applied,
    standing_state,
)
from schemas.dead_letters import Reason
from services.runtime.shutdown import KnownProblem
from services.trainer.progress import Progress as ToldProgress

_TELL_EVERY_CUSTOMERS = 10_000
_NO_ROW = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class KnownRows:
    """Of each key the best row, packed as it came."""

    def __init__(self) -> None:
        self.rejected: Counter[Reason] = Counter()
        """What was no row."""
        self.progress: dict[int, Progress] = {}
        """By partition, how far its worker has come."""
        self._rows: dict[bytes, bytes] = {}

    def take(self, key: bytes, value: bytes | None, partition: int = 0) -> None:
        """Take one in; those of one key in the order in which they were logged."""
        try:
            if key == PROGRESS_KEY:
                self._take_progress(value, partition)
            elif (found := better(self._rows.get(key), value)) is None:
                self._rows.pop(key, None)
            else:
                self._rows[key] = found
        except _NO_ROW:
            self.rejected[Reason.INVALID_FIELD] += 1

    def _take_progress(self, value: bytes | None, partition: int) -> None:
        if value is not None:
            found, known = decode_progress(value), self.progress.get(partition)
            if known is None or found.events_applied >= known.events_applied:
                self.progress[partition] = found

    def rows_of(self, keys: Iterable[bytes]) -> dict[bytes, Row]:
        """The rows of those customers (by key) that are known, erased ones too. Changing them changes nothing here."""
        found = {}
        for key in keys:
            try:
                value, marker = self._rows.get(key), self._rows.get(erased_key(key))
                if marker is not None and (value is None or _is_erased(value, marker)):
                    value = marker
                if value is not None:
                    found[key] = decode_row(value)
            except _NO_ROW:
                self.rejected[Reason.INVALID_FIELD] += 1
        return found

    def put(self, rows: Iterable[tuple[bytes, bytes | None]]) -> None:
        """Keys with what is known from now on, None where a key is to be forgotten: see customer_rows.stored()."""
        for key, value in rows:
            if value is None:
                self._rows.pop(key, None)
            else:
                self._rows[key] = value

    def customers(self, progress: ToldProgress) -> Iterator[tuple[str, CustomerState]]:
        """Those who stand for themselves, with what merged customers brought along. The rows are let go on the way."""
        keys = [key for key in self._rows if not key.startswith(OWN_PREFIX)]
        for done, key in enumerate(keys, 1):
            value = self._rows.pop(key)
            if done % _TELL_EVERY_CUSTOMERS == 0 or done == len(keys):
                progress("customers unpacked", done, len(keys))
            try:
                marker = self._rows.get(erased_key(key))
                if marker is not None and _is_erased(value, marker):
                    continue
                customer = key.decode()
                state = standing_state(customer, decode_row(value))
            except _NO_ROW:
                self.rejected[Reason.INVALID_FIELD] += 1
                continue
            if state is not None:
                yield customer, state


def _is_erased(row: bytes, marker: bytes) -> bool:
    """Whether the row was written late, by a worker that had not heard of the erasure."""
    return events_applied(marker) >= events_applied(row)


def minor_units_of(currency: str) -> int:
    """minor_per_major() of the reporting currency. Raises KnownProblem if there is no such currency."""
    if exponent_of(currency) is None:
        raise KnownProblem(f"{currency!r} is no currency of ISO 4217, such as USD")
    return minor_per_major(currency)
