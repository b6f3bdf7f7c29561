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


def wants_csv(accept: str) -> bool:
    """Whether an Accept header asks for CSV rather than JSON (RFC 9110 §12.5.1)."""
    csv_weight, json_weight = 0.0, 0.0
    for part in accept.lower().split(","):
        media, *parameters = (each.strip() for each in part.split(";"))
        weight = _weight(parameters)
        if media == "text/csv":
            csv_weight = max(csv_weight, weight)
        elif media in ("application/json", "application/*", "*/*"):
            json_weight = max(json_weight, weight)
    return csv_weight > 0 and csv_weight >= json_weight


def _weight(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0
