"""Chunks of changelog, lost and repeated in any way: nothing is missing, nothing older comes back, the end is told."""

from types import SimpleNamespace

import pytest
from faust.types import TP
from hypothesis import given
from hypothesis import strategies as st

from domain.customer import CustomerState
from schemas.customer_rows import Row, encode
from schemas.topics import CUSTOMER_STATE_CHANGELOG
from services.features.app import build_app, build_table
from services.features.chunks import Chunk
from services.features.recovery import ChunkRecovery
from services.features.settings import FeaturesSettings

CHANGELOG = TP(CUSTOMER_STATE_CHANGELOG, 0)
KEYS = (b"ann", b"bob", b"eve")


@pytest.fixture(scope="module")
def recovery(tmp_path_factory) -> ChunkRecovery:
    settings = FeaturesSettings(features_data_dir=tmp_path_factory.mktemp("tables"))
    app = build_app(settings, "test")
    table = build_table(app, settings)
    found = app.tables.recovery
    found.add_active(table, CHANGELOG)
    return found


def begin(recovery: ChunkRecovery, end: int) -> None:
    """As after an assignment, without local state."""
    store = recovery.tp_to_table[CHANGELOG].data
    store.put_many(0, [(key, None) for key in (*KEYS, store.offset_key)], None)
    recovery.active_offsets[CHANGELOG], recovery.active_highwaters[CHANGELOG] = -1, end - 1
    recovery._next[CHANGELOG] = 0
    recovery._set_recovery_started()


def records(written: list[tuple[bytes, int | None]]) -> list[SimpleNamespace | None]:
    """Records as fetched, by offset; of a key without a row compaction has left nothing."""
    return [
        SimpleNamespace(offset=n, key=key, value=None if events == 0 else encode(Row(events, 0, n, CustomerState())))
        if events is not None
        else None
        for n, (key, events) in enumerate(written)
    ]


@given(
    written=st.lists(st.tuples(st.sampled_from(KEYS), st.none() | st.integers(0, 4)), min_size=1, max_size=20),
    fates=st.lists(st.tuples(st.sampled_from(["comes", "lost", "repeated"]), st.integers(1, 8)), max_size=12),
)
def test_chunks_lost_and_repeated_give_the_state_of_all_and_the_end_is_told_once_there(recovery, written, fates):
    log, end, position = records(written), len(written), 0
    begin(recovery, end)

    def chunk(start: int, length: int) -> Chunk:
        stop = min(end, start + length)
        return Chunk(start, stop, [record for record in log[start:stop] if record is not None])

    for fate, length in [*fates, *[("comes", 7)] * (len(written) + 3)]:
        start = max(0, position - 3) if fate == "repeated" else position
        fetched = chunk(start, length)
        if fetched.end == fetched.start:  # at the end of what there is; what was lost shows with the next record
            log.append(SimpleNamespace(offset=end, key=b"later", value=None))
            end += 1
            continue
        position = fetched.end
        if fate != "lost":
            missing = recovery.take(CHANGELOG, fetched)
            position = missing if missing is not None else position
        reached = recovery.active_offsets[CHANGELOG]
        assert recovery.signal_recovery_end.is_set() == (reached >= len(written) - 1)
        assert recovery.tp_to_table[CHANGELOG].persisted_offset(CHANGELOG) == (reached if reached >= 0 else None)
    expected: dict[bytes, bytes | None] = dict.fromkeys(KEYS)
    best: dict[bytes, int] = {}
    for record in filter(None, log[: len(written)]):
        events = None if record.value is None else written[record.offset][1]
        if events is None:
            expected[record.key], best[record.key] = None, 0
        elif events >= best.get(record.key, 0):
            expected[record.key], best[record.key] = record.value, events
    store = recovery.tp_to_table[CHANGELOG].data
    assert dict(zip(KEYS, store.get_many(0, list(KEYS)), strict=True)) == expected


def test_a_chunk_of_another_generation_or_of_a_partition_of_others_changes_nothing(recovery):
    begin(recovery, 1)
    chunk = Chunk(0, 1, records([(b"ann", 1)]))
    recovery._generation_id += 1
    assert recovery.take(CHANGELOG, chunk) is None
    recovery._generation_id -= 1
    assert recovery.take(TP(CUSTOMER_STATE_CHANGELOG, 1), chunk) is None
    assert recovery.need_recovery()
    assert recovery.take(CHANGELOG, chunk) is None
    assert not recovery.need_recovery()
