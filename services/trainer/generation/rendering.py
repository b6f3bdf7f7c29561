"""Rows of a generated shop as the text cells of its file. It must never draw a number: what stands where is given."""

import numpy as np
from numpy.typing import NDArray

from services.trainer.generation.breakages import BREAKAGES, FORMS
from services.trainer.generation.customers import Customers
from services.trainer.generation.events import LOOSE, Events
from services.trainer.generation.file_rows import KINDS, TIDY, UNBROKEN, FileRows
from services.trainer.orders_file import COLUMNS, OrdersTable

Texts = NDArray[np.object_]
Ints = NDArray[np.int64]


def numbered(prefix: str, numbers: Ints) -> Texts:
    """Ids of numbers; '' for LOOSE."""
    return _texts([f"{prefix}{number}" if number != LOOSE else "" for number in numbers.tolist()])


def amounts(minor: Ints, exponent: int) -> Texts:
    """Minor units as decimals with the currency's digits."""
    if exponent == 0:
        return _texts([str(each) for each in minor.tolist()])
    whole, part = np.divmod(minor, 10**exponent)
    return _texts([f"{w}.{p:0{exponent}d}" for w, p in zip(whole.tolist(), part.tolist(), strict=True)])


def times(at_ms: Ints) -> Texts:
    """RFC 3339 in UTC, whole seconds."""
    return _texts([f"{each}Z" for each in np.datetime_as_string((at_ms // 1000).astype("datetime64[s]")).tolist()])


def table(
    name: str, currency: str, exponent: int, customers: Customers, events: Events, rows: FileRows, part: slice
) -> OrdersTable:
    """The rows of `part` as cells."""
    of = rows.event[part]
    is_refund = events.is_refund[of]
    columns = {
        "type": np.where(is_refund, "refund", "order").astype(object),
        "order_id": numbered("o", events.order[of]),
        "customer_id": customers.ids[events.customer[of]],
        "occurred_at": times(events.at_ms[of]),
        "amount": amounts(events.minor[of], exponent),
        "currency": np.full(len(of), currency, dtype=object),
        "refund_id": np.where(is_refund, numbered("r", events.number[of]), ""),
    }
    form, breakage = rows.form[of], rows.breakage[part]
    # A broken row is otherwise tidy, so that nothing but its breakage can be what it is refused for.
    for row in np.flatnonzero((form != TIDY) & (breakage == UNBROKEN)).tolist():
        written = FORMS[form[row]]
        columns[written.column][row] = written.write(columns[written.column][row])
    variant = rows.variant[part]
    for row in np.flatnonzero(breakage != UNBROKEN).tolist():
        broken = BREAKAGES[KINDS[breakage[row]]]
        cells = columns[broken.column]
        cells[row] = broken.spoil(cells[row], int(variant[row]), currency)
    return OrdersTable(name, {name: columns[name] for name in COLUMNS})


def _texts(values: list[str]) -> Texts:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array
