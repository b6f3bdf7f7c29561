"""The feature worker: chunks of orders in, changelog rows and customer-features out, in the one safe order.

Per chunk: fold → send changelog and features → wait for both acknowledgements → write the local store → mark the
offsets processed. Must never mark, store or commit what Kafka has not acknowledged, and must end the process rather
than skip when it cannot go on.
"""

import asyncio
import time
from collections import defaultdict
from typing import Any

import faust
from aiokafka import AIOKafkaProducer
from faust.types import TP

from domain.customer import DAY_MS, has_ordered
from domain.features import date_of
from schemas.currencies import minor_per_major
from schemas.topics import CUSTOMER_FEATURES, CUSTOMER_STATE_CHANGELOG, ORDERS, topic
from services.features.chunks import ChunkConsumer, ChunkTransport, PassThrough
from services.features.emit import feature_messages
from services.features.fold import Folded, fold_chunk, keys_of
from services.features.refresh import SLICE_CUSTOMERS_MAX, advance_sweep, begin_sweep, customers_due
from services.features.rows import PROGRESS_KEY, Progress, Row, decode_progress, decode_row, encode, new_progress
from services.features.settings import FeaturesSettings
from services.features.table import CustomerStore, CustomerTable
from services.runtime import telemetry
from services.runtime.bundle import BundleHead, current_bundle, read_head
from services.runtime.dead_letter import letter_of, send_dead_letter
from services.runtime.kafka import Item, new_producer, send_batches
from services.runtime.logs import logger
from services.runtime.shutdown import KnownProblem

log = logger(__name__)

SERVICE = "features"
GROUP = "clv-features"
FETCH_BYTES_MAX = 8 << 20
"""Of one partition: several chunks, so that the worker does not wait for a fetch after each."""
BUNDLE_POLL_SECONDS = 5.0
SWEEP_TICK_SECONDS = 0.5


