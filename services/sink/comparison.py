"""The job that holds predictions against what came: bounded pages of what is due, one sink at a time.

What is due carries `due_on` in prediction_history; a page is compared with customer_states and stored in
matured_predictions in the very transaction that takes `due_on` away. So a page is done once or not at all, wherever the
process is killed; and a customer who is erased meanwhile has no document in the history that the transaction could
change, and so gets no comparison either. Must never compare before the rows of all the window are stored (the clock of
the partition says so), and must never hold up or end the sink: it rests for twice as long as it works.
"""

import asyncio
import math
import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from motor.motor_asyncio import AsyncIOMotorClient
from pymongo.errors import DuplicateKeyError, PyMongoError
from pymongo.read_concern import ReadConcern

from schemas.customer_rows import Row, decode_row
from schemas.mongo import (
    CUSTOMER_STATES,
    CUSTOMERS,
    MATURED_PREDICTIONS,
    PREDICTION_HISTORY,
    SINK_WORK,
    STATES_WITH_ROW,
    MaturedDocument,
    realised_pipeline,
)
from services.runtime import telemetry
from services.runtime.logs import logger
from services.runtime.shutdown import unless_stopped
from services.sink.maturity import PENDING_FIELDS, Pending, Turn, compared, firsts, over_until
from services.sink.mongo import as_away
from services.sink.settings import SinkSettings

log = logger(__name__)

PAGE_PREDICTIONS = 500
PAGES_MAX = 200
"""Of a partition in a round: then others have their turn."""
LEASE_SECONDS = 60
LEASE_ID = "outcomes"
_FREE = {"holder": None, "until": datetime.fromtimestamp(0, UTC)}
_RELEASE_SECONDS = 1.0
_RESTS = 2.0
"""After each page, as a multiple of the time it took: fresh predictions are to be stored first."""
_REST_SECONDS_MAX = 5.0
"""Far below LEASE_SECONDS, since no lease is renewed meanwhile."""
_PENDING_COUNTED_MAX = 10_000
_GAUGES = (
    telemetry.REALISED_PREDICTIONS,
    telemetry.REALISED_BIAS,
    telemetry.REALISED_MAE,
    telemetry.REALISED_ABOVE_P90,
    telemetry.REALISED_BELOW_P10,
    telemetry.REALISED_BRIER,
    telemetry.REALISED_ACTIVE,
)


