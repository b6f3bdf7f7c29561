"""`./clv dead-letters`: what could not be used and why, and sending it again once the cause is mended.

How each letter is replayed once: a replay runs in Kafka transactions, and each of them writes, together with the
messages, one marker per letter into the dead-letter topic, in the letter's own partition: an empty record with the
header `clv.replayed_from_offset`, under a key made from the letter's. Either both are there or neither, even after
`kill -9`. Compaction keeps the newest record of a key, so neither a letter nor its marker replaces the other; the
marker is younger than its letter, so retention deletes it later. A consumer group's offset could not say it, since
replays pick letters by reason. All replays share a transactional id, which is taken before the markers are read: a
second replay at the same time stops the first.

A letter that a tombstone took back (its customer was erased) is neither shown nor replayed, though the topic may still
hold it. This module must never delete a letter, and never commit an offset.
"""

import asyncio
import json
import logging
from collections import Counter, deque
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Annotated, Any, NamedTuple, TypeVar

import typer
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError, ProducerFenced
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cli.reading import CLIENT_ID, present_ends, records_until, topics_reader
from schemas.dead_letters import DeadLetter, Reason, from_record, marked, marker
from schemas.topics import CUSTOMER_EVENTS, DEAD_LETTERS, topics
from services.ingest.letters import ORIGIN_HTTP
from services.runtime.dead_letter import HEADER_TRUNCATED_FROM
from services.runtime.kafka import MAX_REQUEST_BYTES
from services.runtime.shutdown import KnownProblem

app = typer.Typer(help="Messages that could not be used: list them, replay them.", no_args_is_help=True)

TRANSACTIONAL_ID = "clv-dead-letters-replay"
_FIRST_BYTES = 80
_LETTERS_PER_TRANSACTION = 200
_BYTES_PER_TRANSACTION = 4 * 1024 * 1024

Place = tuple[int, int]
"""Partition and offset of a letter in the dead-letter topic."""

_Bootstrap = Annotated[
    str,
    typer.Option("--bootstrap-servers", envvar="CLV_KAFKA_BOOTSTRAP_SERVERS", help="Kafka brokers, host:port,…"),
]
_ReasonOption = Annotated[Reason | None, typer.Option("--reason", help="Only letters with this reason.")]
_JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object instead of a table.")]


class Listed(NamedTuple):
    """What is shown of a letter."""

    place: Place
    time: str
    reason: str
    service: str
    origin_topic: str
    origin_partition: int | None
    origin_offset: int | None
    key: str | None
    detail: str
    first_bytes: str | None
    value_bytes: int
    replayed: bool


class Listing(NamedTuple):
    """What the topic holds."""

    newest: list[Listed]
    by_reason: Counter[str]
    not_letters: int


class Replay(NamedTuple):
    """What a replay did, or would do."""

    by_reason: Counter[str]
    already_replayed: int
    skipped: Counter[str]
    """Letters that cannot be replayed, by why."""


# ---------------------------------------------------------------- commands


@app.command("list")
def list_letters(
    bootstrap_servers: _Bootstrap = "localhost:9092",
    reason: _ReasonOption = None,
    limit: Annotated[int, typer.Option("--limit", min=0, help="Show the newest so many.")] = 50,
    as_json: _JsonOption = False,
) -> None:
    """Show the dead letters, newest last, and how many there are for each reason."""
    listing = _run(read_listing(bootstrap_servers, reason, limit))
    if as_json:
        print(json.dumps(_listing_json(listing)))
    else:
        _print_listing(listing)


@app.command("replay")
def replay_letters(
    bootstrap_servers: _Bootstrap = "localhost:9092",
    reason: _ReasonOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be replayed.")] = False,
    as_json: _JsonOption = False,
) -> None:
    """Publish dead letters again, each once, to the topic they came from (those from HTTP to customer-events)."""
    done = _run(replay(bootstrap_servers, reason, dry_run=dry_run))
    total = done.by_reason.total()
    if as_json:
        answer = {
            "replayed": total,
            "by_reason": dict(done.by_reason),
            "already_replayed": done.already_replayed,
            "skipped": dict(done.skipped),
            "dry_run": dry_run,
        }
        print(json.dumps(answer))
        return
    console = Console()
    console.print(f"{'would replay' if dry_run else 'replayed'} {total} letters", highlight=False)
    for name, count in sorted(done.by_reason.items()):
        console.print(f"  {count:>8}  {name}", highlight=False)
    if done.already_replayed:
        console.print(f"{done.already_replayed} were replayed before", highlight=False)
    for why, count in sorted(done.skipped.items()):
        console.print(f"{count} left out: {escape(why)}", highlight=False)


_Answer = TypeVar("_Answer")


