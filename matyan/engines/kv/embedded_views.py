"""EmbeddedReader, EmbeddedTransaction: what a function sees of one LMDB transaction.

py-lmdb gives up the interpreter lock around every single call into LMDB, and getting it back may take a whole switch
interval (5 ms) when another thread computes. So this file is written for few calls: writes wait in a dict until the
commit, point reads take one call each (`Cursor.getmulti` takes three), scans take rows straight from an iterator.
LMDB's errors pass through here; `EmbeddedKv` turns them into ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Final

import lmdb

from matyan.engines.kv.budget import WriteBudget, check_range_end
from matyan.engines.kv.protocol import KeyRange, Pair
from matyan.errors import InvalidArgumentError
from matyan.limits import SCAN_ROWS_MAX

_STAMP_KEY: Final = b"\xff/matyan/versionstamp"
_STAMP_COUNTER_BYTES: Final = 8
_STAMP_TAIL: Final = b"\x00\x00"
"""FoundationDB's last two bytes order the transactions of one batch; here the counter orders all of them."""
_COUNTER_MASK: Final = 2**64 - 1
_DELTA_MIN: Final = -(2**63)
_DELTA_MAX: Final = 2**63 - 1


class EmbeddedReader:
    """A snapshot, until `end`."""

    __slots__ = ("_txn",)

    def __init__(self, txn: lmdb.Transaction[bytes]) -> None:
        self._txn: lmdb.Transaction[bytes] | None = txn

    def get(self, key: bytes) -> bytes | None:
        """Return the value, or None when the key is missing."""
        try:
            return self._live().get(key)
        except lmdb.BadValsizeError:  # the empty key, which LMDB cannot hold
            return None

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return one value or None per key, in the order asked."""
        try:
            return list(map(self._live().get, keys))
        except lmdb.BadValsizeError:
            return [self.get(key) for key in keys]

    def scan(self, begin: bytes, end: bytes, *, rows_max: int, reverse: bool = False) -> list[Pair]:
        """Return up to `rows_max` pairs of `begin <= key < end`, ascending or descending."""
        _check_scan(end, rows_max)
        with self._live().cursor() as cursor:
            read = _descending if reverse else _ascending
            return read(cursor, begin, end, rows_max)

    def scan_many(self, ranges: Sequence[KeyRange], *, rows_max: int) -> list[list[Pair]]:
        """Return what `scan` (ascending) returns for each range."""
        for _, end in ranges:
            _check_scan(end, rows_max)
        with self._live().cursor() as cursor:
            return [_ascending(cursor, begin, end, rows_max) for begin, end in ranges]

    def end(self) -> None:
        """Let go of the LMDB transaction; every later call fails."""
        self._txn = None

    def _live(self) -> lmdb.Transaction[bytes]:
        txn = self._txn
        if txn is None:
            raise RuntimeError("a reader or transaction was used after the function that received it had returned")
        return txn


class EmbeddedTransaction(EmbeddedReader):
    """A reader that also writes: into memory first, into LMDB at `flush`."""

    __slots__ = ("_budget", "_pending", "_stamped", "is_flushed")

    def __init__(self, txn: lmdb.Transaction[bytes]) -> None:
        super().__init__(txn)
        self._budget = WriteBudget()
        self._pending: dict[bytes, bytes | None] = {}
        """What was put (or cleared: None) since the last flush."""
        self._stamped: list[tuple[bytes, bytes, bytes]] = []
        self.is_flushed = False
        """Whether the LMDB transaction holds changes."""

    # ---- reads, which see the writes

    def get(self, key: bytes) -> bytes | None:
        """Return the value as this transaction left it."""
        self._live()
        if key in self._pending:
            return self._pending[key]
        return super().get(key)

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return one value or None per key, in the order asked."""
        if not self._pending:
            return super().get_many(keys)
        return [self.get(key) for key in keys]

    def scan(self, begin: bytes, end: bytes, *, rows_max: int, reverse: bool = False) -> list[Pair]:
        """Flush, so that LMDB merges what was written into what is stored, then scan."""
        self._flush_pending()
        return super().scan(begin, end, rows_max=rows_max, reverse=reverse)

    def scan_many(self, ranges: Sequence[KeyRange], *, rows_max: int) -> list[list[Pair]]:
        """Flush, then scan each range."""
        self._flush_pending()
        return super().scan_many(ranges, rows_max=rows_max)

    # ---- writes

    @property
    def written_bytes(self) -> int:
        """How much is written so far, as the limit counts it."""
        return self._budget.used_bytes

    def put(self, key: bytes, value: bytes) -> None:
        """Set a value."""
        self._live()
        self._budget.charge_put(key, value)
        self._pending[key] = value

    def clear(self, key: bytes) -> None:
        """Delete a key."""
        self._live()
        self._budget.charge_key(key)
        self._pending[key] = None

    def clear_range(self, begin: bytes, end: bytes) -> None:
        """Delete row by row: time grows with the rows, memory does not (LMDB reuses the pages that it empties)."""
        txn = self._live()
        self._budget.charge_range(begin, end)
        for key in [key for key in self._pending if begin <= key < end]:
            del self._pending[key]
        with txn.cursor() as cursor:
            _seek(cursor, begin)
            # The key of a cursor past the last row is empty.
            while (key := cursor.key()) and key < end:
                self.is_flushed = True
                cursor.delete()

    def add(self, key: bytes, delta: int) -> None:
        """Add to a counter. LMDB has one writer, so reading it here costs no conflict."""
        if not _DELTA_MIN <= delta <= _DELTA_MAX:
            raise InvalidArgumentError(f"delta {delta} of counter {key!r} is not a signed 64-bit integer")
        self._live()
        self._budget.charge_key(key, _STAMP_COUNTER_BYTES)
        # Sums wrap, and other sizes are cut or filled with zeros, as FoundationDB does it.
        stored = int.from_bytes(self.get(key) or b"", "little")
        self._pending[key] = ((stored + delta) & _COUNTER_MASK).to_bytes(8, "little")

    def put_versionstamped(self, prefix: bytes, suffix: bytes, value: bytes) -> None:
        """Set `prefix + versionstamp + suffix` at the commit."""
        self._live()
        placeholder = bytes(_STAMP_COUNTER_BYTES) + _STAMP_TAIL
        self._budget.charge_put(prefix + placeholder + suffix, value)
        self._stamped.append((prefix, suffix, value))

    # ---- for the engine

    def flush(self) -> None:
        """Hand everything to LMDB; the commit is next."""
        if self._stamped:
            stamp = self._next_stamp()
            for prefix, suffix, value in self._stamped:
                self._pending[prefix + stamp + suffix] = value
            self._stamped.clear()
        self._flush_pending()

    def _next_stamp(self) -> bytes:
        """Count on from the stored counter: the writer lock makes that an order over all processes."""
        counter = int.from_bytes(self._live().get(_STAMP_KEY, b""), "big") + 1
        stored = counter.to_bytes(_STAMP_COUNTER_BYTES, "big")
        self._pending[_STAMP_KEY] = stored
        return stored + _STAMP_TAIL

    def _flush_pending(self) -> None:
        txn = self._live()
        if not self._pending:
            return
        self.is_flushed = True
        # In key order neighbours share pages, so LMDB touches each page once. Keys differ, values are never compared.
        changes = sorted(self._pending.items())
        self._pending = {}
        puts: list[Pair] = []
        for key, value in changes:
            if value is None:
                txn.delete(key)
            else:
                puts.append((key, value))
        with txn.cursor() as cursor:
            cursor.putmulti(puts)


