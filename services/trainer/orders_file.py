"""A shop's order history as a file (CSV, Parquet, the CDNOW text format), read as text and turned into public events or
into domain events. It must never repair a row silently: what ingest would refuse is refused here for the same reason.

An empty cell is an absent value: type is then `order`, currency the reporting currency, a refund's order unknown.
"""

import csv
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b, sha256
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import numpy as np
from numpy.typing import NDArray

from schemas.customer_events import EventType
from services.runtime.shutdown import KnownProblem

Texts = NDArray[np.object_]
Part = tuple[dict[str, Texts], float]
"""Columns of some rows, and which share of the file has been read with them."""

CHUNK_ROWS = 100_000

REQUIRED = ("order_id", "customer_id", "occurred_at", "amount")
OPTIONAL = ("type", "currency", "refund_id")
COLUMNS = ("type", "order_id", "customer_id", "occurred_at", "amount", "currency", "refund_id")
_PUBLIC_TYPES = frozenset(each.value for each in EventType)
EVENT_TYPES = {"order": EventType.ORDER_PLACED.value, "refund": EventType.ORDER_REFUNDED.value}

_ISO_TIME = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d)(:\d\d)?(\.\d+)?)?(?: ?(Z|z|UTC|[+-]\d\d(?::?\d\d)?))?\Z", re.ASCII
)
_CDNOW_LINE = re.compile(r"\s*(\S+)\s+(\d{4})(\d\d)(\d\d)\s+(\d+)\s+(\d+(?:\.\d+)?)\s*\Z", re.ASCII)
_CDNOW_HEADER = re.compile(r"\s*customer_id\s+date\s+number_of_cds\s+dollar_value\s*\Z", re.ASCII)


class OrderRow(NamedTuple):
    """One row of a file as text; '' is an absent value. `number` counts data rows from 1."""

    file: str
    number: int
    type: str
    order_id: str
    customer_id: str
    occurred_at: str
    amount: str
    currency: str
    refund_id: str


@dataclass(frozen=True, eq=False)
class OrdersTable:
    """A whole file as text: one object array of str for each of COLUMNS, all equally long."""

    name: str
    columns: Mapping[str, Texts]

    def __len__(self) -> int:
        return len(self.columns["order_id"])

    def rows(self) -> Iterator[OrderRow]:
        """The rows in the file's order."""
        for number, cells in enumerate(zip(*(self.columns[name].tolist() for name in COLUMNS), strict=True), 1):
            yield OrderRow(self.name, number, *cells)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over all cells, hexadecimal; the file's name and format do not matter."""
        digest = sha256()
        for name in COLUMNS:
            for text in self.columns[name].tolist():
                cell = text.encode("utf-8", "surrogateescape")
                digest.update(b"%d:" % len(cell) + cell)
        return digest.hexdigest()


# ---------------------------------------------------------------- reading


class Chunk(NamedTuple):
    """Some rows of a file, as a table of their own."""

    table: OrdersTable
    rows_done: int
    """Rows of this chunk and those before it."""
    rows_expected: int
    """Rows of the whole file, estimated until the end of it."""


def read_any(path: Path, columns: Mapping[str, str] | None = None) -> OrdersTable:
    """read_cdnow() if the file's first lines look like CDNOW's, else read_orders()."""
    return read_cdnow(path) if _looks_like_cdnow(path) else read_orders(path, columns)


def read_chunks(path: Path, columns: Mapping[str, str] | None = None, rows_max: int = CHUNK_ROWS) -> Iterator[Chunk]:
    """The rows of read_any(), so many at a time: a file may be larger than memory. Raises what read_any() raises."""
    if _looks_like_cdnow(path):
        whole = read_cdnow(path)
        for start in range(0, len(whole), rows_max):
            part = {name: cells[start : start + rows_max] for name, cells in whole.columns.items()}
            yield Chunk(OrdersTable(whole.name, part), min(start + rows_max, len(whole)), len(whole))
        return
    yield from _order_chunks(path, columns, rows_max)


