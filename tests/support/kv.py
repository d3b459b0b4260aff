"""Wrappers and builders for tests of and on key-value engines."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TypeVar

from matyan.engines.kv.protocol import KvEngine, KvReader, KvTransaction, Pair
from matyan.engines.kv.wrapper import KvWrapper
from tests.support.kv_faults import FaultyKv

T = TypeVar("T")


class RunTwiceKv(KvWrapper):
    """Run every function twice, the first time for nothing: what FoundationDB does when transactions conflict.

    A function that sends, counts or makes ids inside a transaction so fails on a laptop, not in production.
    """

    def read(self, fn: Callable[[KvReader], T]) -> T:
        self.engine.read(fn)
        return self.engine.read(fn)

    def write(self, fn: Callable[[KvTransaction], T], *, durable: bool = True) -> T:
        def run_and_roll_back(tx: KvTransaction) -> None:
            fn(tx)
            raise _RolledBackError

        with suppress(_RolledBackError):
            self.engine.write(run_and_roll_back, durable=False)
        return self.engine.write(fn, durable=durable)


class _RolledBackError(Exception):
    pass


def put_all(kv: KvEngine, pairs: Iterable[Pair]) -> None:
    """Commit the pairs in one transaction."""
    rows = list(pairs)

    def put_rows(tx: KvTransaction) -> None:
        for key, value in rows:
            tx.put(key, value)

    kv.write(put_rows, durable=False)


def engine_under(kv: KvEngine) -> KvEngine:
    """Return the engine itself where a function with effects of its own must not run twice."""
    return kv.engine if isinstance(kv, RunTwiceKv | FaultyKv) else kv


def read_all(kv: KvEngine) -> dict[bytes, bytes]:
    """Return every key of a small store."""
    return dict(kv.read(lambda snapshot: snapshot.scan(b"", b"\xff", rows_max=10_000)))


def counter_of(value: bytes | None) -> int:
    """Return what `add` keeps: a signed 64-bit little-endian integer, 0 when missing."""
    return int.from_bytes(value or b"", "little", signed=True)
