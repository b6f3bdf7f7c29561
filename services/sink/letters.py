"""From records of the dead-letter topic to MongoDB documents, and which letters an erasure concerns.

Pure: bytes in, documents out. Must never raise for what a message holds: a letter that cannot be kept has no second
dead-letter topic to go to.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, Protocol

import bson
from bson.errors import BSONError
from bson.raw_bson import RawBSONDocument

from schemas.dead_letters import DeadLetter, Headers, from_record
from schemas.mongo import DeadLetterDocument, erasure_id
from schemas.named_customers import contains, named_customers, words

VALUE_BYTES_MAX = 12 * 1024 * 1024
BESIDE_BYTES_MAX = 2 * 1024 * 1024
"""Of headers, and so of the original's key: a document of 16 MiB is the most that MongoDB takes."""
CUSTOMERS_MAX = 1000
"""Named by one letter; of one that names more the bytes are searched."""
_SEARCHED_ONE_BY_ONE_MAX = 20
CLOCK_SKEW = timedelta(seconds=5)
"""How far the clocks of brokers and services may be apart: what seems to have come just after an erasure goes too."""


class LetterRecord(Protocol):
    """A Kafka record, as far as it matters here."""

    key: bytes | None
    value: bytes | None
    headers: Headers
    partition: int
    offset: int


class Kept(NamedTuple):
    """A letter to be kept."""

    letter: str
    """Its record key."""
    document: DeadLetterDocument
    encoded: RawBSONDocument


class TakenBack(NamedTuple):
    """A tombstone: the letter is to be deleted."""

    letter: str


class Found(NamedTuple):
    """A kept letter that an erasure concerns."""

    letter: str
    partition: int
    """Of the dead-letter topic."""


def judge_letter(record: LetterRecord) -> Kept | TakenBack | None:
    """What a record of the dead-letter topic is; None for replay markers and what is no letter of this product."""
    if not record.key:
        return None
    try:
        name = record.key.decode()
        if record.value is None:
            return TakenBack(name)
        letter = from_record(record.key, record.value, list(record.headers))
        document = _document(name, letter, record.partition)
        return Kept(name, document, RawBSONDocument(bson.encode(document)))
    except (ValueError, OverflowError, BSONError):
        return None


def _document(name: str, letter: DeadLetter, partition: int) -> DeadLetterDocument:
    named = named_customers(letter.key, letter.value, letter.original_headers)
    rejected_at = _at(letter.rejected_at_ms)
    beside = len(letter.key or b"") + sum(len(each) + len(value or b"") for each, value in letter.original_headers)
    fits = beside <= BESIDE_BYTES_MAX
    return {
        "_id": name,
        "reason": letter.reason.value,
        "service": letter.service,
        "detail": letter.detail,
        "origin": {
            "topic": letter.origin.topic,
            "partition": letter.origin.partition,
            "offset": letter.origin.offset,
        },
        "rejected_at": rejected_at,
        "arrived_at": rejected_at if letter.arrived_at_ms is None else _at(letter.arrived_at_ms),
        "key": letter.key if fits else None,
        "value": None if letter.value is None else letter.value[:VALUE_BYTES_MAX],
        "headers": [{"name": each, "value": value} for each, value in letter.original_headers] if fits else [],
        "customer_ids": sorted(named.customer_ids)[:CUSTOMERS_MAX],
        "clear": named.clear and len(named.customer_ids) <= CUSTOMERS_MAX,
        "partition": partition,
    }


def _at(epoch_ms: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=epoch_ms)


def newest(judged: Iterable[Kept | TakenBack]) -> tuple[list[Kept], list[str]]:
    """What records in order come to: letters to write, and those to delete. Of one letter the last record stands."""
    last = {each.letter: each for each in judged}
    kept = [each for each in last.values() if isinstance(each, Kept)]
    return kept, [name for name, each in last.items() if isinstance(each, TakenBack)]


def concerned(letters: Iterable[Kept], erased_at: Mapping[str, datetime]) -> list[Found]:
    """Those of the letters that name an erased customer and arrived before the erasure.

    erased_at: by erasure_id, since of an erased customer nothing but a hash is known.
    """
    found = []
    for each in letters:
        until = [erased_at[one] for one in map(erasure_id, _candidates(each.document)) if one in erased_at]
        if until and each.document["arrived_at"] <= max(until) + CLOCK_SKEW:
            found.append(Found(each.letter, each.document["partition"]))
    return found


def _candidates(document: DeadLetterDocument) -> set[str]:
    candidates = set(document["customer_ids"])
    if not document["clear"]:
        candidates.update(words(document["value"] or b""))
    return candidates


def named_in_bytes(value: bytes, customers: Collection[str]) -> list[str]:
    """Which of the customers a letter names that does not say whom it is about.

    Of many, those that stand in it in quotes or without spaces: a search for each would take too long.
    """
    if len(customers) <= _SEARCHED_ONE_BY_ONE_MAX:
        return [each for each in customers if contains(each, value)]
    return sorted(set(words(value)).intersection(customers))


def bulks(kept: Sequence[Kept], documents_max: int, bytes_max: int) -> Iterator[list[Kept]]:
    """The letters in parts that one write can carry: letters may be thousands of times larger than one another."""
    part: list[Kept] = []
    size = 0
    for each in kept:
        if part and (len(part) == documents_max or size + len(each.encoded.raw) > bytes_max):
            yield part
            part, size = [], 0
        part.append(each)
        size += len(each.encoded.raw)
    if part:
        yield part