def _looks_like_cdnow(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            head = file.read(2000).decode("latin-1").splitlines()
    except OSError as error:
        raise _unreadable(path, error) from None
    return bool(head) and _is_cdnow(head)


def _is_cdnow(head: Sequence[str]) -> bool:
    return bool(_CDNOW_HEADER.match(head[0])) or all(_CDNOW_LINE.match(line) for line in head[:3])


def read_orders(path: Path, columns: Mapping[str, str] | None = None) -> OrdersTable:
    """The rows of a CSV (UTF-8, comma) or Parquet file, told apart by content.

    columns: the file's column for a name of COLUMNS, where it is called otherwise. Raises KnownProblem for a file that
    is missing or unreadable, a missing column, an unknown name.
    """
    parts = [chunk.table.columns for chunk in _order_chunks(path, columns, None)]
    whole = {name: np.concatenate([_texts([]), *(part[name] for part in parts)]) for name in COLUMNS}
    return OrdersTable(_printable_name(path), whole)


def _order_chunks(path: Path, columns: Mapping[str, str] | None, rows_max: int | None) -> Iterator[Chunk]:
    wanted = {name: name for name in COLUMNS} | dict(columns or {})
    unknown = sorted(set(wanted) - set(COLUMNS))
    if unknown:
        raise KnownProblem(f"--map {unknown[0]}=…: there is no such name; names are {', '.join(COLUMNS)}")
    try:
        with path.open("rb") as file:
            is_parquet = file.read(4) == b"PAR1"
    except OSError as error:
        raise _unreadable(path, error) from None
    read = _read_parquet if is_parquet else _read_csv
    done = 0
    for found, share in read(path, wanted, set(columns or {}), rows_max or CHUNK_ROWS):
        rows = len(found["order_id"])
        empty = np.full(rows, "", dtype=object)
        done += rows
        expected = max(done, round(done / share)) if share else done
        yield Chunk(
            OrdersTable(_printable_name(path), {name: found.get(name, empty) for name in COLUMNS}), done, expected
        )


def read_cdnow(path: Path) -> OrdersTable:
    """The CDNOW purchase history (customer, yyyymmdd, number of CDs, dollars): orders in USD, ids from the row number.

    Raises KnownProblem for a missing file or a line of another form.
    """
    try:
        lines = path.read_text(encoding="ascii", errors="surrogateescape").splitlines()
    except OSError as error:
        raise _unreadable(path, error) from None
    customers, days, amounts = [], [], []
    for number, line in enumerate(lines, 1):
        match = _CDNOW_LINE.match(line)
        if match is None:
            if not line.strip() or (number == 1 and _CDNOW_HEADER.match(line)):
                continue
            raise KnownProblem(f"{path}, line {number}: expected customer, yyyymmdd, number of CDs and dollars")
        customer, year, month, day, _, amount = match.groups()
        customers.append(customer)
        days.append(f"{year}-{month}-{day}")
        amounts.append(amount)
    count = len(customers)
    found = {
        "type": ["order"] * count,
        "order_id": [f"cdnow-{number}" for number in range(1, count + 1)],
        "customer_id": customers,
        "occurred_at": days,
        "amount": amounts,
        "currency": ["USD"] * count,
        "refund_id": [""] * count,
    }
    return OrdersTable(_printable_name(path), {name: _texts(values) for name, values in found.items()})


def _unreadable(path: Path, error: OSError) -> KnownProblem:
    return KnownProblem(f"{path} cannot be read: {error.strerror or error}")


def _printable_name(path: Path) -> str:
    return path.name.encode("utf-8", "replace").decode()


def _texts(values: Sequence[str]) -> Texts:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def _places(path: Path, header: Sequence[str], wanted: Mapping[str, str], explicit: set[str]) -> dict[str, int]:
    """Position of each wanted column that the file has. Raises KnownProblem if one is missing or named twice."""
    places = {}
    for name, column in wanted.items():
        if header.count(column) > 1:
            raise KnownProblem(f"{path} has two columns {column!r}: rename one")
        if column in header:
            places[name] = header.index(column)
        elif name in REQUIRED or name in explicit:
            has = ", ".join(header)[:200] or "no columns"
            raise KnownProblem(f"{path} has no column {column!r} (it has {has}): name yours with --map {name}=COLUMN")
    return places


def _read_csv(path: Path, wanted: Mapping[str, str], explicit: set[str], rows_max: int) -> Iterator[Part]:
    try:
        # A byte that is no UTF-8 spoils its row, not the file: it travels as a surrogate and is refused later.
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            reader = csv.reader(file)
            try:
                yield from _csv_parts(path, reader, wanted, explicit, rows_max, lambda: _share_read(file))
            except csv.Error as error:
                raise KnownProblem(f"{path}, line {reader.line_num}, is no CSV: {error}") from None
    except OSError as error:
        raise _unreadable(path, error) from None


def _share_read(file: TextIO) -> float:
    """Which part of the file has been read, by bytes, to its next buffer's end."""
    size = os.fstat(file.fileno()).st_size
    return min(1.0, file.buffer.tell() / size) if size else 1.0


def _csv_parts(
    path: Path,
    reader: Iterator[list[str]],
    wanted: Mapping[str, str],
    explicit: set[str],
    rows_max: int,
    share_read: Callable[[], float],
) -> Iterator[Part]:
    header = [cell.strip() for cell in next(reader, [])]
    places = _places(path, header, wanted, explicit)
    width = len(header)
    filled = (row for row in reader if row)  # not blank lines
    while rows := list(islice(filled, rows_max)):
        ragged: dict[int, str] = {}
        for number, row in enumerate(rows):
            if len(row) > width:
                # Nobody knows which cell is one too many: the type says so, and the row is refused for it.
                ragged[number] = f"a row of {len(row)} cells under {width} columns"
                del row[width:]
            elif len(row) < width:
                row.extend([""] * (width - len(row)))
        transposed = list(zip(*rows, strict=True))
        found = {name: _texts(transposed[place]) for name, place in places.items()}
        if ragged:
            types = found.setdefault("type", np.full(len(rows), "", dtype=object))
            for index, why in ragged.items():
                types[index] = why
        yield found, share_read()


def _read_parquet(path: Path, wanted: Mapping[str, str], explicit: set[str], rows_max: int) -> Iterator[Part]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        places = _places(path, file.schema_arrow.names, wanted, explicit)
        done = 0
        for batch in file.iter_batches(rows_max, columns=[wanted[name] for name in places]):
            done += batch.num_rows
            table = pa.Table.from_batches([batch])
            found = {name: _rendered(table.column(wanted[name])) for name in places}
            yield found, done / file.metadata.num_rows
    except (pa.ArrowException, OSError, ValueError) as error:
        raise KnownProblem(f"{path} cannot be read as Parquet: {str(error).splitlines()[0][:200]}") from None


def _rendered(column: Any) -> Texts:
    """A Parquet column as exact text: no number is rounded, no id loses its zeros."""
    import pyarrow as pa

    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    if pa.types.is_timestamp(kind):
        # Parquet stores instants in UTC; a time without a zone is UTC by the rule of this module.
        instants = column.cast(pa.timestamp("us"), safe=False).to_numpy(zero_copy_only=False)
        texts = np.datetime_as_string(instants, unit="us")
        return _texts(["" if text == "NaT" else f"{text}Z" for text in texts.tolist()])
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return _texts(["" if cell is None else cell.decode("utf-8", "surrogateescape") for cell in column.to_pylist()])
    render = _renderer(kind)
    return _texts(["" if cell is None else render(cell) for cell in column.to_pylist()])


def _renderer(kind: Any) -> Any:
    import pyarrow as pa

    if pa.types.is_decimal(kind):
        return lambda cell: format(cell, "f")
    if pa.types.is_floating(kind):
        return lambda cell: "" if cell != cell else repr(cell)
    if pa.types.is_date(kind):
        return lambda cell: cell.isoformat()
    return str


# ---------------------------------------------------------------- one row


def rfc3339(text: str) -> str:
    """A time in RFC 3339: a date is its midnight, a time without a zone is UTC; any other text stays as it is."""
    match = _ISO_TIME.match(text)
    if match is None:
        return text
    day, clock, seconds, fraction, zone = match.groups()
    if clock is None and zone is not None:
        return text
    fraction = (fraction or "").rstrip("0").rstrip(".")
    if seconds is None and fraction:
        return text
    return f"{day}T{clock or '00:00'}{seconds or ':00'}{fraction}{_zone(zone)}"


def _zone(zone: str | None) -> str:
    if zone is None or zone in ("Z", "z", "UTC"):
        return "Z"
    digits = zone[1:].replace(":", "").ljust(4, "0")
    return f"{zone[0]}{digits[:2]}:{digits[2:]}"


def event_type(text: str) -> str:
    """The public event type of the column `type`; any other text stays, so that ingest can refuse it by name."""
    kind = text.strip()
    known = EVENT_TYPES.get(kind.lower() or "order")
    if known:
        return known
    # A file holds orders and refunds alone: the name of a public event must not slip through as one.
    return f"type {kind}" if kind in _PUBLIC_TYPES else kind


def refund_key(customer_id: str, order_id: str, occurred_at: str, amount: str) -> str:
    """Id of a refund that has none: the same row twice is one refund. occurred_at in RFC 3339."""
    digest = blake2b(digest_size=12)
    for text in (customer_id, order_id, occurred_at, amount):
        cell = text.encode("utf-8", "surrogateescape")
        digest.update(b"%d:" % len(cell) + cell)
    return f"refund-{digest.hexdigest()}"


def customer_event(row: OrderRow, currency: str) -> dict[str, Any]:
    """The public JSON event (schemas.customer_events) that a row is published as, broken or not.

    currency: of rows that name none. The event's id is made from the file's name and the row's number.
    """
    kind, at, amount = event_type(row.type), rfc3339(row.occurred_at.strip()), row.amount.strip()
    event = {
        "event_id": f"{blake2b(row.file.encode(), digest_size=6).hexdigest()}-{row.number}",
        "event_type": kind,
        "occurred_at": at,
        "customer_id": row.customer_id,
        "source": row.file[:256],
        "amount": amount,
        "currency": row.currency.strip() or currency,
    }
    if row.order_id:
        event["order_id"] = row.order_id
    if kind == EventType.ORDER_REFUNDED.value:
        event["refund_id"] = row.refund_id or refund_key(row.customer_id, row.order_id, at, amount)
    return event


def event_bytes(event: Mapping[str, Any]) -> bytes:
    """The event as JSON in UTF-8; bytes of the file that were no UTF-8 come out as they were."""
    import json

    return json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogateescape")


def customer_events(table: OrdersTable, currency: str) -> Iterator[dict[str, Any]]:
    """customer_event() of each row, in the file's order."""
    return (customer_event(row, currency) for row in table.rows())
