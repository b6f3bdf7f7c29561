"""MongoDB: connecting, collections and indexes, and carrying out a plan so that a newer document always stands.

The only place that talks to MongoDB. Uses the calls that Motor and PyMongo's own asynchronous client share. Must never
report a document as stored before a majority of the replica set has it.
"""

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from bson.raw_bson import RawBSONDocument
from motor.motor_asyncio import AsyncIOMotorClient, AsyncIOMotorDatabase
from pymongo import IndexModel, InsertOne, ReplaceOne, UpdateOne
from pymongo.errors import (
    AutoReconnect,
    BulkWriteError,
    CollectionInvalid,
    ConfigurationError,
    ExecutionTimeout,
    InvalidURI,
    OperationFailure,
    PyMongoError,
    WriteConcernError,
    WTimeoutError,
)

from schemas.mongo import (
    CHALLENGER_PREDICTIONS,
    COLLECTIONS,
    CUSTOMERS,
    DEAD_LETTERS,
    ERASURES,
    INDEXES,
    MATURED_PREDICTIONS,
    PREDICTION_HISTORY,
    RETIRED_INDEXES,
    IndexSpec,
    erasure_id,
)
from services.runtime import telemetry
from services.runtime.logs import logger
from services.runtime.mongo_errors import in_short
from services.runtime.shutdown import KnownProblem
from services.sink.documents import ChallengerPlan, ChallengerWrite, Plan, Write
from services.sink.letters import CLOCK_SKEW, Found, Kept, bulks, named_in_bytes
from services.sink.settings import SinkSettings

log = logger(__name__)

SELECTION_SECONDS = 3.0
"""How long to look for a primary before an attempt counts as failed."""
DUPLICATE_KEY = 11000
_NAMESPACE_EXISTS = 48
_WRITES_AT_ONCE = 2
_LETTER_BYTES_AT_ONCE = 8 * 1024 * 1024
_LETTERS_AT_ONCE = 100
# The document itself is refused, and would be refused for ever: BadValue, FailedToParse, TypeMismatch, InvalidLength,
# InvalidBSON, PathNotViable, DollarPrefixedFieldName, InvalidIdField, EmptyFieldName, DottedFieldName,
# DocumentValidationFailure, CannotIndexParallelArrays, KeyTooLong, BSONObjectTooLarge (three codes).
_DOCUMENT_FAULTS = frozenset({2, 9, 14, 16, 22, 28, 52, 53, 56, 57, 121, 171, 17280, 10334, 17419, 17420})
# HostUnreachable, HostNotFound, NetworkTimeout, ShutdownInProgress, PrimarySteppedDown, ExceededTimeLimit,
# SocketException, NotWritablePrimary, Interrupted*, OutOfDiskSpace, WriteConflict, LockTimeout and their like.
_PASSING = frozenset(
    {6, 7, 24, 50, 63, 64, 89, 91, 112, 133, 134, 150, 189, 202, 234, 246, 262, 358, 9001, 10058, 10107, 11600, 11601}
    | {11602, 13388, 13435, 13436, 14031}
)


class MongoAway(Exception):
    """MongoDB did not carry out a write that may well succeed later. Nothing is known of what it did."""


class Result(NamedTuple):
    """What became of a plan."""

    refused: list[tuple[Write | ChallengerWrite, str]]
    """Writes that MongoDB will never take, and why."""
    stale: int
    """Writes that a newer document stood against: they have succeeded, since the newer one stands."""


class _Newest(NamedTuple):
    """A document that only a newer one may replace."""

    id: str
    feature_version: int
    document: RawBSONDocument
    write: Write | ChallengerWrite


def connect(settings: SinkSettings) -> "AsyncIOMotorClient[Any]":
    """A client that writes with majority acknowledgement. Connects at the first call. KnownProblem for a wrong URI."""
    try:
        return AsyncIOMotorClient(
            settings.mongo_uri,
            appname="clv-sink",
            w="majority",
            retryWrites=False,  # the sink repeats whole batches itself, without end and in time for a shutdown
            serverSelectionTimeoutMS=round(SELECTION_SECONDS * 1000),
            connectTimeoutMS=round(SELECTION_SECONDS * 1000),
            socketTimeoutMS=round(settings.sink_mongo_timeout_seconds * 1000),
            tz_aware=True,
            tzinfo=UTC,
        )
    except (ConfigurationError, InvalidURI, ValueError) as error:
        raise KnownProblem(f"CLV_MONGO_URI: {error}") from None


