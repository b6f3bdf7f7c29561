"""Orders for benchmarks: many customers with some history each, reproducible by seed."""

import random
from collections.abc import Iterator

from domain.customer import DAY_MS
from schemas.orders import OrderRecord, Placed, Refunded, encode_order

FIRST_DAY = 18_000
YEARS = 2


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
