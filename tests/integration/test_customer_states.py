"""customer_states: of each customer the row that knows most stands, whoever brings it when; the erased stay erased."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo import MongoClient
from pymongo.database import Database

from deploy.local.mongo import LocalMongo
from deploy.local.processes import ServiceProcess
from domain.customer import DAY_MS, OrderPlaced, fold
from schemas.customer_rows import (
    PROGRESS_KEY,
    Links,
    Progress,
    Row,
    decode_row,
    encode,
    events_applied,
    new_progress,
    stored,
)
from schemas.dead_letters import from_record
from schemas.mongo import CUSTOMER_STATES, SINK_WORK, STATES_WITH_ROW
from schemas.topics import CUSTOMER_STATE_CHANGELOG, DEAD_LETTERS
from services.sink.documents import Refusal
from services.sink.mongo import connect, ensure_collections
from services.sink.service import STATES_GROUP
from services.sink.settings import SinkSettings
from services.sink.state_store import StateStore, clock_id
from services.sink.states import MARKER_PREFIX, Judged, StateWrite, judge_row, marker_id, plan_states, state_key
from tests.effort import tries
from tests.support import committed_lag, metric, produce, read_all, ready, wait_for

pytestmark = pytest.mark.integration
Start = Callable[..., ServiceProcess]
Mongo = Database[dict[str, Any]]
NOW = datetime(2024, 1, 1, tzinfo=UTC)
Logged = tuple[bytes, bytes | None]


@dataclass
class FakeRecord:
    key: bytes | None
    value: bytes | None
    timestamp: int = 7
    partition: int = 0
    offset: int = 0


@pytest.fixture
def env(sink_environment: dict[str, str]) -> dict[str, str]:
    return sink_environment


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    found = asyncio.new_event_loop()
    yield found
    found.close()


@pytest.fixture
def client(
    mongo: LocalMongo, mongo_database: str, loop: asyncio.AbstractEventLoop
) -> Iterator["AsyncIOMotorClient[Any]"]:
    async def made() -> "AsyncIOMotorClient[Any]":
        found = connect(SinkSettings(mongo_uri=mongo.uri))
        await ensure_collections(found[mongo_database], 400)
        return found

    found = loop.run_until_complete(made())
    yield found
    found.close()


def row(customer: str, events: int) -> list[Logged]:
    state = fold(OrderPlaced(f"o{number}", 100, number * DAY_MS) for number in range(events))
    return list(stored(customer.encode(), Row(events, 0, events, state)))


def erasure(customer: str, events: int) -> list[Logged]:
    links = Links(1, erased_at_ms=events * 1000, forgotten=True)
    return list(stored(customer.encode(), Row(events, 0, events, fold([]), links)))


def standing(database: Mongo) -> dict[str, int]:
    return {each["_id"]: each["events_applied"] for each in database[CUSTOMER_STATES].find(STATES_WITH_ROW)}


def markers(database: Mongo) -> dict[str, int]:
    found = database[CUSTOMER_STATES].find({"row": {"$exists": False}})
    return {each["_id"]: each["events_applied"] for each in found}


# ---------------------------------------------------------------- the store, in this process


Life = list[str]
"""What happens to a customer, one event after the other."""
lives = st.dictionaries(
    st.sampled_from("abcd"), st.lists(st.sampled_from(["order", "order", "erasure"]), min_size=1, max_size=6)
)


def log_of(found: dict[str, Life]) -> list[tuple[Judged, ...]]:
    """What each event comes to on the changelog, judged, at times that rise."""
    entries: list[tuple[Judged, ...]] = []
    for customer, life in found.items():
        for number, kind in enumerate(life, 1):
            logged = row(customer, number) if kind == "order" else erasure(customer, number)
            judged = [judge_row(FakeRecord(key, value, number * 10), NOW) for key, value in logged]
            entries.append(tuple(each for each in judged if each is not None and not isinstance(each, Refusal)))
    return entries


def check_last(found: dict[str, Life], database: Mongo) -> None:
    last = {customer: (len(life), life[-1]) for customer, life in found.items()}
    assert standing(database) == {customer: count for customer, (count, kind) in last.items() if kind == "order"}
    assert markers(database) == {
        marker_id(state_key(customer)): count for customer, (count, kind) in last.items() if kind == "erasure"
    }


def test_whatever_comes_again_late_or_out_of_order_the_last_of_each_customer_stands(
    client: "AsyncIOMotorClient[Any]", loop: asyncio.AbstractEventLoop, database: Mongo, mongo_database: str
) -> None:
    """As with redelivery, with a worker that writes old rows late, and with a sink that does not know it lost."""
    store = StateStore(client[mongo_database], 3)

    @settings(max_examples=tries(80), deadline=None, suppress_health_check=list(HealthCheck))
    @given(lives, st.randoms(use_true_random=False), st.integers(1, 5))
    def check(found: dict[str, Life], chance: random.Random, size: int) -> None:
        database[CUSTOMER_STATES].delete_many({})
        entries = log_of(found)
        entries += chance.choices(entries, k=len(entries)) if entries else []
        chance.shuffle(entries)
        for first in range(0, len(entries), size):
            work = plan_states(each for entry in entries[first : first + size] for each in entry)
            assert loop.run_until_complete(store.write(work)) == []
        check_last(found, database)

    check()


def test_sinks_that_write_at_the_same_time_bring_nobody_back(
    client: "AsyncIOMotorClient[Any]", loop: asyncio.AbstractEventLoop, database: Mongo, mongo_database: str
) -> None:
    chance = random.Random(5)
    kinds = ["order", "order", "erasure"]
    found = {f"c{number}": chance.choices(kinds, k=6) for number in range(30)}
    entries = log_of(found)

    async def write(order: Sequence[tuple[Judged, ...]]) -> None:
        store = StateStore(client[mongo_database], 7)
        for first in range(0, len(order), 9):
            await store.write(plan_states(each for entry in order[first : first + 9] for each in entry))

    async def race() -> None:
        await asyncio.gather(*(write(chance.sample(entries, len(entries))) for _ in range(6)))

    loop.run_until_complete(race())
    check_last(found, database)


class _Interrupted:
    """A collection in which another sink writes just after the first look at what stands."""

    def __init__(self, real: Any, meanwhile: Callable[[], Awaitable[Any]]) -> None:
        self._real, self._meanwhile = real, [meanwhile]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def find(self, *arguments: Any) -> Any:
        return _InterruptedCursor(self._real.find(*arguments), self._meanwhile)


class _InterruptedCursor:
    def __init__(self, real: Any, meanwhile: list[Callable[[], Awaitable[Any]]]) -> None:
        self._real, self._meanwhile = real, meanwhile

    async def to_list(self, length: int | None) -> list[Any]:
        found = await self._real.to_list(length)
        if self._meanwhile:
            await self._meanwhile.pop()()
        return list(found)


@pytest.mark.parametrize(
    ("before", "meanwhile", "late", "stands"),
    [
        ([("order", 1)], [("order", 3)], ("order", 2), ("order", 3)),
        ([("order", 1)], [("erasure", 3)], ("order", 2), ("erasure", 3)),
        ([("erasure", 1)], [("erasure", 3)], ("order", 2), ("erasure", 3)),
        ([("order", 1)], [("order", 3)], ("erasure", 2), ("order", 3)),
        ([("order", 1)], [("order", 2)], ("erasure", 3), ("erasure", 3)),
        ([("erasure", 1)], [("order", 2)], ("order", 3), ("order", 3)),
        ([], [("erasure", 2)], ("order", 1), ("erasure", 2)),
        ([], [("order", 2)], ("order", 1), ("order", 2)),
        ([], [("order", 1)], ("erasure", 2), ("erasure", 2)),
    ],
)
def test_what_another_sink_writes_between_a_look_and_a_write_is_seen(
    client: "AsyncIOMotorClient[Any]",
    loop: asyncio.AbstractEventLoop,
    database: Mongo,
    mongo_database: str,
    before: list[tuple[str, int]],
    meanwhile: list[tuple[str, int]],
    late: tuple[str, int],
    stands: tuple[str, int],
) -> None:
    store, other = StateStore(client[mongo_database], 7), StateStore(client[mongo_database], 7)

    async def put(by: StateStore, *events: tuple[str, int]) -> None:
        for kind, number in events:
            logged = [row("a", number)[0] if kind == "order" else erasure("a", number)[1]]
            judged = [judge_row(FakeRecord(key, value, 10), NOW) for key, value in logged]
            await by.write(plan_states(each for each in judged if isinstance(each, StateWrite)))

    async def run() -> None:
        await put(other, *before)
        store._states = _Interrupted(store._states, lambda: put(other, *meanwhile))
        await put(store, late)

    loop.run_until_complete(run())
    expected = {"a": stands[1]} if stands[0] == "order" else {marker_id(state_key("a")): stands[1]}
    assert standing(database) | markers(database) == expected


def test_an_old_row_cannot_be_inserted_beside_the_marker_of_its_customer(
    client: "AsyncIOMotorClient[Any]", loop: asyncio.AbstractEventLoop, database: Mongo, mongo_database: str
) -> None:
    """By no path: MongoDB itself refuses it."""
    from pymongo.errors import DuplicateKeyError

    store = StateStore(client[mongo_database], 7)
    (entry,) = log_of({"gone": ["erasure"]})
    loop.run_until_complete(store.write(plan_states(entry)))
    with pytest.raises(DuplicateKeyError):
        database[CUSTOMER_STATES].insert_one({"_id": "gone", "key": state_key("gone"), "events_applied": 0})
    assert not any("gone" in str(each) for each in database[CUSTOMER_STATES].find())


def test_a_clock_never_goes_back(
    client: "AsyncIOMotorClient[Any]", loop: asyncio.AbstractEventLoop, database: Mongo, mongo_database: str
) -> None:
    store = StateStore(client[mongo_database], 7)
    for clocks in ({0: 5, 1: 7}, {0: 3}, {1: 9}):
        loop.run_until_complete(store.keep_clocks(clocks))
    assert {each["_id"]: each["clock_ms"] for each in database[SINK_WORK].find()} == {clock_id(0): 5, clock_id(1): 9}


def test_a_row_that_mongodb_refuses_does_not_hold_up_its_neighbours(
    client: "AsyncIOMotorClient[Any]", loop: asyncio.AbstractEventLoop, database: Mongo, mongo_database: str
) -> None:
    database.command("collMod", CUSTOMER_STATES, validator={"_id": {"$ne": "bad"}})
    work = plan_states(each for entry in log_of({"a": ["order"], "bad": ["order"], "b": ["order"]}) for each in entry)
    refused = loop.run_until_complete(StateStore(client[mongo_database], 10).write(work))
    assert [write.id for write, _ in refused] == ["bad"]
    assert "validation" in refused[0][1]
    assert set(standing(database)) == {"a", "b"}


# ---------------------------------------------------------------- the process


def test_the_newest_row_of_each_customer_is_kept_as_the_changelog_has_it(
    topics: str, env: dict[str, str], database: Mongo, service: Start
) -> None:
    process = service("sink", env)
    written = [each for number in range(200) for events in (1, 2, 3) for each in row(f"c{number}", events)]
    progress = Progress(1, 0, 8, watermark_ms=5 * DAY_MS, sweep_started_ms=0, sweep_cursor=None, sweep_done=0)
    produce(topics, CUSTOMER_STATE_CHANGELOG, [*written, (PROGRESS_KEY, encode(progress)), (b"\0own", b"x")])
    newest = {f"c{number}": 3 for number in range(200)}
    wait_for(lambda: standing(database) == newest, "the rows", 30, process.log_tail)
    values = dict(written)
    for document in database[CUSTOMER_STATES].find():
        assert bytes(document["row"]) == values[document["_id"].encode()]
        assert decode_row(document["row"]).events_applied == document["events_applied"] == 3
        assert abs((datetime.now(UTC) - document["updated_at"].replace(tzinfo=UTC)).total_seconds()) < 60
    produce(topics, CUSTOMER_STATE_CHANGELOG, [each for number in range(200) for each in row(f"c{number}", 2)])
    wait_for(lambda: metric(process, "clv_mongo_stale_writes_total") >= 200, "the older to be refused")
    assert standing(database) == newest
    assert [each["clock_ms"] for each in database[SINK_WORK].find({"clock_ms": {"$exists": True}})] == [5 * DAY_MS]


def test_an_erased_customer_goes_and_no_older_row_brings_them_back(
    topics: str, env: dict[str, str], database: Mongo, service: Start
) -> None:
    process = service("sink", env)

    def publish(*logged: list[Logged]) -> None:
        produce(topics, CUSTOMER_STATE_CHANGELOG, [each for part in logged for each in part], partition=1)

    publish(row("gone", 3), row("stays", 1))
    wait_for(lambda: standing(database) == {"gone": 3, "stays": 1}, "the rows", 30, process.log_tail)
    publish(erasure("gone", 4))
    wait_for(lambda: standing(database) == {"stays": 1}, "the erasure", 30, process.log_tail)
    publish(row("gone", 3), row("stays", 2))
    wait_for(lambda: standing(database) == {"stays": 2}, "the late old row to be passed", 30, process.log_tail)
    assert markers(database) == {marker_id(state_key("gone")): 4}
    assert b"gone" not in b"".join(str(each).encode() for each in database[CUSTOMER_STATES].find())
    publish(row("gone", 5))
    wait_for(lambda: standing(database) == {"gone": 5, "stays": 2}, "who came back", 30, process.log_tail)
    assert markers(database) == {}
    publish(row("gone", 3), [(b"stays", None)])  # a tombstone alone deletes too
    wait_for(lambda: standing(database) == {"gone": 5}, "the tombstone", 30, process.log_tail)


def test_a_record_that_is_no_row_is_a_dead_letter_and_the_line_goes_on(
    topics: str, env: dict[str, str], database: Mongo, service: Start
) -> None:
    process = service("sink", env)
    produce(topics, CUSTOMER_STATE_CHANGELOG, [(b"bad", b"\xc1"), *row("good", 1)])
    (record,) = read_all(topics, DEAD_LETTERS, at_least=1)
    letter = from_record(record.key(), record.value(), record.headers())
    assert (letter.reason, letter.key, letter.value) == ("invalid_field", b"bad", b"\xc1")
    assert letter.origin.topic == CUSTOMER_STATE_CHANGELOG
    wait_for(lambda: standing(database) == {"good": 1}, "the good one", 30, process.log_tail)


def test_kills_amid_the_stream_lose_and_bring_back_nothing(
    topics: str, env: dict[str, str], database: Mongo, service: Start
) -> None:
    process = service("sink", {**env, "CLV_SINK_BATCH_RECORDS": "100"})
    count = 3000
    for events in (1, 2, 3):
        logged = [each for number in range(count) for each in row(f"c{number}", events)]
        if events == 3:
            logged = [
                each for number in range(count) for each in (erasure if number % 3 == 0 else row)(f"c{number}", 3)
            ]
        produce(topics, CUSTOMER_STATE_CHANGELOG, logged)
        written = {"events_applied": {"$gte": events}}
        wait_for(lambda w=written: database[CUSTOMER_STATES].count_documents(w) > 100, "the flow", 60, process.log_tail)
        process.kill()
        process.start()
    expected = {f"c{number}": 3 for number in range(count) if number % 3}
    wait_for(
        lambda: committed_lag(topics, STATES_GROUP, CUSTOMER_STATE_CHANGELOG) == 0, "the end", 90, process.log_tail
    )
    assert standing(database) == expected
    assert len(markers(database)) == count // 3
    assert all(each.startswith(MARKER_PREFIX) for each in markers(database))


def test_it_catches_up_after_mongodb_was_killed_and_ends_in_time_while_it_is_away(
    topics: str, env: dict[str, str], own_mongo: LocalMongo, service: Start
) -> None:
    process = service("sink", {**env, "CLV_MONGO_URI": own_mongo.uri})
    own_mongo.kill()
    produce(topics, CUSTOMER_STATE_CHANGELOG, [each for number in range(2000) for each in row(f"c{number}", 2)])
    wait_for(lambda: not ready(process), "readiness to tell", 30)
    wait_for(lambda: "mongo_away" in process.log_tail(50), "an attempt to fail", 30)
    assert committed_lag(topics, STATES_GROUP, CUSTOMER_STATE_CHANGELOG) == 2000
    began = time.monotonic()
    assert process.stop(15) == 0, process.log_tail(20)
    assert time.monotonic() - began < 10
    own_mongo.restart()
    process.start()
    with MongoClient[dict[str, Any]](own_mongo.uri) as found:
        there = found[env["CLV_MONGO_DATABASE"]]
        wait_for(lambda: len(standing(there)) == 2000, "all rows", 60, process.log_tail)
        assert set(standing(there).values()) == {2}


def test_the_own_row_of_a_partition_is_read_by_its_age_like_any_other() -> None:
    """What the codec promises to whoever reads rows without knowing which kind they are."""
    assert events_applied(encode(new_progress())) == 0
    assert events_applied(row("a", 3)[0][1] or b"") == 3
