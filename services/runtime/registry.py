"""The registry of models in MongoDB: bundles in GridFS, one pointer that says who is champion, and a folder's copy.

Needs motor, which only some services have: import it late. Must never put a file into a models folder under a bundle's
name before its content has been checked, nor move the pointer other than by compare-and-set.
"""

import asyncio
import hashlib
import os
import shutil
import uuid
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, TypeVar

import msgspec
from bson import ObjectId
from gridfs.errors import CorruptGridFile, NoFile
from motor.motor_asyncio import AsyncIOMotorClient, AsyncIOMotorGridFSBucket
from pymongo import ReadPreference
from pymongo.errors import AutoReconnect, ConfigurationError, DuplicateKeyError, InvalidURI, PyMongoError
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from schemas.model_bundle import VERSION_FIELD
from schemas.models import (
    BUNDLES,
    FILE_BYTES_MAX,
    FILES_MAX,
    HISTORY_MAX,
    MODEL_POINTER,
    MODELS,
    POINTER_ID,
    Model,
    ModelFile,
    NotAllowed,
    Pointer,
    Status,
    Transition,
    challenged,
    model_of,
    pointer_of,
    promoted,
    rolled_back,
)
from services.runtime.bundle import (
    CHALLENGER_POINTER,
    CHAMPION_POINTER,
    METADATA,
    POINTER,
    point_to,
    read_metadata,
)
from services.runtime.mongo_errors import in_short
from services.runtime.shutdown import KnownProblem

SELECTION_SECONDS = 3.0
"""How long to look for a primary."""
SOCKET_SECONDS = 30.0
_CHUNK_BYTES = 1 << 20
_Done = TypeVar("_Done")


class RegistryAway(KnownProblem):
    """MongoDB does not answer: what it would have said may be asked again later."""


class Mirrored(NamedTuple):
    """What a mirrored models folder names now."""

    champion: str | None
    challenger: str | None


def connect(mongo_uri: str) -> "AsyncIOMotorClient[Any]":
    """A client for the registry. Connects at the first call. Raises KnownProblem for a wrong URI."""
    try:
        return AsyncIOMotorClient(
            mongo_uri,
            appname="clv-registry",
            serverSelectionTimeoutMS=round(SELECTION_SECONDS * 1000),
            connectTimeoutMS=round(SELECTION_SECONDS * 1000),
            socketTimeoutMS=round(SOCKET_SECONDS * 1000),
            tz_aware=True,
            tzinfo=UTC,
        )
    except (ConfigurationError, InvalidURI, ValueError) as error:
        raise KnownProblem(f"CLV_MONGO_URI: {error}") from None


