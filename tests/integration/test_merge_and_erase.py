"""Merged and erased customers in real feature workers, over partitions and under `kill -9`."""

import json
import random
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Message

from domain.customer import DAY_MS, fold
from domain.features import FEATURE_NAMES, day_of, features
from schemas.customer_rows import decode_row, erased_key
from schemas.orders import Erased, Merged, OrderRecord, Placed, domain_event
from schemas.topics import CUSTOMER_FEATURES, CUSTOMER_STATE_CHANGELOG, DEAD_LETTERS, ORDERS
from tests.integration.features_support import FIRST_DAY, QUINTILES, history, lag, publish
from tests.support import read_all, wait_for

pytestmark = pytest.mark.integration


def last_of_each_key(bootstrap: str, topic: str) -> dict[bytes, Message]:
    """What compaction would keep."""
    return {record.key(): record for record in read_all(bootstrap, topic)}


def cause(record: Message) -> bytes | None:
    return dict(record.headers() or []).get("clv.cause")


def merges(count: int, customers: int, rng: random.Random) -> list[Merged]:
    """Pairs, and every third one a chain of two: into the next customer but one, and that one into a third."""
    found = []
    for n in range(count):
        source, into, third = (f"c{(3 * n + k) % customers}" for k in range(3))
        at_ms = (FIRST_DAY + rng.randrange(365)) * DAY_MS
        found.append(Merged(event_id=f"m{n}", customer_id=source, occurred_at_ms=at_ms, merged_into=into))
        if n % 3 == 0:
            found.append(Merged(event_id=f"mm{n}", customer_id=into, occurred_at_ms=at_ms, merged_into=third))
    return found


def test_merges_across_partitions_and_kills_give_the_survivor_every_order_once(
    service: Any, environment: dict[str, str], topics: str, tmp_path: Path
):
    rng = random.Random(11)
    joins = merges(40, 150, rng)
    orders = history(customers=150, events=4000, seed=11)
    records: list[OrderRecord] = [*orders, *joins]
    rng.shuffle(records)
    slow = environment | {"CLV_FEATURES_CHUNK_RECORDS": "100"}
    worker = service("features", slow)
    for part in range(3):
        publish(topics, records[part * len(records) // 3 : (part + 1) * len(records) // 3])
        wait_for(lambda: lag(topics) < 700, "some of it", context=worker.log_tail)
        worker.kill()
        worker = service("features", slow | {"CLV_FEATURES_DATA_DIR": str(tmp_path / f"data-{part % 2}")})
    wait_for(lambda: lag(topics) == 0, "everything, what is sent on too", 60, worker.log_tail)

    into = {join.customer_id: join.merged_into for join in joins}

    def survivor(customer: str) -> str:
        return survivor(into[customer]) if customer in into else customer

    last = last_of_each_key(topics, CUSTOMER_FEATURES)
    of_survivor: dict[str, list[Any]] = {}
    for record in orders:
        of_survivor.setdefault(survivor(record.customer_id), []).append(domain_event(record))
    for customer, events in of_survivor.items():
        state = fold(events)
        if not state.orders:
            continue
        message = json.loads(last[customer.encode()].value())
        wanted = features([state], [day_of(date.fromisoformat(message["as_of"]))], QUINTILES, 100).features[0]
        for name, value in zip(FEATURE_NAMES, wanted.tolist(), strict=True):
            assert message["features"][name] == (None if value != value else value), (customer, name)
    for customer in into:
        gone = last[customer.encode()]
        assert (gone.value(), cause(gone)) == (None, b"merged")


def test_an_erased_customer_leaves_nothing_but_a_hash_and_later_events_are_refused(
    service: Any, environment: dict[str, str], topics: str
):
    records = history(customers=30, events=600, seed=12)
    worker = service("features", environment)
    publish(
        topics, [*records, Merged(event_id="m", customer_id="c1", occurred_at_ms=FIRST_DAY * DAY_MS, merged_into="c2")]
    )
    wait_for(lambda: lag(topics) == 0, "all records", context=worker.log_tail)
    erasure = Erased(event_id="erase", customer_id="c2", occurred_at_ms=(FIRST_DAY + 400) * DAY_MS)
    publish(topics, [erasure])
    wait_for(lambda: lag(topics) == 0, "the erasure", context=worker.log_tail)
    worker.kill()
    worker = service("features", environment)
    late = Placed(
        event_id="late", customer_id="c2", occurred_at_ms=(FIRST_DAY + 401) * DAY_MS, order_id="late-order",
        amount_minor=100, original_amount="1.00", original_currency="USD",
    )  # fmt: skip
    publish(topics, [late])
    wait_for(lambda: bool(read_all(topics, DEAD_LETTERS)), "the refusal", context=worker.log_tail)

    features_last = last_of_each_key(topics, CUSTOMER_FEATURES)
    rows = last_of_each_key(topics, CUSTOMER_STATE_CHANGELOG)
    for customer in (b"c1", b"c2"):  # the erasure follows the merge
        assert features_last[customer].value() is None
        assert rows[customer].value() is None
        left = decode_row(rows[erased_key(customer)].value())
        assert left.links is not None
        assert left.links.forgotten
    assert cause(features_last[b"c2"]) == b"erased"
    others = {record.customer_id for record in records} - {"c1", "c2"}
    assert {customer for customer in others if features_last[customer.encode()].value() is not None} == others
    (letter,) = read_all(topics, DEAD_LETTERS)
    headers = dict(letter.headers())
    assert (headers["clv.reason"], headers["__connect.errors.topic"]) == (b"customer_erased", ORDERS.encode())
    assert not letter.value()
    assert b"late" not in b"".join(value or b"" for value in headers.values())


def test_by_setting_an_erased_customer_starts_anew_with_later_events_only(
    service: Any, environment: dict[str, str], topics: str
):
    def order(name: str, day: int) -> Placed:
        return Placed(
            event_id=name, customer_id="c", occurred_at_ms=(FIRST_DAY + day) * DAY_MS, order_id=name,
            amount_minor=100, original_amount="1.00", original_currency="USD",
        )  # fmt: skip

    worker = service("features", environment | {"CLV_FEATURES_AFTER_ERASURE": "anew"})
    erasure = Erased(event_id="erase", customer_id="c", occurred_at_ms=(FIRST_DAY + 10) * DAY_MS)
    publish(topics, [order("a", 1), order("b", 2), erasure, order("late", 3), order("new", 11)])
    wait_for(lambda: lag(topics) == 0, "all records", context=worker.log_tail)
    sent = [record for record in read_all(topics, CUSTOMER_FEATURES) if record.key() == b"c"]
    assert b"erased" in [cause(record) for record in sent]  # whether or not one chunk held all of it
    newest = json.loads(sent[-1].value())
    assert newest["inputs"]["total_orders"] == 1
    versions = [json.loads(record.value())["feature_version"] for record in sent if record.value()]
    assert versions == sorted(versions)  # what starts anew is newer than what was forgotten
