"""From records of predictions to MongoDB documents: judged one by one, then what each collection gets.

Pure: bytes in, encoded documents out; BSON is only a format here. Must never raise for what a message holds, and never
let an older prediction take the place of a newer one.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, Protocol, TypeVar

import bson
import msgspec
from bson.errors import BSONError
from bson.raw_bson import RawBSONDocument

from schemas.dead_letters import Reason
from schemas.mongo import OUTCOME_FIELDS, challenger_id
from schemas.predictions import Prediction, decode_prediction
from schemas.tombstones import Cause, cause_of
from services.sink.maturity import due_on, knew_the_day

FEATURE_VERSION_MAX = 2**53 - 1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DOCUMENT_BYTES_MAX = 8 * 1024 * 1024
"""Half of what MongoDB takes, and a thousand times what a prediction needs."""


class Record(Protocol):
    """A Kafka record, as far as it matters here."""

    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]
    timestamp: int
    partition: int
    offset: int


class Write(msgspec.Struct, frozen=True, gc=False):
    """One prediction as it is stored: documents of CUSTOMERS and PREDICTION_HISTORY (see schemas.mongo)."""

    customer_id: str
    prediction_id: str
    feature_version: int
    customer: RawBSONDocument
    history: RawBSONDocument
    timestamp_ms: int
    """Kafka timestamp of the record: when the event behind it arrived."""
    partition: int
    offset: int


class ChallengerWrite(msgspec.Struct, frozen=True, gc=False):
    """What a model on trial says of a customer, as it is stored (CHALLENGER_PREDICTIONS)."""

    id: str
    customer_id: str
    feature_version: int
    document: RawBSONDocument
    partition: int
    offset: int


class Erased(NamedTuple):
    """A tombstone: the customer's documents are to be deleted."""

    customer_id: str
    cause: Cause | None = None
    timestamp_ms: int = 0
    """Kafka timestamp of the record: when the event behind it arrived."""


class Refusal(NamedTuple):
    """Why a message cannot be stored."""

    reason: Reason
    detail: str


class Plan(NamedTuple):
    """What one batch does to MongoDB, in this order."""

    erased: list[str]
    """Customers whose documents are deleted."""
    customers: list[Write]
    """The newest prediction of each customer."""
    history: list[Write]
    """Every prediction once."""


class ChallengerPlan(NamedTuple):
    """What one batch of challengers' predictions does to MongoDB, in this order."""

    erased: list[str]
    newest: list[ChallengerWrite]


def judge(record: Record, now: datetime) -> Write | Erased | Refusal:
    """What a record of the predictions topic is. now: UTC, becomes updated_at and created_at."""
    found = _judged(record, lambda prediction: _write(record, prediction, now))
    if isinstance(found, Write) and len(found.history.raw) > DOCUMENT_BYTES_MAX:
        return _too_large()
    return found


def judge_challenger(record: Record, now: datetime) -> ChallengerWrite | Erased | Refusal:
    """What a record of the challenger-predictions topic is. now: UTC, becomes updated_at."""
    found = _judged(record, lambda prediction: _challenger(record, prediction, now))
    if isinstance(found, ChallengerWrite) and len(found.document.raw) > DOCUMENT_BYTES_MAX:
        return _too_large()
    return found


def _too_large() -> Refusal:
    return Refusal(Reason.MESSAGE_TOO_LARGE, f"the document would be larger than {DOCUMENT_BYTES_MAX} bytes")


_Made = TypeVar("_Made")


def _judged(record: Record, make: Callable[[Prediction], _Made]) -> _Made | Erased | Refusal:
    try:
        if not record.key:
            return Refusal(Reason.EMPTY_KEY, "the key must be the customer_id, and is empty")
        customer_id = record.key.decode()
        if record.value is None:
            return Erased(customer_id, cause_of(record.headers), record.timestamp)
        prediction = decode_prediction(record.value)
        fault = _fault(prediction, customer_id)
        return make(prediction) if fault is None else fault
    except msgspec.ValidationError as error:
        missing = "missing required field" in str(error)
        return Refusal(Reason.MISSING_FIELD if missing else Reason.INVALID_FIELD, str(error))
    except UnicodeDecodeError as error:
        return Refusal(Reason.INVALID_UTF8, f"the message is not UTF-8: {error}")
    except (msgspec.DecodeError, RecursionError) as error:
        return Refusal(Reason.INVALID_JSON, str(error))
    except (BSONError, OverflowError, ValueError) as error:
        return Refusal(Reason.INVALID_FIELD, f"MongoDB cannot hold this: {error}")


