"""MongoDB's side of customer_states: carries out plans so that of each customer the row that knows most stands.

No transaction, and no trust in who owns a partition: each step is one that any sink may do late. What decides is the
guard on events_applied, the unique `key`, and looking again whenever one of them refused. Must never report a row as
stored before a majority of the replica set has it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from motor.motor_asyncio import AsyncIOMotorDatabase
from pymongo import DeleteOne, InsertOne, ReplaceOne, UpdateOne
from pymongo.errors import PyMongoError

from schemas.mongo import CUSTOMER_STATES, SINK_WORK
from services.runtime import telemetry
from services.sink.mongo import DUPLICATE_KEY, MongoAway, as_away, bulk_errors
from services.sink.states import MARKER_PREFIX, StatePlan, StateWrite, parts_of

_BYTES_AT_ONCE = 8 * 1024 * 1024
_ROUNDS_MAX = 20
"""Each round loses against another sink's write of the same customers only: more is a fault, not a race."""


def clock_id(partition: int) -> str:
    """`_id` of the document in SINK_WORK that says how far time has come in a partition (`clock_ms`)."""
    return f"clock:{partition}"


class StateStore:
    """Carries out plans."""

    def __init__(self, database: "AsyncIOMotorDatabase[Any]", bulk_documents: int) -> None:
        self._states = database[CUSTOMER_STATES]
        self._work = database[SINK_WORK]
        self._bulk = bulk_documents

    async def write(self, plan: StatePlan) -> list[tuple[StateWrite, str]]:
        """Returns once all of it is stored by a majority: the rows that MongoDB will never take, and why.

        Raises MongoAway if it is to be tried again, as a whole.
        """
        refused: list[tuple[StateWrite, str]] = []
        try:
            for first in range(0, len(plan.gone), self._bulk):
                chunk = plan.gone[first : first + self._bulk]
                # What was logged later is of a customer who came back: this tombstone is read again, or read late.
                deletes = [
                    DeleteOne({"_id": each.customer_id, "logged_at": {"$lte": each.logged_at}}) for each in chunk
                ]
                await self._states.bulk_write(deletes, ordered=False)
            for part in parts_of(plan.rows, self._bulk, _BYTES_AT_ONCE):
                refused += await self._put(part)
        except PyMongoError as error:
            raise as_away(error) from error
        return refused

    async def keep_clocks(self, clocks: Mapping[int, int]) -> None:
        """Remember how far time has come in partitions; never back. Only after the rows before it are stored."""
        updates = [
            UpdateOne({"_id": clock_id(partition)}, {"$max": {"clock_ms": ms}}, upsert=True)
            for partition, ms in clocks.items()
        ]
        try:
            errors = await bulk_errors(self._work, updates)
        except PyMongoError as error:
            raise as_away(error) from error
        if errors:  # two sinks at once: the next attempt finds the other's
            raise MongoAway(next(iter(errors.values()))[1][:300])

    async def _put(self, part: Sequence[StateWrite]) -> list[tuple[StateWrite, str]]:
        refused: list[tuple[StateWrite, str]] = []
        left = list(part)
        for _ in range(_ROUNDS_MAX):
            left, faults = await self._round(left)
            refused += faults
            if not left:
                return refused
        raise MongoAway(f"{len(left)} rows lost against other writers {_ROUNDS_MAX} times")

    async def _round(self, part: Sequence[StateWrite]) -> tuple[list[StateWrite], list[tuple[StateWrite, str]]]:
        """Write what knows more than what stands; the rows that another writer came in between of, and the refused."""
        cursor = self._states.find({"key": {"$in": [each.key for each in part]}}, {"key": 1, "events_applied": 1})
        standing: dict[bytes, Any] = {bytes(each["key"]): each for each in await cursor.to_list(None)}
        newer = [each for each in part if _knows_more(each, standing.get(each.key))]
        # A customer's row cannot become a marker, nor a marker a row: `_id` cannot change.
        others = [standing[each.key] for each in newer if _is_other_kind(each, standing.get(each.key))]
        if others:
            guarded = [{"_id": each["_id"], "events_applied": each["events_applied"]} for each in others]
            await self._states.bulk_write([DeleteOne(each) for each in guarded], ordered=False)
        errors = await bulk_errors(self._states, [_operation(each, standing.get(each.key)) for each in newer])
        telemetry.MONGO_STALE.inc(len(part) - len(newer))
        telemetry.MONGO_WRITES.inc(len(newer) - len(errors), collection=CUSTOMER_STATES)
        again = [newer[index] for index, (code, _) in errors.items() if code == DUPLICATE_KEY]
        return again, [(newer[index], why) for index, (code, why) in errors.items() if code != DUPLICATE_KEY]


def _knows_more(write: StateWrite, standing: Mapping[str, Any] | None) -> bool:
    return standing is None or write.events_applied > standing["events_applied"]


def _is_other_kind(write: StateWrite, standing: Mapping[str, Any] | None) -> bool:
    return standing is not None and standing["_id"].startswith(MARKER_PREFIX) != write.is_marker


def _operation(write: StateWrite, standing: Mapping[str, Any] | None) -> Any:
    """Fails with a duplicate key if something stands that was not there when we looked, or that knows as much."""
    if standing is None or _is_other_kind(write, standing):
        return InsertOne(write.document)
    older = {"_id": write.id, "events_applied": {"$lt": write.events_applied}}
    return ReplaceOne(older, write.document, upsert=True)