async def ensure_collections(database: "AsyncIOMotorDatabase[Any]", history_days: int) -> None:
    """Make the declared collections and indexes where they are missing, and set the history's expiry.

    May be repeated at any time. Raises MongoAway if MongoDB does not answer, KnownProblem if it refuses.
    """
    try:
        for name in COLLECTIONS:
            await _create_collection(database, name)
        for spec in INDEXES:
            days = history_days if spec.expires else spec.expires_days
            await _create_index(database, spec, None if days is None else days * 86_400)
        for collection, retired in RETIRED_INDEXES:
            if retired in await database[collection].index_information():
                await database[collection].drop_index(retired)
    except PyMongoError as error:
        raise as_away(error) from error


async def _create_collection(database: "AsyncIOMotorDatabase[Any]", name: str) -> None:
    try:
        await database.create_collection(name)
    except CollectionInvalid:
        return
    except OperationFailure as error:
        if error.code != _NAMESPACE_EXISTS:
            raise


async def _create_index(database: "AsyncIOMotorDatabase[Any]", spec: IndexSpec, expire_seconds: int | None) -> None:
    collection = database[spec.collection]
    present = (await collection.index_information()).get(spec.name)
    expires = expire_seconds is not None
    if expires and present is not None and present.get("expireAfterSeconds") != expire_seconds:
        index = {"name": spec.name, "expireAfterSeconds": expire_seconds}
        await database.command("collMod", spec.collection, index=index)
        return
    options: dict[str, Any] = {"expireAfterSeconds": expire_seconds} if expires else {}
    if spec.unique:
        options["unique"] = True
    if spec.only_with is not None:
        options["partialFilterExpression"] = {spec.only_with: {"$exists": True}}
    await collection.create_indexes([IndexModel(list(spec.keys), name=spec.name, **options)])


class Store:
    """Carries out plans."""

    def __init__(self, database: "AsyncIOMotorDatabase[Any]", bulk_documents: int) -> None:
        self._customers = database[CUSTOMERS]
        self._history = database[PREDICTION_HISTORY]
        self._challengers = database[CHALLENGER_PREDICTIONS]
        self._matured = database[MATURED_PREDICTIONS]
        self._bulk = bulk_documents

    async def write(self, plan: Plan) -> Result:
        """Returns once all of it is stored by a majority. Raises MongoAway if it is to be tried again, as a whole."""
        try:
            if plan.erased:
                await self._customers.delete_many({"_id": {"$in": plan.erased}})
                await self._history.delete_many({"customer_id": {"$in": plan.erased}})
                # Last: a comparison is stored together with a change of its document in the history, or not at all.
                await self._matured.delete_many({"customer_id": {"$in": plan.erased}})
            newest = [_Newest(each.customer_id, each.feature_version, each.customer, each) for each in plan.customers]
            history, customers = await _all_of(
                [self._add_history(plan.history), self._put_newest(self._customers, newest)]
            )
        except PyMongoError as error:
            raise as_away(error) from error
        refused = {
            (write.partition, write.offset): (write, why) for write, why in [*history.refused, *customers.refused]
        }
        return Result(list(refused.values()), customers.stale)

    async def write_challengers(self, plan: ChallengerPlan) -> Result:
        """The same for what models on trial say."""
        newest = [_Newest(each.id, each.feature_version, each.document, each) for each in plan.newest]
        try:
            if plan.erased:
                await self._challengers.delete_many({"customer_id": {"$in": plan.erased}})
            return await self._put_newest(self._challengers, newest)
        except PyMongoError as error:
            raise as_away(error) from error

    async def _add_history(self, writes: Sequence[Write]) -> Result:
        refused: list[tuple[Write | ChallengerWrite, str]] = []
        for first in range(0, len(writes), self._bulk):
            chunk = writes[first : first + self._bulk]
            errors = await bulk_errors(self._history, [InsertOne(write.history) for write in chunk])
            known = [index for index, (code, _) in errors.items() if code == DUPLICATE_KEY]
            faults = [(chunk[index], why) for index, (code, why) in errors.items() if code != DUPLICATE_KEY]
            refused += faults
            telemetry.MONGO_WRITES.inc(len(chunk) - len(known) - len(faults), collection=PREDICTION_HISTORY)
        return Result(refused, 0)

    async def _put_newest(self, collection: Any, writes: Sequence[_Newest]) -> Result:
        """Several writes at once: each document is in one of them only, and MongoDB gives a write one core."""
        chunks = [writes[first : first + self._bulk] for first in range(0, len(writes), self._bulk)]
        turns = asyncio.Semaphore(_WRITES_AT_ONCE)

        async def put(chunk: Sequence[_Newest]) -> Result:
            async with turns:
                return await _put_chunk(collection, chunk)

        found = await _all_of([put(chunk) for chunk in chunks])
        return Result([each for result in found for each in result.refused], sum(result.stale for result in found))


