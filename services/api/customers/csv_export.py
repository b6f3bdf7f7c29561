"""CSV of lists of customers (RFC 4180): a header, then a line a customer, in UTF-8.

Pure. A spreadsheet runs what begins like a formula, and customer ids come from outside: such text gets an apostrophe in
front. Must never change a number.
"""

import csv
import io
from collections.abc import Iterable, Mapping
from typing import Any

from schemas.http_api.customers import CustomerRow

COLUMNS = tuple(CustomerRow.model_fields)
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def header() -> str:
    """The first line."""
    return _lines([COLUMNS])


def lines(rows: Iterable[Mapping[str, Any]]) -> str:
    """A line each. rows: values by COLUMNS; None is an empty cell."""
    return _lines([_cell(row[name]) for name in COLUMNS] for row in rows)


def _cell(value: Any) -> Any:
    if isinstance(value, str) and value.startswith(_FORMULA):
        return "'" + value
    return "" if value is None else value


def _lines(rows: Iterable[Iterable[Any]]) -> str:
    made = io.StringIO()
    csv.writer(made, lineterminator="\r\n").writerows(rows)
    return made.getvalue()