def _run(work: Coroutine[Any, Any, _Answer]) -> _Answer:
    """The result of `work`; one line and exit code 1 if Kafka is the problem."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # its own lines say the same, many times
    try:
        return asyncio.run(work)
    except KnownProblem as problem:
        typer.echo(str(problem), err=True)
    except ProducerFenced:
        typer.echo("another replay was started meanwhile and goes on instead of this one", err=True)
    except KafkaError as error:
        typer.echo(f"Kafka could not do it: {error}", err=True)
    raise typer.Exit(1)


# ---------------------------------------------------------------- reading


class Standing(NamedTuple):
    """Which letters of the topic stand, by their record keys."""

    newest: dict[bytes, Place]
    """A letter whose origin was read twice is there twice; one that was taken back is not here."""
    replayed: dict[bytes, int]
    """The last offset that a replay of the letter covers."""

    def stands(self, record: ConsumerRecord) -> bool:
        """Whether the record is a letter that was not taken back or written again later."""
        return self.newest.get(record.key) == (int(record.partition), int(record.offset))

    def is_replayed(self, record: ConsumerRecord) -> bool:
        """Whether the letter was sent again."""
        return self.replayed.get(record.key, -1) >= int(record.offset)


async def read_standing(reader: AIOKafkaConsumer, ends: dict[TopicPartition, int]) -> Standing:
    """Read the topic once for what became of its letters."""
    found = Standing({}, {})
    async for record in records_until(reader, ends):
        mark = marked(record.key, list(record.headers))
        if mark is not None:
            letter, offset = mark
            found.replayed[letter] = max(offset, found.replayed.get(letter, -1))
        elif record.value is None:
            found.newest.pop(record.key, None)
        elif _letter(record) is not None:
            found.newest[record.key] = (record.partition, record.offset)
    return found


async def read_listing(bootstrap_servers: str, reason: Reason | None, limit: int) -> Listing:
    """Read the topic from its beginning to its present end. Raises KnownProblem if there is no Kafka or no topic."""
    newest: deque[Listed] = deque(maxlen=limit)
    per_partition: dict[int, deque[Listed]] = {}
    by_reason: Counter[str] = Counter()
    not_letters = 0
    async with topics_reader(bootstrap_servers, [DEAD_LETTERS]) as reader:
        ends = await present_ends(reader)
        standing = await read_standing(reader, ends)
        async for record in records_until(reader, ends):
            letter = _letter(record)
            if letter is None:
                not_letters += record.value is not None and marked(record.key, list(record.headers)) is None
            elif standing.stands(record) and reason in (None, letter.reason):
                by_reason[letter.reason.value] += 1
                row = _listed(record, letter, standing.is_replayed(record))
                per_partition.setdefault(record.partition, deque(maxlen=limit)).append(row)
    newest.extend(sorted((each for rows in per_partition.values() for each in rows), key=lambda row: row.time))
    return Listing(list(newest), by_reason, not_letters)


def _letter(record: ConsumerRecord) -> DeadLetter | None:
    try:
        return from_record(record.key, record.value, list(record.headers))
    except ValueError:
        return None


def _listed(record: ConsumerRecord, letter: DeadLetter, replayed: bool) -> Listed:
    return Listed(
        place=(record.partition, record.offset),
        time=datetime.fromtimestamp(letter.rejected_at_ms / 1000, UTC).isoformat(timespec="milliseconds"),
        reason=letter.reason.value,
        service=letter.service,
        origin_topic=letter.origin.topic,
        origin_partition=letter.origin.partition,
        origin_offset=letter.origin.offset,
        key=None if letter.key is None else _shown(letter.key),
        detail=letter.detail,
        first_bytes=None if letter.value is None else _shown(letter.value),
        value_bytes=len(letter.value or b""),
        replayed=replayed,
    )


def _shown(found: bytes) -> str:
    """The first bytes as printable text: what somebody sent must not steer a terminal."""
    text = found[:_FIRST_BYTES].decode("utf-8", "backslashreplace")
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


# ---------------------------------------------------------------- replaying


async def replay(bootstrap_servers: str, reason: Reason | None, *, dry_run: bool) -> Replay:
    """Publish all letters that match and were not replayed before; returns once Kafka has committed them."""
    done = Replay(Counter(), 0, Counter())
    async with topics_reader(bootstrap_servers, [DEAD_LETTERS]) as reader:
        if dry_run:
            async for batch in _to_replay(reader, reason, done.skipped):
                for _, letter in batch:
                    done.by_reason[letter.reason.value] += 1
            return done._replace(already_replayed=done.skipped.pop(_BEFORE, 0))
        async with _replayer(bootstrap_servers) as producer:
            async for batch in _to_replay(reader, reason, done.skipped):
                async with producer.transaction():
                    for source, letter in batch:
                        await _publish(producer, source, letter)
                for _, letter in batch:
                    done.by_reason[letter.reason.value] += 1
    return done._replace(already_replayed=done.skipped.pop(_BEFORE, 0))


_BEFORE = "replayed before"
_Source = tuple[bytes, int, int]
"""Key, partition and offset of a letter's record."""
_Batch = list[tuple[_Source, DeadLetter]]