async def _put_chunk(collection: Any, chunk: Sequence[_Newest]) -> Result:
    """A look at the versions first, since inserting is far cheaper than an upsert that finds nothing.

    The look decides nothing: what another sink does meanwhile meets the guard or the unique key. (A transaction around
    both would save the guard, but one that `kill -9` leaves open blocks its customers for a minute.)
    """
    ids = {"_id": {"$in": [each.id for each in chunk]}}
    cursor = collection.find(ids, {"feature_version": 1}, batch_size=len(chunk) + 1)
    known = {each["_id"]: each.get("feature_version", 0) for each in await cursor.to_list(None)}
    newer = [each for each in chunk if known.get(each.id, -1) <= each.feature_version]
    errors = await bulk_errors(
        collection, [_guarded(each) if each.id in known else InsertOne(each.document) for each in newer]
    )
    doubles = [newer[index] for index, (code, _) in errors.items() if code == DUPLICATE_KEY]
    refused = [(newer[index].write, why) for index, (code, why) in errors.items() if code != DUPLICATE_KEY]
    outrun = [each for each in doubles if each.id not in known]
    again = await bulk_errors(collection, [_guarded(each) for each in outrun])
    refused += [(outrun[index].write, why) for index, (code, why) in again.items() if code != DUPLICATE_KEY]
    stale = len(chunk) - len(newer) + len(doubles) - len(outrun)
    stale += sum(code == DUPLICATE_KEY for code, _ in again.values())
    telemetry.MONGO_WRITES.inc(len(chunk) - stale - len(refused), collection=collection.name)
    telemetry.MONGO_STALE.inc(stale)
    return Result(refused, stale)


class Letters:
    """Keeps dead letters, and finds those that an erasure concerns. Raises MongoAway like Store."""

    def __init__(self, database: "AsyncIOMotorDatabase[Any]", bulk_documents: int) -> None:
        self._letters = database[DEAD_LETTERS]
        self._erasures = database[ERASURES]
        self._bulk = bulk_documents

    async def write(self, kept: Sequence[Kept], gone: Sequence[str]) -> None:
        """Store letters and delete others; returns once a majority has it. A letter that MongoDB refuses is left out.

        There is nowhere else to put it, and it stays in the topic.
        """
        try:
            for chunk in bulks(kept, self._bulk, _LETTER_BYTES_AT_ONCE):
                puts: list[Any] = [ReplaceOne({"_id": each.letter}, each.encoded, upsert=True) for each in chunk]
                errors = await bulk_errors(self._letters, puts)
                # Of two sinks that add the same letter at once, one fails: the letter is there.
                refused = [why for code, why in errors.values() if code != DUPLICATE_KEY]
                if refused:
                    log.warning("letters_refused", count=len(refused))
                telemetry.MONGO_WRITES.inc(len(chunk) - len(errors), collection=DEAD_LETTERS)
            for first in range(0, len(gone), self._bulk):
                await self._letters.delete_many({"_id": {"$in": list(gone[first : first + self._bulk])}})
        except PyMongoError as error:
            raise as_away(error) from error

    async def remember(self, erased_at: Mapping[str, datetime], field: str = "erased_at") -> None:
        """Remember erasures, by customer, without the customers. field: of schemas.mongo.ErasureDocument."""
        updates = [
            UpdateOne({"_id": erasure_id(customer)}, {"$max": {field: at}}, upsert=True)
            for customer, at in erased_at.items()
        ]
        try:
            errors = await bulk_errors(self._erasures, updates)
        except PyMongoError as error:
            raise as_away(error) from error
        if errors:  # two sinks at once: the next attempt finds the other's
            raise MongoAway(next(iter(errors.values()))[1][:300])

    async def erasures_since(self, arrived_at: datetime) -> dict[str, datetime]:
        """Erasures that concern what arrived then: when, by erasure_id."""
        try:
            cursor = self._erasures.find({"erased_at": {"$gte": arrived_at - CLOCK_SKEW}})
            return {each["_id"]: each["erased_at"] for each in await cursor.to_list(None)}
        except PyMongoError as error:
            raise as_away(error) from error

    async def of_customers(self, erased_at: Mapping[str, datetime]) -> list[Found]:
        """Letters that name the customers and arrived before each one's erasure; in doubt, those that may."""
        until = {customer: at + CLOCK_SKEW for customer, at in erased_at.items()}
        fields = {"partition": 1, "arrived_at": 1}
        found: dict[str, Found] = {}

        def names(document: Mapping[str, Any], customers: Sequence[str]) -> None:
            if any(document["arrived_at"] <= until[each] for each in customers):
                found[document["_id"]] = Found(document["_id"], document["partition"])

        try:
            clear = self._letters.find({"customer_ids": {"$in": list(until)}}, {**fields, "customer_ids": 1})
            async for document in clear:
                names(document, [each for each in document["customer_ids"] if each in until])
            unclear = self._letters.find(
                {"clear": False, "arrived_at": {"$lte": max(until.values())}}, {**fields, "value": 1}
            )
            while documents := await unclear.to_list(_LETTERS_AT_ONCE):
                # Elsewhere, since it is work: heartbeats go on meanwhile.
                named = await asyncio.to_thread(
                    lambda found: [named_in_bytes(each["value"] or b"", until) for each in found], documents
                )
                for document, customers in zip(documents, named, strict=True):
                    names(document, customers)
        except PyMongoError as error:
            raise as_away(error) from error
        return list(found.values())