class Comparison:
    """One sink process's share in the job: all of it, or none while another holds the lease."""

    def __init__(self, client: "AsyncIOMotorClient[Any]", settings: SinkSettings) -> None:
        database = client[settings.mongo_database]
        self._client = client
        self._history = database[PREDICTION_HISTORY]
        self._customers = database[CUSTOMERS]
        self._states = database[CUSTOMER_STATES]
        self._matured = database[MATURED_PREDICTIONS]
        self._work = database[SINK_WORK]
        self._settings = settings
        self._holder = f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:8]}"
        self._warned_days = 0
        self._lease_is_there = False

    async def run(self, stop: asyncio.Event) -> None:
        """Rounds until `stop` is set. Failures are logged and counted; the next round tries again."""
        while not stop.is_set():
            try:
                await self._check_history_days()
                await self.round(stop)
            except Exception as error:  # noqa: BLE001 - storing predictions goes on without comparisons
                telemetry.OUTCOME_FAILURES.inc()
                known = as_away(error) if isinstance(error, PyMongoError) else error
                log.warning("comparison_failed", problem=repr(known)[:300])
            await unless_stopped(stop, asyncio.sleep(self._settings.sink_outcomes_seconds))
        await self._release()

    async def round(self, stop: asyncio.Event) -> int:
        """Compare what is due, if this process has the lease; how many documents were stored. Raises PyMongoError."""
        if not await self._has_lease():
            for gauge in _GAUGES:
                gauge.forget()
            return 0
        stored = 0
        clocks = await self._work.find({"clock_ms": {"$exists": True}}).to_list(None)
        overdue: list[dict[str, Any]] = []
        for clock in clocks:
            until = over_until(clock["clock_ms"], self._settings.sink_outcomes_grace_days)
            if until is None:
                continue
            due = {"partition": int(clock["_id"].rpartition(":")[2]), "due_on": {"$lte": until}}
            overdue.append(due)
            for _ in range(PAGES_MAX):
                if stop.is_set() or not await self._has_lease():
                    return stored
                began = time.monotonic()
                found = await self._page(due)
                if found is None:
                    break
                stored += found
                rest = min(_RESTS * (time.monotonic() - began), _REST_SECONDS_MAX)
                await unless_stopped(stop, asyncio.sleep(rest))
        if stored:
            log.info("predictions_compared", count=stored)
        await self._tell(overdue)
        return stored

    async def _page(self, due: Mapping[str, Any]) -> int | None:
        """Compare one page; how many comparisons were stored. None if nothing is due."""
        order = [("due_on", 1), ("feature_version", 1)]
        cursor = self._history.find(due, PENDING_FIELDS).sort(order).limit(PAGE_PREDICTIONS)
        pending: list[Pending] = await cursor.to_list(None)
        if not pending:
            return None
        chosen = firsts(pending, await self._taken(pending))
        rows = await self._rows({each["customer_id"] for each in chosen})
        documents = await asyncio.to_thread(compared, chosen, rows, datetime.now(UTC))
        try:
            return await self._store(pending, documents)
        except PyMongoError as error:
            if error.has_error_label("TransientTransactionError"):  # a customer of the page was erased meanwhile
                return 0
            raise

    async def _taken(self, pending: list[Pending]) -> list[Turn]:
        customers = {"customer_id": {"$in": list({each["customer_id"] for each in pending})}}
        cursor = self._matured.find(customers, {"customer_id": 1, "model_version": 1, "week": 1})
        return [(each["customer_id"], each["model_version"], each["week"]) for each in await cursor.to_list(None)]

    async def _rows(self, customers: set[str]) -> dict[str, Row]:
        cursor = self._states.find({"_id": {"$in": list(customers)}, **STATES_WITH_ROW}, {"row": 1})
        found = await cursor.to_list(None)
        return await asyncio.to_thread(lambda: {each["_id"]: decode_row(each["row"]) for each in found})

    async def _store(self, pending: list[Pending], documents: list[MaturedDocument]) -> int:
        """Store the comparisons of predictions that are still there, and that all of the page is done."""
        done = {"_id": {"$in": [each["_id"] for each in pending]}, "due_on": {"$exists": True}}
        snapshot = ReadConcern("snapshot")
        async with await self._client.start_session() as session, session.start_transaction(read_concern=snapshot):
            cursor = self._history.find(done, {"_id": 1}, session=session)
            there = {each["_id"] for each in await cursor.to_list(None)}
            await self._history.update_many(done, {"$unset": {"due_on": ""}}, session=session)
            kept = [each for each in documents if each["_id"] in there]
            if kept:
                await self._matured.insert_many(kept, session=session)
        telemetry.MONGO_WRITES.inc(len(kept), collection=MATURED_PREDICTIONS)
        return len(kept)

    async def _tell(self, overdue: list[dict[str, Any]]) -> None:
        """Set the metrics anew."""
        counts = [await self._history.count_documents(due, limit=_PENDING_COUNTED_MAX) for due in overdue]
        telemetry.OUTCOMES_PENDING.set(min(sum(counts), _PENDING_COUNTED_MAX))
        since = datetime.now(UTC) - timedelta(days=self._settings.sink_outcomes_window_days)
        figures = await self._matured.aggregate(realised_pipeline(since)).to_list(None)
        for gauge in _GAUGES:
            gauge.forget()
        for each in figures:
            tell_realised(each)

    async def _has_lease(self) -> bool:
        """Take the lease, or keep it, by the clock of MongoDB."""
        if not self._lease_is_there:
            with suppress(DuplicateKeyError):
                await self._work.insert_one({"_id": LEASE_ID, **_FREE})
            self._lease_is_there = True
        free = {"$or": [{"holder": self._holder}, {"$expr": {"$lt": ["$until", "$$NOW"]}}]}
        mine = {"holder": {"$literal": self._holder}, "until": {"$add": ["$$NOW", LEASE_SECONDS * 1000]}}
        taken = await self._work.update_one({"_id": LEASE_ID, **free}, [{"$set": mine}])
        return bool(taken.matched_count)

    async def _release(self) -> None:
        """So that the next one need not wait for the lease to run out."""
        mine = {"_id": LEASE_ID, "holder": self._holder}
        try:
            await asyncio.wait_for(self._work.update_one(mine, {"$set": _FREE}), _RELEASE_SECONDS)
        except (PyMongoError, TimeoutError):
            return  # it runs out

    async def _check_history_days(self) -> None:
        """Say so if predictions expire before they can be compared: once, and again if it gets worse."""
        newest = await self._customers.find_one({}, {"prediction.horizon_days": 1}, sort=[("$natural", -1)])
        if newest is None:
            return
        horizon_days = newest.get("prediction", {}).get("horizon_days", 0)
        needed_days = history_days_needed(horizon_days, self._settings.sink_outcomes_grace_days)
        if self._settings.sink_history_days < needed_days and needed_days > self._warned_days:
            self._warned_days = needed_days
            log.warning(
                "history_too_short",
                problem=f"predictions look {horizon_days} days ahead, but expire after "
                f"{self._settings.sink_history_days}: none will be compared with what came",
                remedy=f"set CLV_SINK_HISTORY_DAYS to {needed_days} or more",
            )


def history_days_needed(horizon_days: int, grace_days: int) -> int:
    """How long a prediction must be kept to be compared: its window may begin a day late, and a round takes time."""
    return horizon_days + grace_days + 2


def tell_realised(figures: Mapping[str, Any]) -> None:
    """Set the metrics of one model from a document of schemas.mongo.realised_pipeline."""
    model, count = str(figures["_id"]), figures["count"]
    bias = figures["predicted"] / figures["realised"] - 1 if figures["realised"] > 0 else math.nan
    telemetry.REALISED_PREDICTIONS.set(count, model_version=model)
    if not math.isnan(bias):
        telemetry.REALISED_BIAS.set(bias, model_version=model)
    telemetry.REALISED_MAE.set(figures["absolute_error"] / count, model_version=model)
    telemetry.REALISED_ABOVE_P90.set(figures["above_p90"] / count, model_version=model)
    telemetry.REALISED_BELOW_P10.set(figures["below_p10"] / count, model_version=model)
    telemetry.REALISED_BRIER.set(figures["squared_error"] / count, model_version=model)
    telemetry.REALISED_ACTIVE.set(figures["active"] / count, model_version=model)
