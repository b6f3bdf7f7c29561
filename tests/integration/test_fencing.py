"""A worker that lost a partition writes nothing over its new owner's rows: refused by Kafka, not by good manners."""

import asyncio
import random
import threading
from pathlib import Path
from typing import Any

import pytest

from schemas.customer_rows import OWN_PREFIX, events_applied
from schemas.topics import CUSTOMER_FEATURES, CUSTOMER_STATE_CHANGELOG
from services.features.writer import Fenced, PartitionWriter
from tests.integration.features_support import assert_features_equal_batch, history, lag, publish
from tests.support import metric, read_all, wait_for

pytestmark = pytest.mark.integration

SESSION_SECONDS = 10


def items(name: bytes) -> list[Any]:
    return [(name, b"value", None, [])]


def test_after_the_new_owners_first_write_the_former_owner_can_write_nothing(topics: str):
    async def take_over() -> None:
        former = await PartitionWriter.open(topics, "clv-features", 0)
        other = await PartitionWriter.open(topics, "clv-features", 1)
        await former.write(items(b"before"), items(b"before"))
        owner = await PartitionWriter.open(topics, "clv-features", 0)
        await owner.write(items(b"after"), items(b"after"))
        with pytest.raises(Fenced):
            await former.write(items(b"stale"), [])
        with pytest.raises(Fenced):
            await former.write([], items(b"stale"))
        await owner.write(items(b"later"), items(b"later"))
        await other.write(items(b"elsewhere"), [])
        for writer in (former, owner, other):
            await writer.close()

    asyncio.run(take_over())
    for topic in (CUSTOMER_STATE_CHANGELOG, CUSTOMER_FEATURES):
        written = [record.key() for record in read_all(topics, topic) if record.partition() == 0]
        assert written == [b"before", b"after", b"later"]


def test_a_writer_says_which_changelog_offset_it_reached(topics: str):
    async def write() -> list[int | None]:
        writer = await PartitionWriter.open(topics, "clv-features", 0)
        reached = [await writer.write(items(b"a") * 3, []), await writer.write(items(b"b") * 2, items(b"c"))]
        await writer.close()
        return reached

    assert asyncio.run(write()) == [2, 4]


def test_a_worker_that_was_paused_beyond_its_session_and_wakes_leaves_no_older_row_last(
    service: Any, environment: dict[str, str], topics: str, tmp_path: Path
):
    """The state would survive that (the better row wins in recovery), but not once compaction has kept the older."""
    records = history(customers=60, events=9000, seed=21)
    random.Random(21).shuffle(records)
    small = environment | {"CLV_FEATURES_CHUNK_RECORDS": "20"}
    paused = service("features", small | {"CLV_FEATURES_DATA_DIR": str(tmp_path / "a")})
    publishing = threading.Thread(target=publish, args=(topics, records))
    publishing.start()
    wait_for(lambda: metric(paused, "clv_records_processed_total") > 500, "work in hand", context=paused.log_tail)
    paused.pause()
    other = service("features", small | {"CLV_FEATURES_DATA_DIR": str(tmp_path / "b")}, wait=False)
    publishing.join()
    # The group waits for the paused member until its session is over; then the other one owns everything.
    wait_for(
        lambda: metric_or_zero(other, "clv_records_processed_total") > 500,
        "the other to take over",
        SESSION_SECONDS + 60,
        other.log_tail,
    )
    paused.resume()
    wait_for(lambda: lag(topics) == 0, "all records", 90, lambda: paused.log_tail() + other.log_tail())
    assert_features_equal_batch(topics, records)
    last: dict[bytes, int] = {}
    best: dict[bytes, int] = {}
    for record in read_all(topics, CUSTOMER_STATE_CHANGELOG):
        key = record.key()
        if not key.startswith(OWN_PREFIX):
            last[key] = events_applied(record.value())
            best[key] = max(best.get(key, 0), last[key])
    assert last == best


def metric_or_zero(process: Any, name: str) -> float:
    try:
        return metric(process, name)
    except OSError:
        return 0.0
