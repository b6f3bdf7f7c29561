"""Training data from an orders file, a chunk of rows at a time. A refused row is counted, never repaired and never
dropped in silence. The order of the rows means nothing, nor does a row that comes again.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from domain.customer import DAY_MS, NO_ORDER, CustomerState, id_key
from domain.features import day_of
from domain.packing import Keys, OrderColumns, RefundColumns, keys_of, packed_states
from schemas.currencies import minor_per_major
from schemas.dead_letters import Reason
from services.trainer.history import History
from services.trainer.judged_rows import JudgedRows, judge
from services.trainer.orders_file import OrdersTable, Texts, read_chunks
from services.trainer.progress import Progress, silent
from services.trainer.sources import TrainingData

Ints = NDArray[np.int64]


def from_file(
    path: Path, columns: Mapping[str, str] | None, cutoff: date, currency: str, progress: Progress = silent
) -> TrainingData:
    """What the rows of a file (see orders_file.read_any) say happened before the cutoff (UTC).

    Raises KnownProblem for a file that cannot be read, or if there is no such currency.
    """

    def told() -> Iterator[OrdersTable]:
        for chunk in read_chunks(path, columns):
            yield chunk.table
            progress("rows read", chunk.rows_done, chunk.rows_expected)

    return _from_tables(told(), cutoff, currency, progress, path.name)


def from_table(table: OrdersTable, cutoff: date, currency: str, progress: Progress = silent) -> TrainingData:
    """What the table's rows say happened before the cutoff (UTC). Raises KnownProblem if there is no such currency."""
    return _from_tables([table], cutoff, currency, progress, table.name)


def _from_tables(
    tables: Iterable[OrdersTable], cutoff: date, currency: str, progress: Progress, name: str
) -> TrainingData:
    cutoff_day = day_of(cutoff)
    rejected: Counter[Reason] = Counter()
    later, taken, events = 0, 0, Events()
    for table in tables:
        judged = judge(table, currency)
        rejected += judged.rejected(cutoff_day * DAY_MS)
        before = events.add(judged, cutoff_day)
        later, taken = later + int(judged.valid.sum()) - before, taken + before
    history = History(events.customers(progress), cutoff_day, minor_per_major(currency))
    return TrainingData(name, currency, history, rejected, later, repeated=taken - len(history))


class Events:
    """Valid events as columns: ids are kept as keys, so that a row costs some forty bytes."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        none, keys = np.zeros(0, dtype=np.int64), keys_of([])
        self._orders = [OrderColumns(none, keys, none, none)]
        self._refunds = [RefundColumns(none, keys, keys, none, none)]

    def add(self, judged: JudgedRows, before_day: int) -> int:
        """Take in the valid rows before the day (since 1970, UTC); how many those are."""
        rows = np.flatnonzero(judged.valid & (judged.at_ms < before_day * DAY_MS))
        is_refund = judged.is_refund[rows]
        placed, given = rows[~is_refund], rows[is_refund]
        columns = judged.amount_minor, judged.at_ms
        self._orders.append(
            OrderColumns(self._owners(judged, placed), _keys(judged.order_ids[placed]), *(c[placed] for c in columns))
        )
        self._refunds.append(
            RefundColumns(
                self._owners(judged, given),
                _keys(judged.refund_ids[given]),
                _keys(judged.order_ids[given]),
                *(column[given] for column in columns),
            )
        )
        return len(rows)

    def customers(self, progress: Progress = silent) -> Iterator[tuple[str, CustomerState]]:
        """Each customer's state."""
        orders = OrderColumns(*map(np.concatenate, zip(*self._orders, strict=True)))
        refunds = RefundColumns(*map(np.concatenate, zip(*self._refunds, strict=True)))
        count = len(self._numbers)
        for done, found in enumerate(zip(self._numbers, packed_states(count, orders, refunds), strict=True), 1):
            yield found
            if done % 10_000 == 0 or done == count:
                progress("customers folded", done, count)

    def _owners(self, judged: JudgedRows, rows: Ints) -> Ints:
        codes, names = pd.factorize(judged.customer_ids[rows])
        numbers = [self._numbers.setdefault(name, len(self._numbers)) for name in names.tolist()]
        return np.array(numbers, dtype=np.int64)[codes]


def _keys(ids: Texts) -> Keys:
    return keys_of([id_key(each) if each else NO_ORDER for each in ids.tolist()])
