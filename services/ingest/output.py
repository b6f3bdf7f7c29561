"""Writes orders and dead letters to Kafka, and returns once every one of them is acknowledged by all in-sync replicas.

Must never return before that: offsets are committed, and HTTP requests answered, on the strength of it.
"""

import asyncio
from collections.abc import Awaitable, Sequence

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from aiokafka.partitioner import DefaultPartitioner

from schemas.dead_letters import DeadLetter
from schemas.topics import ORDERS
from services.runtime.dead_letter import send_dead_letter
from services.runtime.kafka import Item, send_batches

_CUSTOMERS_REMEMBERED = 200_000
_Futures = list[asyncio.Future[object]]


class Output:
    """A started producer with what is known of the topics it writes to."""

    def __init__(self, producer: AIOKafkaProducer, orders_partitions: Sequence[int], broken: asyncio.Event) -> None:
        """broken: set when a write fails for good, after which this object is of no more use."""
        self._producer = producer
        self._partitions = sorted(orders_partitions)
        self._partitioner = DefaultPartitioner()  # murmur2, as in the Java client: all producers agree
        self._known: dict[bytes, int] = {}
        self._broken = broken

    @classmethod
    async def connect(cls, producer: AIOKafkaProducer, broken: asyncio.Event) -> "Output":
        """The output of a started producer."""
        return cls(producer, sorted(await producer.partitions_for(ORDERS)), broken)

    def partition(self, key: bytes) -> int:
        """The partition of `orders` that a key belongs to."""
        found = self._known.get(key)
        if found is None:
            if len(self._known) >= _CUSTOMERS_REMEMBERED:
                self._known.clear()
            found = self._known[key] = self._partitioner(key, self._partitions, self._partitions)
        return found

    async def write(self, orders: Sequence[Item], letters: Sequence[DeadLetter]) -> None:
        """Write all; per customer the order of `orders` is kept. Raises KafkaError if one was not acknowledged."""
        by_partition: dict[int, list[Item]] = {}
        for item in orders:
            assert item[0], "an order is keyed by its customer"
            by_partition.setdefault(self.partition(item[0]), []).append(item)
        queued = [self._watched(send_batches(self._producer, ORDERS, at, items)) for at, items in by_partition.items()]
        queued += [self._watched(self._letters(letters))]
        try:
            acknowledgements = [future for futures in await asyncio.gather(*queued) for future in futures]
            await asyncio.gather(*acknowledgements)
        except KafkaError:  # a producer that has failed for good refuses at once, before there is a future to watch
            self._broken.set()
            raise

    async def _letters(self, letters: Sequence[DeadLetter]) -> _Futures:
        return [await send_dead_letter(self._producer, letter) for letter in letters]

    async def _watched(self, queueing: Awaitable[_Futures]) -> _Futures:
        futures = await queueing
        for future in futures:
            # An HTTP request that timed out no longer waits, so this is where a late failure is seen.
            future.add_done_callback(self._check)
        return futures

    def _check(self, future: asyncio.Future[object]) -> None:
        if not future.cancelled() and future.exception() is not None:
            self._broken.set()
