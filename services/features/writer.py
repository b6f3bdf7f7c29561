"""Everything that a worker writes for one partition, fenced: who lost the partition can write nothing more.

Kafka gives each producer that starts with a partition's transactional id a higher epoch than the one before, and a
broker refuses a lower epoch once it has seen a higher one. So after the new owner's first write, nothing of a worker
that was paused or cut off can follow it: neither a later record nor, after compaction, the only one. Transactions
themselves are not used: a row is a function of its events, so half a chunk is harmless, and the markers of transactions
would fill the topics (docs/adr/0004).

Must never open a writer without asking the group afterwards whether the partition is still this worker's.
"""

import asyncio
import time
from collections.abc import Sequence

from aiokafka import AIOKafkaProducer
from aiokafka.errors import ProducerClosed, ProducerFenced

from schemas.dead_letters import DeadLetter
from schemas.topics import CUSTOMER_FEATURES, CUSTOMER_STATE_CHANGELOG
from services.runtime.dead_letter import send_dead_letter
from services.runtime.kafka import Item, new_producer, send_batches

REOPEN_SECONDS = 43_200.0
"""A writer is replaced after this long: Kafka forgets a transactional id that nobody asked about for seven days, and a
new one would then not be higher than what a paused worker holds."""


class Fenced(Exception):
    """A later writer of the partition has been opened, or the partition was let go while this one was writing."""


class PartitionWriter:
    """Writes to one partition of the changelog and of customer-features, until a later writer is opened."""

    def __init__(self, producer: AIOKafkaProducer, partition: int) -> None:
        self._producer = producer
        self._partition = partition
        self._opened = time.monotonic()

    @classmethod
    async def open(cls, bootstrap_servers: str, group: str, partition: int) -> "PartitionWriter":
        """A writer that shuts out every earlier one of the partition. Raises KafkaError."""
        producer = new_producer(bootstrap_servers, group, f"{group}-{partition}")
        try:
            await producer.start()
        except BaseException:
            await producer.stop()
            raise
        # From here on an idempotent producer with a fenced id: no transaction has to be begun.
        producer._txn_manager.transactional_id = None
        return cls(producer, partition)

    @property
    def worn(self) -> bool:
        """Whether it is time to open another."""
        return time.monotonic() - self._opened > REOPEN_SECONDS

    async def write(
        self, changelog: Sequence[Item], features: Sequence[Item], letters: Sequence[DeadLetter] = ()
    ) -> int | None:
        """Write all; returns when all of it is acknowledged, with the offset of the last changelog record.

        The offset is exact when nobody else wrote in between, as it should be; else too low, which only makes recovery
        read a little again. None if Kafka did not say (a batch that it had already, from a retry). Raises Fenced, or
        the KafkaError of what was not acknowledged.
        """
        try:
            logged = await send_batches(self._producer, CUSTOMER_STATE_CHANGELOG, self._partition, changelog)
            others = await send_batches(self._producer, CUSTOMER_FEATURES, self._partition, features)
            others += [await send_dead_letter(self._producer, letter) for letter in letters]
            if logged or others:
                await asyncio.wait([*logged, *others])
            for future in [*others, *logged]:
                future.result()
        except (ProducerFenced, ProducerClosed) as error:
            raise Fenced from error
        first = min((int(future.result().offset) for future in logged), default=-1)  # type: ignore[attr-defined]
        return first + len(changelog) - 1 if first >= 0 else None

    async def close(self) -> None:
        """Let go of the connection."""
        await self._producer.stop()
