"""The customer table's local store: RocksDB, with rows and their changelog offset written in one step.

In recovery the row with more events applied wins, not the later write: a worker that was paused for long may have
written old rows after the new owner's (seen: 83 such rows after one pause of 16 s).
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import faust
import rocksdict
from faust.stores.rocksdb import Store
from faust.types import TP

from services.features.rows import PROGRESS_KEY, events_applied
from services.runtime import telemetry


class CustomerStore(Store):
    """Faust's RocksDB store with batch reads and writes by partition."""

    def get_many(self, partition: int, keys: list[bytes]) -> list[bytes | None]:
        """Values of keys in one partition, None where there is none."""
        if not keys:
            return []
        values: list[bytes | None] = self._db_for_partition(partition).get(keys)
        return values

    def put_many(self, partition: int, items: Iterable[tuple[bytes, bytes]], changelog_offset: int | None) -> None:
        """Write rows and the changelog offset that they reach, all or nothing."""
        batch = rocksdict.WriteBatch(raw_mode=True)
        for key, value in items:
            batch.put(key, value)
        if changelog_offset is not None:
            batch.put(self.offset_key, str(changelog_offset).encode())
        self._db_for_partition(partition).write(batch)

    def customers_after(self, partition: int, key: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        """Up to `limit` customers' rows in key order, strictly after `key` (b"" is before the first)."""
        found: list[tuple[bytes, bytes]] = []
        for item_key, value in self._db_for_partition(partition).items(from_key=key or b"\x00"):
            if item_key in (key, PROGRESS_KEY, self.offset_key):
                continue
            found.append((item_key, value))
            if len(found) == limit:
                break
        return found

    def count_customers(self, partition: int) -> int:
        """Customers in the partition, by walking the keys."""
        own = (PROGRESS_KEY, self.offset_key)
        return sum(1 for key in self._db_for_partition(partition).keys() if key not in own)  # noqa: SIM118

    def apply_changelog_batch(
        self, batch: Iterable[Any], to_key: Callable[[Any], Any], to_value: Callable[[Any], Any]
    ) -> None:
        """Recovery: take over changelog rows, better rows only, and remember how far the changelog was read."""
        newest: dict[int, dict[bytes, bytes | None]] = defaultdict(dict)
        reached: dict[TP, int] = {}
        for event in batch:
            message = event.message
            partition, key, value = message.tp.partition, message.key, message.value
            reached[message.tp] = max(message.offset, reached.get(message.tp, -1))
            newest[partition][key] = _better(newest[partition].get(key), value)
            telemetry.FEATURES_RECOVERED.inc()
        for tp, offset in reached.items():
            rows = newest[tp.partition]
            write = rocksdict.WriteBatch(raw_mode=True)
            for key, value in self._merge(tp.partition, rows):
                if value is None:
                    write.delete(key)
                else:
                    write.put(key, value)
            write.put(self.offset_key, str(offset).encode())
            self._db_for_partition(tp.partition).write(write)

    def _merge(self, partition: int, rows: dict[bytes, bytes | None]) -> Iterator[tuple[bytes, bytes | None]]:
        keys = list(rows)
        for key, known in zip(keys, self.get_many(partition, keys), strict=True):
            value = rows[key]
            yield key, (value if value is None else _better(known, value))


def _better(known: bytes | None, value: bytes | None) -> bytes | None:
    """Of two rows the one with more events applied; a deletion always counts."""
    if known is None or value is None:
        return value
    return value if events_applied(value) >= events_applied(known) else known


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
