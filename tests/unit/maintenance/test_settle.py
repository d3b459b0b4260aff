"""Runs that fell quiet are settled, however much of them fits a transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

import pytest

from matyan.clock import ManualClock
from matyan.engines.kv.embedded import EmbeddedKv, open_embedded_kv
from matyan.engines.kv.protocol import KvTransaction
from matyan.errors import TooLargeError
from matyan.ids import DEFAULT_PROJECT
from matyan.maintenance.settle import settle_quiet_runs
from matyan.store import keyspace
from tests.support.store import make_metric, make_run

T = TypeVar("T")
PUTS_MAX: Final = 20


class CountingTransaction:
    """A transaction that knows how often it was written to."""

    def __init__(self, tx: KvTransaction) -> None:
        self._tx = tx
        self.puts = 0

    def put(self, key: bytes, value: bytes) -> None:
        self.puts += 1
        self._tx.put(key, value)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tx, name)


class NarrowKv:
    """A store that takes no more than PUTS_MAX values in a transaction."""

    def __init__(self, engine: EmbeddedKv) -> None:
        self._engine = engine

    def write(self, fn: Callable[[Any], T], *, durable: bool = True) -> T:
        def run(tx: KvTransaction) -> T:
            counting = CountingTransaction(tx)
            found = fn(counting)
            if counting.puts > PUTS_MAX:
                raise TooLargeError(f"transaction has {counting.puts} values, limit {PUTS_MAX}")
            return found

        return self._engine.write(run, durable=durable)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)


@pytest.fixture
def kv(tmp_path: Path) -> Iterator[EmbeddedKv]:
    engine = open_embedded_kv(tmp_path / "kv", map_bytes=2**28)
    yield engine
    engine.close()


def test_a_run_too_large_for_a_transaction_is_settled_in_parts_and_holds_up_no_other(kv: EmbeddedKv) -> None:
    numbers = [make_run(kv, name) for name in ("wide", "behind")]
    for number, count in zip(numbers, (70, 1), strict=True):
        for one in range(count):
            make_metric(kv, number, f"m{one}", list(range(10)))
        key = keyspace.unsettled_run(DEFAULT_PROJECT, number)
        kv.write(lambda tx, key=key: tx.put(key, bytes(8)))  # type: ignore[misc]
    narrow: Any = NarrowKv(kv)

    settled = settle_quiet_runs(narrow, DEFAULT_PROJECT, ManualClock(), all_runs=True)

    left = kv.read(lambda reader: [reader.get(keyspace.unsettled_run(DEFAULT_PROJECT, one)) for one in numbers])
    assert settled == 2
    assert left == [None, None]
