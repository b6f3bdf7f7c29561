"""`./clv demo`: the whole product on real order history, from nothing to predictions, and a check of every number.

Phases: servers and model, services, replay of the history, refresh as of its last day, verification, summary.
"""

import asyncio
import json
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from aiokafka import AIOKafkaConsumer, TopicPartition
from pymongo import MongoClient
from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from cli.demo_data import DemoData, demo_model, demo_profile, load_demo_data
from cli.lag import PARTITIONS, LagReader
from cli.platform import PIPELINE, WITH_PAGES, Platform, home
from cli.publishing import encode_events, publish
from cli.recompute import Comparison, compare
from cli.watch import SEGMENTS, Watch, by_label
from domain.features import date_of
from schemas.mongo import CUSTOMERS
from schemas.topics import PREDICTIONS
from services.inference.model import load_model
from services.runtime.shutdown import KnownProblem

POLL_SECONDS = 0.5
QUIET_LINE_SECONDS = 5.0
DATABASE = "clv"
THRESHOLDS_SECONDS = 0.5
"""How often the demo's scorer follows the population; everything happens faster than in life there."""


@dataclass
class Demo:
    """One run of the demo."""

    console: Console
    orders: Path | None
    columns: dict[str, str]
    currency: str
    seconds: dict[str, float] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)

    @contextmanager
    def phase(self, name: str, title: str) -> Iterator[None]:
        """Time a phase and say that it runs."""
        self.console.print(f"[bold]{title}[/bold]")
        began = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - began, 2)

    def run(self, stay: bool, json_file: Path | None) -> int:
        """Run all phases; the exit code: 0 when every number agrees, 1 otherwise."""
        with ExitStack() as cleanup:
            work_dir = Path(
                cleanup.enter_context(tempfile.TemporaryDirectory(prefix="clv-demo-", ignore_cleanup_errors=True))
            )
            with self.phase("data", "Reading the order history"):
                data = load_demo_data(self.orders, self.columns, self.currency, self._say)
            platform = self._platform(work_dir)
            cleanup.callback(platform.stop)
            with self.phase("servers_and_model", "Starting Kafka and MongoDB; training a model if there is none"):
                self._servers_and_model(platform, data)
            with self.phase("services", "Starting the services"):
                platform.start_services()
            outcome = asyncio.run(self._replay_and_check(platform, data))
            self._print_summary(platform, outcome)
            if json_file is not None:
                json_file.write_text(json.dumps(self.summary, indent=2) + "\n")
            failed = outcome.mismatches > 0
            if stay:
                self._stay(platform)
        return 1 if failed else 0

    def _say(self, text: str) -> None:
        self.console.print(f"  {text}")

    def _platform(self, work_dir: Path) -> Platform:
        return Platform(
            models_dir=Path(),  # known once the model is
            work_dir=work_dir,
            settings={
                "CLV_FEATURES_CLOCK": "event",
                "CLV_FEATURES_REFRESH_SECONDS": "0",
                "CLV_CURRENCY": self.currency,
                "CLV_MONGO_DATABASE": DATABASE,
                "CLV_SCORER_THRESHOLDS_SECONDS": str(THRESHOLDS_SECONDS),
                "CLV_API_THRESHOLDS_SECONDS": str(THRESHOLDS_SECONDS),
            },
            names=WITH_PAGES,
            announce=self._say,
        )

    def _servers_and_model(self, platform: Platform, data: DemoData) -> None:
        problems: list[BaseException] = []

        def train() -> None:
            try:
                platform.models_dir = demo_model(data, home() / "models", self._say)
                profile = demo_profile(data, home() / "models", self._say)
                if profile is not None:
                    platform.settings = {**platform.settings, "CLV_API_PROFILE_DIR": str(profile)}
            except BaseException as problem:  # noqa: BLE001 - handed to the main thread
                problems.append(problem)

        training = threading.Thread(target=train, daemon=True)
        training.start()
        platform.start_servers()  # where that fails, nobody waits for a model
        training.join()
        if problems:
            raise problems[0]

    async def _replay_and_check(self, platform: Platform, data: DemoData) -> Comparison:
        watch = Watch({name: platform.url(name) for name in PIPELINE})
        progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self.console,
        )
        servers = platform.addresses.kafka_bootstrap_servers
        with self._live(watch, progress) as live:
            async with LagReader(servers) as lag:
                with self.phase("replay", f"Replaying {len(data.events):,} events through customer-events"):
                    publishing = asyncio.create_task(
                        publish(servers, encode_events(data.events), self._clock(progress, data))
                    )
                    await self._until_drained(platform, watch, progress, live, lag, publishing)
                with self.phase("refresh", f"Emitting every customer anew as of {date_of(data.last_day)}"):
                    # Twice: the first pass moves everybody's value, and with them the borders between the segments; the
                    # second places everybody between the new borders. (Live, the daily sweep does the same.)
                    for _ in range(2):
                        await self._refresh(platform, data)
                        await self._until_drained(platform, watch, progress, live, lag, None)
                        await self._until_thresholds_rest(watch)
        with self.phase("verify", "Recomputing every customer from the file and comparing"):
            outcome = await asyncio.to_thread(self._verify, platform, data)
        await self._summarise(platform, watch, data, outcome)
        return outcome

    def _clock(self, progress: Progress, data: DemoData) -> Callable[[int], None]:
        """A progress bar of published events that shows the day which the replay has come to."""
        bar = progress.add_task("event time", total=len(data.events))

        def show(published: int) -> None:
            day = str(data.events[published - 1].get("occurred_at") or "")[:10]
            progress.update(bar, completed=published, description=f"event time [bold]{day}[/bold]")

        return show

    @contextmanager
    def _live(self, watch: Watch, progress: Progress) -> Iterator[Live | None]:
        if not self.console.is_terminal:
            yield None
            return
        with Live(watch.view(progress), console=self.console, refresh_per_second=4) as live:
            yield live

    async def _until_drained(
        self,
        platform: Platform,
        watch: Watch,
        progress: Progress,
        live: Live | None,
        lag: LagReader,
        publishing: "asyncio.Task[int] | None",
    ) -> None:
        """Show what happens until everything published has come to its end in MongoDB."""
        told = time.monotonic()
        while True:
            platform.check_alive()
            await asyncio.to_thread(watch.read)
            if live is not None:
                live.update(watch.view(progress))
            elif time.monotonic() - told > QUIET_LINE_SECONDS:
                told = time.monotonic()
                self._say(" · ".join(f"{name} {watch.count(name):,}" for name in PIPELINE))
            if publishing is None or publishing.done():
                if publishing is not None:
                    publishing.result()
                lags = await lag.lags()
                if not any(lags.values()):
                    break
            await asyncio.sleep(POLL_SECONDS)
        await asyncio.to_thread(watch.read)

    async def _refresh(self, platform: Platform, data: DemoData) -> None:
        async with httpx.AsyncClient(timeout=30) as client:
            url = f"{platform.url('features')}/v1/refresh"
            answer = await client.post(url, params={"as_of": date_of(data.last_day).isoformat()})
            if answer.status_code != httpx.codes.ACCEPTED:
                raise KnownProblem(f"the feature worker refused to refresh: {answer.text}")
            while (await client.get(url)).json()["running"]:
                platform.check_alive()
                await asyncio.sleep(0.1)

    async def _until_thresholds_rest(self, watch: Watch) -> None:
        """Wait until the scorer's segment thresholds have followed the population."""
        before: object = None
        while (now := watch.samples["scorer"].get("clv_segment_threshold")) != before:
            before = now
            await asyncio.sleep(2 * THRESHOLDS_SECONDS)
            await asyncio.to_thread(watch.read)

    def _verify(self, platform: Platform, data: DemoData) -> Comparison:
        model = load_model(platform.models_dir / (platform.models_dir / "current").read_text().strip(), self.currency)
        with MongoClient[dict[str, Any]](platform.addresses.mongo_uri) as client:
            return compare(data.domain_events, client[DATABASE][CUSTOMERS].find(), model)

    async def _summarise(self, platform: Platform, watch: Watch, data: DemoData, outcome: Comparison) -> None:
        with MongoClient[dict[str, Any]](platform.addresses.mongo_uri) as client:
            customers = client[DATABASE][CUSTOMERS]
            mongo_customers = customers.count_documents({})
            counted = customers.aggregate([{"$group": {"_id": "$prediction.segment", "n": {"$sum": 1}}}])
            segments = {row["_id"]: row["n"] for row in counted}
        self.summary = {
            "events_published": len(data.events),
            "events_valid": watch.count("ingest"),
            "dead_letters": by_label(watch.samples["ingest"], "clv_dead_letters_total", "reason"),
            "customers": len(data.domain_events),
            "predictions_topic_customers": await customers_in_topic(platform.addresses.kafka_bootstrap_servers),
            "mongo_customers": mongo_customers,
            "segments": {name: segments.get(name, 0) for name in SEGMENTS},
            "recompute_mismatches": outcome.mismatches,
            "model_version": (platform.models_dir / "current").read_text().strip(),
            "seconds": self.seconds | {"total": round(sum(self.seconds.values()), 2)},
        }

    def _print_summary(self, platform: Platform, outcome: Comparison) -> None:
        summary = self.summary
        drawn = Table(box=None, show_header=False, padding=(0, 2))
        letters = ", ".join(f"{count} {reason}" for reason, count in summary["dead_letters"].items()) or "none"
        drawn.add_row("events published", f"{summary['events_published']:,}")
        drawn.add_row("valid events", f"{summary['events_valid']:,}")
        drawn.add_row("dead letters", letters)
        drawn.add_row("customers in the file", f"{summary['customers']:,}")
        drawn.add_row("customers in the predictions topic", f"{summary['predictions_topic_customers']:,}")
        drawn.add_row("customers in MongoDB", f"{summary['mongo_customers']:,}")
        drawn.add_row("segments", ", ".join(f"{name} {count:,}" for name, count in summary["segments"].items()))
        drawn.add_row("recomputed from the file", f"{outcome.customers:,} customers, {outcome.mismatches} mismatches")
        drawn.add_row("seconds", ", ".join(f"{name} {value:.1f}" for name, value in summary["seconds"].items()))
        self.console.print(drawn)
        for example in [*outcome.examples, *(f"customer {name} is missing" for name in outcome.missing[:5])]:
            self.console.print(f"  [red]{example}[/red]")
        for line in address_lines(platform):
            self.console.print(line, soft_wrap=True)

    def _stay(self, platform: Platform) -> None:
        self.console.print("Running until Ctrl-C. Open the dashboard, call the API, publish your own events meanwhile.")
        try:
            while True:
                platform.check_alive()
                time.sleep(1)
        except KeyboardInterrupt:
            self.console.print("Stopping …")


