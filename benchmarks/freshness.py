"""How long after ingest's 202 an order shows in the API: orders one after the other at a calm rate, each followed.

Every service runs as a process of its own on this machine's cores, beside embedded Kafka and MongoDB, and the API is
asked every few milliseconds, which is load too.
"""

import asyncio
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from rich.console import Console

from cli.demo_data import cdnow_model
from cli.platform import Platform

SERVICES = ("ingest", "features", "scorer", "sink", "api")
CUSTOMERS = 50
_WARM_ORDERS = 20
_PAUSE_SECONDS = 0.01
_SECONDS_MAX = 30.0


def run(orders: int, orders_per_second: float) -> dict[str, Any]:
    """Run the benchmark; returns its figures."""
    console = Console(stderr=True)

    def say(text: str) -> None:
        console.print(text)

    models = cdnow_model(say)
    with (
        tempfile.TemporaryDirectory(prefix="clv-bench-") as folder,
        Platform(models, Path(folder), names=SERVICES, usual_ports=False) as platform,
    ):
        asyncio.run(_follow_all(platform, _WARM_ORDERS, orders_per_second, "warm"))
        seconds = asyncio.run(_follow_all(platform, orders, orders_per_second, "order"))
    return {
        "orders": orders,
        "orders_per_second": orders_per_second,
        **{f"{name}_ms": round(float(np.quantile(seconds, share)) * 1000) for name, share in _SHARES.items()},
        "within_1_s": float(np.mean(np.array(seconds) <= 1.0)),
    }


_SHARES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}


async def _follow_all(platform: Platform, orders: int, per_second: float, name: str) -> list[float]:
    """Seconds from 202 until the API tells of the order, by order."""
    # Connections are given up before the server does so, or a request could meet one that is just being closed.
    limits = httpx.Limits(keepalive_expiry=2.0)
    async with httpx.AsyncClient(timeout=_SECONDS_MAX, limits=limits) as client:
        began = time.perf_counter()
        following = []
        turns = [asyncio.Lock() for _ in range(CUSTOMERS)]  # a customer's orders one after the other
        for number in range(orders):
            await asyncio.sleep(max(0.0, began + number / per_second - time.perf_counter()))
            following.append(asyncio.ensure_future(_follow(platform, client, number, name, turns)))
        return await asyncio.gather(*following)


async def _follow(
    platform: Platform, client: httpx.AsyncClient, number: int, name: str, turns: list[asyncio.Lock]
) -> float:
    customer = f"{name}-{number % CUSTOMERS}"
    address = f"{platform.url('api')}/v1/customers/{customer}"
    async with turns[number % CUSTOMERS]:
        known = await client.get(address)
        before = known.json()["orders"]["orders"] if known.status_code == httpx.codes.OK else 0
        event = {
            "event_id": f"{name}-{number}",
            "event_type": "order.placed",
            "occurred_at": datetime.now(UTC).isoformat(),
            "customer_id": customer,
            "order_id": f"{name}-{number}",
            "amount": "49.90",
            "currency": "USD",
        }
        posted = await client.post(f"{platform.url('ingest')}/v1/events", json=event)
        posted.raise_for_status()
        accepted = time.perf_counter()
        while True:
            found = await client.get(address)
            seconds = time.perf_counter() - accepted
            if found.status_code == httpx.codes.OK and found.json()["orders"]["orders"] > before:
                return seconds
            if seconds > _SECONDS_MAX:
                raise TimeoutError(f"{customer} does not show order {number} after {_SECONDS_MAX} s")
            await asyncio.sleep(_PAUSE_SECONDS)
