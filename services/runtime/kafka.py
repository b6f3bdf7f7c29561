"""Kafka clients as this product uses them: idempotent producers, all replicas; consumers that commit by hand.

Must never commit an offset itself before the caller's effects are acknowledged.
"""

import asyncio
import time
from collections.abc import Iterable, Sequence
from typing import Literal

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaConnectionError, KafkaError, TopicAlreadyExistsError, for_code

from schemas.dead_letters import Headers
from schemas.topics import Topic
from services.runtime.shutdown import KnownProblem

MAX_REQUEST_BYTES = 9 * 1024 * 1024
"""Room for the largest dead letter: an original of 8 MiB and its headers."""


async def wait_for_kafka(bootstrap_servers: str, wait_seconds: float) -> None:
    """Return once a broker answers. Raises KnownProblem after wait_seconds."""
    deadline = time.monotonic() + wait_seconds
    while True:
        admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers, request_timeout_ms=5000)
        try:
            await admin.start()
            return
        except (KafkaConnectionError, KafkaError, OSError) as error:
            if time.monotonic() > deadline:
                raise KnownProblem(
                    f"no Kafka broker answers at {bootstrap_servers}: start it, or set CLV_KAFKA_BOOTSTRAP_SERVERS"
                ) from error
            await asyncio.sleep(0.5)
        finally:
            await admin.close()


REPLICAS = 3
"""Of each topic, or as many as there are brokers. All but one must have a record before it is acknowledged, so that any
one broker can be lost."""


async def create_topics(bootstrap_servers: str, topics: Iterable[Topic]) -> list[str]:
    """Create those declared topics that do not exist; returns their names.

    With REPLICAS, whatever the brokers' default is (Kafka's own is one). Raises KnownProblem if an existing topic has
    another number of partitions: customers would move between partitions, and their state would not.
    """
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers)
    await admin.start()
    try:
        wanted = {topic.name: topic for topic in topics}
        existing = set(await admin.list_topics())
        for described in await admin.describe_topics(sorted(existing & wanted.keys())):
            found, declared = len(described["partitions"]), wanted[described["topic"]].partitions
            if found != declared:
                raise KnownProblem(f"topic {described['topic']} has {found} partitions, but {declared} are declared")
        replicas = min(REPLICAS, len((await admin.describe_cluster())["brokers"]))
        in_sync = {"min.insync.replicas": str(max(1, replicas - 1))}
        created = []
        for topic in wanted.values():
            if topic.name in existing:
                continue
            response = await admin.create_topics(
                [NewTopic(topic.name, topic.partitions, replicas, topic_configs=topic.broker_config() | in_sync)]
            )
            for name, code, *_ in response.topic_errors:
                if code not in (0, TopicAlreadyExistsError.errno):
                    raise KnownProblem(f"cannot create topic {name}: {for_code(code).__name__}")
            created.append(topic.name)
        return created
    finally:
        await admin.close()


def new_producer(bootstrap_servers: str, client_id: str, transactional_id: str | None = None) -> AIOKafkaProducer:
    """A producer that waits for all in-sync replicas and cannot duplicate by retrying. Not started.

    transactional_id: of several producers with the same one, Kafka takes writes of the last started only.
    """
    return AIOKafkaProducer(
        bootstrap_servers=bootstrap_servers,
        client_id=client_id,
        transactional_id=transactional_id,
        acks="all",
        enable_idempotence=True,
        linger_ms=5,
        max_batch_size=1 << 20,
        max_request_size=MAX_REQUEST_BYTES,
    )


def new_consumer(
    bootstrap_servers: str,
    client_id: str,
    group: str | None,
    max_poll_records: int = 5000,
    offset_reset: Literal["earliest", "none"] = "earliest",
) -> AIOKafkaConsumer:
    """A consumer that starts at the earliest record, and commits only when told. Not started.

    offset_reset: where it goes on when its offset is not there (any more); none: it raises OffsetOutOfRangeError.
    """
    return AIOKafkaConsumer(
        bootstrap_servers=bootstrap_servers,
        client_id=client_id,
        group_id=group,
        enable_auto_commit=False,
        auto_offset_reset=offset_reset,
        isolation_level="read_committed",
        max_poll_records=max_poll_records,
        max_partition_fetch_bytes=MAX_REQUEST_BYTES,
        session_timeout_ms=10_000,
        heartbeat_interval_ms=3_000,
    )


Item = tuple[bytes | None, bytes | None, int | None, Headers]
"""Key, value, timestamp in milliseconds (None is now), headers."""


async def send_batches(
    producer: AIOKafkaProducer, topic: str, partition: int, items: Sequence[Item]
) -> list[asyncio.Future[object]]:
    """Append items to as few record batches as fit, in order; returns the futures of their acknowledgements.

    Far cheaper than a send per message. Raises ValueError if one item alone is larger than a batch may be.
    """
    futures: list[asyncio.Future[object]] = []

    async def send() -> None:
        batch.close()
        future = await producer.send_batch(batch, topic, partition=partition)
        future.add_done_callback(_seen)
        futures.append(future)

    batch = producer.create_batch()
    for key, value, timestamp_ms, headers in items:
        if batch.append(key=key, value=value, timestamp=timestamp_ms, headers=headers) is None:
            await send()
            batch = producer.create_batch()
            if batch.append(key=key, value=value, timestamp=timestamp_ms, headers=headers) is None:
                raise ValueError(f"a message of {len(value or b'')} bytes does not fit into a batch for {topic}")
    if batch.record_count():
        await send()
    return futures


def _seen(future: asyncio.Future[object]) -> None:
    """Look at what a send came to: a caller who gave up at an earlier failure will not, and asyncio would complain."""
    if not future.cancelled():
        future.exception()
