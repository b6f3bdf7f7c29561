"""Recovery of the customer table, and its standby copies, by chunks of changelog that come straight from the consumer.

Faust sends each changelog record through a queue that it empties at will; what was in it is missing from a standby copy
for ever. Here a chunk is applied where it was fetched, in one step with how far it reaches, and a chunk that does not
join on to what was applied is fetched again. The end of recovery is told by the consumer's position, not by the last
record seen: the last offsets of a compacted changelog may have no records. Must never let source partitions flow
before the local state has reached the changelog's end as it was at the assignment.
"""

import time
from collections.abc import Iterable
from typing import Any

from faust.tables import TableManager
from faust.tables.recovery import Recovery
from faust.types import TP
from mode import Service

from services.features.chunks import Chunk
from services.features.table import CustomerStore
from services.runtime import telemetry
from services.runtime.logs import logger

log = logger(__name__)


class ChunkRecovery(Recovery):
    """Faust's order of recovery (actives, then standbys, then the source), with chunks."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._next: dict[TP, int] = {}  # by changelog partition: offset that the next chunk must begin at, or before
        self._began = 0.0
        self._rows = 0

    def take(self, tp: TP, chunk: Chunk) -> int | None:
        """Apply a fetched chunk of a changelog partition. Returns where to seek to if something before it is missing.

        Chunks of partitions that are not this worker's in this generation, and what was applied already, are dropped:
        each recovery begins with a seek of its own.
        """
        expected = self._next.get(tp)
        ours = tp in self.active_tps or tp in self.standby_tps
        if not ours or expected is None or self._generation_id != self.app.consumer_generation_id:
            return None
        if chunk.end <= expected:
            return None
        if chunk.start > expected:
            telemetry.FEATURES_HOLES.inc(partition=str(tp.partition))
            log.warning("changelog_hole_refused", partition=tp.partition, expected=expected, got=chunk.start)
            return expected
        rows = [(record.key, record.value) for record in chunk.records if record.offset >= expected]
        store = self.tp_to_table[tp].data
        assert isinstance(store, CustomerStore)
        store.apply_changelog(tp.partition, rows, chunk.end - 1)
        self._next[tp] = chunk.end
        if tp in self.active_tps:
            self._reached_active(tp, chunk.end - 1, len(rows))
        else:
            self._reached_standby(tp, chunk.end - 1, len(rows))
        return None

    def _reached_active(self, tp: TP, offset: int, rows: int) -> None:
        telemetry.FEATURES_RECOVERED.inc(rows)
        self._rows += rows
        self.active_offsets[tp] = offset
        if self.in_recovery and not self.need_recovery():
            self._set_recovery_ended()
            self.signal_recovery_end.set()

    def _reached_standby(self, tp: TP, offset: int, rows: int) -> None:
        telemetry.FEATURES_STANDBY.inc(rows)
        self.standby_offsets[tp] = offset
        if not self.tables.standbys_ready and not self.standby_remaining_total():
            self.tables.on_standbys_ready()

    def _set_recovery_started(self) -> None:
        super()._set_recovery_started()
        # Faust clears it whenever it looks for the next record: an end between two looks would be missed for ever.
        self.signal_recovery_end.clear()
        self._began, self._rows = time.monotonic(), 0

    async def _seek_offsets(self, consumer: Any, tps: set[TP], offsets: Any, title: str) -> None:
        """To the record after the last one applied; Faust reads that one again."""
        places = {tp: offsets[tp] + 1 for tp in tps}
        self._next.update(places)
        await consumer.seek_wait(places)

    async def on_recovery_completed(self, generation_id: int = 0) -> None:
        """Let the source flow."""
        log.info(
            "state_recovered",
            rows=self._rows,
            seconds=round(time.monotonic() - self._began, 3),
            active=_partitions(self.active_tps),
            standby=_partitions(self.standby_tps),
        )
        await super().on_recovery_completed(generation_id)

    @Service.task  # type: ignore[untyped-decorator]
    async def _slurp_changelogs(self) -> None:
        """Nothing: no record comes through Faust's queue."""
        await self.wait_until_stopped()


class CustomerTables(TableManager):
    """Faust's table manager with this recovery."""

    _recovery: ChunkRecovery | None

    async def on_start(self) -> None:
        """As Faust's, without its second of waiting."""
        await self._update_channels()
        await self.recovery.start()

    @property
    def recovery(self) -> ChunkRecovery:
        """The recovery of all tables, which is one."""
        if self._recovery is None:
            self._recovery = ChunkRecovery(self.app, self, beacon=self.beacon, loop=self.loop)
        return self._recovery


def _partitions(tps: Iterable[TP]) -> list[int]:
    return sorted(tp.partition for tp in tps)
