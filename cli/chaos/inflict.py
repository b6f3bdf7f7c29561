"""Carries out faults on the running platform, and starts again what has ended, as a cluster's supervisor would.

Must never leave a process stopped or a server down: each fault ends with everything free to recover.
"""

import asyncio
import shutil
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiokafka.errors import KafkaError

from cli.chaos.faults import EXTRA_WORKER, SESSION_TIMEOUT_SECONDS, Fault, Kind
from cli.lag import LagReader
from cli.platform import Platform
from cli.watch import read_metrics, total
from deploy.local.processes import ServiceProcess
from schemas.topics import ORDERS

_SUPERVISOR_SECONDS = 0.2
_RESTART_DELAY_SECONDS = 0.5
_FOLDS_SECONDS_MAX = 15.0
_PILE_UP_SECONDS_MAX = 7.0
_PILED_UP_RECORDS = 4000
_START_SECONDS_MAX = 20.0
_SOME_CHUNKS_RECORDS = 300
Burst = Callable[[int], Coroutine[Any, Any, None]]
"""Publishes a burst of events; the argument is the fault's number."""
Struck = Callable[[], None]


class Inflictor:
    """Strikes and revives. All methods run in one event loop; `supervise` is one task, each fault another."""

    def __init__(self, platform: Platform, burst: Burst) -> None:
        self._platform, self._burst = platform, burst
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._bursts: list[asyncio.Task[None]] = []
        self.killed: Counter[str] = Counter()
        """Processes ended by a fault, by name."""
        self.ended: Counter[str] = Counter()
        """Processes that ended by themselves, by name: they could not go on, and were started again."""

    # ---------------------------------------------------------------- supervisor

    async def supervise(self) -> None:
        """Start ended services again, until cancelled."""
        while True:
            for name in list(self._platform.processes):
                if not self._locks[name].locked():
                    await self._revive(name)
            await asyncio.sleep(_SUPERVISOR_SECONDS)

    async def _revive(self, name: str) -> None:
        async with self._locks[name]:
            process = self._platform.processes.get(name)
            if process is None or process.alive:
                return
            if process.exit_code != -9:
                self.ended[name] += 1
            await asyncio.sleep(_RESTART_DELAY_SECONDS)
            await asyncio.to_thread(process.start)

    async def retire(self, name: str) -> None:
        """End a process cleanly, and for good."""
        async with self._locks[name]:
            await asyncio.to_thread(self._platform.remove_service, name)

    # ---------------------------------------------------------------- faults

    async def inflict(self, fault: Fault, struck: Struck) -> None:
        """Carry out one fault; returns when the harness has done its part (recovery is the product's).

        struck: called at the moment from which recovery counts.
        """
        match fault.kind:
            case Kind.BROKER_RESTART:
                await self._restart_broker(int(fault.targets[0].partition("-")[2]), fault.seconds, struck)
            case Kind.MONGO_RESTART:
                await self._restart_mongo(fault.seconds, struck)
            case Kind.MONGO_STEP_DOWN:
                await self._step_down(fault.seconds, struck)
            case Kind.REBALANCE:
                await self._add_or_remove_worker(struck)
            case Kind.REBALANCE_MID_CHUNK:
                await self._revoke_mid_chunk(fault.number, struck)
            case Kind.STATE_DELETED:
                await self._delete_state(fault.targets[0], struck)
            case Kind.KILL_MID_CHUNK:
                await self._kill(fault.targets[0], struck, fault)
            case Kind.PAUSE_MID_CHUNK:
                await self._pause(fault.targets[0], fault.seconds, struck, fault)
            case Kind.PAUSE_FEATURES | Kind.PAUSE_INGEST | Kind.PAUSE_SCORER | Kind.PAUSE_SINK:
                await self._pause(fault.targets[0], fault.seconds, struck)
            case _:
                await asyncio.gather(*(self._kill(name, struck) for name in fault.targets))

    @asynccontextmanager
    async def _having(self, name: str) -> AsyncIterator[None]:
        """A process that runs, and that neither the supervisor nor another fault touches meanwhile."""
        await self._revive(name)
        async with self._locks[name]:
            yield

    async def _kill(self, name: str, struck: Struck, mid_chunk: Fault | None = None) -> None:
        async with self._having(name):
            if mid_chunk is not None:
                await self._in_the_middle_of_a_chunk(self._platform.processes[name], mid_chunk)
            self._platform.processes[name].kill()
            self.killed[name] += 1
            struck()

    async def _pause(self, name: str, seconds: float, struck: Struck, mid_chunk: Fault | None = None) -> None:
        assert seconds > SESSION_TIMEOUT_SECONDS, "a shorter pause makes no zombie"
        async with self._having(name):
            process = self._platform.processes[name]
            if mid_chunk is not None:
                await self._in_the_middle_of_a_chunk(process, mid_chunk)
            process.pause()
            struck()
            try:
                await asyncio.sleep(seconds)
            finally:
                process.resume()

    async def _delete_state(self, name: str, struck: Struck) -> None:
        async with self._having(name):
            self._platform.processes[name].kill()
            self.killed[name] += 1
            struck()
            await asyncio.to_thread(shutil.rmtree, self._platform.features_dir(name), True)
            self._platform.processes[name].start()

    async def _restart_broker(self, broker: int, seconds: float, struck: Struck) -> None:
        kafka = self._platform.stack.kafka
        assert kafka is not None
        async with self._locks["kafka"]:
            kafka.kill(broker)
            struck()
            await asyncio.sleep(seconds)
            await asyncio.to_thread(kafka.restart, broker)

    async def _restart_mongo(self, seconds: float, struck: Struck) -> None:
        mongo = self._platform.stack.mongo
        assert mongo is not None
        async with self._locks["mongo"]:
            mongo.kill()
            struck()
            await asyncio.sleep(seconds)
            await asyncio.to_thread(mongo.restart)

    async def _step_down(self, seconds: float, struck: Struck) -> None:
        mongo = self._platform.stack.mongo
        assert mongo is not None
        async with self._locks["mongo"]:
            await asyncio.to_thread(mongo.step_down, round(seconds))
            struck()
            await asyncio.sleep(seconds)

    # ---------------------------------------------------------------- rebalances and chunks

    async def _add_or_remove_worker(self, struck: Struck) -> None:
        """Either way partitions change hands: a worker that ends leaves the group, one that begins joins it."""
        async with self._locks[EXTRA_WORKER]:
            if EXTRA_WORKER in self._platform.processes:
                struck()
                await asyncio.to_thread(self._platform.remove_service, EXTRA_WORKER)
            else:
                await asyncio.to_thread(self._platform.start_service, EXTRA_WORKER)
                await self._answers(EXTRA_WORKER)
                struck()

    async def _answers(self, name: str) -> None:
        """Until the process answers at all: next, it joins its group."""
        deadline = time.monotonic() + _START_SECONDS_MAX
        while not await asyncio.to_thread(read_metrics, self._platform.url(name)):
            if time.monotonic() > deadline:
                return
            await asyncio.sleep(0.05)

    async def _revoke_mid_chunk(self, number: int, struck: Struck) -> None:
        """Add or remove a worker while a burst is being folded: partitions are revoked with chunks in hand."""
        if EXTRA_WORKER in self._platform.processes:
            burst = self._start_burst(number)
            workers = [name for name in self._platform.processes if name.startswith("features")]
            await self._until_one_folds(workers, _SOME_CHUNKS_RECORDS, {})
            await self._add_or_remove_worker(struck)
        else:
            await self._add_or_remove_worker(struck)
            burst = self._start_burst(number)
        await burst

    def _start_burst(self, number: int) -> "asyncio.Task[None]":
        """Publish a burst. What was begun is published to its end, whatever becomes of the fault: see `bursts_done`."""
        task = asyncio.create_task(self._burst(number))
        self._bursts.append(task)
        return task

    async def bursts_done(self) -> None:
        """Wait until every burst is accepted."""
        await asyncio.gather(*self._bursts)

    async def _in_the_middle_of_a_chunk(self, process: ServiceProcess, fault: Fault) -> None:
        """Stop the process, let work pile up, let it go on; return soon after its first chunk, with one in hand.

        By then it has written what its offsets, committed every few seconds, do not cover, however slow the machine is.
        The stop is short: the process stays in its group.
        """
        before = await self._folded([process.name])
        process.pause()
        try:
            servers = self._platform.addresses.kafka_bootstrap_servers
            async with asyncio.timeout(_PILE_UP_SECONDS_MAX), LagReader(servers) as reader:
                end = sum((await reader.ends(ORDERS)).values())
                await asyncio.shield(self._start_burst(fault.number))
                while sum((await reader.ends(ORDERS)).values()) < end + _PILED_UP_RECORDS:  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
        except (TimeoutError, KafkaError, OSError):
            pass  # Kafka or ingest are down for another fault: there may be less to do
        finally:
            process.resume()
        await self._until_one_folds([process.name], 1, before)
        await asyncio.sleep(fault.seconds_in)

    async def _until_one_folds(self, names: Sequence[str], records: int, before: Mapping[str, float]) -> None:
        """Until one of the workers has folded so many records more, or it takes too long.

        before: what they had folded; of a worker that is not in it, what it first answers.
        """
        known = dict(before)
        deadline = time.monotonic() + _FOLDS_SECONDS_MAX
        while time.monotonic() < deadline:
            for name, now in (await self._folded(names)).items():
                known[name] = min(known.get(name, now), now)  # less: it was started anew
                if now - known[name] >= records:
                    return
            await asyncio.sleep(0.02)

    async def _folded(self, names: Sequence[str]) -> dict[str, float]:
        """Records that the workers have folded since they began, of those that answer."""
        samples = {name: await asyncio.to_thread(read_metrics, self._platform.url(name)) for name in names}
        answered = {name: found for name, found in samples.items() if found}
        return {name: total(found, "clv_records_processed_total", topic=ORDERS) for name, found in answered.items()}