async def bulk_errors(collection: Any, operations: Sequence[Any]) -> dict[int, tuple[int, str]]:
    """Carry the operations out, in any order; (code, message) of each that failed for its document, by index.

    Raises a PyMongoError if any failed for another reason: then all are to be tried again.
    """
    if not operations:
        return {}
    try:
        await collection.bulk_write(list(operations), ordered=False)
    except BulkWriteError as error:
        details: Mapping[str, Any] = error.details or {}
        errors = {each["index"]: (each["code"], each.get("errmsg", "")) for each in details.get("writeErrors", [])}
        for code, message in errors.values():
            if code != DUPLICATE_KEY and code not in _DOCUMENT_FAULTS:
                raise OperationFailure(message, code) from error
        if details.get("writeConcernErrors"):
            raise WriteConcernError(str(details["writeConcernErrors"][:1])) from error
        return errors
    return {}


def _guarded(newest: _Newest) -> "ReplaceOne[Any]":
    """Replaces an older document or adds a new one; fails with a duplicate key if a newer one is there."""
    older = {"_id": newest.id, "feature_version": {"$lte": newest.feature_version}}
    return ReplaceOne(older, newest.document, upsert=True)


async def _all_of(works: "Sequence[Coroutine[Any, Any, Result]]") -> list[Result]:
    """All at once; what one of them raises is raised when all have ended, so that none goes on unseen."""
    tasks = [asyncio.ensure_future(work) for work in works]
    if tasks:
        await asyncio.wait(tasks)
    errors = [error for task in tasks if (error := task.exception()) is not None]
    if errors:  # of all of them, or asyncio would log those that nobody asked for
        raise errors[0]
    return [task.result() for task in tasks]


def as_away(error: PyMongoError) -> Exception:
    """What it means to the sink: MongoAway for what passes by itself, KnownProblem for what somebody must mend."""
    code = getattr(error, "code", None)
    passing = isinstance(error, AutoReconnect | ExecutionTimeout | WTimeoutError | WriteConcernError)
    labels = ("RetryableWriteError", "TransientTransactionError", "UnknownTransactionCommitResult")
    if passing or code in _PASSING or any(map(error.has_error_label, labels)):
        return MongoAway(in_short(error))
    return KnownProblem(f"MongoDB refuses: {in_short(error)}")


async def primary_answers(client: "AsyncIOMotorClient[Any]") -> str | None:
    """None if a primary answers, else one sentence."""
    try:
        await client.admin.command("ping")
    except PyMongoError as error:
        return f"no MongoDB primary answers: {in_short(error)}"
    return None