def address_lines(platform: Platform) -> list[str]:
    """Where to look and what to talk to."""
    addresses = platform.addresses
    return [
        f"Dashboard {platform.url('dashboard')}",
        f"API       {platform.url('api')}/docs  (described at /openapi.json)",
        f"Kafka     {addresses.kafka_bootstrap_servers}",
        f"MongoDB   {addresses.mongo_uri}  (database {DATABASE})",
        f"HTTP      {platform.url('ingest')}/v1/events  (described at /openapi.json)",
        *(
            f"{name:<9} {platform.url(name)}/metrics  /healthz  /readyz"
            for name in platform.names
            if name != "dashboard"
        ),
        f"logs      {platform.work_dir / 'logs'}",
    ]


async def customers_in_topic(bootstrap_servers: str) -> int:
    """Distinct customers in the predictions topic, read from its beginning."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap_servers,
        group_id=None,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=8 << 20,
        isolation_level="read_committed",
    )
    await consumer.start()
    try:
        partitions = [TopicPartition(PREDICTIONS, p) for p in range(PARTITIONS[PREDICTIONS])]
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)
        found: set[bytes] = set()
        for partition in partitions:
            await consumer.seek_to_beginning(partition)
        left = {partition for partition in partitions if ends[partition] > 0}
        while left:
            for partition, records in (await consumer.getmany(timeout_ms=500, max_records=20_000)).items():
                found.update(record.key for record in records if record.value is not None)
                if records and records[-1].offset + 1 >= ends[partition]:
                    left.discard(partition)
        return len(found)
    finally:
        await consumer.stop()
