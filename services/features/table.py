"""The customer table's local store: RocksDB, with rows and their changelog offset written in one step.

In recovery the row with more events applied wins, not the later write: a worker that was paused for long may have
written old rows after the new owner's (seen: 83 such rows after one pause of 16 s).
"""

import shutil
import time
from collections.abc import Iterable
from typing import Any

import faust
import rocksdict
from faust.stores.rocksdb import Store

from schemas.customer_rows import better
from services.runtime.logs import logger

log = logger(__name__)

FIRST_CUSTOMER = b"\x01"
"""No customer's key is smaller: ids hold no control characters. What begins with a zero byte is the worker's own."""


LOCAL_TABLE_DAYS_MAX = 6
"""Compaction keeps a deletion for seven days. A local table that slept for longer may have missed one, and would bring
an erased customer back."""


class CustomerStore(Store):
    """Faust's RocksDB store with batch reads and writes by partition."""

    def _open_for_partition(self, partition: int) -> Any:
        folder = self.partition_path(partition)
        written = max((file.stat().st_mtime for file in folder.glob("*")), default=time.time())
        if time.time() - written > LOCAL_TABLE_DAYS_MAX * 86_400:
            log.warning("local_table_too_old", partition=partition, remedy="recovered from the changelog instead")
            shutil.rmtree(folder)
        return super()._open_for_partition(partition)

    def get_many(self, partition: int, keys: list[bytes]) -> list[bytes | None]:
        """Values of keys in one partition, None where there is none."""
        if not keys:
            return []
        values: list[bytes | None] = self._db_for_partition(partition).get(keys)
        return values

    def put_many(
        self, partition: int, items: Iterable[tuple[bytes, bytes | None]], changelog_offset: int | None
    ) -> None:
        """Write rows (None deletes one) and the changelog offset that they reach, all or nothing."""
        batch = rocksdict.WriteBatch(raw_mode=True)
        for key, value in items:
            if value is None:
                batch.delete(key)
            else:
                batch.put(key, value)
        if changelog_offset is not None:
            batch.put(self.offset_key, str(changelog_offset).encode())
        self._db_for_partition(partition).write(batch)

    def customers_after(self, partition: int, key: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        """Up to `limit` customers' rows in key order, strictly after `key` (b"" is before the first)."""
        found: list[tuple[bytes, bytes]] = []
        for item_key, value in self._db_for_partition(partition).items(from_key=max(key, FIRST_CUSTOMER)):
            if item_key in (key, self.offset_key):
                continue
            found.append((item_key, value))
            if len(found) == limit:
                break
        return found

    def count_customers(self, partition: int) -> int:
        """Customers in the partition, by walking the keys."""
        keys = self._db_for_partition(partition).keys(from_key=FIRST_CUSTOMER)
        return sum(1 for key in keys if key != self.offset_key)

    def apply_changelog(self, partition: int, rows: Iterable[tuple[bytes, bytes | None]], reached: int) -> None:
        """Take over changelog rows in their order, better rows only, together with the offset that they reach.

        A row without value deletes what was there before it, however good, and nothing that comes after it.
        """
        newest: dict[bytes, bytes | None] = {}
        deleted: set[bytes] = set()
        for key, value in rows:
            if value is None:
                deleted.add(key)
            newest[key] = better(newest.get(key), value)
        open_keys = [key for key in newest if key not in deleted]
        for key, stored in zip(open_keys, self.get_many(partition, open_keys), strict=True):
            newest[key] = better(stored, newest[key])
        self.put_many(partition, newest.items(), reached)


class CustomerTable(faust.Table):
    """A Faust table on a CustomerStore."""

    def _new_store(self) -> CustomerStore:
        return CustomerStore(
            self.app.conf.store,
            self.app,
            self,
            table_name=self.name,
            key_type=self.key_type,
            key_serializer=self.key_serializer,
            value_serializer=self.value_serializer,
            value_type=self.value_type,
            loop=self.loop,
            options=self.options,
        )
