"""Merged and erased customers: whatever the order, the repetition and the faults, the survivor has everything once."""

import random
from typing import Any, NamedTuple

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from domain.customer import DAY_MS, CustomerState, OrderPlaced, OrderRefunded, canonical, fold, union
from schemas.customer_rows import Row, decode_row, encode, erased_key, is_forgotten, known_state, stored, survivor
from schemas.dead_letters import Reason
from schemas.orders import Cancelled, Erased, Merged, OrderRecord, Placed, Refunded, domain_event, encode_order
from services.folding.fold import Folded, fold_chunk
from tests.effort import tries

seeds = st.integers(0, 2**32).map(random.Random)


class Record(NamedTuple):
    key: bytes | None
    value: bytes | None
    offset: int
    timestamp: int = 5


def placed(customer: str, order: str, day: int = 1, minor: int = 100) -> Placed:
    return Placed(
        event_id=order,
        customer_id=customer,
        occurred_at_ms=day * DAY_MS,
        order_id=order,
        amount_minor=minor,
        original_amount="1",
        original_currency="USD",
    )


def refunded(customer: str, refund: str, order: str, day: int = 2) -> Refunded:
    return Refunded(
        event_id=refund,
        customer_id=customer,
        occurred_at_ms=day * DAY_MS,
        refund_id=refund,
        order_id=order,
        amount_minor=40,
        original_amount="0.4",
        original_currency="USD",
    )


def cancelled(customer: str, order: str, day: int = 2) -> Cancelled:
    return Cancelled(event_id=f"x{order}{day}", customer_id=customer, occurred_at_ms=day * DAY_MS, order_id=order)


def merged(customer: str, into: str, day: int = 3) -> Merged:
    return Merged(event_id=f"m{customer}", customer_id=customer, occurred_at_ms=day * DAY_MS, merged_into=into)


def erased(customer: str, day: int = 10) -> Erased:
    return Erased(event_id=f"e{customer}", customer_id=customer, occurred_at_ms=day * DAY_MS)


class Partitions:
    """A log and rows for each customer, as if every customer had a partition of its own; folded in any order.

    A crash in between loses what was not stored, as in the worker: records sent on are in the other's log before.
    """

    def __init__(self, rng: random.Random, *, start_anew: bool = False) -> None:
        self.logs: dict[str, list[OrderRecord]] = {}
        self.read: dict[str, int] = {}
        self.rows: dict[bytes, bytes] = {}
        self.rejected: list[Reason] = []
        self.paused: list[OrderRecord] = []
        self.rng, self.start_anew = rng, start_anew

    def publish(self, record: OrderRecord) -> None:
        self.logs.setdefault(record.customer_id, []).append(record)

    def row(self, customer: str) -> Row | None:
        key = customer.encode()
        value = self.rows.get(key) or self.rows.get(erased_key(key))
        return None if value is None else decode_row(value)

    def step(self, *, faults: bool = True) -> bool:
        """Fold a chunk of one customer's log; False if nothing is left to read."""
        behind = [customer for customer, log in self.logs.items() if self.read.get(customer, 0) < len(log)]
        if not behind:
            return False
        customer = self.rng.choice(behind)
        start, log = self.read.get(customer, 0), self.logs[customer]
        end = self.rng.randint(start + 1, len(log))
        if faults:
            start = max(0, start - self.rng.randrange(3))  # redelivered
        records = [Record(customer.encode(), encode_order(log[at]), at) for at in range(start, end)]
        known = self.row(customer)
        rows = {} if known is None else {customer.encode(): known}
        folded: Folded = fold_chunk(records, rows, 0, 0, start_anew=self.start_anew)
        if faults and self.rng.random() < 0.1:
            self.paused += [each.record for each in folded.to_send]
            return True  # paused before it sent anything; it wakes when others have gone on
        for each in folded.to_send:
            self.publish(each.record)
        if faults and self.rng.random() < 0.2:
            return True  # killed before the rows were logged
        if faults and self.rng.random() < 0.2:
            for record in self.paused:
                self.publish(record)
            self.paused = []
        for key, touched in folded.touched.items():
            for stored_key, value in stored(key, touched.row):
                self.rows.pop(stored_key, None) if value is None else self.rows.__setitem__(stored_key, value)
        self.rejected += [each.reason for each in folded.rejected]
        self.read[customer] = max(end, self.read.get(customer, 0))
        return True

    def drain(self, *, faults: bool = True) -> None:
        for _ in range(10_000):
            if not self.step(faults=faults):
                return
        raise AssertionError("the records go round without end")


def events_of(records: list[OrderRecord]) -> CustomerState:
    events = [event for record in records if (event := domain_event(record)) is not None]
    return canonical(fold(events))


