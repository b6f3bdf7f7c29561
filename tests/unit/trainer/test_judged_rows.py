"""The trainer's verdict on a row against ingest's verdict on the event that the same row is published as."""

from hypothesis import example, given, settings
from hypothesis import strategies as st

from domain.customer import OrderPlaced, OrderRefunded
from schemas.orders import Placed, Refunded
from services.ingest.judge import Rules
from services.ingest.judge import judge as ingest_judge
from services.ingest.rates import Rates
from services.ingest.rejection import Rejection
from services.trainer.judged_rows import judge
from services.trainer.orders_file import COLUMNS, customer_events, event_bytes
from tests.effort import tries
from tests.unit.trainer.shops import table

NOW_MS = 1_770_000_000_000
RULES = Rules(currency="USD", rates=Rates())

GOOD = {
    "type": "order",
    "order_id": "1",
    "customer_id": "c",
    "occurred_at": "2024-01-05T10:00:00Z",
    "amount": "12.34",
    "currency": "USD",
    "refund_id": "",
}
# Of lone surrogates only those that stand for a byte that was no UTF-8: no file has others.
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    ["", " ", "\t", "\udcff", "x" * 257, "\x00"]
)
CELLS = {
    "type": st.sampled_from(["order", "refund", "", " Order ", "voucher", "order.placed", "order.cancelled", "x" * 300])
    | TEXT,
    "occurred_at": st.sampled_from(
        ["2024-01-05", "2024-01-05 10:00", "2024-02-30", "1969-12-31", "2031-01-01", "1700000000",
         "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "2024-01-05T10:00:00+24:00", "2024-01-05T24:00:00Z",
         "2024-01-05T10:00:60Z",
         "2024-01-05t10:00:00z", "2024-01-05T10:00:00.1234567Z", "2024-01-05_10:00:00Z", "20240105"]
    ) | st.datetimes().map(str) | TEXT,
    "amount": st.sampled_from(
        ["0", "0.00", "-1", "-x", "+5", "1e3", "1,5", ".5", "5.", "12.345", "12.340", "100000000000.00",
         "100000000000.01", "9" * 18, "9" * 19, "9" * 41, "-" + "9" * 41, "0" * 41, "0." + "0" * 39 + "1",
         "١٢", "NaN", " 7 "]
    ) | st.decimals(allow_nan=False, allow_infinity=False, places=2).map(str) | TEXT,
    "currency": st.sampled_from(["", "USD", "EUR", "JPY", "BHD", "usd", "XAU", "US", " USD ", "X" * 17, "ＵＳＤ"])
    | TEXT,
    "order_id": st.sampled_from(["1", ""]) | TEXT,
    "customer_id": st.sampled_from(["c", "", " "]) | TEXT,
    "refund_id": st.sampled_from(["", "r1"]) | TEXT,
}  # fmt: skip


SPOILT = st.sets(st.sampled_from(COLUMNS), max_size=3)
TYPES = st.sampled_from(["order", "refund"])


@st.composite
def rows(draw: st.DrawFn) -> dict[str, str]:
    """A good row with some of its cells spoilt."""
    spoilt = draw(SPOILT)
    kind = {"type": draw(TYPES)}
    return GOOD | kind | {name: draw(CELLS[name]) for name in sorted(spoilt)}


@given(st.lists(rows(), min_size=1, max_size=8))
@example([GOOD | {"occurred_at": "1700000000", "customer_id": " "}])
@example([GOOD | {"currency": "EUR", "amount": "0"}])
@example([GOOD | {"currency": "JPY", "amount": "1.5"}])
@example([GOOD | {"amount": "1" * 41, "order_id": ""}])
@settings(max_examples=tries(300), deadline=None)
def test_the_trainer_and_ingest_judge_a_row_alike(cells: list[dict[str, str]]) -> None:
    orders = table(cells)
    judged = judge(orders, "USD", NOW_MS)
    events = dict(judged.events())
    for row, event in enumerate(customer_events(orders, "USD")):
        verdict = ingest_judge(event_bytes(event), (), NOW_MS, RULES)
        if isinstance(verdict, Rejection):
            assert row not in events, (cells[row], verdict)
            (reason,) = judge(table([cells[row]]), "USD", NOW_MS).rejected()
            assert reason is verdict.reason, (cells[row], verdict)
        else:
            assert judged.customer_ids[row] == verdict.customer_id
            assert events[row] == _domain_event(verdict), cells[row]


def _domain_event(record: object) -> OrderPlaced | OrderRefunded:
    match record:
        case Placed():
            return OrderPlaced(record.order_id, record.amount_minor, record.occurred_at_ms)
        case Refunded():
            return OrderRefunded(record.refund_id, record.order_id, record.amount_minor, record.occurred_at_ms)
    raise AssertionError(record)


def test_rows_known_to_lie_behind_a_day_are_not_counted_before_it() -> None:
    judged = judge(table([GOOD | {"amount": "0"}, GOOD | {"occurred_at": "then"}]), "USD")
    assert judged.rejected().total() == 2
    assert judged.rejected(before_ms=0).total() == 1
