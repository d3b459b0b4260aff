"""Searches that run away do not stand in the way of others.

On a shared machine, clocks on the wall measure the neighbours. So what counts here is the processor time of this
process that passes while somebody waits: as only one thread runs Python at a time, it is what the others had.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from matyan import threads
from matyan.engines.kv.protocol import KvEngine
from matyan.http.streaming import stream
from matyan.ids import DEFAULT_PROJECT, RunId
from matyan.query.service import MetricSearch, RunSearch, SearchService
from matyan.runs import repository as runs
from tests.support import store
from tests.support.stores import opened_store

RUNS: Final = 1000
METRICS: Final = 600
RUNAWAYS: Final = 8
"""Twice as many as there are threads."""
MEASURED_SECONDS: Final = 4.0
WAITED_SECONDS_MAX: Final = 0.05
SLOW: Final = " or ".join(["len([1 for a in range(8000)]) < 0"] * 2)
"""False of every run, after some milliseconds."""

Wait = Callable[[], Awaitable[object]]


@pytest.fixture
def kv(tmp_path: Path) -> Iterator[KvEngine]:
    with opened_store(tmp_path / "kv") as opened:
        for number in range(RUNS):
            store.make_run(opened, f"run-{number}", created_at_seconds=1e9 + number)
        yield opened


@pytest.fixture(autouse=True)
def pools() -> Iterator[None]:
    threads.configure()
    yield
    assert threads.close(timeout_seconds=10)


class Taker:
    """A client in memory that takes all, until it leaves."""

    def __init__(self) -> None:
        self.body = b""
        self._left = asyncio.Event()

    def leave(self) -> None:
        self._left.set()

    async def take(self, search: Callable[[], Iterator[bytes]]) -> None:
        app: Any = stream(search).to_asgi_response()
        await app({}, self._receive, self._send)

    async def _receive(self) -> Any:
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        self.body += message.get("body", b"")


async def measure(wait: Wait, end_seconds: float) -> list[float]:
    """Return the processor seconds that passed in each of the waits."""
    waits: list[float] = []
    while time.monotonic() < end_seconds:
        began = time.process_time()
        await wait()
        waits.append(time.process_time() - began)
        await asyncio.sleep(0.005)
    return waits


def most(waits: list[float]) -> float:
    """Return what nineteen of twenty waits keep below."""
    return sorted(waits)[len(waits) * 19 // 20]


async def among_runaways(runaway: Callable[[], Iterator[bytes]], *waits: Wait) -> list[list[float]]:
    """Return what was waited while searches, which must not have ended before, run away."""
    takers = [Taker() for _ in range(RUNAWAYS)]
    running = [asyncio.ensure_future(taker.take(runaway)) for taker in takers]
    await asyncio.sleep(1.0)
    end_seconds = time.monotonic() + MEASURED_SECONDS
    measured = await asyncio.gather(*(measure(wait, end_seconds) for wait in waits))
    assert not any(search.done() for search in running)
    for taker in takers:
        taker.leave()
    await asyncio.gather(*running)
    return measured


def test_runaway_searches_block_nobody(kv: KvEngine) -> None:
    searches = SearchService(kv=kv)

    async def short_search() -> None:
        taker = Taker()
        await taker.take(lambda: searches.runs(RunSearch(q="run.hash == 'run-3'")))
        assert b"run-3" in taker.body

    read = partial(threads.run_blocking, kv.read, lambda reader: list(reader.scan(b"", b"\xff", rows_max=10)))
    runaway = partial(searches.runs, RunSearch(q=SLOW, report_progress=False))

    waits = asyncio.run(among_runaways(runaway, short_search, read, partial(asyncio.sleep, 0)))

    assert [most(each) < WAITED_SECONDS_MAX for each in waits] == [True] * 3, [most(each) for each in waits]


def test_a_search_that_runs_away_within_one_run_blocks_nobody(kv: KvEngine) -> None:
    number = kv.read(lambda reader: runs.get_number(reader, DEFAULT_PROJECT, RunId("run-0")))
    assert number is not None
    for metric in range(METRICS):
        store.make_metric(kv, number, f"metric {metric}", [0.5])
    searches = SearchService(kv=kv)

    async def short_search() -> None:
        await Taker().take(lambda: searches.runs(RunSearch(q="run.hash == 'run-3'")))

    slow = f"run.hash == 'run-0' and (metric.name == '' or {SLOW})"
    runaway = partial(searches.metrics, MetricSearch(q=slow, report_progress=False))

    (waits,) = asyncio.run(among_runaways(runaway, short_search))

    assert most(waits) < WAITED_SECONDS_MAX
