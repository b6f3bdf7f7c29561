"""MongoDB as the API reads it: from the primary, and only what a majority of the replica set has acknowledged.

So what is answered is never older than what MongoDB acknowledged to the sink, and never taken back. Reads only; the
one collection that the API writes has a store of its own. Uses the calls that Motor and PyMongo's own asynchronous
client share. Must never let a query run without a limit of its time.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC
from typing import Any

from motor.motor_asyncio import AsyncIOMotorClient
from pymongo import ReadPreference
from pymongo.errors import ConfigurationError, ExecutionTimeout, InvalidURI, PyMongoError
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from services.api.settings import ApiSettings
from services.runtime.shutdown import KnownProblem

Document = dict[str, Any]
Order = Sequence[tuple[str, int]]

SELECTION_SECONDS = 2.0
"""How long to look for a primary before a request is refused."""
_PING_SECONDS = 1.0
_MARGIN_SECONDS = 1.0


def connect(settings: ApiSettings) -> "AsyncIOMotorClient[Any]":
    """A client. Connects at the first call. Raises KnownProblem for a wrong URI."""
    try:
        return AsyncIOMotorClient(
            settings.mongo_uri,
            appname="clv-api",
            serverSelectionTimeoutMS=round(SELECTION_SECONDS * 1000),
            connectTimeoutMS=round(SELECTION_SECONDS * 1000),
            socketTimeoutMS=round(max(settings.api_export_seconds, settings.api_mongo_timeout_seconds) * 1000),
            tz_aware=True,
            tzinfo=UTC,
        )
    except (ConfigurationError, InvalidURI, ValueError) as error:
        raise KnownProblem(f"CLV_MONGO_URI: {error}") from None


def majority_database(client: "AsyncIOMotorClient[Any]", name: str) -> Any:
    """The database, read from the primary and as a majority has it; writes wait for a majority too."""
    return client.get_database(
        name,
        read_concern=ReadConcern("majority"),
        write_concern=WriteConcern("majority"),
        read_preference=ReadPreference.PRIMARY,
    )


class Store:
    """Queries with a limit of their time. Every method raises PyMongoError if MongoDB does not answer within it."""

    def __init__(self, client: "AsyncIOMotorClient[Any]", settings: ApiSettings) -> None:
        self._client = client
        self._seconds = settings.api_mongo_timeout_seconds
        self._export_seconds = settings.api_export_seconds
        self.database = majority_database(client, settings.mongo_database)
        self.problem: str | None = "no MongoDB primary has answered yet"
        """What readiness says: None when well."""

    async def watch(self) -> None:
        """Ask for the primary again and again, for ever."""
        while True:
            try:
                async with asyncio.timeout(SELECTION_SECONDS + _MARGIN_SECONDS):
                    await self._client.admin.command("ping", read_preference=ReadPreference.PRIMARY)
                self.problem = None
            except (PyMongoError, TimeoutError) as error:
                self.problem = f"no MongoDB primary answers: {type(error).__name__}"
            await asyncio.sleep(_PING_SECONDS)

    async def one(self, collection: str, wanted: Mapping[str, Any], fields: Any = None) -> Document | None:
        """The document that is wanted; None if there is none."""
        async with self._in_time():
            found: Document | None = await self.database[collection].find_one(
                wanted, fields, max_time_ms=round(self._seconds * 1000)
            )
        return found

    async def some(
        self,
        collection: str,
        wanted: Mapping[str, Any],
        *,
        order: Order,
        limit: int,
        fields: Any = None,
        index: str | None = None,
    ) -> list[Document]:
        """The first `limit` documents in the order. index: the one to read; MongoDB's choice without."""
        async with self._in_time():
            cursor = self.database[collection].find(wanted, fields, max_time_ms=round(self._seconds * 1000), hint=index)
            found: list[Document] = await cursor.sort(list(order)).limit(limit).to_list(limit)
        return found

    async def count(self, collection: str, wanted: Mapping[str, Any]) -> int:
        """How many documents are wanted."""
        async with self._in_time():
            found: int = await self.database[collection].count_documents(
                dict(wanted), maxTimeMS=round(self._seconds * 1000)
            )
        return found

    async def aggregate(self, collection: str, pipeline: list[Document], **options: Any) -> list[Document]:
        """All results of an aggregation, which must be few. options: of the driver's `aggregate`."""
        limits = {"maxTimeMS": round(self._seconds * 1000), "allowDiskUse": True}
        async with self._in_time():
            cursor = self.database[collection].aggregate(pipeline, **limits, **options)
            found: list[Document] = await cursor.to_list(None)
        return found

    async def every(
        self,
        collection: str,
        wanted: Mapping[str, Any],
        *,
        order: Order,
        fields: Any,
        index: str | None,
        at_once: int = 1000,
    ) -> AsyncIterator[list[Document]]:
        """All documents in the order, `at_once` by `at_once`: for exports, which may take longer."""
        cursor = self.database[collection].find(
            wanted, fields, max_time_ms=round(self._export_seconds * 1000), batch_size=at_once, hint=index
        )
        cursor = cursor.sort(list(order))
        try:
            while documents := await cursor.to_list(at_once):
                yield documents
        finally:
            await cursor.close()

    @asynccontextmanager
    async def _in_time(self) -> AsyncIterator[None]:
        """A limit for what MongoDB's own limit does not cover: a server that takes requests and does not answer."""
        try:
            async with asyncio.timeout(self._seconds + SELECTION_SECONDS + _MARGIN_SECONDS):
                yield
        except TimeoutError:
            raise ExecutionTimeout("MongoDB did not answer in time") from None
