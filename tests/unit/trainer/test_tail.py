"""The tail of `orders` on top of a snapshot: what stands is what the workers will make of it, wherever they stopped."""

import random
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from domain.customer import CustomerState, canonical
from schemas.customer_rows import Progress, encode
from schemas.dead_letters import Reason
from schemas.orders import OrderRecord, encode_order
from services.trainer.card_facts import gone
from services.trainer.sources.orders import from_table
from services.trainer.sources.rows import KnownRows
from services.trainer.sources.tail import Start, Tail, start_of
from services.trainer.train import train
from tests.effort import tries
from tests.unit.folding.test_links import (
    Partitions,
    erased,
    events_of,
    merged,
    order_facts,
    placed,
    records_of,
    refunded,
    seeds,
)
from tests.unit.trainer.shops import FIRST_DAY, shop, table

MERGES = st.sampled_from(["", "a>b", "a>b,b>c", "b>c,a>b", "a>c,b>c", "a>b,b>a"])


@dataclass
class Logged:
    key: bytes | None
    value: bytes | None
    offset: int
    timestamp: int = 0


def logged(log: list[OrderRecord], start: int = 0) -> list[Logged]:
    return [Logged(each.customer_id.encode(), encode_order(each), n) for n, each in enumerate(log) if n >= start]


def standing(rows: KnownRows) -> dict[str, CustomerState]:
    found = rows.customers(lambda what, done=0, total=None: None)
    return {customer: canonical(state) for customer, state in found if state.orders or state.refunds}


def trained(workers: Partitions, rng: random.Random) -> dict[str, CustomerState]:
    """What a trainer makes of the workers' rows and each customer's log (its own partition) from where they are."""
    rows = KnownRows()
    for key, value in workers.rows.items():
        rows.take(key, value)
    tail = Tail(rows, start_anew=workers.start_anew)
    for customer, log in rng.sample(list(workers.logs.items()), len(workers.logs)):
        records = logged(log, workers.read.get(customer, 0))
        middle = rng.randint(0, len(records))
        for chunk in (records[:middle], records[middle:]):
            tail.fold(chunk, 0)
    tail.settle()
    assert not tail.rejected
    return standing(rows)


@settings(max_examples=tries(100), deadline=None)
@given(order_facts("abc"), seeds, MERGES, st.sets(st.sampled_from("abc"), max_size=1))
def test_wherever_the_workers_stopped_the_tail_gives_what_they_would(facts, rng, merges, erasures):
    """With crashes, repetition and records already sent on: as if they had gone on to the end."""
    everything = [*records_of(facts), *(merged(*pair.split(">")) for pair in merges.split(",") if pair)]
    everything += [record for record in everything if rng.random() < 0.2]
    everything += [erased(customer) for customer in erasures]
    rng.shuffle(everything)
    workers = Partitions(rng)
    for record in everything:
        workers.publish(record)
        if rng.random() < 0.4:
            workers.step()
    stopped_here = trained(workers, rng)
    workers.drain()
    workers_end = KnownRows()
    for key, value in workers.rows.items():
        workers_end.take(key, value)
    assert stopped_here == standing(workers_end)


def tail_of(*log: OrderRecord, start_anew: bool = False) -> tuple[KnownRows, Tail]:
    rows = KnownRows()
    tail = Tail(rows, start_anew=start_anew)
    tail.fold(logged(list(log)), 0)
    tail.settle()
    return rows, tail


def test_whoever_was_erased_comes_back_by_setting_alone() -> None:
    log = placed("a", "before"), erased("a", day=10), placed("a", "late", day=9), placed("a", "after", day=11)
    assert standing(tail_of(*log)[0]) == {}
    assert standing(tail_of(*log, start_anew=True)[0]) == {"a": events_of([log[3]])}


def test_a_record_that_is_none_is_counted_and_a_refused_customer_is_not() -> None:
    rows, tail = tail_of(erased("a"), placed("a", "late"), placed("b", "o1"), merged("b", "c"), merged("b", "d"))
    tail.fold([Logged(b"b", b"{", 9), Logged(None, b"", 10), Logged(b"x", encode_order(placed("y", "o")), 11)], 0)
    assert tail.rejected == {Reason.INVALID_JSON: 1, Reason.EMPTY_KEY: 1, Reason.KEY_MISMATCH: 1}
    assert standing(rows) == {"c": events_of([placed("b", "o1")])}


def test_a_row_that_cannot_be_read_is_counted_and_its_customer_begins_with_the_tail() -> None:
    rows = KnownRows()
    rows.take(b"a", b"\x92\x01\x02")
    Tail(rows, start_anew=False).fold(logged([placed("a", "o1"), refunded("a", "r1", "o1")]), 0)
    assert rows.rejected == {Reason.INVALID_FIELD: 1}
    assert standing(rows) == {"a": events_of([placed("a", "o1"), refunded("a", "r1", "o1")])}


def test_a_topic_made_anew_is_folded_again_although_its_offsets_are_lower() -> None:
    rows = KnownRows()
    tail = Tail(rows, start_anew=False)
    for incarnation, order in ((0, "o1"), (1, "o2")):
        tail.fold(logged([placed("a", order)]), incarnation)
    assert standing(rows) == {"a": events_of([placed("a", "o1"), placed("a", "o2")])}


@pytest.mark.parametrize(
    ("next_offset", "committed", "begin", "end", "start"),
    [
        (None, False, 0, 9, Start(0, 0, 0)),
        (None, False, 4, 9, Start(4, 0, 4)),  # older than the topic keeps, and no worker ever ran
        (7, True, 0, 9, Start(7, 3, 0)),
        (7, True, 7, 7, Start(7, 3, 0)),
        (7, True, 8, 9, Start(8, 3, 1)),  # deleted before a worker came to it
        (7, True, 0, 2, Start(0, 4, 0)),  # made anew
        (7, False, 0, 9, Start(0, 4, 0)),  # made anew, or the group was forgotten
        (7, False, 5, 9, Start(5, 4, 0)),
    ],
)
def test_where_the_tail_begins(next_offset: int | None, committed: bool, begin: int, end: int, start: Start) -> None:
    known = None if next_offset is None else Progress(1, 3, next_offset, 0, 0, None, 0)
    if known is not None:
        rows = KnownRows()
        rows.take(b"\x00progress", encode(known), 2)
        known = rows.progress[2]
    assert start_of(known, committed=committed, begin=begin, end=end) == start


def test_the_card_says_how_many_orders_nobody_knows_any_more(tmp_path: Path) -> None:
    data = from_table(table(shop(5, 20)), FIRST_DAY + timedelta(days=15), "USD")
    limits = train(replace(data, missing=1200), 5, tmp_path).metadata["limits"]
    assert limits[0].startswith("1,200 records of the stream had been deleted")
    assert gone(0) == []
