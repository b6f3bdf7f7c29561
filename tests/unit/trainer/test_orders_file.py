"""Orders files as they come: other names, missing cells, zeros in front, broken rows, Parquet instead of CSV."""

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from domain.customer import OrderPlaced, OrderRefunded, fold
from domain.purchases import purchases
from schemas.dead_letters import Reason
from services.runtime.shutdown import KnownProblem
from services.trainer.judged_rows import domain_events
from services.trainer.orders_file import (
    COLUMNS,
    customer_events,
    event_bytes,
    read_any,
    read_cdnow,
    read_orders,
    rfc3339,
)

HEADER = "type,order_id,customer_id,occurred_at,amount,currency,refund_id\n"


def csv_file(folder: Path, text: str, header: str = HEADER) -> Path:
    path = folder / "orders.csv"
    path.write_bytes((header + text).encode("utf-8", "surrogateescape"))
    return path


def test_ids_keep_their_leading_zeros(tmp_path: Path) -> None:
    table = read_orders(csv_file(tmp_path, "order,00012,007,2024-01-05,10.00,USD,\n"))
    (event,) = customer_events(table, "USD")
    assert (event["order_id"], event["customer_id"], event["amount"]) == ("00012", "007", "10.00")


def test_only_four_columns_are_needed(tmp_path: Path) -> None:
    path = csv_file(tmp_path, "1,7,2024-01-05,10\n", "order_id,customer_id,occurred_at,amount\n")
    (event,) = customer_events(read_orders(path), "EUR")
    assert (event["event_type"], event["currency"]) == ("order.placed", "EUR")


def test_columns_with_other_names_are_mapped(tmp_path: Path) -> None:
    path = csv_file(tmp_path, "9,A,2024-01-05,10,x\n", "total,order_id,occurred_at,who,type2\n".replace("who", "n"))
    path = csv_file(tmp_path, "A1,7,2024-01-05,10\n", "invoice,customer_id,occurred_at,total\n")
    table = read_orders(path, {"order_id": "invoice", "amount": "total"})
    (row,) = table.rows()
    assert (row.order_id, row.amount) == ("A1", "10")


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"amount": "total"}, "no column 'total'"),
        ({"price": "amount"}, "no such name"),
        ({"refund_id": "rid"}, "no column 'rid'"),
    ],
)
def test_a_mapping_that_cannot_be_is_one_clear_line(tmp_path: Path, columns: dict[str, str], says: str) -> None:
    path = csv_file(tmp_path, "1,7,2024-01-05,10\n", "order_id,customer_id,occurred_at,amount\n")
    with pytest.raises(KnownProblem, match=says) as problem:
        read_orders(path, columns)
    assert "\n" not in str(problem.value)


def test_a_missing_file_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(KnownProblem, match="No such file"):
        read_any(tmp_path / "nowhere.csv")


def test_a_broken_parquet_file_is_one_clear_line(tmp_path: Path) -> None:
    path = tmp_path / "orders.parquet"
    path.write_bytes(b"PAR1 and then nonsense")
    with pytest.raises(KnownProblem, match="cannot be read as Parquet") as problem:
        read_any(path)
    assert "\n" not in str(problem.value)


@pytest.mark.parametrize(
    ("text", "rendered"),
    [
        ("2024-01-05", "2024-01-05T00:00:00Z"),
        ("2024-01-05 10:20", "2024-01-05T10:20:00Z"),
        ("2024-01-05T10:20:30", "2024-01-05T10:20:30Z"),
        ("2024-01-05 10:20:30.500000", "2024-01-05T10:20:30.5Z"),
        ("2024-01-05 10:20:30+00:00", "2024-01-05T10:20:30+00:00"),
        ("2024-01-05T10:20:30-0530", "2024-01-05T10:20:30-05:30"),
        ("2024-01-05 10:20:30 UTC", "2024-01-05T10:20:30Z"),
        ("05/01/2024", "05/01/2024"),
        ("2024-01-05Z", "2024-01-05Z"),
        ("", ""),
    ],
)
def test_a_time_without_a_zone_is_utc(text: str, rendered: str) -> None:
    assert rfc3339(text) == rendered


