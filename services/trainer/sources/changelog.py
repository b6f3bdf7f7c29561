"""Training data from the stream: the compacted changelog of the feature workers' table, whose rows hold everybody's
orders. (The orders topic itself keeps 30 days alone, so that nobody's events outlive an erasure.)

Must never join a consumer group, commit an offset, or read past the end that there was at the start.
"""

import asyncio
from datetime import date

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError, UnknownTopicOrPartitionError

from domain.features import day_of
from schemas.topics import CUSTOMER_STATE_CHANGELOG, ORDERS
from services.runtime.kafka import new_consumer, wait_for_kafka
from services.runtime.shutdown import KnownProblem
from services.trainer.history import History
from services.trainer.progress import Progress, silent
from services.trainer.sources import TrainingData
from services.trainer.sources.rows import KnownRows, minor_units_of

CLIENT_ID = "clv-trainer"
KAFKA_WAIT_SECONDS = 5.0
_SILENT_SECONDS_MAX = 30.0


def from_topic(bootstrap_servers: str, cutoff: date, currency: str, progress: Progress = silent) -> TrainingData:
    """What the feature workers know of everybody before the cutoff (UTC). currency: the platform's reporting currency.

    Raises KnownProblem if Kafka or the topic is not there, or if there is no such currency.
    """
    minor_per_major, cutoff_day = minor_units_of(currency), day_of(cutoff)
    rows = KnownRows()
    try:
        ends_of_orders = asyncio.run(_read(bootstrap_servers, rows, progress))
    except KafkaError as error:
        raise KnownProblem(f"Kafka at {bootstrap_servers}: {error!r}"[:300]) from None
    history = History(rows.customers(progress), cutoff_day, minor_per_major)
    behind = sum(
        max(0, end - (rows.progress[partition].next_offset if partition in rows.progress else 0))
        for partition, end in ends_of_orders.items()
    )
    return TrainingData(CUSTOMER_STATE_CHANGELOG, currency, history, rows.rejected, behind=behind)


async def _read(bootstrap_servers: str, rows: KnownRows, progress: Progress) -> dict[int, int]:
    """Take in all rows of the changelog; returns the end of each partition of orders, as it was before."""
    await wait_for_kafka(bootstrap_servers, KAFKA_WAIT_SECONDS)
    consumer = new_consumer(bootstrap_servers, CLIENT_ID, None)
    consumer.subscribe([CUSTOMER_STATE_CHANGELOG, ORDERS])  # without a group: all partitions
    try:
        try:
            await consumer.start()
        except UnknownTopicOrPartitionError:
            raise KnownProblem(
                f"Kafka at {bootstrap_servers} does not have {CUSTOMER_STATE_CHANGELOG} and {ORDERS}: "
                "is it the right one?"
            ) from None
        ends = await consumer.end_offsets(sorted(consumer.assignment()))
        changelog = {each: end for each, end in ends.items() if each.topic == CUSTOMER_STATE_CHANGELOG}
        consumer.unsubscribe()
        consumer.assign(list(changelog))
        await _read_until(consumer, changelog, rows, progress)
        return {each.partition: end for each, end in ends.items() if each.topic == ORDERS}
    finally:
        await consumer.stop()


async def _read_until(
    consumer: AIOKafkaConsumer, ends: dict[TopicPartition, int], rows: KnownRows, progress: Progress
) -> None:
    begins = await consumer.beginning_offsets(list(ends))
    await consumer.seek_to_beginning(*ends)
    total = sum(end - begins[each] for each, end in ends.items())
    loop = asyncio.get_running_loop()
    heard_at, done = loop.time(), -1
    while True:
        places = {each: await consumer.position(each) for each in ends}
        before, done = done, sum(min(places[each], ends[each]) - begins[each] for each in ends)
        progress("rows read", done, total)
        unread = [each for each, end in ends.items() if places[each] < end]
        if not unread:
            return
        if done > before:
            heard_at = loop.time()
        elif loop.time() - heard_at > _SILENT_SECONDS_MAX:
            raise KnownProblem(f"Kafka sent nothing for {_SILENT_SECONDS_MAX:g} s: try again")
        for partition, batch in (await consumer.getmany(*unread, timeout_ms=200)).items():
            for record in batch:
                if record.offset < ends[partition] and record.key is not None:
                    rows.take(record.key, record.value, record.partition)
