"""One run of the harness: servers, services, load, faults, quiet, comparison.

Must never compare before everything published has come to its end, and must say what is behind when it does not.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from aiokafka.errors import KafkaError

from cli.chaos.compare import compare
from cli.chaos.faults import WORKERS, Fault, Kind, schedule
from cli.chaos.findings import Findings, Wrong
from cli.chaos.inflict import Inflictor
from cli.chaos.load import Shape, burst, history, live
from cli.chaos.probes import Prober, probes
from cli.chaos.publisher import Publisher
from cli.chaos.readback import gather_evidence
from cli.lag import LagReader
from cli.platform import Platform
from cli.watch import read_metrics, total
from services.inference.model import load_model
from services.runtime.bundle import current_bundle
from services.runtime.shutdown import KnownProblem

DATABASE = "clv"
TICK_SECONDS = 0.05
UNACKNOWLEDGED_TICKS_MAX = 400
_PROBE_GRACE_SECONDS = 5.0
HAZARDS = {
    "replayed_records": "clv_features_replayed_total",
    "holes_refused": "clv_features_holes_total",
    "stale_chunks": "clv_features_stale_chunks_total",
    "writers_fenced": "clv_features_fenced_total",
}
"""Counters of the feature workers that show that a hazard was met."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """What to run. commands: how services are started (see Platform). faults: in place of the seeded ones."""

    seconds: float
    seed: int
    brokers: int = 1
    events_per_second: float = 120.0
    burst_events: int = 10_000
    shape: Shape = field(default_factory=Shape)
    commands: Mapping[str, Sequence[str]] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    mean_gap_seconds: float = 7.0
    faults: Sequence[Fault] | None = None
    quiet_seconds_max: float = 300.0

    def planned(self) -> Sequence[Fault]:
        """The faults of this run."""
        if self.faults is not None:
            return self.faults
        return schedule(self.seed, self.seconds, self.brokers, self.mean_gap_seconds)


class Survived(NamedTuple):
    """A fault, and the seconds until the line answered again."""

    fault: Fault
    recovery_seconds: float


@dataclass
class Outcome:
    """What a run came to."""

    options: Options
    findings: Findings
    survived: list[Survived]
    hazards: Counter[str]
    killed: Counter[str]
    ended: Counter[str]
    events_accepted: int
    deliveries: int
    seconds: dict[str, float]


def run(options: Options, models_dir: Path, work_dir: Path, say: Say) -> Outcome:
    """Run the harness. Raises KnownProblem if the product does not start, or does not come to rest."""
    for client in (
        "aiokafka",
        "httpx",
        "pymongo",
        "asyncio",
    ):  # the faults make the harness's own clients complain without end
        logging.getLogger(client).setLevel(logging.CRITICAL)
    platform = Platform(
        models_dir=models_dir,
        work_dir=work_dir,
        settings={
            "CLV_MONGO_DATABASE": DATABASE,
            "CLV_FEATURES_REFRESH_SECONDS": "60",  # silent customers come again meanwhile, too
            "CLV_FEATURES_CHUNK_RECORDS": "500",
            "CLV_SCORER_THRESHOLDS_SECONDS": "2",
            **options.settings,
        },
        announce=say,
        names=("ingest", *WORKERS, "scorer", "sink"),
        brokers=options.brokers,
        commands=options.commands,
        usual_ports=False,
    )
    with platform:
        return asyncio.run(_Run(options, platform, say).run())


class _Run:
    def __init__(self, options: Options, platform: Platform, say: Say) -> None:
        self._options, self._platform, self._say = options, platform, say
        self._first_ms = int(time.time() * 1000)
        addresses = platform.addresses
        self._publisher = Publisher(addresses.kafka_bootstrap_servers, platform.url("ingest"))
        self._prober = Prober(addresses.mongo_uri, DATABASE)
        self._inflictor = Inflictor(platform, self._publish_burst)
        self._survived: list[Survived] = []
        self._inflicting: list[asyncio.Task[None]] = []
        self._unanswered: list[str] = []
        self._hazards: dict[tuple[int | None, str], float] = {}
        self._seconds: dict[str, float] = {}

    async def run(self) -> Outcome:
        supervisor = asyncio.create_task(self._inflictor.supervise())
        watching = [asyncio.create_task(self._prober.watch()), asyncio.create_task(self._watch_hazards())]
        try:
            async with self._publisher:
                await self._publisher.publish(history(self._options.seed, self._options.shape, self._first_ms))
                await self._timed("faults", self._load_and_faults())
            await self._timed("quiet", self._until_quiet())
        finally:
            for task in (supervisor, *watching):
                task.cancel()
        findings = await self._timed("comparison", self._compare())
        return Outcome(
            self._options,
            findings,
            sorted(self._survived, key=lambda each: each.fault.number),
            self._hazard_totals(),
            self._inflictor.killed,
            self._inflictor.ended,
            len(self._publisher.accepted),
            self._publisher.deliveries,
            self._seconds,
        )

    async def _timed(self, name: str, work: Any) -> Any:
        began = time.monotonic()
        try:
            return await work
        finally:
            self._seconds[name] = round(time.monotonic() - began, 1)

    # ---------------------------------------------------------------- load and faults

    async def _load_and_faults(self) -> None:
        began = time.monotonic()
        stop = asyncio.Event()
        load = asyncio.create_task(self._load(stop))
        faults = []
        for fault in self._options.planned():
            await asyncio.sleep(max(0.0, began + fault.at_seconds - time.monotonic()))
            if load.done():
                break
            faults.append(asyncio.create_task(self._fault(fault, began)))
        await asyncio.sleep(max(0.0, began + self._options.seconds - time.monotonic()))
        stop.set()
        await self._bounded(load, "publishing")
        await self._bounded(asyncio.gather(*self._inflicting), "carrying out the last faults")
        await self._bounded(self._inflictor.bursts_done(), "publishing the bursts")
        await self._bounded(self._until_answered(faults), "recovering from the last faults")

    async def _until_answered(self, faults: list["asyncio.Task[None]"]) -> None:
        """Wait for the probes' answers. A probe without one when the line is empty is lost, and said to be."""
        while not await self._all_done(faults):
            if not self._publisher.waiting.total():
                await self._until_drained("ingest", "features")
                await self._until_drained("scorer", "sink")
                if not await self._all_done(faults):
                    self._unanswered = sorted(self._prober.unanswered)
                    for task in faults:
                        task.cancel()
                break

    async def _all_done(self, tasks: list["asyncio.Task[None]"]) -> bool:
        """Whether all are done within a moment. Raises what one of them raised."""
        done, pending = await asyncio.wait(tasks, timeout=_PROBE_GRACE_SECONDS) if tasks else (set(), set())
        for task in done:
            task.result()
        return not pending

    async def _bounded(self, work: Any, what: str) -> None:
        try:
            async with asyncio.timeout(self._options.quiet_seconds_max):
                await work
        except TimeoutError:
            raise KnownProblem(
                f"{what} did not end within {self._options.quiet_seconds_max:.0f} s: {await self._what_is_behind()}"
            ) from None

    async def _load(self, stop: asyncio.Event) -> None:
        """Publish at a steady rate, whatever happens meanwhile; returns when all is accepted."""
        rate = self._options.events_per_second
        stream = live(self._options.seed, self._options.shape, self._first_ms, rate)
        began, sent = time.monotonic(), 0
        pending: set[asyncio.Task[None]] = set()
        while not stop.is_set():
            due = int((time.monotonic() - began) * rate) - sent
            if due > 0:
                sent += due
                pending.add(asyncio.create_task(self._publisher.publish([next(stream) for _ in range(due)])))
            if len(pending) >= UNACKNOWLEDGED_TICKS_MAX:
                await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            done = {task for task in pending if task.done()}
            for task in done:
                task.result()
            pending -= done
            await asyncio.sleep(TICK_SECONDS)
        await asyncio.gather(*pending)

    async def _publish_burst(self, number: int) -> None:
        options = self._options
        events = burst(options.seed, number, options.shape, self._first_ms, options.burst_events)
        for at in range(0, len(events), 1000):
            await self._publisher.publish(events[at : at + 1000])

    async def _fault(self, fault: Fault, began: float) -> None:
        """One fault, and a probe of the recovery at the moment that it strikes."""
        struck = asyncio.Event()
        inflicting = asyncio.create_task(self._inflictor.inflict(fault, struck.set))
        self._inflicting.append(inflicting)
        inflicting.add_done_callback(lambda _: struck.set())
        await struck.wait()
        since = time.monotonic()
        sent = probes(fault.number, int(time.time() * 1000))
        await self._publisher.publish(sent)
        seconds = await self._prober.answered({str(each.event["customer_id"]) for each in sent}, since)
        await inflicting
        self._survived.append(Survived(fault, round(seconds, 2)))
        target, at = " and ".join(fault.targets), f"{since - began:6.1f} s"
        kept = f" for {fault.seconds:.0f} s" if fault.seconds else ""
        self._say(f"{at}  {fault.kind.value:<28} {target}{kept}: answered after {seconds:.1f} s")

    # ---------------------------------------------------------------- hazards

    async def _watch_hazards(self) -> None:
        """Follow the workers' counters; each process has its own, which die with it."""
        while True:
            await self._read_hazards()
            await asyncio.sleep(0.5)

    async def _read_hazards(self) -> None:
        for name in [each for each in self._platform.processes if each.startswith("features")]:
            process = self._platform.processes.get(name)
            if process is None or process.paused:
                continue
            samples = await asyncio.to_thread(read_metrics, self._platform.url(name))
            for hazard, metric in HAZARDS.items():
                if metric in samples:
                    self._hazards[process.pid, hazard] = total(samples, metric)

    def _hazard_totals(self) -> Counter[str]:
        totals: Counter[str] = Counter(dict.fromkeys(HAZARDS, 0))
        for (_, hazard), value in self._hazards.items():
            totals[hazard] += int(value)
        return totals

    # ---------------------------------------------------------------- the end

    async def _until_quiet(self) -> None:
        """Wait until everything published has come to its end. The workers stop first: their sweep goes on for ever."""
        await self._until_drained("ingest", "features")
        await self._read_hazards()  # of the last half second before they stop
        workers = [name for name in self._platform.processes if name.startswith("features")]
        await asyncio.gather(*(self._inflictor.retire(name) for name in workers))
        await self._until_drained("scorer", "sink")

    async def _until_drained(self, *services: str) -> None:
        deadline = time.monotonic() + self._options.quiet_seconds_max
        while behind := await self._behind(services):
            if time.monotonic() > deadline:
                raise KnownProblem(f"not at rest after {self._options.quiet_seconds_max:.0f} s: {behind}")
            await asyncio.sleep(0.3)

    async def _behind(self, services: Sequence[str]) -> str:
        """What is behind, for a person; empty if nothing is."""
        try:
            async with LagReader(self._platform.addresses.kafka_bootstrap_servers) as reader:
                lags = await reader.lags()
        except (KafkaError, OSError) as error:
            return f"Kafka does not answer: {error!r}"
        return ", ".join(f"{name} {lags[name]} records" for name in services if lags[name])

    async def _what_is_behind(self) -> str:
        lags = await self._behind(("ingest", "features", "scorer", "sink")) or "no service is behind"
        missing = sorted(self._prober.unanswered)
        unsent = ", ".join(f"{number} events over {channel}" for channel, number in self._publisher.waiting.items())
        return f"{lags}; not accepted: {unsent}; probes without an answer: {', '.join(missing[:8]) or 'none'}"

    async def _compare(self) -> Findings:
        addresses = self._platform.addresses
        evidence = await gather_evidence(addresses.kafka_bootstrap_servers, addresses.mongo_uri, DATABASE)
        model = load_model(current_bundle(self._platform.models_dir), "USD")
        findings = await asyncio.to_thread(compare, evidence, self._publisher.accepted, model)
        for customer in self._unanswered:
            findings.add(Wrong.LOST, f"customers: {customer}, who ordered at a fault's moment, never came to MongoDB")
        for answer in self._publisher.refused:
            findings.add(Wrong.MISMATCH, f"ingest refused good events: {answer}")
        return findings


def kinds_of(survived: Sequence[Survived]) -> dict[Kind, list[float]]:
    """Recovery seconds of each kind of fault, in the order of the kinds."""
    return {
        kind: found
        for kind in Kind
        if (found := [each.recovery_seconds for each in survived if each.fault.kind is kind])
    }
