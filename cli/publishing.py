"""Publishing events to customer-events as an upstream team would: acknowledged, in the order they happened."""

import asyncio
from collections.abc import Callable, Iterable, Sequence

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
    messages: Sequence[tuple[bytes, bytes]],
    done: Callable[[int], None] = lambda _: None,
    *,
    batch_events: int = BATCH_EVENTS,
    pause_seconds: float = 0.0,
) -> None:
    """Publish messages in order, spread over the partitions by customer; returns once all are acknowledged.

    done: told how many are acknowledged by now. batch_events are published at once, with a pause after each batch.
    """
    producer = new_producer(bootstrap_servers, "clv-publisher")
    await producer.start()
    try:
        partitions = sorted(await producer.partitions_for(CUSTOMER_EVENTS))
        for start in range(0, len(messages), batch_events):
            by_partition: dict[int, list[Item]] = {partition: [] for partition in partitions}
            batch = messages[start : start + batch_events]
            for key, value in batch:
                partition = producer._partition(CUSTOMER_EVENTS, None, key, value, key, value)
                by_partition[partition].append((key, value, None, []))
            sends = [
                future
                for partition, items in by_partition.items()
                for future in await send_batches(producer, CUSTOMER_EVENTS, partition, items)
            ]
            await asyncio.gather(*sends)
            done(start + len(batch))
            await asyncio.sleep(pause_seconds)
    finally:
        await producer.stop()
