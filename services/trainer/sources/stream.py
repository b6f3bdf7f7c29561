"""Training data from the stream: the compacted changelog of the feature workers' table, whose rows hold everybody's
orders, as a snapshot, and then `orders` from where the workers have come to. (`orders` alone keeps 30 days, so that
nobody's events outlive an erasure.)

Must never join a consumer group, commit an offset, or read past the ends that there were at the start.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import date

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from domain.features import day_of
from schemas.topics import CUSTOMER_STATE_CHANGELOG, ORDERS
from services.folding import GROUP
from services.runtime.kafka import new_consumer, wait_for_kafka
from services.runtime.shutdown import KnownProblem
from services.trainer.history import History
from services.trainer.progress import Progress, silent
from services.trainer.sources import TrainingData
from services.trainer.sources.rows import KnownRows, minor_units_of
from services.trainer.sources.tail import Tail, start_of

CLIENT_ID = "clv-trainer"
KAFKA_WAIT_SECONDS = 5.0
_SILENT_SECONDS_MAX = 30.0
_GROUP_WAIT_SECONDS = 10.0

Offsets = Mapping[TopicPartition, int]
Take = Callable[[TopicPartition, Sequence[ConsumerRecord]], None]


def from_topic(
    bootstrap_servers: str, cutoff: date, currency: str, progress: Progress = silent, *, start_anew: bool = False
) -> TrainingData:
    """What the stream says of everybody before the cutoff (UTC), whether or not feature workers have ever run.

    currency: the platform's reporting currency. start_anew: as the feature workers are set
    (CLV_FEATURES_AFTER_ERASURE): whether orders of an erased customer after the erasure begin a new one. Raises
    KnownProblem if Kafka or the topic is not there, or if there is no such currency.
    """
    minor_per_major, cutoff_day = minor_units_of(currency), day_of(cutoff)
    rows = KnownRows()
    tail = Tail(rows, start_anew=start_anew)
    try:
        missing = asyncio.run(_read(bootstrap_servers, rows, tail, progress))
    except KafkaError as error:
        raise KnownProblem(f"Kafka at {bootstrap_servers}: {error!r}"[:300]) from None
    tail.settle()
    history = History(rows.customers(progress), cutoff_day, minor_per_major)
    return TrainingData(ORDERS, currency, history, rows.rejected + tail.rejected, missing=missing)


async def _read(bootstrap_servers: str, rows: KnownRows, tail: Tail, progress: Progress) -> int:
    """Take in all rows of the changelog and fold the orders after them; how many orders are missing in between."""
    await wait_for_kafka(bootstrap_servers, KAFKA_WAIT_SECONDS)
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers, client_id=CLIENT_ID)
    consumer = new_consumer(bootstrap_servers, CLIENT_ID, None)
    try:
        await admin.start()
        await consumer.start()
        changelog, orders = await _partitions(admin, bootstrap_servers)
        # In this order: what is committed is logged by now, and what a row of the changelog has sent on to another
        # customer's is on `orders` by the time that the row is logged.
        committed = await _committed(admin, orders)
        ends_of_changelog = await consumer.end_offsets(changelog) if changelog else {}
        ends = await consumer.end_offsets(orders)

        def take(partition: TopicPartition, records: Sequence[ConsumerRecord]) -> None:
            for record in records:
                if record.key is not None:
                    rows.take(record.key, record.value, partition.partition)

        begins_of_changelog = await consumer.beginning_offsets(changelog) if changelog else {}
        await _read_through(consumer, begins_of_changelog, ends_of_changelog, take, progress, "rows read")

        begins = await consumer.beginning_offsets(orders)
        starts = {
            each: start_of(
                rows.progress.get(each.partition), committed=committed[each], begin=begins[each], end=ends[each]
            )
            for each in orders
        }

        def fold(partition: TopicPartition, records: Sequence[ConsumerRecord]) -> None:
            tail.fold(records, starts[partition].incarnation)

        offsets = {each: start.offset for each, start in starts.items()}
        await _read_through(consumer, offsets, ends, fold, progress, "orders read that are in no row yet")
        return sum(start.missing for start in starts.values())
    finally:
        await consumer.stop()
        await admin.close()


async def _partitions(
    admin: AIOKafkaAdminClient, bootstrap_servers: str
) -> tuple[list[TopicPartition], list[TopicPartition]]:
    """Those of the changelog, none where there is no such topic, and those of `orders`."""
    there = set(await admin.list_topics())
    if ORDERS not in there:
        raise KnownProblem(f"Kafka at {bootstrap_servers} does not have {ORDERS}: is it the right one?")
    found: dict[str, list[TopicPartition]] = {CUSTOMER_STATE_CHANGELOG: [], ORDERS: []}
    for topic in await admin.describe_topics(sorted(there & found.keys())):
        found[topic["topic"]] = [TopicPartition(topic["topic"], each["partition"]) for each in topic["partitions"]]
    return found[CUSTOMER_STATE_CHANGELOG], found[ORDERS]


async def _committed(admin: AIOKafkaAdminClient, orders: Sequence[TopicPartition]) -> dict[TopicPartition, bool]:
    """Of each partition, whether the feature workers have ever committed an offset."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _GROUP_WAIT_SECONDS
    while True:
        try:
            found = await admin.list_consumer_group_offsets(GROUP, partitions=orders)
            # Kafka leaves out, or gives -1 for, what a group has not committed; the former if there is no such group.
            return {each: each in found and found[each].offset >= 0 for each in orders}
        except KafkaError as error:  # where no group ever was, Kafka makes its topic of groups first
            if not error.retriable or loop.time() > deadline:
                raise
            await asyncio.sleep(0.2)


async def _read_through(
    consumer: AIOKafkaConsumer, starts: Offsets, ends: Offsets, take: Take, progress: Progress, what: str
) -> None:
    """Take in each partition's records from its start until before its end, in offset order."""
    wanted = [each for each, end in ends.items() if starts[each] < end]
    if not wanted:
        return
    consumer.assign(wanted)
    for each in wanted:
        consumer.seek(each, starts[each])
    total = sum(ends[each] - starts[each] for each in wanted)
    loop = asyncio.get_running_loop()
    heard_at, done = loop.time(), -1
    while True:
        places = {each: await consumer.position(each) for each in wanted}
        before, done = done, sum(min(places[each], ends[each]) - starts[each] for each in wanted)
        progress(what, done, total)
        unread = [each for each in wanted if places[each] < ends[each]]
        if not unread:
            return
        if done > before:
            heard_at = loop.time()
        elif loop.time() - heard_at > _SILENT_SECONDS_MAX:
            raise KnownProblem(f"Kafka sent nothing for {_SILENT_SECONDS_MAX:g} s: try again")
        for partition, batch in (await consumer.getmany(*unread, timeout_ms=200)).items():
            take(partition, [record for record in batch if record.offset < ends[partition]])