class FeatureWorker:
    """Owns the Faust app, its table and the producer of everything that this service writes."""

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
        self._asked: set[int] = set()  # partitions whose running sweep was asked for: it goes as fast as it can
        self._asked_as_of_day: int | None = None
        self._producer: AIOKafkaProducer = new_producer(settings.kafka_bootstrap_servers, GROUP)
        self.app = self._build_app()
        self.table = self._build_table()
        self.app.agent(self._orders_topic(), name="orders")(self._fold_chunks)
        self.app.on_partitions_revoked.connect(self._let_go)

    # --- composition -------------------------------------------------------------------------------------------------

    def _build_app(self) -> faust.App:
        settings = self.settings
        brokers = ";".join(f"kafka://{server.strip()}" for server in settings.kafka_bootstrap_servers.split(","))
        app = faust.App(
            GROUP,
            broker=brokers,
            store="rocksdb://",
            datadir=str(settings.features_data_dir),
            topic_partitions=topic("orders").partitions,
            topic_allow_declare=False,
            topic_disable_leader=True,
            broker_max_poll_records=settings.features_chunk_records,
            consumer_max_fetch_size=FETCH_BYTES_MAX,
            broker_commit_interval=settings.features_commit_seconds,
            broker_session_timeout=10.0,
            broker_heartbeat_interval=3.0,
            consumer_auto_offset_reset="earliest",
            stream_buffer_maxsize=8,
            stream_wait_empty=False,
            stream_recovery_delay=0.0,
            table_standby_replicas=0,
            web_enabled=False,
            Table=CustomerTable,
        )
        app.transport = ChunkTransport(app.conf.broker_consumer, app, source_topic=ORDERS)
        return app

    def _orders_topic(self) -> Any:
        return self.app.topic(ORDERS, schema=PassThrough(), partitions=topic("orders").partitions)

    def _build_table(self) -> CustomerTable:
        raw = faust.Schema(key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw")
        partitions = topic("customer-state-changelog").partitions
        table: CustomerTable = self.app.Table(
            "customers",
            partitions=partitions,
            schema=raw,
            key_type=bytes,
            value_type=bytes,
            recovery_buffer_size=2000,
            changelog_topic=self.app.topic(
                CUSTOMER_STATE_CHANGELOG, schema=raw, partitions=partitions, compacting=True
            ),
            options={
                "driver": "rocksdict",
                "block_cache_size": self.settings.features_block_cache_bytes,
                "block_cache_compressed_size": 1 << 20,
                "write_buffer_size": self.settings.features_write_buffer_bytes,
                "max_write_buffer_number": 2,
            },
        )
        return table

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
            await self._producer.stop()
            for task in ending:
                task.cancel()
        if self.failure is not None:
            raise self.failure
        if self.app.crash_reason is not None:
            raise self.app.crash_reason

    def not_ready(self) -> str | None:
        """Why the worker does not process orders yet, or None."""
        if self.app.consumer is None or not self.app.consumer.assignment():
            return "no partitions assigned yet"
        if self.app.rebalancing or not self.app.tables.recovery.completed.is_set():
            return "recovering state from the changelog"
        return None

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
        self._progress.clear()
        self._customers.clear()

    async def _chunks_done(self) -> None:
        if self._chunks:
            await asyncio.wait(self._chunks.values())

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
        progress = self._progress_of(tp.partition)
        rows = self._load(tp.partition, keys_of(records))
        folded = fold_chunk(records, rows, progress.incarnation, progress.watermark_ms)
        progress.watermark_ms = folded.watermark_ms
        progress.next_offset = records[-1].offset + 1
        progress.events_applied += 1
        rows_to_keep = [(key, encode(touched.row)) for key, touched in folded.touched.items()]
        rows_to_keep.append((PROGRESS_KEY, encode(progress)))
        reached = await self._deliver(tp.partition, folded, progress, rows_to_keep)
        if self._is_stale(message):
            # The rows are in the changelog; the new owner replays the same events and has the same rows or better.
            telemetry.FEATURES_STALE_CHUNKS.inc()
            return
        self._customers[tp.partition] += sum(1 for t in folded.touched.values() if t.row.events_applied == 1)
        self._store_of_table().put_many(tp.partition, rows_to_keep, reached)
        consumer.processed[tp] = consumer.expected[tp] = progress.next_offset
        self._count(tp, records, folded, time.perf_counter() - began)

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
        values = self._store_of_table().get_many(partition, keys)
        return {key: decode_row(value) for key, value in zip(keys, values, strict=True) if value is not None}

    def _progress_of(self, partition: int) -> Progress:
        """The partition's progress; read once after each assignment."""
        known = self._progress.get(partition)
        if known is None:
            stored = self._store_of_table().get_many(partition, [PROGRESS_KEY])[0]
            known = decode_progress(stored) if stored else new_progress()
            if stored and TP(ORDERS, partition) in self.app.consumer.never_committed:
                # Kafka forgets a group's offsets with a topic: the topic was made anew, and old guards mean nothing.
                # (Or the worker died before its first commit: then order ids alone make the repetition harmless.)
                known.incarnation += 1
                log.warning("source_started_over", partition=partition, incarnation=known.incarnation)
            self._progress[partition] = known
            self._customers[partition] = self._store_of_table().count_customers(partition)
        return known

    async def _deliver(
        self, partition: int, folded: Folded, progress: Progress, rows_to_keep: list[tuple[bytes, bytes]]
    ) -> int | None:
        """Send changelog rows, features and dead letters; once all are acknowledged, the changelog offset reached."""
        now_ms = int(time.time() * 1000)
        rows: list[Item] = [(key, row, now_ms, []) for key, row in rows_to_keep]
        features = self._features_of(folded, progress)
        changelog, acks = await asyncio.gather(
            send_batches(self._producer, CUSTOMER_STATE_CHANGELOG, partition, rows),
            send_batches(self._producer, CUSTOMER_FEATURES, partition, features),
        )
        for record, reason, detail in folded.rejected:
            letter = letter_of(record, reason, detail, SERVICE)
            acks.append(await send_dead_letter(self._producer, letter))
        written = await asyncio.gather(*changelog)
        await asyncio.gather(*acks)
        return _last_offset(written, len(rows))

    def _features_of(self, folded: Folded, progress: Progress) -> list[Item]:
        clock_day = self._clock_day(progress)
        emitted = [(key, t) for key, t in folded.touched.items() if has_ordered(t.row.state)]
        if not emitted:
            return []
        messages = feature_messages(
            [(key, touched.row) for key, touched in emitted],
            [max(clock_day, touched.last_day) for _, touched in emitted],
            self.bundle.quintiles,
            self.settings.currency,
            self.minor_per_major,
        )
        return [(key, message, t.timestamp_ms, []) for (key, t), message in zip(emitted, messages, strict=True)]

    def _count(self, tp: TP, records: list[Any], folded: Folded, seconds: float) -> None:
        partition = str(tp.partition)
        telemetry.RECORDS_PROCESSED.inc(len(records), topic=ORDERS)
        telemetry.FEATURES_EMITTED.inc(len(folded.touched), cause="event")
        telemetry.FEATURES_REPLAYED.inc(folded.replayed)
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

        Returns the partitions. Raises ValueError if the day lies before what a partition has already seen.
        """
        partitions = self.partitions()
        for partition in partitions:
            seen = self._progress_of(partition).watermark_ms // DAY_MS
            if as_of_day is not None and as_of_day < seen:
                raise ValueError(f"partition {partition} has seen {date_of(seen)}: as_of must not lie before it")
        self._asked_as_of_day = as_of_day
        for partition in partitions:
            async with self._in_hand[partition]:
                progress = self._progress_of(partition)
                begin_sweep(progress, self._clock_ms(progress))
                self._asked.add(partition)
        return partitions

    def refreshing(self) -> dict[int, int]:
        """Customers emitted so far by the sweeps asked for that are not done, by partition."""
        return {
            partition: self._progress[partition].sweep_done for partition in self._asked if partition in self._progress
        }

    async def _sweep_forever(self) -> None:
        while True:
            await asyncio.sleep(0.001 if self._asked else SWEEP_TICK_SECONDS)
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
        progress, asked = self._progress_of(partition), partition in self._asked
        now_ms = self._clock_ms(progress)
        telemetry.FEATURES_REFRESH_AGE.set(
            max(0, now_ms - progress.sweep_started_ms) / 1000 if progress.sweep_cursor is not None else 0,
            partition=str(partition),
        )
        due = (
            SLICE_CUSTOMERS_MAX
            if asked
            else customers_due(progress, now_ms, self._customers[partition], self.settings.features_refresh_seconds)
        )
        if due == 0:
            return
        found = self._store_of_table().customers_after(partition, progress.sweep_cursor or b"", due)
        rows = [(key, row) for key, value in found if has_ordered((row := decode_row(value)).state)]
        advance_sweep(progress, found[-1][0] if len(found) == due else None, len(found))
        if asked and len(found) < due:
            self._asked.discard(partition)
        progress.events_applied += 1
        day = max(self._clock_day(progress), self._asked_as_of_day or 0) if asked else self._clock_day(progress)
        stamp_ms = int(time.time() * 1000)
        items: list[Item] = []
        if rows:
            messages = feature_messages(
                rows, [day] * len(rows), self.bundle.quintiles, self.settings.currency, self.minor_per_major
            )
            items = [(key, message, stamp_ms, []) for (key, _), message in zip(rows, messages, strict=True)]
        generation = self.app.consumer_generation_id
        logged: list[Item] = [(PROGRESS_KEY, encode(progress), stamp_ms, [])]
        changelog = await send_batches(self._producer, CUSTOMER_STATE_CHANGELOG, partition, logged)
        written = await asyncio.gather(*changelog)
        await asyncio.gather(*await send_batches(self._producer, CUSTOMER_FEATURES, partition, items))
        if generation == self.app.consumer_generation_id:
            self._store_of_table().put_many(partition, [(PROGRESS_KEY, encode(progress))], _last_offset(written, 1))
        telemetry.FEATURES_EMITTED.inc(len(items), cause="refresh")


def _last_offset(written: list[Any], count: int) -> int | None:
    """Offset of the last of `count` records that were sent in order as the given acknowledged batches.

    Exact when nobody else wrote in between, as it should be; else too low, which only makes recovery read a little
    again. None if Kafka did not say (a batch that it had already, from a retry).
    """
    first = min(int(metadata.offset) for metadata in written)
    return first + count - 1 if first >= 0 else None
