"""Reading whole topics, from the beginning to the present end, for the commands that list, replay, export and erase.

Must never join a consumer group or commit an offset.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import UnknownTopicOrPartitionError

from services.runtime.kafka import new_consumer, wait_for_kafka
from services.runtime.shutdown import KnownProblem

CLIENT_ID = "clv-cli"
_ANSWER_SECONDS_MAX = 10.0


@asynccontextmanager
async def topics_reader(bootstrap_servers: str, topics: Sequence[str]) -> AsyncIterator[AIOKafkaConsumer]:
    """A consumer of all partitions of the topics, of what is committed. Raises KnownProblem if one is missing."""
    await wait_for_kafka(bootstrap_servers, 0.0)
    consumer = new_consumer(bootstrap_servers, CLIENT_ID, None, max_poll_records=500)
    consumer.subscribe(list(topics))  # without a group: all partitions
    try:
        try:
            await consumer.start()
        except UnknownTopicOrPartitionError:
            raise KnownProblem(
                f"Kafka at {bootstrap_servers} does not have {' and '.join(topics)}: is it the right one?"
            ) from None
        yield consumer
    finally:
        await consumer.stop()


async def present_ends(reader: AIOKafkaConsumer) -> dict[TopicPartition, int]:
    """The present end of each partition: the offset after the last record that is committed."""
    ends: dict[TopicPartition, int] = await reader.end_offsets(list(reader.assignment()))
    return ends


async def records_until(
    reader: AIOKafkaConsumer, ends: dict[TopicPartition, int], *, from_beginning: bool = True
) -> AsyncIterator[ConsumerRecord]:
    """All records from the beginning (or from where the reader is) up to `ends`, in order within a partition."""
    if from_beginning:
        await reader.seek_to_beginning(*ends)
    loop = asyncio.get_running_loop()
    heard_at = loop.time()
    unread = {each for each in ends if await reader.position(each) < ends[each]}
    while unread:
        fetched = await reader.getmany(*unread, timeout_ms=200)
        for partition, batch in fetched.items():
            for record in batch:
                if record.offset < ends[partition]:
                    yield record
        now = loop.time()
        left = {each for each in unread if await reader.position(each) < ends[each]}
        if fetched or left != unread:
            heard_at = now
        elif now - heard_at > _ANSWER_SECONDS_MAX:
            raise KnownProblem(f"Kafka sent nothing for {_ANSWER_SECONDS_MAX:g} s: try again")
        unread = left
