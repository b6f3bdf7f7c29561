"""Rows of the workers' table as training data: the best row stands, the erased stay away, the merged are one."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.customer import DAY_MS, CustomerState, OrderPlaced, canonical, fold
from schemas.customer_rows import PROGRESS_KEY, Links, Part, Progress, Row, encode, erased_key, stored
from schemas.dead_letters import Reason
from services.runtime.shutdown import KnownProblem
from services.trainer.sources.rows import KnownRows, minor_units_of
from tests.effort import tries


def state(*orders: int) -> CustomerState:
    return fold(OrderPlaced(f"o{n}", 100 + n, n * DAY_MS) for n in orders)


def row(*orders: int, links: Links | None = None) -> Row:
    return Row(len(orders), 0, len(orders), state(*orders), links)


def progress(what: str, done: int = 0, total: int | None = None) -> None: ...


def customers(rows: KnownRows) -> dict[str, CustomerState]:
    return {customer: canonical(found) for customer, found in rows.customers(progress)}


@given(st.lists(st.integers(1, 6), min_size=1, max_size=8))
@settings(max_examples=tries(60), deadline=None)
def test_the_row_that_knows_most_stands_whenever_it_was_written(counts: list[int]) -> None:
    rows = KnownRows()
    for count in counts:
        rows.take(b"a", encode(row(*range(count))))
    assert customers(rows) == {"a": canonical(state(*range(max(counts))))}


def test_a_deleted_row_is_gone_and_what_comes_after_it_counts() -> None:
    rows = KnownRows()
    for key in (b"a", b"b"):
        rows.take(key, encode(row(1, 2, 3)))
        rows.take(key, None)
    rows.take(b"b", encode(row(7)))
    rows.take(b"never there", None)
    assert customers(rows) == {"b": canonical(state(7))}


@pytest.mark.parametrize("late", [False, True])
def test_an_erased_customer_does_not_come_back_by_a_row_written_late(late: bool) -> None:
    rows = KnownRows()
    forgotten = Row(4, 0, 9, CustomerState(), Links(4, erased_at_ms=1, forgotten=True))
    logged = [(b"a", encode(row(1, 2, 3))), *stored(b"a", forgotten)]
    for key, value in [*logged, logged[0]] if late else logged:
        rows.take(key, value)
    assert customers(rows) == {}


def test_an_erased_customer_who_came_back_is_there_with_what_came_since() -> None:
    rows = KnownRows()
    rows.take(erased_key(b"a"), encode(Row(4, 0, 9, CustomerState(), Links(4, erased_at_ms=1, forgotten=True))))
    rows.take(b"a", encode(Row(5, 0, 10, state(8), Links(5, erased_at_ms=1))))
    assert customers(rows) == {"a": canonical(state(8))}


def test_merged_customers_stand_once_with_the_orders_of_both() -> None:
    rows = KnownRows()
    rows.take(b"from", encode(row(1, 2, links=Links(2, merged_into="into", merged_at_ms=5))))
    rows.take(b"into", encode(row(3, links=Links(1, parts={"from": Part(2, "into", 5, state(1, 2))}))))
    assert customers(rows) == {"into": canonical(state(1, 2, 3))}


def test_what_is_no_row_is_counted_and_the_others_stand() -> None:
    rows = KnownRows()
    rows.take(b"good", encode(row(1)))
    for key, value in ((b"no msgpack", b"\xc1"), (b"\xff", encode(row(1))), (b"no row", b"\x92\x01\x02")):
        rows.take(key, value)
        rows.take(key, value)
    assert customers(rows) == {"good": canonical(state(1))}
    assert rows.rejected[Reason.INVALID_FIELD] >= 3


def test_how_far_the_workers_have_come_is_no_customer() -> None:
    rows = KnownRows()
    older, newer = (Progress(n, 0, 100 * n, 0, 0, None, 0) for n in (1, 2))
    for partition, value in ((0, newer), (0, older), (3, older)):
        rows.take(PROGRESS_KEY, encode(value), partition)
    rows.take(PROGRESS_KEY, None, 3)
    assert {partition: each.next_offset for partition, each in rows.progress.items()} == {0: 200, 3: 100}
    assert customers(rows) == {}


def test_every_customer_is_told_of() -> None:
    rows, told = KnownRows(), []
    for n in random.Random(1).sample(range(100), 30):
        rows.take(f"c{n}".encode(), encode(row(n)))
    found = list(rows.customers(lambda what, done=0, total=None: told.append((done, total))))
    assert len(found) == 30
    assert told[-1] == (30, 30)


def test_an_unknown_currency_is_one_line() -> None:
    assert minor_units_of("JPY") == 1
    with pytest.raises(KnownProblem, match="no currency"):
        minor_units_of("XXX")