def test_a_refund_without_an_order_counts_against_the_customer(tmp_path: Path) -> None:
    table = read_orders(
        csv_file(
            tmp_path, "order,1,7,2024-01-05,10.00,USD,\nrefund,,7,2024-01-06,4.00,USD,\nrefund,1,7,2024-01-07,1,,r9\n"
        )
    )
    events, rejected = domain_events(table, "USD")
    assert not rejected
    placed, loose, named = events["7"]
    assert placed == OrderPlaced("1", 1000, 1_704_412_800_000)
    assert isinstance(loose, OrderRefunded)
    assert loose.order_id is None
    assert isinstance(named, OrderRefunded)
    assert (named.refund_id, named.order_id, named.amount_minor) == ("r9", "1", 100)


def test_a_row_that_stands_twice_counts_once(tmp_path: Path) -> None:
    rows = "order,1,7,2024-01-05,10.00,USD,\n" * 2 + "refund,1,7,2024-01-06,4.00,USD,\n" * 2
    events, _ = domain_events(read_orders(csv_file(tmp_path, rows)), "USD")
    bought, _ = purchases([fold(events["7"])], [20_000])
    assert (bought.gross.tolist(), bought.net.tolist()) == ([1000], [600])


def test_each_kind_of_bad_row_is_counted_by_its_reason(tmp_path: Path) -> None:
    rows = {
        "order,1,7,2024-01-05,10.00,USD,": None,
        "voucher,2,7,2024-01-05,10.00,USD,": Reason.UNKNOWN_EVENT_TYPE,
        "order.cancelled,2,7,2024-01-05,10.00,USD,": Reason.UNKNOWN_EVENT_TYPE,
        "order,,7,2024-01-05,10.00,USD,": Reason.MISSING_FIELD,
        "order,3,,2024-01-05,10.00,USD,": Reason.EMPTY_CUSTOMER_ID,
        "order,4,7,05.01.2024,10.00,USD,": Reason.INVALID_TIMESTAMP,
        "order,5,7,1969-12-31,10.00,USD,": Reason.INVALID_TIMESTAMP,
        'order,6,7,2024-01-05,"1,000.00",USD,': Reason.INVALID_AMOUNT,
        "order,7,7,2024-01-05,0.00,USD,": Reason.NON_POSITIVE_AMOUNT,
        "order,8,7,2024-01-05,-5,USD,": Reason.NON_POSITIVE_AMOUNT,
        "order,9,7,2024-01-05,10.001,USD,": Reason.INVALID_AMOUNT,
        "order,10,7,2024-01-05,99999999999999999,USD,": Reason.AMOUNT_TOO_LARGE,
        "order,11,7,2024-01-05,10,EUR,": Reason.UNKNOWN_CURRENCY,
        "order,12,7,2024-01-05,10,XYZ,": Reason.UNKNOWN_CURRENCY,
        "order,13,7\udcff,2024-01-05,10,USD,": Reason.INVALID_UTF8,
        "order,14,7,2024-01-05,1,000,USD,,": Reason.UNKNOWN_EVENT_TYPE,
        f"order,{'x' * 257},7,2024-01-05,10,USD,": Reason.INVALID_FIELD,
    }
    events, rejected = domain_events(read_orders(csv_file(tmp_path, "\n".join(rows))), "USD")
    assert [event for each in events.values() for event in each] == [OrderPlaced("1", 1000, 1_704_412_800_000)]
    expected = [reason for reason in rows.values() if reason is not None]
    assert dict(rejected) == {reason: expected.count(reason) for reason in expected}


