"""Keeps what was answered to forms in MongoDB: single answers in groups, beside the requests that they belong to.

While it is quiet an answer waits some milliseconds for MongoDB's acknowledgement and not longer: that decides what it
says, not whether it is kept. Must never say that something is stored before a majority of the replica set has it, nor
hold more than a fixed number of documents while MongoDB is away.
"""

import asyncio
from collections.abc import Sequence
from datetime import UTC
from typing import Any, NamedTuple

from pymongo import AsyncMongoClient, IndexModel
from pymongo.errors import BulkWriteError, ConfigurationError, InvalidURI, PyMongoError
from pymongo.write_concern import WriteConcern

from schemas.mongo import INDEXES, WHAT_IF_PREDICTIONS, WhatIfDocument
from services.api.forms.settings import PredictSettings
from services.runtime import telemetry
from services.runtime.logs import logger
from services.runtime.shutdown import KnownProblem

log = logger(__name__)

_SELECTION_SECONDS = 2.0
_WRITE_SECONDS = 5.0
_RETRY_SECONDS = 0.5
_GROUP_DOCUMENTS = 500
_PAUSE_SECONDS = 0.05
"""Least time from one write of single answers to the next: a write costs as much as answering a form, however much is
in it. After a pause an answer is written at once."""
_DUPLICATE_KEY = 11000


class _Waiting(NamedTuple):
    document: WhatIfDocument
    acknowledged: "asyncio.Future[bool] | None"
    """None where nobody waits for it."""


class WhatIfStore:
    """Documents on their way to MongoDB. All methods run in one event loop."""

    def __init__(self, settings: PredictSettings) -> None:
        """Connects at the first write. Raises KnownProblem for a wrong URI."""
        # PyMongo's own asynchronous client: Motor's threads would compete with the loop for the interpreter.
        try:
            self._client: AsyncMongoClient[Any] = AsyncMongoClient(
                settings.mongo_uri,
                appname="clv-api-what-if",
                serverSelectionTimeoutMS=round(_SELECTION_SECONDS * 1000),
                connectTimeoutMS=round(_SELECTION_SECONDS * 1000),
                socketTimeoutMS=round(_WRITE_SECONDS * 1000),
                tz_aware=True,
                tzinfo=UTC,
            )
        except (ConfigurationError, InvalidURI, ValueError) as error:
            raise KnownProblem(f"CLV_MONGO_URI: {error}") from None
        database = self._client.get_database(settings.mongo_database)
        self._collection = database.get_collection(WHAT_IF_PREDICTIONS, write_concern=WriteConcern("majority"))
        self._wait_seconds = settings.api_what_if_wait_ms / 1000
        self._waiting_max = settings.api_what_if_waiting_max
        self._waiting: list[_Waiting] = []
        self._come = asyncio.Event()
        self._indexed = False
        self._away = False
        self._next_write_at = 0.0
        """When the next write may begin, by the loop's clock."""
        self._last_put_at = -_PAUSE_SECONDS

    async def put(self, document: WhatIfDocument) -> bool:
        """Hand a document over. True once MongoDB has acknowledged it; False if that takes longer than an answer may
        wait, or if others were handed over just now, with whom it is written later than that, or if there is no more
        room, in which case it is not kept.
        """
        if len(self._waiting) >= self._waiting_max:
            telemetry.WHAT_IF_STORED.inc(outcome="dropped")
            return False
        loop = asyncio.get_running_loop()
        self._come.set()
        now, before = loop.time(), self._last_put_at
        self._last_put_at = now
        is_quiet = now >= max(self._next_write_at, before + _PAUSE_SECONDS)
        if not is_quiet and self._wait_seconds < _PAUSE_SECONDS:
            self._waiting.append(_Waiting(document, None))
            return False
        acknowledged: asyncio.Future[bool] = loop.create_future()
        self._waiting.append(_Waiting(document, acknowledged))
        timer = loop.call_later(self._wait_seconds, _settle, acknowledged, False)
        try:
            return await acknowledged
        finally:
            timer.cancel()

    async def put_all(self, documents: Sequence[WhatIfDocument]) -> bool:
        """Write documents of a batch now; whether MongoDB has acknowledged them. They are not tried again."""
        try:
            await self._write(documents)
        except (PyMongoError, OSError) as error:
            self._tell_away(error)
            telemetry.WHAT_IF_STORED.inc(len(documents), outcome="dropped")
            return False
        return True

    async def run(self) -> None:
        """Write what is handed over, for ever; what MongoDB did not take is tried again."""
        loop = asyncio.get_running_loop()
        while True:
            await self._come.wait()
            self._come.clear()
            while self._waiting:
                self._next_write_at = loop.time() + _PAUSE_SECONDS
                if not await self._write_group():
                    await asyncio.sleep(_RETRY_SECONDS)
                await asyncio.sleep(max(0.0, self._next_write_at - loop.time()))

    async def close(self) -> None:
        """Write what is left, once, after run() has ended; what MongoDB does not take then is lost, which is said."""
        while self._waiting and await self._write_group():
            pass
        if self._waiting:
            log.warning("what_if_predictions_lost", documents=len(self._waiting))
            telemetry.WHAT_IF_STORED.inc(len(self._waiting), outcome="dropped")
            self._waiting.clear()
        await self._client.close()

    async def _write_group(self) -> bool:
        group = self._waiting[:_GROUP_DOCUMENTS]
        try:
            await self._write([each.document for each in group])
        except (PyMongoError, OSError) as error:
            self._tell_away(error)
            return False
        del self._waiting[: len(group)]
        for each in group:
            if each.acknowledged is not None:
                _settle(each.acknowledged, True)
        return True

    async def _write(self, documents: Sequence[WhatIfDocument]) -> None:
        if not self._indexed:
            await self._ensure_indexes()
        try:
            async with asyncio.timeout(_WRITE_SECONDS + _SELECTION_SECONDS):
                await self._collection.insert_many(documents, ordered=False)
        except TimeoutError:
            raise PyMongoError("MongoDB did not answer in time") from None
        except BulkWriteError as error:
            errors = error.details.get("writeErrors", [])
            concerns = error.details.get("writeConcernErrors", [])
            if concerns or any(each.get("code") != _DUPLICATE_KEY for each in errors):
                raise  # a duplicate is what an attempt before this one has written
        if self._away:
            log.info("what_if_store_back")
            self._away = False
        telemetry.WHAT_IF_STORED.inc(len(documents), outcome="stored")

    async def _ensure_indexes(self) -> None:
        """The sink makes them too; whoever comes first."""
        specs = [spec for spec in INDEXES if spec.collection == WHAT_IF_PREDICTIONS]
        models = [
            IndexModel(list(spec.keys), name=spec.name, expireAfterSeconds=(spec.expires_days or 0) * 86_400)
            for spec in specs
        ]
        await self._collection.create_indexes(models)
        self._indexed = True

    def _tell_away(self, error: Exception) -> None:
        if not self._away:
            log.warning("what_if_store_away", problem=f"{type(error).__name__}: {error}"[:300])
        self._away = True


def _settle(future: "asyncio.Future[bool]", value: bool) -> None:
    if not future.done():
        future.set_result(value)