def _check_scan(end: bytes, rows_max: int) -> None:
    check_range_end(end)
    if not 1 <= rows_max <= SCAN_ROWS_MAX:
        raise InvalidArgumentError(f"rows_max is {rows_max}, must be between 1 and {SCAN_ROWS_MAX}")


def _seek(cursor: lmdb.Cursor[bytes], key: bytes) -> bool:
    """Move to the first row at or after `key`; False when there is none."""
    return cursor.set_range(key) if key else cursor.first()  # LMDB knows no empty key


def _ascending(cursor: lmdb.Cursor[bytes], begin: bytes, end: bytes, rows_max: int) -> list[Pair]:
    rows: list[Pair] = []
    if not _seek(cursor, begin):  # an iterator on an unplaced cursor would start at the first row
        return rows
    for row in islice(cursor.iternext(), rows_max):
        if row[0] >= end:
            break
        rows.append(row)
    return rows


def _descending(cursor: lmdb.Cursor[bytes], begin: bytes, end: bytes, rows_max: int) -> list[Pair]:
    rows: list[Pair] = []
    if not (cursor.prev() if _seek(cursor, end) else cursor.last()):
        return rows
    for row in islice(cursor.iterprev(), rows_max):
        if row[0] < begin:
            break
        rows.append(row)
    return rows
