"""Predictions held against what came, on a real MongoDB: the figures are those of the raw events, and once each."""

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from motor.motor_asyncio import AsyncIOMotorClient
from prometheus_client import REGISTRY
from pymongo.database import Database

from deploy.local.mongo import LocalMongo
from deploy.local.processes import ServiceProcess
from domain.features import date_of, day_of
from schemas.customer_rows import Row
from schemas.mongo import MATURED_PREDICTIONS, PREDICTION_HISTORY, SINK_WORK
from schemas.predictions import Prediction, encode_prediction
from schemas.topics import CUSTOMER_STATE_CHANGELOG, PREDICTIONS
from services.sink import comparison
from services.sink.comparison import LEASE_ID, Comparison
from services.sink.documents import Erased, Write, judge, plan
from services.sink.mongo import Store, connect, ensure_collections
from services.sink.settings import SinkSettings
from services.sink.state_store import StateStore
from services.sink.states import StateWrite, judge_row, plan_states
from tests.integration.outcome_shop import DAYS, FIRST_DAY, HORIZON_DAYS, MODELS, Shop, clock_row, figures
from tests.support import metric, produce, wait_for

pytestmark = pytest.mark.integration
Start = Callable[..., ServiceProcess]
Mongo = Database[dict[str, Any]]
NOW = datetime.now(UTC)
"""Documents of long ago would expire while a test looks at them."""
GRACE_DAYS = 2
ALL_OVER = DAYS + HORIZON_DAYS + GRACE_DAYS
PARTITIONS = 2


@dataclass
class FakeRecord:
    key: bytes | None
    value: bytes | None
    timestamp: int = 7
    partition: int = 0
    offset: int = 0
    headers: tuple[tuple[str, bytes], ...] = ()


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    found = asyncio.new_event_loop()
    yield found
    found.close()


@pytest.fixture
def settings(mongo: LocalMongo, mongo_database: str) -> SinkSettings:
    return SinkSettings(mongo_uri=mongo.uri, mongo_database=mongo_database, sink_outcomes_grace_days=GRACE_DAYS)


@pytest.fixture
def client(settings: SinkSettings, loop: asyncio.AbstractEventLoop) -> Iterator["AsyncIOMotorClient[Any]"]:
    async def made() -> "AsyncIOMotorClient[Any]":
        found = connect(settings)
        await ensure_collections(found[settings.mongo_database], settings.sink_history_days)
        return found

    found = loop.run_until_complete(made())
    yield found
    found.close()


def partition_of(customer: str) -> int:
    return int(customer[1:]) % PARTITIONS


class Bench:
    """The sink's stores and job in this process."""

    def __init__(self, client: "AsyncIOMotorClient[Any]", settings: SinkSettings) -> None:
        self.client, self.settings = client, settings
        database = client[settings.mongo_database]
        self.store, self.states = Store(database, 1000), StateStore(database, 1000)
        self.comparison = Comparison(client, settings)

    async def predict(self, predictions: list[Prediction]) -> None:
        writes = [
            judge(
                FakeRecord(
                    each.customer_id.encode(), encode_prediction(each), partition=partition_of(each.customer_id)
                ),
                NOW,
            )
            for each in predictions
        ]
        assert all(isinstance(each, Write) for each in writes)
        await self.store.write(plan(each for each in writes if isinstance(each, Write)))

    async def know(self, rows: list[tuple[bytes, bytes]]) -> None:
        writes = [judge_row(FakeRecord(key, value), NOW) for key, value in rows]
        await self.states.write(plan_states(each for each in writes if isinstance(each, StateWrite)))

    async def reach(self, *days: int) -> int:
        """Time comes to the noon of a day in each partition, and a round is done."""
        await self.states.keep_clocks(
            {partition: (day_of(FIRST_DAY) + day) * 86_400_000 + 43_200_000 for partition, day in enumerate(days)}
        )
        return await self.comparison.round(asyncio.Event())


@pytest.fixture
def bench(client: "AsyncIOMotorClient[Any]", settings: SinkSettings) -> Bench:
    return Bench(client, settings)


def matured(database: Mongo) -> dict[str, dict[str, Any]]:
    return {each["_id"]: each for each in database[MATURED_PREDICTIONS].find()}


def check_all(shop: Shop, database: Mongo, without: frozenset[str] = frozenset()) -> None:
    expected = shop.expected()
    expected = expected[~expected.customer.isin(without)]
    found = matured(database)
    assert set(found) == set(expected.index)
    made = {each.prediction_id: each for each in shop.predictions}
    for row in expected.itertuples():
        document, message = found[row.Index], made[row.Index]
        assert (document["realised_orders"], document["realised_value"]) == (row.orders, row.value), row
        assert document["window_from"] == date_of(day_of(FIRST_DAY) + row.begin).isoformat()
        assert document["window_until"] == date_of(day_of(FIRST_DAY) + row.end).isoformat()
        same = ("customer_id", "model_version", "feature_version", "as_of", "horizon_days", "currency", "p_active")
        same += ("expected_value", "expected_orders", "value_p10", "value_p50", "value_p90", "historical_value")
        assert {name: document[name] for name in same} == {name: getattr(message, name) for name in same}
    assert expected.orders.sum() > 0
    assert database[PREDICTION_HISTORY].count_documents({"due_on": {"$exists": True}}) == 0