class Registry:
    """The registry in one database. Every method raises RegistryAway if MongoDB does not answer, KnownProblem if it
    refuses.
    """

    def __init__(self, client: "AsyncIOMotorClient[Any]", database: str) -> None:
        self._client = client
        self._database = client.get_database(
            database,
            read_concern=ReadConcern("majority"),
            write_concern=WriteConcern("majority"),
            read_preference=ReadPreference.PRIMARY,
        )
        self._models = self._database[MODELS]
        self._pointer = self._database[MODEL_POINTER]
        self._files = AsyncIOMotorGridFSBucket(self._database, bucket_name=BUNDLES)

    # ------------------------------------------------------------ what there is

    async def pointer(self) -> Pointer:
        """Who is champion and challenger now."""
        with _as_problems():
            return pointer_of(await self._pointer.find_one({"_id": POINTER_ID}))

    async def models(self) -> list[Model]:
        """All models, the last registered first."""
        with _as_problems():
            documents = await self._models.find().sort("registered_at", -1).to_list(None)
        return [_model(document) for document in documents]

    async def model(self, version: str) -> Model:
        """One model. `version` may be its beginning, if no other model begins so. Raises KnownProblem otherwise."""
        with _as_problems():
            begins = {"_id": {"$gte": version, "$lt": version + "\uffff"}}
            documents = await self._models.find(begins).to_list(2) if version else []
        exact = [each for each in documents if each["_id"] == version]
        if len(exact or documents) != 1:
            known = "several models begin with" if documents else "no model in the registry is"
            raise KnownProblem(f"{known} {version!r}: see `./clv models list`")
        return _model((exact or documents)[0])

    # ------------------------------------------------------------ what changes

    async def register(self, folder: Path, by: str, why: str = "") -> tuple[Model, bool]:
        """Store a bundle with its files, and True; or find it there already, and False.

        Raises KnownProblem if its content has not the version that it states.
        """
        metadata = read_metadata(folder)
        version = str(metadata[VERSION_FIELD])
        with _as_problems():
            known = await self._models.find_one({"_id": version})
            if known is not None:
                return _model(known), False
            files = [await self._upload(version, path, name) for name, path in _files_of(folder)]
            now = _now()
            model = Model(
                version=version,
                status=Status.REGISTERED,
                trained_at=datetime.fromtimestamp(int((folder / METADATA).stat().st_mtime), UTC),
                registered_at=now,
                registered_by=by,
                promoted_at=None,
                cutoff=metadata.get("cutoff"),
                horizon_days=int(metadata["horizon_days"]),
                currency=str(metadata["currency"]),
                metrics=dict(metadata.get("holdout") or {}),
                files=files,
                history=[Transition(now, by, None, Status.REGISTERED, 0, why)],
            )
            try:
                await self._models.insert_one(_document(model))
            except DuplicateKeyError:  # somebody else registered it meanwhile
                await self._remove_files(version, await self.model(version))
                return await self.model(version), False
            await self._remove_files(version, model)
        return model, True

    async def _remove_files(self, version: str, model: Model) -> None:
        """Remove what attempts that were cut short, or came second, have left of a version beside the model's files."""
        kept = [ObjectId(file.gridfs_id) for file in model.files]
        async for each in self._files.find({"metadata.model": version, "_id": {"$nin": kept}}):
            try:
                await self._files.delete(each._id)
            except NoFile:
                continue  # another process does the same

    async def _upload(self, version: str, path: Path, name: str) -> ModelFile:
        content = await asyncio.to_thread(path.read_bytes)
        identity = ObjectId()
        await self._files.upload_from_stream_with_id(
            identity, f"{version}/{name}", content, chunk_size_bytes=_CHUNK_BYTES, metadata={"model": version}
        )
        return ModelFile(name, len(content), hashlib.sha256(content).hexdigest(), str(identity))

    async def promote(self, version: str, by: str, why: str = "", revision: int | None = None) -> Pointer:
        """Make a registered model champion. revision: see `move`."""
        return await self.move(lambda pointer: promoted(pointer, version), by, why, revision)

    async def challenge(self, version: str | None, by: str, why: str = "", revision: int | None = None) -> Pointer:
        """Put a registered model on trial beside the champion; None ends the trial."""
        return await self.move(lambda pointer: challenged(pointer, version), by, why, revision)

    async def rollback(self, by: str, why: str = "", revision: int | None = None) -> Pointer:
        """Make the former champion champion again."""
        return await self.move(rolled_back, by, why, revision)

    async def move(
        self, change: Callable[[Pointer], Pointer], by: str, why: str, revision: int | None = None
    ) -> Pointer:
        """Change the pointer and the status of the models that it concerns, in one transaction; the new pointer.

        revision: of the pointer that the decision was made on; if it has moved since, nothing is changed and
        KnownProblem raised. None: decide on whatever it is. Raises KnownProblem for a move that is not allowed.
        """

        async def attempt(session: Any) -> Pointer:
            before = pointer_of(await self._pointer.find_one({"_id": POINTER_ID}, session=session))
            if revision is not None and before.revision != revision:
                raise KnownProblem(
                    "somebody else has just changed the registry: look again with `./clv models list`, then repeat"
                )
            after = change(before)
            expected = {"_id": POINTER_ID, "revision": before.revision}
            content = {"_id": POINTER_ID, **msgspec.to_builtins(after)}
            done = await self._pointer.replace_one(expected, content, session=session)
            assert (
                done.matched_count == 1
            )  # as read in this very transaction; a change since is a conflict, and repeated
            concerned = {before.champion, before.challenger, after.champion, after.challenger}
            for version in sorted(each for each in concerned if each is not None):
                await self._note(session, version, after, by, why)
            return after

        with _as_problems():
            await self._ensure_pointer()
            try:
                async with await self._client.start_session() as session:
                    after: Pointer = await session.with_transaction(attempt)
                    return after
            except NotAllowed as problem:
                raise KnownProblem(str(problem)) from None

    async def _ensure_pointer(self) -> None:
        """The pointer's document is there. Not within a transaction: one that makes a collection is not repeatable."""
        nobody = msgspec.to_builtins(Pointer())
        try:
            await self._pointer.update_one({"_id": POINTER_ID}, {"$setOnInsert": nobody}, upsert=True)
        except DuplicateKeyError:
            return  # two at once

    async def _note(self, session: Any, version: str, pointer: Pointer, by: str, why: str) -> None:
        """Bring a model's document in line with the pointer."""
        document = await self._models.find_one({"_id": version}, session=session)
        if document is None:
            raise KnownProblem(f"no model in the registry is {version!r}: see `./clv models list`")
        model = _model(document)
        status = pointer.status_of(version, model.used)
        if status is model.status:
            return
        now = _now()
        transition = msgspec.to_builtins(
            Transition(now, by, model.status, status, pointer.revision, why), builtin_types=(datetime,)
        )
        fields: dict[str, Any] = {"status": status.value}
        if status is Status.CHAMPION:
            fields["promoted_at"] = now
        await self._models.update_one(
            {"_id": version},
            {"$set": fields, "$push": {"history": {"$each": [transition], "$slice": -HISTORY_MAX}}},
            session=session,
        )

    # ------------------------------------------------------------ bundles

    async def fetch(self, version: str, models_dir: Path) -> Path:
        """The bundle's folder in models_dir, brought there if it is not. Raises KnownProblem if the content is wrong.

        Several processes may fetch into one folder: it appears there complete, or not at all.
        """
        folder = models_dir / version
        if (folder / METADATA).is_file():
            await asyncio.to_thread(read_metadata, folder)
            return folder
        model = await self.model(version)
        temporary = models_dir / f".{version}.{os.getpid()}-{uuid.uuid4().hex[:8]}.tmp"
        try:
            for file in model.files:
                await asyncio.to_thread(_write, temporary, file.name, await self._content(file))
            if (await asyncio.to_thread(read_metadata, temporary))[VERSION_FIELD] != version:
                raise KnownProblem(f"the registry's files of {version} are another model's")
            try:
                temporary.rename(folder)
            except OSError:
                if not (folder / METADATA).is_file():
                    raise
        except OSError as error:
            raise KnownProblem(f"cannot write the model to {models_dir}: {error.strerror or error}") from None
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return folder

    async def _content(self, file: ModelFile) -> bytes:
        received = BytesIO()
        with _as_problems():
            await self._files.download_to_stream(ObjectId(file.gridfs_id), received)
        content = received.getvalue()
        if hashlib.sha256(content).hexdigest() != file.sha256:
            raise KnownProblem(f"{file.name} in the registry is not what was registered: register the bundle anew")
        return content


