"""Forms as CSV in, answers as CSV out: what people have in a spreadsheet, without JSON.

Pure. Must never guess: a number is written with a decimal point, a column is one of the inputs, and what is neither is
said with its row and column.
"""

import csv
import io
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any, NamedTuple

from domain.features import INPUT_NAMES
from schemas.http_api.outlook import Outlook
from schemas.http_api.predict import ROWS_MAX, RowProblem
from services.runtime.http.problems import Refused

_SEPARATORS = ",;\t"
_CELL_CHARACTERS_MAX = 1000
OUTPUTS = (
    "prediction_id",
    "as_of",
    *(name for name in Outlook.model_fields if name != "segment_thresholds"),  # three numbers are no cell
    "profile_value",
    "stored",
)
"""Fields of a prediction that have a column."""
COLUMNS = ("row", *INPUT_NAMES, *OUTPUTS, "warnings", "errors")


class CsvForm(NamedTuple):
    """A line: the form that it may be, and what cannot be read of it at all."""

    values: dict[str, float | int | None]
    problems: list[RowProblem]


def read_forms(body: bytes) -> list[CsvForm]:
    """The lines after the header. Raises Refused (422) if the text as a whole cannot be read, saying why.

    UTF-8, with or without a byte order mark; separated by commas, semicolons or tabs, whichever the header uses. Empty
    lines are left out; an empty cell is an unknown value.
    """
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _unusable(f"the CSV is not UTF-8: {error.reason} at byte {error.start}") from None
    head = text.partition("\n")[0]
    separator = max(_SEPARATORS, key=head.count)
    try:
        lines = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
        header = [cell.strip() for cell in next(lines, [])]
        _check_header(header)
        found: list[CsvForm] = []
        for cells in lines:
            if not any(cell.strip() for cell in cells):
                continue
            if len(found) == ROWS_MAX:
                raise Refused(
                    HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"more than {ROWS_MAX:,} rows: send them in several requests"
                )
            found.append(_form(header, cells, separator))
    except csv.Error as error:
        raise _unusable(f"the CSV cannot be read at line {lines.line_num}: {error}") from None
    if not found:
        raise _unusable("the CSV has no row below its header")
    return found


def _unusable(detail: str) -> Refused:
    return Refused(HTTPStatus.UNPROCESSABLE_ENTITY, detail)


def _check_header(header: list[str]) -> None:
    if not any(header):
        raise _unusable(f"the CSV's first line must name its columns: {', '.join(INPUT_NAMES)}")
    unknown = sorted({name[:60] for name in header} - set(INPUT_NAMES))
    if unknown:
        raise _unusable(
            f"the CSV has unknown columns ({', '.join(map(repr, unknown))}); known are {', '.join(INPUT_NAMES)}"
        )
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise _unusable(f"the CSV has columns twice: {', '.join(twice)}")
    missing = [name for name in INPUT_NAMES if name not in header and name != "customer_age"]
    if missing:
        raise _unusable(f"the CSV lacks columns: {', '.join(missing)}")


def _form(header: list[str], cells: list[str], separator: str) -> CsvForm:
    values: dict[str, float | int | None] = {}
    problems: list[RowProblem] = []
    if len(cells) != len(header):
        hint = " (is a number written with a decimal comma?)" if separator == "," and len(cells) > len(header) else ""
        return CsvForm({}, [RowProblem(field="", detail=f"has {len(cells)} cells, the header has {len(header)}{hint}")])
    for name, cell in zip(header, cells, strict=True):
        try:
            values[name] = _number(cell.strip())
        except ValueError as error:
            problems.append(RowProblem(field=name, detail=str(error)))
    return CsvForm(values, problems)


def _number(text: str) -> float | int | None:
    if not text:
        return None
    if len(text) > _CELL_CHARACTERS_MAX or "_" in text or not text.isascii():
        raise ValueError("is no number")
    try:
        return int(text) if text.lstrip("+-").isdigit() else float(text)
    except ValueError:
        if "," in text:
            raise ValueError("is no number: decimals are written with a point") from None
        raise ValueError("is no number") from None


def header_line() -> str:
    """The first line of an answer."""
    return _lines([COLUMNS])


def answer_line(index: int, prediction: Mapping[str, Any] | None, errors: Iterable[RowProblem]) -> str:
    """One line of an answer. prediction: fields of WhatIfPrediction, or None where the row was refused.

    No cell begins like a formula: names and words here are ours, numbers begin with a digit, or a minus where they are
    numbers.
    """
    told = "; ".join(f"{each.field} {each.detail}".strip() for each in errors)
    if prediction is None:
        return _lines([[index, *("" for _ in (*INPUT_NAMES, *OUTPUTS)), "", told]])
    inputs = [prediction["inputs"][name] for name in INPUT_NAMES]
    outputs = [_cell(prediction[name]) for name in OUTPUTS]
    return _lines(
        [[index, *("" if each is None else each for each in inputs), *outputs, "; ".join(prediction["warnings"]), told]]
    )


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else value


def _lines(rows: Iterable[Iterable[Any]]) -> str:
    made = io.StringIO()
    csv.writer(made, lineterminator="\r\n").writerows(rows)
    return made.getvalue()
