"""A feature worker with one of its guards taken out, so that the fault harness can be seen to notice.

python -m tests.chaos.sabotaged_features --replay-guard-off | --offsets-early. Fails if what it takes out is not there.
"""

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any

from services.features import worker
from services.features.__main__ import main
from services.features.chunks import ChunkConsumer
from services.runtime.shutdown import run_service

SEND_SECONDS = 2.0


def take_out_the_replay_guard() -> None:
    """Records that come again are applied again."""
    fold_chunk = worker.fold_chunk

    def without_guard(records: Any, rows: Any, *args: Any, **kwargs: Any) -> Any:
        for row in rows.values():
            assert isinstance(row.offset, int)
            row.offset = -1
        return fold_chunk(records, rows, *args, **kwargs)

    worker.fold_chunk = without_guard


def commit_early() -> None:
    """Offsets count as processed when their records are fetched, before anything that they cause is acknowledged."""
    getmany = ChunkConsumer.getmany

    async def marking(self: Any, timeout: float) -> AsyncIterator[Any]:  # noqa: ASYNC109 - Faust's signature
        async for tp, message in getmany(self, timeout):
            if self.is_source(tp):
                self.processed[tp] = message.offset + 1
            yield tp, message

    async def believing(*_: Any) -> bool:
        return True  # it asks by committing the offset before the chunk, which would take the early commit back

    assert callable(ChunkConsumer.is_member)
    ChunkConsumer.getmany = marking  # type: ignore[method-assign]
    ChunkConsumer.is_member = believing  # type: ignore[method-assign]
    slow_down_sends()


def slow_down_sends() -> None:
    """Kafka takes its time to acknowledge, as a busy one does: so that the harm can be done within seconds."""
    deliver = worker.FeatureWorker._deliver

    async def later(self: Any, *args: Any) -> Any:
        await asyncio.sleep(SEND_SECONDS)
        return await deliver(self, *args)

    worker.FeatureWorker._deliver = later  # type: ignore[method-assign]


if __name__ == "__main__":
    sabotages = {"--replay-guard-off": take_out_the_replay_guard, "--offsets-early": commit_early}
    sabotages[sys.argv[1]]()
    run_service(main)