async def mirror(registry: Registry, models_dir: Path) -> Mirrored:
    """Make a models folder say what the registry says: bundles first, then the pointers that name them.

    The registry decides: `current` is set to the champion too, so that whoever reads that pointer alone follows. A
    registry without a champion changes nothing. A challenger that cannot be fetched does not keep the champion away.
    """
    pointer = await registry.pointer()
    if pointer.champion is None:
        return Mirrored(None, None)
    if not (models_dir / pointer.champion / METADATA).is_file():  # once: content is checked here, and at each load
        await registry.fetch(pointer.champion, models_dir)
    _point(models_dir, CHAMPION_POINTER, pointer.champion)
    _point(models_dir, POINTER, pointer.champion)
    if pointer.challenger is not None and not (models_dir / pointer.challenger / METADATA).is_file():
        await registry.fetch(pointer.challenger, models_dir)
    _point(models_dir, CHALLENGER_POINTER, pointer.challenger or "")
    return Mirrored(pointer.champion, pointer.challenger)


def _point(models_dir: Path, pointer: str, version: str) -> None:
    try:
        now = (models_dir / pointer).read_text().strip()
    except FileNotFoundError:
        now = ""
    except OSError as error:
        raise KnownProblem(f"cannot read {models_dir / pointer}: {error.strerror}") from None
    if now != version:
        try:
            point_to(models_dir, version, pointer)
        except OSError as error:
            raise KnownProblem(f"cannot write to {models_dir}: {error.strerror}") from None


def _write(folder: Path, name: str, content: bytes) -> None:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts or "\\" in name:
        raise KnownProblem(f"the registry holds a file with the name {name!r}, which is no place in a bundle")
    target = folder.joinpath(*path.parts)
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _files_of(folder: Path) -> list[tuple[str, Path]]:
    """The bundle's files by their name within it. Raises KnownProblem if they are too many or too large."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    if len(paths) > FILES_MAX or any(path.stat().st_size > FILE_BYTES_MAX for path in paths):
        raise KnownProblem(
            f"{folder} is too large for a bundle: at most {FILES_MAX} files of {FILE_BYTES_MAX} bytes each"
        )
    return [(path.relative_to(folder).as_posix(), path) for path in paths]


def _document(model: Model) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(model, builtin_types=(datetime,))
    return {"_id": found.pop("version"), **found}


def _model(document: Mapping[str, Any]) -> Model:
    try:
        return model_of(dict(document))
    except msgspec.ValidationError as error:
        raise KnownProblem(f"the registry's model {document.get('_id')!r} cannot be read: {error}") from None


def _now() -> datetime:
    """Now, as MongoDB keeps it: to the millisecond."""
    now = datetime.now(UTC)
    return now.replace(microsecond=now.microsecond // 1000 * 1000)


@contextmanager
def _as_problems() -> Iterator[None]:
    """What MongoDB's client raises, as one sentence."""
    try:
        yield
    except (NoFile, CorruptGridFile) as error:
        raise KnownProblem(f"the registry has lost a file of a bundle: {error}") from None
    except AutoReconnect as error:
        raise RegistryAway(f"MongoDB does not answer: {in_short(error)}") from None
    except PyMongoError as error:
        if isinstance(error, DuplicateKeyError):
            raise
        raise KnownProblem(f"MongoDB refuses: {in_short(error)}") from None


async def with_registry(mongo_uri: str, database: str, work: Callable[[Registry], Awaitable[_Done]]) -> _Done:
    """Do some work with a registry, and close the connection."""
    client = connect(mongo_uri)
    try:
        return await work(Registry(client, database))
    finally:
        client.close()
