"""A chunk of records into rows: what is applied, what is only emitted again, what is refused."""

from typing import NamedTuple

import hypothesis.strategies as st
from hypothesis import given, settings

from domain.customer import DAY_MS, ORDER, OrderPlaced, fold
from schemas.customer_rows import Row, new_row
from schemas.dead_letters import Reason
from schemas.orders import Placed, encode_order
from services.folding.fold import fold_chunk, keys_of
from tests.effort import tries


class Record(NamedTuple):
    key: bytes | None
    value: bytes | None
    offset: int
    timestamp: int = 5


def order(customer: str, order_id: str, minor: int = 100, day: int = 1, offset: int = 0) -> Record:
    placed = Placed(
        event_id=order_id,
        customer_id=customer,
        occurred_at_ms=day * DAY_MS,
        order_id=order_id,
        amount_minor=minor,
        original_amount="1",
        original_currency="USD",
    )
    return Record(customer.encode(), encode_order(placed), offset)


def test_a_record_at_or_below_the_guard_changes_nothing_but_is_emitted_again():
    known = fold_chunk([order("c", "a", offset=3)], {}, 0, 0).touched[b"c"].row
    again = fold_chunk([order("c", "other", offset=3)], {b"c": known}, 0, 0)
    assert again.replayed == 1
    assert list(again.touched) == [b"c"]
    assert (known.events_applied, len(known.state.orders)) == (1, ORDER.size)


def test_a_guard_of_an_older_incarnation_of_the_topic_does_not_hold():
    known = fold_chunk([order("c", "a", offset=30)], {}, 0, 0).touched[b"c"].row
    folded = fold_chunk([order("c", "b", offset=2)], {b"c": known}, 1, 0)
    assert folded.replayed == 0
    assert (known.offset, known.incarnation, len(known.state.orders)) == (2, 1, 2 * ORDER.size)


@settings(max_examples=tries(100), deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 9), st.integers(1, 50)), max_size=40),
    st.lists(st.integers(0, 40), max_size=5),
)
def test_any_chunking_and_redelivery_gives_the_same_rows(orders, cuts):
    records = [order(c, f"{c}{o}{d}", day=d, offset=n) for n, (c, o, d) in enumerate(orders)]
    whole = fold_chunk(records, {}, 0, 0).touched
    rows: dict[bytes, Row] = {}
    start = 0
    for cut in [*sorted(min(c, len(records)) for c in cuts), len(records)]:
        chunk = records[max(0, start - 3) : cut]  # each chunk brings the last three records again
        for key, touched in fold_chunk(chunk, rows, 0, 0).touched.items():
            rows[key] = touched.row
        start = cut
    assert rows == {key: touched.row for key, touched in whole.items()}
    for key, row in rows.items():
        mine = [(c, o, d) for c, o, d in orders if c.encode() == key]
        assert row.state == fold(OrderPlaced(f"{c}{o}{d}", 100, d * DAY_MS) for c, o, d in mine)
        assert row.events_applied == len(mine)


def test_records_that_cannot_be_used_are_named_and_the_others_are_applied():
    records = [
        Record(None, b"{}", 0),
        Record(b"c", b"{", 1),
        Record(b"c", b'{"event_type":"order.placed"}', 2),
        Record(b"x", order("c", "a").value, 3),
        Record(b"c", None, 5),
        order("c", "a", offset=6),
    ]
    folded = fold_chunk(records, {}, 0, 0)
    assert [rejected.reason for rejected in folded.rejected] == [
        Reason.EMPTY_KEY,
        Reason.INVALID_JSON,
        Reason.INVALID_FIELD,
        Reason.KEY_MISMATCH,
        Reason.INVALID_JSON,
    ]
    assert folded.touched[b"c"].row.offset == 6


def test_the_watermark_is_the_latest_time_seen_and_never_goes_back():
    assert fold_chunk([order("c", "a", day=3)], {}, 0, 0).watermark_ms == 3 * DAY_MS
    assert fold_chunk([order("c", "a", day=3)], {}, 0, 9 * DAY_MS).watermark_ms == 9 * DAY_MS


def test_each_customer_of_a_chunk_is_read_once():
    assert keys_of([order("b", "1"), order("a", "2"), order("b", "3"), Record(None, None, 4)]) == [b"b", b"a"]
    assert new_row().events_applied == 0
