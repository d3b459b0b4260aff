"""Runs that are read by pages, the newest first, are those that are listed and loaded, wherever their documents lie."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
import pytest

from matyan.engines.kv.embedded import open_embedded_kv
from matyan.engines.kv.protocol import KvEngine, KvReader, Pair
from matyan.engines.kv.wrapper import KvWrapper
from matyan.ids import DEFAULT_PROJECT, RunNumber
from matyan.limits import PIECE_BYTES_MAX
from matyan.runs import repository as runs
from matyan.runs.model import Run
from matyan.runs.repository import STRETCH_LEAST
from matyan.store import keyspace
from matyan.store.subspaces import Subspace
from tests.support.kv import RunTwiceKv
from tests.support.store import clear_run, make_run, make_tag
from tests.support.stores import opened_store

T = TypeVar("T")
COUNT: Final = 70


@pytest.fixture
def kv(tmp_path: Path) -> Iterator[KvEngine]:
    with opened_store(tmp_path / "kv") as engine:
        yield RunTwiceKv(engine)


def shuffled(seed: int) -> list[int]:
    order = list(range(COUNT))
    random.Random(seed).shuffle(order)
    return order


ORDERS: Final = {
    "numbered as created": list(range(COUNT)),
    "numbered the other way": list(range(COUNT))[::-1],
    "one late": [COUNT, *range(1, COUNT)],
    "two in turns": [at // 2 + (at % 2) * COUNT for at in range(COUNT)],
    "in no order": shuffled(1),
}


def make_runs(kv: KvEngine, order: Sequence[int]) -> list[RunNumber]:
    """Store runs that were created in an order of their own; some refer to the same, and one takes several pieces."""
    return [
        make_run(
            kv,
            f"run-{at}",
            created_at_seconds=1e9 + moment,
            experiment=None if at % 5 == 0 else f"e{at % 3}",
            tags=["a", "b", "c"][: at % 4],
            params={"text": "x" * (3 * PIECE_BYTES_MAX if at == COUNT // 2 else at)},
        )
        for at, moment in enumerate(order)
    ]


def seen(run: Run) -> tuple[Any, ...]:
    return run.number, msgspec.structs.asdict(run.document), run.experiment, run.tags


def paged(kv: KvEngine, rows_max: int) -> list[tuple[Any, ...]]:
    found: list[Run] = []
    after: bytes | None = None
    while True:
        page, after = kv.read(
            lambda reader, after=after: runs.load_newest(reader, DEFAULT_PROJECT, after=after, rows_max=rows_max)  # type: ignore[misc]  # mypy cannot infer a lambda with a default
        )
        found += page
        if after is None:
            return list(map(seen, found))


@pytest.mark.parametrize("rows_max", [7, STRETCH_LEAST, 50, COUNT, 1000])
@pytest.mark.parametrize("order", ORDERS.values(), ids=list(ORDERS))
def test_pages_are_what_is_listed_and_loaded(kv: KvEngine, order: Sequence[int], rows_max: int) -> None:
    numbers = make_runs(kv, order)
    for number in (*numbers[10:14], numbers[30], numbers[-1]):
        clear_run(kv, number)
    make_tag(kv, "a", archived=True)
    listed = kv.read(lambda reader: runs.list_newest(reader, DEFAULT_PROJECT))
    expected = kv.read(lambda reader: runs.load(reader, DEFAULT_PROJECT, [each.number for each in listed]))

    found = paged(kv, rows_max)

    assert found == list(map(seen, expected))
    assert len(found) == COUNT - 6


class WatchedKv(KvWrapper):
    """Counts the documents that are looked up one by one."""

    looked_up = 0

    def read(self, fn: Callable[[KvReader], T]) -> T:
        return self.engine.read(lambda reader: fn(WatchedReader(reader, self)))


class WatchedReader:
    def __init__(self, reader: KvReader, kv: WatchedKv) -> None:
        self._reader = reader
        self._kv = kv

    def get(self, key: bytes) -> bytes | None:
        return self.get_many([key])[0]

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        prefix = keyspace.subspace(DEFAULT_PROJECT, Subspace.RUNS)
        self._kv.looked_up += sum(key.startswith(prefix) for key in keys)
        return self._reader.get_many(keys)

    def scan(self, begin: bytes, end: bytes, *, rows_max: int, reverse: bool = False) -> list[Pair]:
        return self._reader.scan(begin, end, rows_max=rows_max, reverse=reverse)

    def scan_many(self, ranges: Sequence[Any], *, rows_max: int) -> list[list[Pair]]:
        return self._reader.scan_many(ranges, rows_max=rows_max)


@pytest.mark.parametrize(
    ("order", "looked_up"), [("numbered as created", 0), ("numbered the other way", 0), ("one late", 1)]
)
def test_documents_that_lie_together_are_not_looked_up_one_by_one(tmp_path: Path, order: str, looked_up: int) -> None:
    watched = WatchedKv(open_embedded_kv(tmp_path / "kv"))  # faults would be counted, too
    make_runs(watched, ORDERS[order])

    page = watched.read(lambda reader: runs.load_newest(reader, DEFAULT_PROJECT, after=None, rows_max=COUNT // 2))

    watched.close()
    assert len(page.runs) == COUNT // 2
    assert watched.looked_up == looked_up
