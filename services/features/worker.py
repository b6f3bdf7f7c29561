"""The feature worker: chunks of orders in, changelog rows and customer-features out, in the one safe order.

Per chunk: fold → send on to other customers' rows what merges and erasures ask for, and wait → send changelog and
features, and wait for both → write the local store → mark the offsets processed. Must never mark, store or commit what
Kafka has not acknowledged, and must end the process rather than skip when it cannot go on.
"""

import asyncio
import time
from collections import defaultdict
from typing import Any

import msgspec
from aiokafka import AIOKafkaProducer
from faust.types import TP

from domain.customer import DAY_MS, has_ordered
from domain.features import date_of
from schemas.currencies import minor_per_major
from schemas.customer_rows import (
    PROGRESS_KEY,
    Progress,
    Row,
    decode_progress,
    decode_row,
    encode,
    erased_key,
    is_forgotten,
    known_state,
    new_progress,
    stored,
    survivor,
)
from schemas.dead_letters import DeadLetter, Reason
from schemas.orders import encode_order
from schemas.tombstones import Cause, cause_headers
from schemas.topics import ORDERS
from services.features.app import build_app, build_table, orders_topic
from services.features.chunks import ChunkConsumer
from services.features.emit import feature_messages
from services.features.refresh import SLICE_CUSTOMERS_MAX, Pacer, begin_sweep
from services.features.settings import FeaturesSettings
from services.features.table import CustomerStore
from services.features.writer import Fenced, PartitionWriter
from services.folding import GROUP
from services.folding.fold import Folded, Rejected, ToSend, Touched, fold_chunk, keys_of
from services.runtime import telemetry
from services.runtime.bundle import BundleHead, current_bundle, read_head
from services.runtime.dead_letter import letter_of
from services.runtime.kafka import Item, new_producer
from services.runtime.logs import logger
from services.runtime.shutdown import KnownProblem

log = logger(__name__)

SERVICE = "features"
BUNDLE_POLL_SECONDS = 5.0
SWEEP_TICK_SECONDS = 0.5


