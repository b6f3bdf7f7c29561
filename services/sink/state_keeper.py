"""The sink's work on the state changelog: rows in, documents of customer_states out.

A reader of its own, so that a backlog of rows holds up no prediction. Must never return from a batch that is not stored
by a majority (or dead-lettered), and never say that time has come to a day whose rows are not stored.
"""

from datetime import UTC, datetime
from functools import partial

from aiokafka import AIOKafkaProducer, TopicPartition

from services.runtime.consume import Records
from services.sink.documents import Refusal
from services.sink.patience import UntilDone
from services.sink.state_store import StateStore
from services.sink.states import judge_row, plan_states
from services.sink.worker import judged, refusals, refusals_of, send_refusals


class StateKeeper:
    """One sink process's reader of the changelog."""

    def __init__(self, store: StateStore, producer: AIOKafkaProducer, until_done: UntilDone) -> None:
        self._store, self._producer, self._until_done = store, producer, until_done
        self.assigned = False
        """Whether the group has assigned partitions (perhaps none) at least once."""

    async def on_assigned(self, _: set[TopicPartition]) -> None:
        """The group has spoken."""
        self.assigned = True

    async def process(self, records: Records) -> None:
        """Store a batch: returns when it is stored and its dead letters are acknowledged. Raises Stopping."""
        now = datetime.now(UTC)
        verdicts = judged(records, partial(judge_row, now=now))
        refused = refusals(verdicts)
        work = plan_states(each for _, each in verdicts if each is not None and not isinstance(each, Refusal))
        faults = await self._until_done(lambda: self._store.write(work))
        refused += refusals_of(records, [(write.partition, write.offset, why) for write, why in faults])
        await send_refusals(self._producer, refused)
        if work.clocks:
            await self._until_done(lambda: self._store.keep_clocks(work.clocks))
