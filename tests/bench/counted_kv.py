"""CountedKv: a key-value engine that counts what functions read and write."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from matyan.engines.kv.protocol import KeyRange, KvEngine, KvReader, KvTransaction, Pair
from matyan.engines.kv.wrapper import KvWrapper

T = TypeVar("T")


class Counts:
    """What was read and written since it was made."""

    def __init__(self) -> None:
        self.transactions = 0
        self.values_read = 0
        """Values that were found, by key or in a scan."""
        self.bytes_read = 0
        self.values_written = 0
        self.bytes_written = 0
        """Keys and values, as they are handed to the engine."""


class CountedKv(KvWrapper):
    """An engine around another, for one thread."""

    def __init__(self, engine: KvEngine) -> None:
        super().__init__(engine)
        self.counts = Counts()

    def read(self, fn: Callable[[KvReader], T]) -> T:
        """Run `fn` on a snapshot, counting what it reads."""
        return self.engine.read(lambda reader: fn(_CountedReader(reader, self.counts)))

    def write(self, fn: Callable[[KvTransaction], T], *, durable: bool = True) -> T:
        """Run `fn` and commit, counting what it reads and writes."""
        self.counts.transactions += 1
        return self.engine.write(lambda tx: fn(_CountedTransaction(tx, self.counts)), durable=durable)


class _CountedReader:
    def __init__(self, reader: KvReader, counts: Counts) -> None:
        self._reader = reader
        self._counts = counts

    def get(self, key: bytes) -> bytes | None:
        return self.get_many([key])[0]

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        values = self._reader.get_many(keys)
        self._count([value for value in values if value is not None])
        return values

    def scan(self, begin: bytes, end: bytes, *, rows_max: int, reverse: bool = False) -> list[Pair]:
        rows = self._reader.scan(begin, end, rows_max=rows_max, reverse=reverse)
        self._count([value for _, value in rows])
        return rows

    def scan_many(self, ranges: Sequence[KeyRange], *, rows_max: int) -> list[list[Pair]]:
        found = self._reader.scan_many(ranges, rows_max=rows_max)
        self._count([value for rows in found for _, value in rows])
        return found

    def _count(self, values: Sequence[bytes]) -> None:
        self._counts.values_read += len(values)
        self._counts.bytes_read += sum(map(len, values))


class _CountedTransaction(_CountedReader):
    def __init__(self, tx: KvTransaction, counts: Counts) -> None:
        super().__init__(tx, counts)
        self._tx = tx

    @property
    def written_bytes(self) -> int:
        return self._tx.written_bytes

    def put(self, key: bytes, value: bytes) -> None:
        self._counts.values_written += 1
        self._counts.bytes_written += len(key) + len(value)
        self._tx.put(key, value)

    def clear(self, key: bytes) -> None:
        self._tx.clear(key)

    def clear_range(self, begin: bytes, end: bytes) -> None:
        self._tx.clear_range(begin, end)

    def add(self, key: bytes, delta: int) -> None:
        self._tx.add(key, delta)

    def put_versionstamped(self, prefix: bytes, suffix: bytes, value: bytes) -> None:
        self._counts.values_written += 1
        self._counts.bytes_written += len(prefix) + len(suffix) + len(value)
        self._tx.put_versionstamped(prefix, suffix, value)
