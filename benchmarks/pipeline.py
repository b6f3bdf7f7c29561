"""How many events a second go the whole way, customer-events to MongoDB, with everything on this machine's cores.

Counted from the first published event to the moment when all groups have committed everything: every prediction is then
in MongoDB, acknowledged by a majority.
"""

import asyncio
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console

from benchmarks.orders import public_events
from cli.demo_data import demo_model, load_demo_data
from cli.lag import LagReader
from cli.platform import Platform, home
from cli.publishing import encode_events, publish
from cli.watch import Watch


def run(customers: int, events: int) -> dict[str, Any]:
    """Run the benchmark; returns its figures."""
    console = Console(stderr=True)

    def say(text: str) -> None:
        console.print(text)

    models = demo_model(load_demo_data(None, {}, "USD", say), home() / "models", say)
    messages = encode_events(public_events(customers, events, seed=1))
    with tempfile.TemporaryDirectory(prefix="clv-bench-") as folder:
        platform = Platform(
            models, Path(folder), settings={"CLV_FEATURES_CLOCK": "event", "CLV_FEATURES_REFRESH_SECONDS": "0"}
        )
        with platform:
            watch = Watch({name: platform.url(name) for name in platform.names})
            seconds = asyncio.run(_time(platform, messages))
            watch.read()
            return {
                "customers": customers,
                "events": events,
                "seconds": round(seconds, 2),
                "events_per_second": round(events / seconds),
                "predictions_stored": watch.count("sink"),
                "cpu_seconds": {
                    name: round(_cpu_seconds(process.pid), 1) for name, process in platform.processes.items()
                },
            }


async def _time(platform: Platform, messages: list[tuple[bytes, bytes]]) -> float:
    began = time.perf_counter()
    async with LagReader(platform.addresses.kafka_bootstrap_servers) as lag:
        await publish(platform.addresses.kafka_bootstrap_servers, messages)
        while any((await lag.lags()).values()):
            platform.check_alive()
            await asyncio.sleep(0.2)
    return time.perf_counter() - began


def _cpu_seconds(pid: int | None) -> float:
    process = psutil.Process(pid)
    return float(sum(sum(one.cpu_times()[:2]) for one in [process, *process.children(recursive=True)]))