class FeatureWorker:
    """Owns the Faust app, its table and the producers of everything that this service writes."""

    def __init__(self, settings: FeaturesSettings) -> None:
        self.settings = settings
        self.minor_per_major = minor_per_major(settings.currency)
        self.bundle: BundleHead = read_head(current_bundle(settings.models_dir))
        self.failure: BaseException | None = None
        self.failed = asyncio.Event()
        # By partition: a chunk and a refresh slice, or two chunks, must not interleave in the output. Partitions do:
        # while one waits for Kafka's acknowledgement, another is folded.
        self._in_hand: defaultdict[int, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._chunks: dict[int, asyncio.Task[None]] = {}
        self._progress: dict[int, Progress] = {}
        self._customers: dict[int, int] = {}
        self._pacer = Pacer(settings.features_refresh_seconds, spread=settings.features_clock == "wall")
        self._writers: dict[int, PartitionWriter] = {}
        # For records about customers of other partitions, whoever owns those: their rows take each once.
        self._producer: AIOKafkaProducer = new_producer(settings.kafka_bootstrap_servers, GROUP)
        self.app = build_app(settings, GROUP)
        self.table = build_table(self.app, settings)
        self.app.agent(orders_topic(self.app), name="orders")(self._fold_chunks)
        self.app.on_partitions_revoked.connect(self._let_go)

    # --- life --------------------------------------------------------------------------------------------------------

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set. Raises what made the worker unable to go on."""
        await self._producer.start()
        tasks = [asyncio.create_task(self._sweep_forever()), asyncio.create_task(self._follow_bundle())]
        await self.app.start()
        crashed = asyncio.create_task(self.app.wait_until_stopped())
        ending = [asyncio.create_task(stop.wait()), asyncio.create_task(self.failed.wait()), crashed]
        try:
            await asyncio.wait(ending, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await self._chunks_done()  # before the offsets are committed a last time
            await self.app.stop()
            await self._close_writers()
            await self._producer.stop()
            for task in ending:
                task.cancel()
        if self.failure is not None:
            raise self.failure
        if self.app.crash_reason is not None:
            raise self.app.crash_reason

    def not_ready(self) -> str | None:
        """Why the worker does not process orders yet, or None."""
        # Without partitions of its own, because others have them all, a worker is ready too.
        if not self.app.tables.recovery.completed.is_set():
            return "no partitions and their state from the changelog yet"
        return "between two assignments of partitions" if self.app.rebalancing else None

    def partitions(self) -> list[int]:
        """Source partitions that this worker processes now."""
        if self.not_ready():
            return []
        return sorted(tp.partition for tp in self.app.consumer.assignment() if tp.topic == ORDERS)

    def _fail(self, error: BaseException) -> None:
        if self.failure is None:
            log.error("worker_failed", problem=repr(error), exc_info=error)
            self.failure = error
        self.failed.set()

    async def _let_go(self, *_: Any, **__: Any) -> None:
        """Before partitions are given away: let the chunks in hand come to their end."""
        await self._chunks_done()
        await self._close_writers()
        self._progress.clear()
        self._customers.clear()

    async def _chunks_done(self) -> None:
        if self._chunks:
            await asyncio.wait(self._chunks.values())

    async def _writer_of(self, tp: TP) -> PartitionWriter:
        """The partition's writer, opened when it is first needed. Raises Fenced if the partition is not ours any more.

        Opening shuts the former owner out. But a worker that was paused just before it would shut the new owner out: so
        the group is asked afterwards, and a worker that is not told "yes" writes nothing.
        """
        known = self._writers.get(tp.partition)
        if known is not None and not known.worn:
            return known
        if known is not None:
            await self._drop_writer(tp.partition)
        writer = await PartitionWriter.open(self.settings.kafka_bootstrap_servers, GROUP, tp.partition)
        self._writers[tp.partition] = writer
        consumer: ChunkConsumer = self.app.consumer
        if tp not in consumer.expected or not await consumer.is_member(tp, consumer.expected[tp]):
            await self._drop_writer(tp.partition)
            raise Fenced
        return writer

    async def _drop_writer(self, partition: int) -> None:
        writer = self._writers.pop(partition, None)
        if writer is not None:
            await writer.close()

    async def _close_writers(self) -> None:
        for partition in list(self._writers):
            await self._drop_writer(partition)

    async def _follow_bundle(self) -> None:
        while True:
            await asyncio.sleep(BUNDLE_POLL_SECONDS)
            try:
                head = read_head(current_bundle(self.settings.models_dir))
            except KnownProblem as problem:
                log.warning("bundle_unreadable", problem=str(problem), kept=self.bundle.model_version)
                continue
            if head.model_version != self.bundle.model_version:
                log.info("bundle_changed", model_version=head.model_version)
                self.bundle = head

    # --- chunks ------------------------------------------------------------------------------------------------------

    async def _fold_chunks(self, stream: Any) -> None:
        async for event in stream.events():
            partition = event.message.partition
            if (before := self._chunks.get(partition)) is not None:
                await before
            self._chunks[partition] = asyncio.create_task(self._fold_guarded(event.message))

    async def _fold_guarded(self, message: Any) -> None:
        if self.failure is not None:
            return  # nothing is marked processed any more: it all comes again after the restart
        try:
            async with self._in_hand[message.partition]:
                await self._fold_one(message)
        except Exception as error:  # noqa: BLE001 - Faust would acknowledge and skip the chunk
            self._fail(error)

    async def _fold_one(self, message: Any) -> None:
        consumer: ChunkConsumer = self.app.consumer
        tp: TP = message.tp
        if self._is_stale(message):
            telemetry.FEATURES_STALE_CHUNKS.inc()
            return
        expected = consumer.expected[tp]
        records = [record for record in message.value if record.offset >= expected]
        if not records:
            return
        if message.value[0].offset > expected:
            telemetry.FEATURES_HOLES.inc(partition=str(tp.partition))
            log.warning("hole_refused", partition=tp.partition, expected=expected, got=message.value[0].offset)
            await consumer.seek(tp, expected)
            return
        began = time.perf_counter()
        progress = msgspec.structs.replace(self._progress_of(tp.partition))
        rows = self._load(tp.partition, keys_of(records))
        folded = fold_chunk(
            records,
            rows,
            progress.incarnation,
            progress.watermark_ms,
            start_anew=self.settings.features_after_erasure == "anew",
        )
        progress.watermark_ms = folded.watermark_ms
        progress.next_offset = records[-1].offset + 1
        progress.events_applied += 1
        rows_to_keep = [item for key, touched in folded.touched.items() for item in stored(key, touched.row)]
        rows_to_keep.append((PROGRESS_KEY, encode(progress)))
        try:
            reached = await self._deliver(tp, folded, progress, rows_to_keep)
        except Fenced:
            await self._shut_out(tp)
            return
        if self._is_stale(message):
            # The rows are in the changelog; the new owner replays the same events and has the same rows or better.
            telemetry.FEATURES_STALE_CHUNKS.inc()
            return
        self._progress[tp.partition] = progress
        self._customers[tp.partition] += sum(t.is_known - t.was_known for t in folded.touched.values())
        self._store_of_table().put_many(tp.partition, rows_to_keep, reached)
        consumer.processed[tp] = consumer.expected[tp] = progress.next_offset
        self._count(tp, records, folded, time.perf_counter() - began)

    async def _shut_out(self, tp: TP) -> None:
        """Another writer of the partition was opened, by its new owner or by a worker that was paused.

        What was folded is dropped. If the partition is still ours the chunk is fetched again, and a new writer opened.
        """
        telemetry.FEATURES_FENCED.inc(partition=str(tp.partition))
        log.warning("fenced", partition=tp.partition)
        await self._drop_writer(tp.partition)
        consumer: ChunkConsumer = self.app.consumer
        if tp in consumer.expected and tp in consumer.assignment():
            await consumer.seek(tp, consumer.expected[tp])

    def _is_stale(self, message: Any) -> bool:
        """Whether the partition may have another owner by now."""
        consumer = self.app.consumer
        return bool(
            message.generation_id != self.app.consumer_generation_id
            or not consumer.flow_active
            or message.tp not in consumer.assignment()
            or message.tp not in consumer.expected
        )

    def _store_of_table(self) -> CustomerStore:
        store = self.table.data
        assert isinstance(store, CustomerStore)
        return store

    def _load(self, partition: int, keys: list[bytes]) -> dict[bytes, Row]:
        store = self._store_of_table()
        found = dict(zip(keys, store.get_many(partition, keys), strict=True))
        unknown = [key for key, value in found.items() if value is None]
        found.update(zip(unknown, store.get_many(partition, [erased_key(key) for key in unknown]), strict=True))
        return {key: decode_row(value) for key, value in found.items() if value is not None}

    def _progress_of(self, partition: int) -> Progress:
        """The partition's progress; read once after each assignment."""
        known = self._progress.get(partition)
        if known is None:
            stored = self._store_of_table().get_many(partition, [PROGRESS_KEY])[0]
            known = decode_progress(stored) if stored else new_progress()
            if stored and TP(ORDERS, partition) in self.app.consumer.never_committed:
                # Kafka forgets a group's offsets with a topic: the topic was made anew, and old guards mean nothing.
                # (A worker commits before it first writes, see _writer_of.)
                known.incarnation += 1
                log.warning("source_started_over", partition=partition, incarnation=known.incarnation)
            self._progress[partition] = known
            self._customers[partition] = self._store_of_table().count_customers(partition)
        return known

    async def _deliver(
        self, tp: TP, folded: Folded, progress: Progress, rows_to_keep: list[tuple[bytes, bytes | None]]
    ) -> int | None:
        """Send everything that the chunk causes; once all is acknowledged, the changelog offset reached.

        Raises Fenced if the partition has another writer.
        """
        writer = await self._writer_of(tp)
        await self._send_on(folded.to_send)
        now_ms = int(time.time() * 1000)
        rows: list[Item] = [(key, row, now_ms, []) for key, row in rows_to_keep]
        letters = [_letter(each) for each in folded.rejected]
        return await writer.write(rows, self._features_of(folded, progress), letters)

    async def _send_on(self, to_send: list[ToSend]) -> None:
        """To other customers' rows. Before this chunk's own rows are logged: from these it could not be told again."""
        sent = [
            await self._producer.send(
                ORDERS, key=record.customer_id.encode(), value=encode_order(record), timestamp_ms=timestamp_ms
            )
            for record, timestamp_ms in to_send
        ]
        await asyncio.gather(*sent)

    def _features_of(self, folded: Folded, progress: Progress) -> list[Item]:
        clock_day = self._clock_day(progress)
        items: list[Item] = []
        emitted: list[tuple[bytes, Touched, Row]] = []
        for key, touched in folded.touched.items():
            cause = Cause.ERASED if touched.erased else _gone(key, touched.row)
            if cause is not None:
                items.append((key, None, touched.timestamp_ms, cause_headers(cause)))
            if _gone(key, touched.row) is None and has_ordered((row := _with_parts(touched.row)).state):
                emitted.append((key, touched, row))
        if not emitted:
            return items
        messages = feature_messages(
            [(key, row) for key, _, row in emitted],
            [max(clock_day, touched.last_day) for _, touched, _ in emitted],
            self.bundle.quintiles,
            self.settings.currency,
            self.minor_per_major,
        )
        for (key, touched, _), message in zip(emitted, messages, strict=True):
            items.append((key, message, touched.timestamp_ms, []))
        return items

    def _count(self, tp: TP, records: list[Any], folded: Folded, seconds: float) -> None:
        partition = str(tp.partition)
        telemetry.RECORDS_PROCESSED.inc(len(records), topic=ORDERS)
        telemetry.FEATURES_EMITTED.inc(len(folded.touched), cause="event")
        telemetry.FEATURES_REPLAYED.inc(folded.replayed)
        telemetry.FEATURES_REFUNDS_WAITING.inc(folded.refunds.waiting)
        telemetry.FEATURES_REFUNDS_MATCHED.inc(folded.refunds.matched)
        telemetry.FEATURES_REFUND_EXCESS.inc(folded.refunds.excess)
        telemetry.FEATURES_WATERMARK.set(folded.watermark_ms / 1000, partition=partition)
        telemetry.FEATURES_CUSTOMERS.set(self._customers[tp.partition], partition=partition)
        telemetry.BATCH_SECONDS.observe(seconds, service=SERVICE)
        end = self.app.consumer.highwater(tp)
        if end is not None:
            telemetry.CONSUMER_LAG.set(max(0, end - records[-1].offset - 1), topic=ORDERS, partition=partition)

    # --- clock and refresh -------------------------------------------------------------------------------------------

    def _clock_ms(self, progress: Progress) -> int:
        return progress.watermark_ms if self.settings.features_clock == "event" else int(time.time() * 1000)

    def _clock_day(self, progress: Progress) -> int:
        return self._clock_ms(progress) // DAY_MS

    async def refresh_now(self, as_of_day: int | None) -> list[int]:
        """Begin emitting every customer of this worker's partitions anew, as of a day (the clock's if None).

        As fast as it can, and to the end, whatever restarts. Returns the partitions. Raises ValueError if the day lies
        before what a partition has already seen.
        """
        partitions = self.partitions()
        for partition in partitions:
            seen = self._progress_of(partition).watermark_ms // DAY_MS
            if as_of_day is not None and as_of_day < seen:
                raise ValueError(f"partition {partition} has seen {date_of(seen)}: as_of must not lie before it")
        begun = []
        for partition in partitions:
            async with self._in_hand[partition]:
                progress = msgspec.structs.replace(self._progress_of(partition))
                begin_sweep(progress, self._clock_ms(progress))
                progress.sweep_asked_day = as_of_day or 0
                if await self._move_sweep(partition, progress, []):
                    begun.append(partition)
        return begun

    def refreshing(self) -> dict[int, int]:
        """Customers emitted so far by the sweeps asked for that are not done, by partition."""
        known = {partition: self._progress_of(partition) for partition in self.partitions()}
        return {
            partition: progress.sweep_done
            for partition, progress in known.items()
            if progress.sweep_asked_day is not None
        }

    async def _sweep_forever(self) -> None:
        while True:
            await asyncio.sleep(0.001 if self.refreshing() else SWEEP_TICK_SECONDS)
            try:
                for partition in self.partitions():
                    async with self._in_hand[partition]:
                        await self._sweep_slice(partition)
            except Exception as error:  # noqa: BLE001 - ends the process
                self._fail(error)
                return

    async def _sweep_slice(self, partition: int) -> None:
        if partition not in self.partitions():
            return
        progress = self._progress_of(partition)
        asked_day = progress.sweep_asked_day
        now_ms = self._clock_ms(progress)
        telemetry.FEATURES_REFRESH_AGE.set(
            max(0, now_ms - progress.sweep_started_ms) / 1000 if progress.sweep_cursor is not None else 0,
            partition=str(partition),
        )
        due = SLICE_CUSTOMERS_MAX
        if asked_day is None:
            due = self._pacer.due(partition, progress, now_ms, self._customers[partition])
        if due == 0:
            return
        ahead = self._store_of_table().customers_after(partition, progress.sweep_cursor or b"", due + 1)
        found, at_end = ahead[:due], len(ahead) <= due
        progress = msgspec.structs.replace(progress)
        known = [(key, decode_row(value)) for key, value in found]
        rows = [(key, _with_parts(row)) for key, row in known if _gone(key, row) is None]
        rows = [(key, row) for key, row in rows if has_ordered(row.state)]
        last_key = None if at_end else found[-1][0]
        self._pacer.advance(progress, last_key, len(found), now_ms, self._customers[partition])
        if at_end:
            progress.sweep_asked_day = None
        day = max(self._clock_day(progress), asked_day or 0)
        stamp_ms = int(time.time() * 1000)
        items: list[Item] = []
        if rows:
            messages = feature_messages(
                rows, [day] * len(rows), self.bundle.quintiles, self.settings.currency, self.minor_per_major
            )
            items = [(key, message, stamp_ms, []) for (key, _), message in zip(rows, messages, strict=True)]
        if await self._move_sweep(partition, progress, items):
            telemetry.FEATURES_EMITTED.inc(len(items), cause="refresh")

    async def _move_sweep(self, partition: int, progress: Progress, items: list[Item]) -> bool:
        """Send what a slice emits, then log where the sweep stands. False if the partition is not ours any more."""
        progress.events_applied += 1
        generation, tp = self.app.consumer_generation_id, TP(ORDERS, partition)
        try:
            writer = await self._writer_of(tp)
            if items:  # before the sweep moves on in the changelog: a kill in between repeats a slice, and skips none
                await writer.write((), items)
            reached = await writer.write([(PROGRESS_KEY, encode(progress), int(time.time() * 1000), [])], ())
        except Fenced:
            await self._shut_out(tp)
            return False
        if generation != self.app.consumer_generation_id:
            return False
        self._progress[partition] = progress
        self._store_of_table().put_many(partition, [(PROGRESS_KEY, encode(progress))], reached)
        return True


def _gone(key: bytes, row: Row) -> Cause | None:
    """Why there is nothing to predict for the customer any more, or None."""
    if is_forgotten(row):
        return Cause.ERASED
    return None if survivor(key.decode(), row) is None else Cause.MERGED


def _with_parts(row: Row) -> Row:
    """The row as features see it: with what merged customers brought along."""
    return row if row.links is None else Row(row.events_applied, row.incarnation, row.offset, known_state(row))


def _letter(rejected: Rejected) -> DeadLetter:
    letter = letter_of(rejected.record, rejected.reason, rejected.detail, SERVICE)
    if rejected.reason is Reason.CUSTOMER_ERASED:  # what came would be of the customer who is to be forgotten
        letter = msgspec.structs.replace(letter, key=None, value=b"", original_headers=[])
    return letter