def test_every_customers_week_is_compared_once_with_what_came(
    bench: Bench, loop: asyncio.AbstractEventLoop, database: Mongo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparison, "PAGE_PREDICTIONS", 37)
    shop = Shop(60)

    async def run() -> list[int]:
        await bench.know(shop.rows())
        await bench.predict(shop.predictions)
        counts = [await bench.reach(ALL_OVER, ALL_OVER)]
        await bench.predict(shop.predictions)  # again: redelivered
        return [*counts, await bench.reach(ALL_OVER, ALL_OVER)]

    counts = loop.run_until_complete(run())
    assert counts == [len(shop.expected()), 0]
    assert len(shop.predictions) > counts[0], "some weeks have several"
    check_all(shop, database)
    for model, wanted in figures(shop.expected()).items():
        for name, value in wanted.items():
            assert REGISTRY.get_sample_value(name, {"model_version": model}) == pytest.approx(value, rel=1e-9), name
    assert REGISTRY.get_sample_value("clv_outcomes_pending_predictions") == 0


def test_the_job_rests_for_twice_as_long_as_it_works(
    bench: Bench, loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparison, "PAGE_PREDICTIONS", 37)
    shop, working, page = Shop(60), list[float](), bench.comparison._page

    async def timed(due: Any) -> int | None:
        began = time.monotonic()
        try:
            return await page(due)
        finally:
            working.append(time.monotonic() - began)

    monkeypatch.setattr(bench.comparison, "_page", timed)

    async def run() -> float:
        await bench.know(shop.rows())
        await bench.predict(shop.predictions)
        began = time.monotonic()
        await bench.reach(ALL_OVER, ALL_OVER)
        return time.monotonic() - began

    took = loop.run_until_complete(run())
    assert len(working) > 5
    assert took > 2.5 * sum(working)  # of the last page of a partition nothing was left: no rest


def test_nothing_is_compared_before_its_window_and_the_grace_are_over(
    bench: Bench, loop: asyncio.AbstractEventLoop, database: Mongo
) -> None:
    """Step by step, the partitions at different paces: what is compared is what is over there, no less and no more."""
    shop = Shop(40, seed=2)

    async def run() -> None:
        await bench.know(shop.rows())
        await bench.predict(shop.predictions)
        for days in [(20, 20), (70, 50), (70, 100), (101, 100), (ALL_OVER, ALL_OVER)]:
            await bench.reach(*days)
            every = shop.expected()
            reached = every.customer.map(lambda name, at=days: at[partition_of(name)])
            assert set(matured(database)) == set(every.index[every.end + GRACE_DAYS <= reached]), days

    loop.run_until_complete(run())
    check_all(shop, database)


def test_an_erased_customer_has_no_comparison_whenever_the_erasure_comes(
    bench: Bench, loop: asyncio.AbstractEventLoop, database: Mongo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparison, "PAGE_PREDICTIONS", 5)
    shop = Shop(60, seed=3)
    gone = frozenset(shop.names[::2])

    async def erase() -> None:
        for name in sorted(gone):
            await bench.store.write(plan([Erased(name)]))
            await asyncio.sleep(0.002)

    async def run() -> None:
        await bench.know(shop.rows())
        await bench.predict(shop.predictions)
        await asyncio.gather(bench.reach(ALL_OVER, ALL_OVER), erase())
        await bench.reach(ALL_OVER, ALL_OVER)

    loop.run_until_complete(run())
    check_all(shop, database, gone)
    assert database[MATURED_PREDICTIONS].count_documents({"customer_id": {"$in": list(gone)}}) == 0