def state_of(partitions: Partitions, customer: str) -> CustomerState:
    row = partitions.row(customer)
    assert row is not None
    return canonical(known_state(row))


def order_facts(customers: str) -> Any:
    each = st.tuples(st.sampled_from(customers), st.integers(0, 6), st.integers(1, 9), st.sampled_from("oorc"))
    return st.lists(each, max_size=20)


def records_of(facts: list[tuple[str, int, int, str]]) -> list[OrderRecord]:
    made: list[OrderRecord] = []
    for customer, number, day, kind in facts:
        match kind:
            case "o":
                made.append(placed(customer, f"o{number}", day))
            case "r":
                made.append(refunded(customer, f"r{number}{day}", f"o{number}", day))
            case _:
                made.append(cancelled(customer, f"o{number}", day))
    return made


@settings(max_examples=tries(200), deadline=None)
@given(order_facts("ab"), order_facts("ab"))
def test_the_union_of_two_states_is_the_state_of_all_events(left, right):
    one, two = records_of(left), records_of(right)
    joined = union([events_of(one), events_of(two)])
    assert canonical(joined) == events_of(one + two)


@settings(max_examples=tries(300), deadline=None)
@given(order_facts("abc"), seeds, st.sampled_from(["a>b", "a>b,b>c", "b>c,a>b", "a>c,b>c"]))
def test_a_merged_customers_orders_are_the_survivors_once_in_any_order_and_under_faults(facts, rng, merges):
    records = records_of(facts)
    edges = [pair.split(">") for pair in merges.split(",")]
    everything: list[OrderRecord] = [*records, *(merged(source, into) for source, into in edges)]
    rng.shuffle(everything)
    partitions = Partitions(rng)
    for record in everything:
        partitions.publish(record)
        if rng.random() < 0.5:
            partitions.step()
    partitions.drain()
    into = dict(edges)

    def last(customer: str) -> str:
        return last(into[customer]) if customer in into else customer

    for customer in {last(each) for each in "abc"}:
        of_customer = [record for record in records if last(record.customer_id) == customer]
        if of_customer or customer in into.values():
            assert state_of(partitions, customer) == events_of(of_customer)
            assert survivor(customer, partitions.row(customer)) is None
    for source, direct in into.items():
        assert survivor(source, partitions.row(source)) == direct
    assert partitions.rejected == []


@settings(max_examples=tries(200), deadline=None)
@given(order_facts("abc"), seeds, st.sampled_from(["a>b,b>a", "a>b,b>c,c>a"]))
def test_merges_in_a_circle_end_and_leave_the_first_by_name_with_everything(facts, rng, merges):
    records = records_of(facts)
    circle = [pair.split(">") for pair in merges.split(",")]
    records = [record for record in records if record.customer_id in dict(circle)]
    everything: list[OrderRecord] = [*records, *(merged(source, into) for source, into in circle)]
    rng.shuffle(everything)
    partitions = Partitions(rng)
    for record in everything:
        partitions.publish(record)
        if rng.random() < 0.5:
            partitions.step()
    partitions.drain()
    assert state_of(partitions, "a") == events_of(records)
    left = [source for source, _ in circle if survivor(source, partitions.row(source)) is None]
    assert left == ["a"]


@settings(max_examples=tries(200), deadline=None)
@given(order_facts("abc"), seeds, st.sampled_from("abc"))
def test_an_erasure_follows_merges_both_ways_and_leaves_nothing(facts, rng, first):
    records = records_of(facts)
    partitions = Partitions(rng)
    for record in [*records, merged("a", "b"), merged("b", "c")]:
        partitions.publish(record)
    partitions.drain()
    partitions.publish(erased(first))
    late = [placed(customer, "late", 20) for customer in "abc"]
    partitions.drain()
    for record in late:
        partitions.publish(record)
    partitions.drain(faults=False)
    for customer in "abc":
        row = partitions.row(customer)
        assert row is not None
        assert is_forgotten(row)
        assert canonical(known_state(row)) == CustomerState()
        assert row.links is not None
        assert row.links.parts == {}
        assert row.links.merged_into is None
    assert not any(key in b"abc" for key in partitions.rows if len(key) == 1)
    assert partitions.rejected == [Reason.CUSTOMER_ERASED] * 3


def only(folded: Folded, key: bytes = b"c") -> Row:
    return folded.touched[key].row


def folded_from(records: list[OrderRecord], *, start_anew: bool) -> Folded:
    rows = [Record(record.customer_id.encode(), encode_order(record), at) for at, record in enumerate(records)]
    return fold_chunk(rows, {}, 0, 0, start_anew=start_anew)


