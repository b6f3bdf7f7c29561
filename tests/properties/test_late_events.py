"""An event of any age, however late, gives what it would have given in time: the same state, the same bytes."""

from typing import NamedTuple

import hypothesis.strategies as st
from hypothesis import given, settings

from domain.customer import DAY_MS, canonical
from domain.rfm_scores import Quintiles
from schemas.customer_features import feature_version
from schemas.customer_rows import Row, decode_row, encode
from schemas.orders import Cancelled, OrderRecord, Placed, Refunded, Updated, encode_order
from services.features.emit import feature_messages
from services.folding.fold import Folded, fold_chunk
from tests.effort import tries

QUINTILES = Quintiles((5, 20, 60, 200), (0, 1, 3, 6), (10, 50, 100, 400))
FIRST_DAY, LAST_DAY = 10_000, 11_500
CUSTOMER = b"late"

days = st.integers(FIRST_DAY, LAST_DAY)
orders = st.sampled_from([f"o{n}" for n in range(6)])
kinds = st.one_of(
    st.tuples(st.just("placed"), orders),
    st.tuples(st.just("refunded"), st.one_of(st.none(), orders)),
    st.tuples(st.just("cancelled"), orders),
    st.tuples(st.just("profile"), st.none()),
)
histories = st.lists(
    st.tuples(kinds, days, st.integers(0, DAY_MS - 1), st.integers(1, 20_000)), min_size=1, max_size=25
)


class Record(NamedTuple):
    """A record of the orders topic."""

    key: bytes
    value: bytes
    offset: int
    timestamp: int


def order_records(history: list[tuple[tuple[str, str | None], int, int, int]]) -> list[OrderRecord]:
    """What ingest would have written. An id means one thing: conflicting versions of an order have a test elsewhere."""
    found: dict[tuple[str, str | int], OrderRecord] = {}
    for n, ((kind, order), day, of_day_ms, minor) in enumerate(history):
        common = {"event_id": f"e{n}", "customer_id": CUSTOMER.decode(), "occurred_at_ms": day * DAY_MS + of_day_ms}
        money = {"amount_minor": minor, "original_amount": "1", "original_currency": "USD"}
        match kind:
            case "placed":
                found[kind, order] = Placed(**common, **money, order_id=order)
            case "refunded":
                found[kind, n] = Refunded(**common, **money, refund_id=f"r{n}", order_id=order)
            case "cancelled":
                found[kind, order] = Cancelled(**common, order_id=order)
            case _:
                found[kind, n] = Updated(**common, birth_year=1950 + n)
    return list(found.values())


def deliver(records: list[OrderRecord], chunk_records: int) -> tuple[Row, list[Folded]]:
    """The customer's row after the records, chunk by chunk as the worker folds and stores them."""
    rows: dict[bytes, Row] = {}
    watermark_ms, chunks = 0, []
    for begin in range(0, len(records), chunk_records):
        chunk = [
            Record(CUSTOMER, encode_order(record), begin + n, 0)
            for n, record in enumerate(records[begin : begin + chunk_records])
        ]
        chunks.append(fold_chunk(chunk, rows, 0, watermark_ms))
        assert chunks[-1].watermark_ms >= watermark_ms, "a late event does not turn the clock back"
        watermark_ms = chunks[-1].watermark_ms
        rows = {key: decode_row(encode(touched.row)) for key, touched in chunks[-1].touched.items()}
    return rows[CUSTOMER], chunks


def message(row: Row, day: int) -> bytes:
    return feature_messages([(CUSTOMER, row)], [day], QUINTILES, "USD", 100)[0]


@settings(max_examples=tries(150), deadline=None)
@given(histories, st.sets(st.integers(0, 24)), st.integers(1, 6), st.integers(1, 30), st.integers(0, 800))
def test_late_by_any_time_gives_the_same_state_and_the_same_bytes(history, late, one_chunk, other_chunk, days_later):
    in_time = sorted(order_records(history), key=lambda record: record.occurred_at_ms)
    punctual = [record for n, record in enumerate(in_time) if n not in late]
    too_late = [record for n, record in enumerate(in_time) if n in late]
    row, chunks = deliver(in_time, one_chunk)
    late_row, late_chunks = deliver(punctual + too_late, other_chunk)
    assert canonical(late_row.state) == canonical(row.state)
    assert late_chunks[-1].watermark_ms == chunks[-1].watermark_ms
    for day in (LAST_DAY + days_later, FIRST_DAY + days_later):
        assert message(late_row, day) == message(row, day)


@settings(max_examples=tries(100), deadline=None)
@given(histories, days, st.integers(1, 6))
def test_a_late_order_is_emitted_again_with_a_higher_version_and_no_earlier_day(history, late_day, chunk):
    """As the worker does it: as of the partition's latest event."""
    records = order_records(history)
    earlier_row, before = deliver(records, chunk)
    late = Placed(
        event_id="late", customer_id=CUSTOMER.decode(), occurred_at_ms=late_day * DAY_MS, order_id="another",
        amount_minor=100, original_amount="1", original_currency="USD",
    )  # fmt: skip
    row, after = deliver([*records, late], chunk)
    assert CUSTOMER in after[-1].touched
    day, earlier_day = (chunks[-1].watermark_ms // DAY_MS for chunks in (after, before))
    assert day >= earlier_day
    assert feature_version(row.events_applied, day) > feature_version(earlier_row.events_applied, earlier_day)
    assert feature_version(row.events_applied, earlier_day) > feature_version(earlier_row.events_applied, LAST_DAY)