def test_who_is_erased_while_a_page_is_in_hand_is_left_out_of_it(
    bench: Bench, loop: asyncio.AbstractEventLoop, database: Mongo, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = Shop(20, seed=7)
    gone = frozenset(shop.names[::3])
    known = bench.comparison._rows

    async def known_until_the_erasure(customers: set[str]) -> dict[str, Row]:
        rows = await known(customers)
        if not matured(database):  # in the first page; later nothing takes back what it left
            await bench.store.write(plan([Erased(name) for name in sorted(gone)]))
        return rows

    async def run() -> None:
        await bench.know(shop.rows())
        await bench.predict(shop.predictions)
        monkeypatch.setattr(bench.comparison, "_rows", known_until_the_erasure)
        await bench.reach(ALL_OVER, ALL_OVER)

    loop.run_until_complete(run())
    check_all(shop, database, gone)


def test_a_page_that_is_broken_off_is_done_again_and_nothing_twice(
    bench: Bench, loop: asyncio.AbstractEventLoop, database: Mongo, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = Shop(20, seed=4)

    class BrokenOff(Exception):
        pass

    async def run() -> None:
        await bench.know(shop.rows())
        await bench.predict(shop.predictions)
        real = bench.comparison._matured
        with monkeypatch.context() as broken:
            broken.setattr(bench.comparison, "_matured", _Breaking(real, BrokenOff))
            with pytest.raises(BrokenOff):
                await bench.reach(ALL_OVER, ALL_OVER)
        assert matured(database) == {}
        assert await bench.reach(ALL_OVER, ALL_OVER) == len(shop.expected())

    loop.run_until_complete(run())
    check_all(shop, database)


class _Breaking:
    """The collection, but for the end of an insertion."""

    def __init__(self, real: Any, error: type[Exception]) -> None:
        self._real, self._error = real, error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    async def insert_many(self, documents: list[Any], session: Any) -> None:
        await self._real.insert_many(documents, session=session)
        raise self._error


def test_one_sink_at_a_time_compares_and_the_next_takes_over(
    bench: Bench, loop: asyncio.AbstractEventLoop, database: Mongo, client: "AsyncIOMotorClient[Any]"
) -> None:
    shop = Shop(20, seed=5)

    async def run() -> None:
        await bench.reach(0, 0)
        other = Bench(client, bench.settings)
        await other.know(shop.rows())
        await other.predict(shop.predictions)
        assert await other.reach(ALL_OVER, ALL_OVER) == 0, "the first has the lease"
        assert matured(database) == {}
        past = datetime.now(UTC) - timedelta(seconds=1)
        database[SINK_WORK].update_one({"_id": LEASE_ID}, {"$set": {"until": past}})  # as after a kill
        assert await other.reach(ALL_OVER, ALL_OVER) == len(shop.expected())
        for model in MODELS:
            assert REGISTRY.get_sample_value("clv_realised_predictions", {"model_version": model})
        assert await bench.comparison.round(asyncio.Event()) == 0
        for model in MODELS:  # one process, one registry here: whoever has lost the lease exposes nothing
            assert REGISTRY.get_sample_value("clv_realised_predictions", {"model_version": model}) is None

    loop.run_until_complete(run())
    check_all(shop, database)


# ---------------------------------------------------------------- the process


def test_the_sink_compares_by_itself_survives_a_kill_and_says_when_history_is_too_short(
    topics: str, mongo: LocalMongo, mongo_database: str, database: Mongo, service: Start
) -> None:
    shop = Shop(150, seed=6, predictions_each=6)
    process = service(
        "sink",
        {
            "CLV_KAFKA_BOOTSTRAP_SERVERS": topics,
            "CLV_MONGO_URI": mongo.uri,
            "CLV_MONGO_DATABASE": mongo_database,
            "CLV_SINK_OUTCOMES_SECONDS": "0.2",
            "CLV_SINK_HISTORY_DAYS": "20",
        },
    )
    produce(topics, PREDICTIONS, [(each.customer_id.encode(), encode_prediction(each)) for each in shop.predictions])
    wait_for(lambda: database[PREDICTION_HISTORY].count_documents({}) == len(shop.predictions), "the history", 60)
    wait_for(lambda: "history_too_short" in process.log_tail(200), "the warning", 20, process.log_tail)
    assert "CLV_SINK_HISTORY_DAYS to 34 or more" in process.log_tail(200)
    assert database[MATURED_PREDICTIONS].count_documents({}) == 0, "no time has come"
    produce(topics, CUSTOMER_STATE_CHANGELOG, shop.rows())
    for partition in range(4):
        produce(topics, CUSTOMER_STATE_CHANGELOG, [clock_row(ALL_OVER)], partition=partition)
    wait_for(lambda: database[MATURED_PREDICTIONS].count_documents({}) > 0, "comparisons", 30, process.log_tail)
    process.kill()
    past = datetime.now(UTC) - timedelta(seconds=1)
    database[SINK_WORK].update_one({"_id": LEASE_ID}, {"$set": {"until": past}})  # a minute later
    process.start()
    expected = shop.expected()
    wait_for(
        lambda: database[PREDICTION_HISTORY].count_documents({"due_on": {"$exists": True}}) == 0,
        "all of it",
        90,
        process.log_tail,
    )
    check_all(shop, database)
    for model, wanted in figures(expected).items():
        wait_for(
            lambda m=model, n=wanted["clv_realised_predictions"]: (
                metric(process, "clv_realised_predictions", model_version=m) == n
            ),
            "the metrics",
            30,
            process.log_tail,
        )
        for name, value in wanted.items():
            assert metric(process, name, model_version=model) == pytest.approx(value, rel=1e-9), name
