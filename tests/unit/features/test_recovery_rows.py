"""Rows taken over from the changelog: the better one stays, a deletion always counts, the offset comes with them."""

import os
import time
from itertools import pairwise
from pathlib import Path

import pytest
from faust.types import TP
from hypothesis import given
from hypothesis import strategies as st

from domain.customer import CustomerState
from schemas.customer_rows import PROGRESS_KEY, Row, encode, erased_key
from schemas.topics import CUSTOMER_STATE_CHANGELOG
from services.features.app import build_app, build_table
from services.features.settings import FeaturesSettings
from services.features.table import LOCAL_TABLE_DAYS_MAX, CustomerStore

KEYS = (b"ann", b"bob", PROGRESS_KEY, erased_key(b"ann"))


PARTITION = 0


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> CustomerStore:
    folder: Path = tmp_path_factory.mktemp("tables")
    settings = FeaturesSettings(features_data_dir=folder, features_block_cache_bytes=1 << 20)
    store = build_table(build_app(settings, "test"), settings).data
    assert isinstance(store, CustomerStore)
    return store


def emptied(store: CustomerStore) -> CustomerStore:
    keys = list(store._db_for_partition(PARTITION).keys())
    store.put_many(PARTITION, [(key, None) for key in keys], None)
    return store


def row(events: int, offset: int) -> bytes:
    return encode(Row(events, 0, offset, CustomerState()))


Written = list[tuple[bytes, int | None]]  # key, events applied (None: deleted)


def encoded(written: Written) -> list[tuple[bytes, bytes | None]]:
    return [(key, None if events is None else row(events, n)) for n, (key, events) in enumerate(written)]


def oracle(written: Written) -> dict[bytes, bytes]:
    """One by one: of what follows a key's last deletion, the row with most events; of equals the latest."""
    kept: dict[bytes, bytes] = {}
    for key in {key for key, _ in written}:
        found = [(n, events) for n, (each, events) in enumerate(written) if each == key]
        deleted = max((n for n, events in found if events is None), default=-1)
        alive = [(events, n) for n, events in found if n > deleted and events is not None]
        if alive:
            kept[key] = row(*max(alive))
    return kept


@given(
    written=st.lists(st.tuples(st.sampled_from(KEYS), st.none() | st.integers(1, 5)), max_size=30),
    cuts=st.lists(st.integers(0, 30), max_size=4),
)
def test_rows_of_the_changelog_win_by_their_events_however_they_are_cut_into_chunks(opened, written, cuts):
    store, rows = emptied(opened), encoded(written)
    edges = sorted({0, len(rows), *(cut for cut in cuts if cut < len(rows))})
    for begin, end in pairwise(edges):
        store.apply_changelog(PARTITION, rows[begin:end], end - 1)
    expected = oracle(written)
    assert dict(zip(KEYS, store.get_many(PARTITION, list(KEYS)), strict=True)) == {
        key: expected.get(key) for key in KEYS
    }
    place = TP(CUSTOMER_STATE_CHANGELOG, PARTITION)
    assert store.persisted_offset(place) == (len(rows) - 1 if rows else None)


def test_a_row_after_a_deletion_stays_though_a_better_one_stood_before_it(opened):
    store = emptied(opened)
    store.apply_changelog(PARTITION, [(b"ann", row(9, 0))], 0)
    store.apply_changelog(PARTITION, [(b"ann", None), (b"ann", row(1, 2))], 2)
    assert store.get_many(PARTITION, [b"ann"]) == [row(1, 2)]


def test_customers_are_all_keys_but_the_workers_own(opened):
    store = emptied(opened)
    own = [(PROGRESS_KEY, b"1"), (erased_key(b"eve"), b"2"), (b"\x00", b"3")]
    customers = [(b" first", b"4"), (b"__faust", b"5"), (b"ann", b"6"), ("\u00fcmit".encode(), b"7")]
    store.put_many(PARTITION, [*own, *customers], 6)
    assert store.count_customers(PARTITION) == len(customers)
    assert store.customers_after(PARTITION, b"", 10) == customers
    assert store.customers_after(PARTITION, b"__faust", 1) == [(b"ann", b"6")]


def test_a_row_without_a_value_is_deleted(opened):
    store = emptied(opened)
    store.put_many(PARTITION, [(b"ann", b"1"), (b"bob", b"2")], 1)
    store.put_many(PARTITION, [(b"ann", None)], 2)
    assert store.customers_after(PARTITION, b"", 10) == [(b"bob", b"2")]


@pytest.mark.parametrize(("days", "kept"), [(LOCAL_TABLE_DAYS_MAX - 0.1, True), (LOCAL_TABLE_DAYS_MAX + 0.1, False)])
def test_a_local_table_that_may_have_missed_a_deletion_is_not_used(tmp_path: Path, days: float, kept: bool):
    def open_store() -> CustomerStore:
        settings = FeaturesSettings(features_data_dir=tmp_path, features_block_cache_bytes=1 << 20)
        store = build_table(build_app(settings, "test"), settings).data
        assert isinstance(store, CustomerStore)
        return store

    store = open_store()
    store.put_many(PARTITION, [(b"ann", row(1, 0))], 0)
    store.revoke_partitions(store.table, {TP(CUSTOMER_STATE_CHANGELOG, PARTITION)})
    for file in store.partition_path(PARTITION).glob("*"):
        os.utime(file, (time.time() - days * 86_400,) * 2)
    assert (open_store().get_many(PARTITION, [b"ann"]) != [None]) == kept