def test_after_an_erasure_later_events_begin_anew_by_setting_and_earlier_ones_never_come_back():
    events = [placed("c", "old", 1), erased("c", 10), placed("c", "late", 9), placed("c", "new", 11)]
    refused = folded_from(events, start_anew=False)
    assert [each.reason for each in refused.rejected] == [Reason.CUSTOMER_ERASED] * 2
    assert is_forgotten(only(refused))
    anew = folded_from(events, start_anew=True)
    assert [each.reason for each in anew.rejected] == [Reason.CUSTOMER_ERASED]
    assert only(anew).state == fold([OrderPlaced("new", 100, 11 * DAY_MS)])
    assert only(anew).events_applied == 3  # its versions go on: what was published before must not stand against it


def test_events_that_come_again_after_their_customer_was_erased_change_nothing():
    before = folded_from([placed("c", "o", 1), refunded("c", "r", "o"), erased("c", 10)], start_anew=True)
    row = decode_row(encode(only(before)))
    again = fold_chunk([Record(b"c", encode_order(placed("c", "o", 1)), 0)], {b"c": row}, 0, 0, start_anew=True)
    assert again.replayed == 1
    assert is_forgotten(only(again))


def test_what_is_kept_of_an_erased_customer_names_nobody():
    row = only(folded_from([placed("c-4711", "o", 1), erased("c-4711", 10)], start_anew=True), b"c-4711")
    kept = stored(b"c-4711", row)
    assert kept[0] == (b"c-4711", None)
    assert all(b"4711" not in key + (value or b"") for key, value in kept[1:])


def test_an_erasure_is_told_even_when_the_customer_starts_anew_in_the_same_chunk():
    folded = folded_from([placed("c", "old", 1), erased("c", 10), placed("c", "new", 11)], start_anew=True)
    assert folded.touched[b"c"].erased
    assert not folded_from([placed("c", "old", 1)], start_anew=True).touched[b"c"].erased


def test_a_second_erasure_of_the_same_moment_does_not_reach_who_came_back():
    events = [erased("c", 10), placed("c", "new", 11), erased("c", 10)]
    assert not is_forgotten(only(folded_from(events, start_anew=True)))
    assert is_forgotten(only(folded_from([*events, erased("c", 12)], start_anew=True)))


def test_a_part_of_before_the_erasure_does_not_come_back_with_a_customer_who_started_anew():
    rng = random.Random(1)
    partitions = Partitions(rng, start_anew=True)
    for record in [placed("a", "o", 1), merged("a", "b", 3)]:
        partitions.publish(record)
    partitions.drain(faults=False)
    on_its_way = partitions.logs["b"][-1]
    for record in [erased("b", 10), placed("b", "new", 11), on_its_way]:
        partitions.publish(record)
    partitions.drain(faults=False)
    assert state_of(partitions, "b") == canonical(fold([OrderPlaced("new", 100, 11 * DAY_MS)]))


def test_a_part_that_comes_twice_counts_once():
    (part,) = folded_from([placed("c", "o1"), merged("c", "d")], start_anew=True).to_send
    twice = folded_from([part.record, part.record], start_anew=True)
    assert only(twice, b"d").events_applied == 1


def test_a_second_merge_into_somebody_else_is_refused_and_the_same_again_is_not():
    folded = folded_from([merged("c", "d"), merged("c", "d"), merged("c", "e")], start_anew=True)
    assert [each.reason for each in folded.rejected] == [Reason.MERGE_CONFLICT]
    assert survivor("c", only(folded)) == "d"


def test_events_of_a_merged_customer_go_on_to_the_survivor_with_a_higher_version():
    folded = folded_from([placed("c", "o1"), merged("c", "d"), refunded("c", "r1", "o1")], start_anew=True)
    (sent,) = folded.to_send
    assert (sent.record.customer_id, sent.record.origin, sent.record.version) == ("d", "c", 3)
    again = fold_chunk([Record(b"c", encode_order(placed("c", "o2")), 3)], {b"c": only(folded)}, 0, 0)
    assert again.to_send[0].record.version == 4


def test_order_and_refund_of_two_ids_meet_when_these_are_merged():
    partitions = Partitions(random.Random(3))
    for record in [placed("a", "o1"), refunded("b", "r1", "o1"), merged("a", "b")]:
        partitions.publish(record)
    partitions.drain()
    assert state_of(partitions, "b") == canonical(
        fold([OrderPlaced("o1", 100, DAY_MS), OrderRefunded("r1", "o1", 40, 2 * DAY_MS)])
    )


@pytest.mark.parametrize("links", [None, "merged"])
def test_a_row_with_and_without_links_survives_encoding(links):
    row = only(folded_from([placed("c", "o"), *([merged("c", "d")] if links else [])], start_anew=True))
    assert decode_row(encode(row)) == row
    assert (row.links is None) == (links is None)
