"""What a run left behind: every record of the topics, and every document. Read as any other client would.

Must never read what was not committed, nor judge: that is compare.py.
"""

import asyncio
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from aiokafka import TopicPartition
from pymongo import MongoClient

from cli.lag import PARTITIONS
from schemas.mongo import CUSTOMERS, PREDICTION_HISTORY
from schemas.topics import CUSTOMER_FEATURES, CUSTOMER_STATE_CHANGELOG, DEAD_LETTERS, ORDERS, PREDICTIONS
from services.runtime.kafka import new_consumer
from services.runtime.shutdown import KnownProblem

_READ_SECONDS_MAX = 120.0
Document = Mapping[str, Any]


class Record(NamedTuple):
    """A Kafka record."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Mapping[str, bytes]


class Evidence(NamedTuple):
    """All that a run left behind; records of each topic by partition and in offset order."""

    orders: list[Record]
    changelog: list[Record]
    features: list[Record]
    predictions: list[Record]
    dead_letters: list[Record]
    customers: list[Document]
    history: list[Document]


async def gather_evidence(bootstrap_servers: str, mongo_uri: str, database: str) -> Evidence:
    """Read everything. Raises KnownProblem if a topic cannot be read to its end."""
    names = (ORDERS, CUSTOMER_STATE_CHANGELOG, CUSTOMER_FEATURES, PREDICTIONS, DEAD_LETTERS)
    orders, changelog, features, predictions, letters = [await _records(bootstrap_servers, name) for name in names]
    customers, past = await asyncio.to_thread(_documents, mongo_uri, database)
    return Evidence(orders, changelog, features, predictions, letters, customers, past)


def _documents(mongo_uri: str, database: str) -> tuple[list[Document], list[Document]]:
    client: MongoClient[dict[str, Any]]
    with MongoClient(mongo_uri, readConcernLevel="majority") as client:
        return list(client[database][CUSTOMERS].find()), list(client[database][PREDICTION_HISTORY].find())


async def _records(bootstrap_servers: str, topic: str) -> list[Record]:
    consumer = new_consumer(bootstrap_servers, "clv-chaos-reader", None)
    await consumer.start()
    try:
        partitions = [TopicPartition(topic, number) for number in range(PARTITIONS[topic])]
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)
        await consumer.seek_to_beginning(*partitions)
        found: dict[int, list[Record]] = {partition.partition: [] for partition in partitions}
        deadline = time.monotonic() + _READ_SECONDS_MAX
        left = [partition for partition in partitions if ends[partition] > 0]
        while left:
            if time.monotonic() > deadline:
                raise KnownProblem(f"{topic} cannot be read to its end within {_READ_SECONDS_MAX:.0f} s: {left}")
            for partition, records in (await consumer.getmany(timeout_ms=200, max_records=20_000)).items():
                found[partition.partition] += [
                    Record(each.partition, each.offset, each.key, each.value, dict(each.headers)) for each in records
                ]
            # By position, since the last offsets may be marks of transactions, which are no records.
            left = [partition for partition in left if await consumer.position(partition) < ends[partition]]
        return [record for number in sorted(found) for record in found[number]]
    finally:
        await consumer.stop()
