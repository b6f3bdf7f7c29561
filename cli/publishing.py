"""Publishing as an upstream team would: acknowledged, each customer's events in the order they happened."""

import asyncio
from collections.abc import Callable, Iterable
from itertools import islice

from schemas.topics import CUSTOMER_EVENTS
from services.runtime.kafka import Item, new_producer, send_batches
from services.trainer.orders_file import event_bytes

BATCH_EVENTS = 2000

Event = dict[str, object]


def encode_events(events: Iterable[Event]) -> list[tuple[bytes, bytes]]:
    """(key, value) of each event, keyed by its customer as far as it has one."""
    return [(_key(event), event_bytes(event)) for event in events]


def _key(event: Event) -> bytes:
    return str(event.get("customer_id") or "").encode("utf-8", "surrogateescape")


async def publish(
    bootstrap_servers: str,
    messages: Iterable[tuple[bytes, bytes]],
    done: Callable[[int], None] = lambda _: None,
    *,
    topic: str = CUSTOMER_EVENTS,
    batch_events: int = BATCH_EVENTS,
    pause_seconds: float = 0.0,
) -> int:
    """Publish messages in order, spread over the partitions by customer; returns how many, once all are acknowledged.

    done: told how many are acknowledged by now. batch_events are published at once, with a pause after each batch.
    """
    producer = new_producer(bootstrap_servers, "clv-publisher")
    await producer.start()
    try:
        partitions = sorted(await producer.partitions_for(topic))
        waiting, sent = iter(messages), 0
        while batch := list(islice(waiting, batch_events)):
            by_partition: dict[int, list[Item]] = {partition: [] for partition in partitions}
            for key, value in batch:
                partition = producer._partition(topic, None, key, value, key, value)
                by_partition[partition].append((key, value, None, []))
            sends = [
                future
                for partition, items in by_partition.items()
                for future in await send_batches(producer, topic, partition, items)
            ]
            await asyncio.gather(*sends)
            sent += len(batch)
            done(sent)
            await asyncio.sleep(pause_seconds)
        return sent
    finally:
        await producer.stop()
