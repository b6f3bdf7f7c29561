"""From records of customer-features to what is to be scored: judged one by one, then the newest of each customer.

Pure: bytes in, candidates and refusals out. Must never raise for what a message holds.
"""

from collections.abc import Iterable, Sequence
from datetime import date
from typing import NamedTuple, Protocol

import msgspec

from domain.features import CONTEXT, FEATURE_NAMES
from schemas.customer_features import FeaturesView, Values, decode_features_view, decode_values
from schemas.dead_letters import Reason

FEATURE_VERSION_MAX = 2**53 - 1
_NEEDED = frozenset(FEATURE_NAMES) - frozenset(CONTEXT)


class Record(Protocol):
    """A Kafka record, as far as it matters here."""

    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]
    timestamp: int
    """Milliseconds: when the event behind the features arrived."""
    partition: int
    offset: int


class Candidate(msgspec.Struct, frozen=True, gc=False):
    """A message that can be scored."""

    view: FeaturesView
    features: Values
    timestamp_ms: int
    partition: int
    offset: int


class Erased(NamedTuple):
    """A tombstone: the customer is to be forgotten."""

    customer_id: str
    timestamp_ms: int
    headers: tuple[tuple[str, bytes], ...] = ()
    """Passed on: they say why (schemas.tombstones)."""


class Refusal(NamedTuple):
    """Why a message cannot be scored."""

    reason: Reason
    detail: str


def judge(record: Record, currency: str) -> Candidate | Erased | Refusal:
    """What a record of customer-features is. currency: the reporting currency its money must be in."""
    try:
        if not record.key:
            return Refusal(Reason.EMPTY_KEY, "the key must be the customer_id, and is empty")
        customer_id = record.key.decode()
        if record.value is None:
            return Erased(customer_id, record.timestamp, tuple(record.headers))
        view = decode_features_view(record.value)
        features = decode_values(view.features)
        decode_values(view.inputs)
    except msgspec.ValidationError as error:
        missing = "missing required field" in str(error)
        return Refusal(Reason.MISSING_FIELD if missing else Reason.INVALID_FIELD, str(error))
    except UnicodeDecodeError as error:
        return Refusal(Reason.INVALID_UTF8, f"the message is not UTF-8: {error}")
    except (msgspec.DecodeError, RecursionError) as error:
        return Refusal(Reason.INVALID_JSON, str(error))
    return _fault(customer_id, view, features, currency) or Candidate(
        view, features, record.timestamp, record.partition, record.offset
    )


def _fault(key: str, view: FeaturesView, features: Values, currency: str) -> Refusal | None:
    if view.customer_id != key:
        return Refusal(Reason.KEY_MISMATCH, f"the key is {key[:80]!r}, but customer_id is {view.customer_id[:80]!r}")
    if view.currency != currency:
        return Refusal(
            Reason.INVALID_FIELD, f"currency is {view.currency[:16]!r}, but the scorer reports in {currency}"
        )
    if not 0 <= view.feature_version <= FEATURE_VERSION_MAX:
        return Refusal(Reason.INVALID_FIELD, f"feature_version {view.feature_version} is not within 0 and 2^53 − 1")
    try:
        if date.fromisoformat(view.as_of).isoformat() != view.as_of:
            raise ValueError(view.as_of)
    except ValueError:
        return Refusal(Reason.INVALID_FIELD, f"as_of is not a date such as 2024-01-31: {view.as_of[:40]!r}")
    if not features.keys() >= _NEEDED:
        missing = sorted(_NEEDED - features.keys())
        return Refusal(Reason.MISSING_FIELD, f"features without {', '.join(missing)}: made by another version")
    return None


def coalesce(judged: Iterable[Candidate | Erased]) -> list[Candidate | Erased]:
    """Every erasure, then each customer's candidate of the largest feature_version, of equals the last.

    Candidates from before a customer's last erasure are dropped. Erasures stay even where later candidates follow:
    downstream deletes more by them than the customer's record.
    """
    erased: list[Erased] = []
    newest: dict[str, Candidate] = {}
    for entry in judged:
        if isinstance(entry, Erased):
            erased.append(entry)
            newest.pop(entry.customer_id, None)
            continue
        known = newest.get(entry.view.customer_id)
        if known is None or known.view.feature_version <= entry.view.feature_version:
            newest[entry.view.customer_id] = entry
    return [*erased, *newest.values()]