@asynccontextmanager
async def _replayer(bootstrap_servers: str) -> AsyncIterator[AIOKafkaProducer]:
    """The one producer that may replay. Starting it ends the open transaction of any other."""
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap_servers,
        client_id=CLIENT_ID,
        transactional_id=TRANSACTIONAL_ID,
        acks="all",
        max_request_size=MAX_REQUEST_BYTES,
    )
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


async def _to_replay(reader: AIOKafkaConsumer, reason: Reason | None, skipped: Counter[str]) -> AsyncIterator[_Batch]:
    """Batches of letters to replay, each small enough for one transaction. Counts the others in `skipped`, by why."""
    ends = await present_ends(reader)
    standing = await read_standing(reader, ends)
    batch: _Batch = []
    batch_bytes = 0
    async for record in records_until(reader, ends):
        letter = _letter(record)
        if letter is None or not standing.stands(record) or reason not in (None, letter.reason):
            continue
        why_not = _BEFORE if standing.is_replayed(record) else _why_not(letter)
        if why_not is not None:
            skipped[why_not] += 1
            continue
        size = len(letter.value or b"")
        if batch and (len(batch) == _LETTERS_PER_TRANSACTION or batch_bytes + size > _BYTES_PER_TRANSACTION):
            yield batch
            batch, batch_bytes = [], 0
        batch.append(((record.key, record.partition, record.offset), letter))
        batch_bytes += size
    if batch:
        yield batch


def _why_not(letter: DeadLetter) -> str | None:
    if _target(letter) is None:
        return f"{letter.origin.topic[:100]} is no topic of this product"
    if any(name == HEADER_TRUNCATED_FROM for name, _ in letter.original_headers):
        return "too large to have been kept whole"
    if letter.key is None and letter.value is None:
        return "neither a key nor a value"
    return None


def _target(letter: DeadLetter) -> str | None:
    """The topic to publish to; None if the origin is no declared topic."""
    if letter.origin.topic == ORIGIN_HTTP:
        return CUSTOMER_EVENTS
    return letter.origin.topic if any(letter.origin.topic == each.name for each in topics().values()) else None


async def _publish(producer: AIOKafkaProducer, source: _Source, letter: DeadLetter) -> None:
    """The original message and the marker that it was replayed, both in the open transaction."""
    key, value, mark = marker(*source)
    target = _target(letter)
    assert target is not None
    await producer.send(target, key=letter.key, value=letter.value, headers=[*letter.original_headers, *mark])
    await producer.send(DEAD_LETTERS, key=key, value=value, partition=source[1], headers=mark)


# ---------------------------------------------------------------- showing


def _listing_json(listing: Listing) -> dict[str, Any]:
    letters = [
        {
            "partition": row.place[0],
            "offset": row.place[1],
            "time": row.time,
            "reason": row.reason,
            "service": row.service,
            "origin": {"topic": row.origin_topic, "partition": row.origin_partition, "offset": row.origin_offset},
            "key": row.key,
            "detail": row.detail,
            "first_bytes": row.first_bytes,
            "value_bytes": row.value_bytes,
            "replayed": row.replayed,
        }
        for row in listing.newest
    ]
    return {
        "letters": letters,
        "total": listing.by_reason.total(),
        "by_reason": dict(listing.by_reason),
        "not_letters": listing.not_letters,
    }


def _print_listing(listing: Listing) -> None:
    console = Console()
    table = Table("time", "reason", "origin", "key", "detail", "first bytes", "replayed")
    for row in listing.newest:
        origin = row.origin_topic
        if row.origin_partition is not None:
            origin += f"-{row.origin_partition}@{row.origin_offset}"
        shown = (row.time, row.reason, origin, row.key or "", row.detail, row.first_bytes or "")
        table.add_row(*map(escape, shown), "yes" if row.replayed else "")
    if listing.newest:
        console.print(table)
    total = listing.by_reason.total()
    shown_of = f", the newest {len(listing.newest)} of them above" if len(listing.newest) < total else ""
    console.print(f"{total} dead letters{shown_of}", highlight=False)
    for name, count in listing.by_reason.most_common():
        console.print(f"  {count:>8}  {name}", highlight=False)
    if listing.not_letters:
        console.print(
            f"{listing.not_letters} records in the topic are no dead letters of this product", highlight=False
        )