def _fault(prediction: Prediction, key: str) -> Refusal | None:
    if prediction.customer_id != key:
        detail = f"the key is {key[:80]!r}, but customer_id is {prediction.customer_id[:80]!r}"
        return Refusal(Reason.KEY_MISMATCH, detail)
    if not 0 <= prediction.feature_version <= FEATURE_VERSION_MAX:
        return Refusal(Reason.INVALID_FIELD, f"feature_version {prediction.feature_version} is not within 0 … 2^53")
    if not prediction.prediction_id:
        return Refusal(Reason.INVALID_FIELD, "prediction_id is empty")
    return None


def _write(record: Record, prediction: Prediction, now: datetime) -> Write:
    # What both documents share is encoded once; a BSON document is its length, its elements and a zero.
    shared = _shared(prediction)
    customer = _elements({"_id": prediction.customer_id, "updated_at": now})
    of_history = {
        "_id": prediction.prediction_id,
        "customer_id": prediction.customer_id,
        "created_at": now,
        "partition": record.partition,
    }
    due = due_on(prediction.as_of, prediction.horizon_days, knew_the_day(prediction.inputs))
    history = _elements(of_history if due is None else {**of_history, "due_on": due})
    return Write(
        prediction.customer_id,
        prediction.prediction_id,
        prediction.feature_version,
        _document(customer, shared),
        _document(history, shared),
        record.timestamp,
        record.partition,
        record.offset,
    )


def _challenger(record: Record, prediction: Prediction, now: datetime) -> ChallengerWrite:
    identifier = challenger_id(prediction.customer_id, prediction.model_version)
    own = _elements({"_id": identifier, "customer_id": prediction.customer_id, "updated_at": now})
    return ChallengerWrite(
        identifier,
        prediction.customer_id,
        prediction.feature_version,
        _document(own, _shared(prediction)),
        record.partition,
        record.offset,
    )


def _shared(prediction: Prediction) -> bytes:
    return _elements(
        {
            "feature_version": prediction.feature_version,
            "as_of": prediction.as_of,
            "inputs": prediction.inputs,
            "features": prediction.features,
            "ledger": None if prediction.ledger is None else msgspec.structs.asdict(prediction.ledger),
            "prediction": {name: getattr(prediction, name) for name in OUTCOME_FIELDS},
        }
    )


def _elements(document: dict[str, Any]) -> bytes:
    return bson.encode(document)[4:-1]


def _document(*elements: bytes) -> RawBSONDocument:
    size = 5 + sum(map(len, elements))
    return RawBSONDocument(b"".join((size.to_bytes(4, "little"), *elements, b"\0")))


def plan(judged: Iterable[Write | Erased]) -> Plan:
    """What a batch comes to. Of equal feature_versions the later record stands; of equal prediction_ids the first.

    What came before an erasure in the batch is not written at all.
    """
    newest: dict[str, Write] = {}
    history: dict[str, dict[str, Write]] = {}
    erased: dict[str, None] = {}
    for entry in judged:
        if isinstance(entry, Erased):
            erased[entry.customer_id] = None
            newest.pop(entry.customer_id, None)
            history.pop(entry.customer_id, None)
            continue
        known = newest.get(entry.customer_id)
        if known is None or entry.feature_version >= known.feature_version:
            newest[entry.customer_id] = entry
        history.setdefault(entry.customer_id, {}).setdefault(entry.prediction_id, entry)
    every = [each for of_customer in history.values() for each in of_customer.values()]
    return Plan(list(erased), list(newest.values()), every)


def plan_challengers(judged: Iterable[ChallengerWrite | Erased]) -> ChallengerPlan:
    """What a batch comes to: the newest by customer and model. What came before an erasure is not written at all."""
    newest: dict[str, ChallengerWrite] = {}
    erased: dict[str, None] = {}
    for entry in judged:
        if isinstance(entry, Erased):
            erased[entry.customer_id] = None
            newest = {key: each for key, each in newest.items() if each.customer_id != entry.customer_id}
            continue
        known = newest.get(entry.id)
        if known is None or entry.feature_version >= known.feature_version:
            newest[entry.id] = entry
    return ChallengerPlan(list(erased), list(newest.values()))


def erasures(judged: Iterable[Write | ChallengerWrite | Erased]) -> dict[str, datetime]:
    """The customers who asked to be forgotten, and when that arrived. A merge is no such wish: its letters stay."""
    found: dict[str, datetime] = {}
    for entry in judged:
        if isinstance(entry, Erased) and entry.cause is Cause.ERASED:
            at = _EPOCH + timedelta(milliseconds=max(0, entry.timestamp_ms))
            found[entry.customer_id] = max(at, found.get(entry.customer_id, _EPOCH))
    return found
