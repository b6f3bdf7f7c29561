"""How long the line takes to answer again: probe orders published at a fault's moment, looked for in MongoDB.

One probe a partition of `orders`, each of a customer of its own, so that a worker that holds only some is seen too. The
probes are events like all others: the comparison at the end knows them.
"""

import asyncio
import time
from dataclasses import dataclass
from itertools import count
from typing import Any

from aiokafka.partitioner import DefaultPartitioner
from pymongo import MongoClient
from pymongo.errors import PyMongoError

from cli.chaos.load import Channel, Planned, money, new_event
from cli.lag import PARTITIONS
from schemas.mongo import CUSTOMERS
from schemas.topics import CUSTOMER_EVENTS, ORDERS

_POLL_SECONDS = 0.1
_ANSWER_MS_MAX = 1500


def probes(fault: int, at_ms: int) -> list[Planned]:
    """One order for each partition of `orders`, over the partitions of customer-events."""
    partitions = list(range(PARTITIONS[ORDERS]))
    partitioner = DefaultPartitioner()  # as ingest spreads customers
    found = []
    for partition in partitions:
        names = (f"probe-{fault}-{attempt}-{partition}" for attempt in count())
        name = next(each for each in names if partitioner(each.encode(), partitions, partitions) == partition)
        event = new_event(f"{name}-e", "order.placed", name, at_ms, order_id=f"{name}-o", **money(1000 + fault))
        found.append(Planned(event, Channel.KAFKA, partition % PARTITIONS[CUSTOMER_EVENTS]))
    return found


@dataclass
class _Waiting:
    since: float
    customers: set[str]
    done: asyncio.Event


class Prober:
    """Watches MongoDB for customers. One task runs `watch`."""

    def __init__(self, mongo_uri: str, database: str) -> None:
        self._uri, self._database = mongo_uri, database
        self._waiting: list[_Waiting] = []

    async def answered(self, customers: set[str], since: float) -> float:
        """Seconds from `since` (monotonic) until MongoDB has all of these customers. Waits without end."""
        waiting = _Waiting(since, set(customers), asyncio.Event())
        self._waiting.append(waiting)
        await waiting.done.wait()
        return time.monotonic() - since

    @property
    def unanswered(self) -> set[str]:
        """Customers waited for."""
        return set().union(*(each.customers for each in self._waiting))

    async def watch(self) -> None:
        """Look until cancelled."""
        client: MongoClient[dict[str, Any]]
        client = MongoClient(
            self._uri,
            serverSelectionTimeoutMS=_ANSWER_MS_MAX,
            connectTimeoutMS=_ANSWER_MS_MAX,
            socketTimeoutMS=_ANSWER_MS_MAX,
        )
        try:
            while True:
                if self._waiting:
                    self._settle(await asyncio.to_thread(self._present, client, sorted(self.unanswered)))
                await asyncio.sleep(_POLL_SECONDS)
        finally:
            client.close()

    def _present(self, client: "MongoClient[dict[str, Any]]", wanted: list[str]) -> set[str]:
        try:
            found = client[self._database][CUSTOMERS].find({"_id": {"$in": wanted}}, {"_id": 1})
            return {str(document["_id"]) for document in found}
        except PyMongoError:
            return set()

    def _settle(self, present: set[str]) -> None:
        for waiting in list(self._waiting):
            waiting.customers -= present
            if not waiting.customers:
                waiting.done.set()
                self._waiting.remove(waiting)
