"""CSV: what begins like a formula is text, numbers stay numbers, and the Accept header decides."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.api.answers import wants_csv
from services.api.customers.csv_export import COLUMNS, header, lines


def read(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline="")))


def row(**changes: object) -> dict[str, object]:
    return {**dict.fromkeys(COLUMNS, 1.5), **changes}


@given(st.text())
def test_no_text_begins_like_a_formula_and_none_is_lost(text: str) -> None:
    (cells,) = read(lines([row(customer_id=text)])) or [[""] * len(COLUMNS)]
    cell = cells[COLUMNS.index("customer_id")]
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
    assert cell.removeprefix("'") == text.removeprefix("'")


def test_a_number_is_never_changed_and_null_is_empty() -> None:
    (cells,) = read(lines([row(expected_value=-1e-7, historical_value=None)]))
    assert float(cells[COLUMNS.index("expected_value")]) == -1e-7
    assert cells[COLUMNS.index("historical_value")] == ""
    assert read(header()) == [list(COLUMNS)]


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("text/csv", True),
        ("text/csv;q=0.9, application/json;q=0.1", True),
        ("application/json, text/csv;q=0.5", False),
        ("*/*", False),
        ("", False),
        ("text/csv;q=0", False),
        ("text/csv;q=x", False),
        ("text/html, TEXT/CSV", True),
    ],
)
def test_csv_is_given_to_those_who_prefer_it(accept: str, expected: bool) -> None:
    assert wants_csv(accept) is expected
