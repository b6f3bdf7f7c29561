"""The registry of models: its collections, the documents in them, and which moves of the pointer are allowed.

Pure declarations and functions: must never talk to a server. One document, the pointer, says who is champion: so there
is never more than one, whatever becomes of the process that moves it.
"""

from datetime import datetime
from enum import StrEnum
from typing import Any, Final

import msgspec

MODELS: Final = "models"
"""One document a model; `_id` is its version."""
MODEL_POINTER: Final = "model_pointer"
"""One document, whose `_id` is POINTER_ID."""
POINTER_ID: Final = "pointer"
BUNDLES: Final = "model_bundles"
"""GridFS bucket of the bundles' files: collections `model_bundles.files` and `model_bundles.chunks`."""

FORMER_MAX: Final = 50
"""Former champions that a rollback can still return to."""
HISTORY_MAX: Final = 200
"""Transitions kept of a model, the newest."""
FILES_MAX: Final = 200
FILE_BYTES_MAX: Final = 1 << 30


class Status(StrEnum):
    """What a model is to the scorers."""

    REGISTERED = "registered"
    """Known, and never used yet."""
    CHAMPION = "champion"
    """Makes the predictions."""
    CHALLENGER = "challenger"
    """On trial: predicts beside the champion, for comparison alone."""
    ARCHIVED = "archived"
    """Was champion or challenger."""


class NotAllowed(ValueError):
    """A move that cannot be made; the message says why."""


class Pointer(msgspec.Struct, frozen=True):
    """Who is what. Changed as a whole, by compare-and-set of the revision."""

    revision: int = 0
    """Grows by one with each move."""
    champion: str | None = None
    challenger: str | None = None
    former: tuple[str, ...] = ()
    """Champions before this one, the last one last."""

    def status_of(self, version: str, used: bool) -> Status:
        """used: whether the model has been champion or challenger."""
        if version == self.champion:
            return Status.CHAMPION
        if version == self.challenger:
            return Status.CHALLENGER
        return Status.ARCHIVED if used else Status.REGISTERED


def promoted(pointer: Pointer, version: str) -> Pointer:
    """The model becomes champion, and the champion a former one. Raises NotAllowed if it is champion already."""
    if version == pointer.champion:
        raise NotAllowed(f"{version} is the champion already")
    former = pointer.former if pointer.champion is None else (*pointer.former, pointer.champion)
    challenger = None if pointer.challenger == version else pointer.challenger
    return Pointer(pointer.revision + 1, version, challenger, former[-FORMER_MAX:])


def rolled_back(pointer: Pointer) -> Pointer:
    """The former champion becomes champion again. Raises NotAllowed if there is none."""
    if not pointer.former:
        raise NotAllowed("there is no former champion to return to")
    *former, version = pointer.former
    challenger = None if pointer.challenger == version else pointer.challenger
    return Pointer(pointer.revision + 1, version, challenger, tuple(former))


def challenged(pointer: Pointer, version: str | None) -> Pointer:
    """The model goes on trial, instead of any other; None ends the trial. Raises NotAllowed for the champion."""
    if pointer.champion is None and version is not None:
        raise NotAllowed("there is no champion to challenge: promote a model first")
    if version is not None and version == pointer.champion:
        raise NotAllowed(f"{version} is the champion: it cannot challenge itself")
    if version == pointer.challenger:
        raise NotAllowed(f"{version} is on trial already" if version else "no model is on trial")
    return Pointer(pointer.revision + 1, pointer.champion, version, pointer.former)


class ModelFile(msgspec.Struct, frozen=True):
    """A file of a bundle, as it lies in GridFS."""

    name: str
    """Path within the bundle, with slashes."""
    bytes: int
    sha256: str
    gridfs_id: str
    """The GridFS file's `_id`: 24 hexadecimal digits."""


class Transition(msgspec.Struct, frozen=True):
    """A change of a model's status."""

    at: datetime
    by: str
    was: Status | None
    """None: the model was registered."""
    now: Status
    revision: int
    """Of the pointer after the change."""
    why: str = ""


class Model(msgspec.Struct, frozen=True):
    """A document of MODELS, with its `_id` as version."""

    version: str
    status: Status
    """As the pointer says; changed in one transaction with it."""
    trained_at: datetime | None
    """When the bundle's files were written."""
    registered_at: datetime
    registered_by: str
    promoted_at: datetime | None
    """When it last became champion."""
    cutoff: str | None
    """UTC date: it was trained on what happened before it."""
    horizon_days: int
    currency: str
    metrics: dict[str, Any]
    """`holdout` of the bundle's metadata: quality on a later period that training had not seen, beside baselines."""
    files: list[ModelFile]
    history: list[Transition]

    @property
    def used(self) -> bool:
        """Whether it has been champion or challenger."""
        return any(each.now in (Status.CHAMPION, Status.CHALLENGER) for each in self.history)


def model_of(document: dict[str, Any]) -> Model:
    """The model in a document. Raises msgspec.ValidationError if it holds none."""
    return msgspec.convert({"version": document.get("_id"), **document}, Model)


def pointer_of(document: dict[str, Any] | None) -> Pointer:
    """The pointer in its document; one that names nobody if there is no document yet."""
    return msgspec.convert(document or {}, Pointer)
