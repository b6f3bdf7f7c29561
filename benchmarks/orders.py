"""Orders for benchmarks: many customers with some history each, reproducible by seed."""

import asyncio
import random
from collections.abc import Iterable, Iterator

from aiokafka import AIOKafkaProducer

from cli.lag import PARTITIONS
from domain.customer import DAY_MS
from schemas.orders import OrderRecord, Placed, Refunded, encode_order
from schemas.topics import ORDERS
from services.runtime.kafka import Item, new_producer, send_batches

FIRST_DAY = 18_000
YEARS = 2
_SEND_RECORDS = 50_000


def order_records(customers: int, events: int, seed: int) -> Iterator[tuple[bytes, bytes]]:
    """(key, value) of `orders` messages: nine orders to one refund, customers drawn evenly, days growing overall."""
    rng = random.Random(seed)
    for n in range(events):
        customer = f"customer-{rng.randrange(customers)}"
        day = FIRST_DAY + YEARS * 365 * n // events
        at_ms = day * DAY_MS + rng.randrange(DAY_MS)
        minor = rng.randrange(100, 30_000)
        amount = f"{minor // 100}.{minor % 100:02d}"
        record: OrderRecord
        if n % 10 == 9:
            record = Refunded(
                event_id=f"{seed}-{n}",
                customer_id=customer,
                occurred_at_ms=at_ms,
                amount_minor=minor,
                original_amount=amount,
                original_currency="USD",
                refund_id=f"{seed}-r{n}",
                order_id=f"{seed}-o{max(0, n - 10)}",
            )
        else:
            record = Placed(
                event_id=f"{seed}-{n}",
                customer_id=customer,
                occurred_at_ms=at_ms,
                amount_minor=minor,
                original_amount=amount,
                original_currency="USD",
                order_id=f"{seed}-o{n}",
            )
        yield customer.encode(), encode_order(record)


def public_events(customers: int, events: int, seed: int) -> Iterator[dict[str, object]]:
    """The same as public customer events."""
    rng = random.Random(seed)
    for n in range(events):
        customer = f"customer-{rng.randrange(customers)}"
        day = FIRST_DAY + YEARS * 365 * n // events
        minor = rng.randrange(100, 30_000)
        yield {
            "event_id": f"{seed}-{n}",
            "event_type": "order.placed",
            "occurred_at": f"{_iso(day)}T{rng.randrange(24):02d}:{rng.randrange(60):02d}:00Z",
            "customer_id": customer,
            "order_id": f"{seed}-o{n}",
            "amount": f"{minor // 100}.{minor % 100:02d}",
            "currency": "USD",
        }


def _iso(day: int) -> str:
    from domain.features import date_of

    return date_of(day).isoformat()


def publish_orders(bootstrap_servers: str, records: Iterable[tuple[bytes, bytes]]) -> int:
    """Write (key, value) records to `orders`, each customer's in order, all acknowledged; returns how many."""

    async def publish() -> int:
        producer = new_producer(bootstrap_servers, "clv-bench")
        await producer.start()
        try:
            await producer.client._wait_on_metadata(ORDERS)
            waiting: list[list[Item]] = [[] for _ in range(PARTITIONS[ORDERS])]
            sent = 0
            for sent, (key, value) in enumerate(records, start=1):
                partition = producer._partition(ORDERS, None, key, value, key, value)
                waiting[partition].append((key, value, None, []))
                if sent % _SEND_RECORDS == 0:
                    await _flush(producer, waiting)
            await _flush(producer, waiting)
            return sent
        finally:
            await producer.stop()

    return asyncio.run(publish())


async def _flush(producer: AIOKafkaProducer, waiting: list[list[Item]]) -> None:
    for partition, items in enumerate(waiting):
        await asyncio.gather(*await send_batches(producer, ORDERS, partition, items))
        items.clear()