def test_parquet_gives_the_same_rows_as_csv(tmp_path: Path) -> None:
    at = [datetime(2024, 1, 5, 10, 20, 30, tzinfo=UTC), datetime(2024, 1, 6, tzinfo=UTC)]
    arrow = pa.table(
        {
            "type": pa.array(["order", None]).dictionary_encode(),
            "order_id": pa.array([7, 8], pa.int64()),
            "customer_id": ["007", "008"],
            "occurred_at": pa.array(at, pa.timestamp("ns", "Europe/Berlin")),
            "amount": pa.array([Decimal("12.30"), Decimal("100.00")], pa.decimal128(20, 2)),
            "currency": ["USD", None],
        }
    )
    path = tmp_path / "orders.parquet"
    pq.write_table(arrow, path)
    text = "order,7,007,2024-01-05T10:20:30Z,12.30,USD,\n,8,008,2024-01-06,100.00,,\n"
    from_csv, from_parquet = read_any(csv_file(tmp_path, text)), read_any(path)
    assert domain_events(from_csv, "USD") == domain_events(from_parquet, "USD")
    without_time = [name for name in COLUMNS if name != "occurred_at"]
    for name in without_time:
        assert from_csv.columns[name].tolist() == from_parquet.columns[name].tolist(), name


def test_parquet_floats_and_days_are_rendered_exactly(tmp_path: Path) -> None:
    path = tmp_path / "orders.parquet"
    pq.write_table(
        pa.table(
            {
                "order_id": ["1", "2"],
                "customer_id": ["a", "a"],
                "occurred_at": [date(2024, 1, 5), date(2024, 1, 6)],
                "amount": [0.1, 0.1 + 0.2],
            }
        ),
        path,
    )
    table = read_orders(path)
    assert table.columns["amount"].tolist() == ["0.1", "0.30000000000000004"]
    events, rejected = domain_events(table, "USD")
    assert [event.amount_minor for event in events["a"] if isinstance(event, OrderPlaced)] == [10]
    assert rejected == {Reason.INVALID_AMOUNT: 1}


def test_event_ids_name_the_file_and_the_row(tmp_path: Path) -> None:
    rows = "order,1,7,2024-01-05,10.00,USD,\n" * 2
    path = csv_file(tmp_path, rows)
    first, second = ([event["event_id"] for event in customer_events(read_orders(path), "USD")] for _ in range(2))
    assert first == second
    assert len(set(first)) == 2
    other = path.rename(tmp_path / "other.csv")
    assert set(first).isdisjoint(event["event_id"] for event in customer_events(read_orders(other), "USD"))


def test_bytes_that_are_no_utf8_are_published_as_they_were(tmp_path: Path) -> None:
    path = csv_file(tmp_path, "order,1,caf\udce9,2024-01-05,10.00,USD,\n")
    (event,) = customer_events(read_orders(path), "USD")
    assert b'"caf\xe9"' in event_bytes(event)


def test_a_good_event_is_plain_json(tmp_path: Path) -> None:
    (event,) = customer_events(read_orders(csv_file(tmp_path, "order,1,käthe,2024-01-05,10.00,USD,\n")), "USD")
    assert json.loads(event_bytes(event)) == event


def test_cdnow_rows_become_orders_in_dollars(tmp_path: Path) -> None:
    path = tmp_path / "CDNOW_master.txt"
    path.write_text(
        " customer_id  date number_of_cds  dollar_value\r\n 00001 19970101  1   11.77\r\n 2 19970112  1   0.00\r\n"
    )
    table = read_any(path)
    assert [(row.customer_id, row.occurred_at, row.amount, row.currency) for row in table.rows()] == [
        ("00001", "1997-01-01", "11.77", "USD"),
        ("2", "1997-01-12", "0.00", "USD"),
    ]
    _, rejected = domain_events(table, "USD")
    assert rejected == {Reason.NON_POSITIVE_AMOUNT: 1}


def test_a_line_that_is_not_of_cdnow_is_named(tmp_path: Path) -> None:
    path = tmp_path / "cdnow.txt"
    path.write_text(" 00001 19970101  1   11.77\n 00001 19970101  1\n")
    with pytest.raises(KnownProblem, match="line 2"):
        read_cdnow(path)


def test_the_fingerprint_changes_with_a_cell_and_not_with_the_format(tmp_path: Path) -> None:
    table = read_orders(csv_file(tmp_path, "order,1,7,2024-01-05,10.00,USD,\n"))
    other = read_orders(csv_file(tmp_path, "order,1,7,2024-01-05,10.01,USD,\n"))
    path = tmp_path / "orders.parquet"
    pq.write_table(pa.table({name: cells.tolist() for name, cells in table.columns.items()}), path)
    assert table.fingerprint == read_orders(path).fingerprint != other.fingerprint
