"""How many events a second go the whole way, customer-events to MongoDB, with everything on this machine's cores.

Counted from the first published event to the moment when all groups have committed everything: every prediction is then
in MongoDB, acknowledged by a majority. Then, at a calm rate, how long one event takes from its arrival in Kafka to the
acknowledged write: an upper bound, the edge of the histogram's bucket.
"""

import asyncio
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console

from benchmarks.orders import public_events
from cli.demo_data import cdnow_model
from cli.lag import LagReader
from cli.platform import Platform
from cli.publishing import encode_events, publish
from cli.watch import Samples, Watch, quantile, read_metrics

CALM_EVENTS_PER_SECOND = 200
CALM_SECONDS = 15


def run(customers: int, events: int) -> dict[str, Any]:
    """Run the benchmark; returns its figures."""
    console = Console(stderr=True)

    def say(text: str) -> None:
        console.print(text)

    models = cdnow_model(say)
    messages = encode_events(public_events(customers, events, seed=1))
    with tempfile.TemporaryDirectory(prefix="clv-bench-") as folder:
        platform = Platform(
            models, Path(folder), settings={"CLV_FEATURES_CLOCK": "event", "CLV_FEATURES_REFRESH_SECONDS": "0"}
        )
        with platform:
            watch = Watch({name: platform.url(name) for name in platform.names})
            seconds = asyncio.run(_time(platform, messages))
            watch.read()
            before = watch.samples["sink"]
            calm = encode_events(public_events(customers, CALM_SECONDS * CALM_EVENTS_PER_SECOND, seed=2))
            asyncio.run(_publish_calmly(platform, calm))
            latency = _grown(before, read_metrics(platform.url("sink")), "clv_stored_latency_seconds_bucket")
            return {
                "customers": customers,
                "events": events,
                "seconds": round(seconds, 2),
                "events_per_second": round(events / seconds),
                "stored_latency_seconds_at_most": {
                    "events_per_second": CALM_EVENTS_PER_SECOND,
                    **{
                        f"p{share * 100:g}": quantile(latency, "clv_stored_latency_seconds", share)
                        for share in (0.5, 0.99)
                    },
                },
                "predictions_stored": watch.count("sink"),
                "cpu_seconds": {
                    name: round(_cpu_seconds(process.pid), 1) for name, process in platform.processes.items()
                },
            }


async def _time(platform: Platform, messages: list[tuple[bytes, bytes]]) -> float:
    began = time.perf_counter()
    async with LagReader(platform.addresses.kafka_bootstrap_servers) as lag:
        await publish(platform.addresses.kafka_bootstrap_servers, messages)
        await _until_stored(platform, lag)
    return time.perf_counter() - began


async def _publish_calmly(platform: Platform, messages: list[tuple[bytes, bytes]]) -> None:
    """A tenth of a second's events ten times a second; returns when all of them are in MongoDB."""
    step = CALM_EVENTS_PER_SECOND // 10
    servers = platform.addresses.kafka_bootstrap_servers
    async with LagReader(servers) as lag:
        await publish(servers, messages, batch_events=step, pause_seconds=0.1)
        await _until_stored(platform, lag)


async def _until_stored(platform: Platform, lag: LagReader) -> None:
    while any((await lag.lags()).values()):
        platform.check_alive()
        await asyncio.sleep(0.2)


def _grown(before: Samples, after: Samples, name: str) -> Samples:
    """What a counter's samples grew by."""
    known = {tuple(sorted(labels.items())): value for labels, value in before.get(name, [])}
    return {name: [(labels, value - known.get(tuple(sorted(labels.items())), 0.0)) for labels, value in after[name]]}


def _cpu_seconds(pid: int | None) -> float:
    process = psutil.Process(pid)
    return float(sum(sum(one.cpu_times()[:2]) for one in [process, *process.children(recursive=True)]))
