"""Starts of `matyan up` on a store: the first requests of a server's life, with the store in memory or on the disk.

How long a server takes to come up, and to read a store for the first time, depends on what the system has in memory of
the store's files. So that this is not left to whatever ran before, a start brings them into memory, or out of it.
"""

from __future__ import annotations

import compileall
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Final, NamedTuple

import matyan
from tests.bench import machine
from tests.bench.processes import Memory, cpu_seconds_of, memory_of
from tests.bench.timed import Client, Request, milliseconds
from tests.support.rest import MATYAN_BASE
from tests.support.server import MatyanServer

TIMES: Final = 3
"""Starts of each kind."""
_AS_INSTALLED: Final = {"PYTHONDONTWRITEBYTECODE": ""}


class Where(Enum):
    """Where the files of the store are when a server starts."""

    MEMORY = "store in the page cache"
    DISK = "store not in the page cache"

    def put(self, home: Path) -> None:
        """Bring the files there; no server may run on them."""
        for path in filter(Path.is_file, home.rglob("*")):
            _PUT[self](path)


_PUT: Final = {Where.MEMORY: machine.read_file, Where.DISK: machine.forget_file}


class Start(NamedTuple):
    """A server that came up, and what it took."""

    ready: float
    """Seconds from the start of the process until it says that it is ready."""
    first: float
    """Seconds of the first page, the first request of its life but for that."""
    filter: float
    """Seconds of the unindexed filter, the second request."""
    start_cpu: float
    """Seconds of processor time until the first page was sent."""
    filter_cpu: float
    """Seconds of processor time of the filter."""
    before: Memory
    after_first: Memory
    after_filter: Memory

    @property
    def cold_start(self) -> float:
        """Seconds from the start of the process to the last byte of the first page."""
        return self.ready + self.first


class Started(NamedTuple):
    """A server after its first requests."""

    pid: int
    client: Client
    start: Start


@contextmanager
def started(home: Path, where: Where, first: Request, then: Request) -> Iterator[Started]:
    """Yield a server that has answered two requests: the first page, and the filter; it is killed in the end."""
    # As installers leave it: a checkout whose sources have changed would be compiled anew at every start.
    compileall.compile_dir(Path(matyan.__file__).parent, quiet=1)
    where.put(home)
    server = MatyanServer(home, environment=_AS_INSTALLED)
    begin = time.perf_counter()
    try:
        server.start()
        ready = time.perf_counter() - begin
        with Client(server.url + MATYAN_BASE, server.pid) as client:
            yield Started(server.pid, client, _watch(client, server.pid, ready, first, then))
    finally:
        server.kill()


def starts(home: Path, where: Where, first: Request, then: Request, *, times: int = TIMES) -> Sequence[Start]:
    """Return what some starts took, one after another."""

    def one() -> Start:
        with started(home, where, first, then) as server:
            return server.start

    return [one() for _ in range(times)]


def text_of(found: Sequence[Start], seconds_of: Callable[[Start], float]) -> str:
    """Return the median and the greatest, in milliseconds."""
    seconds = [seconds_of(start) for start in found]
    return f"{milliseconds(statistics.median(seconds))} ({milliseconds(max(seconds))})"


def _watch(client: Client, pid: int, ready: float, first: Request, then: Request) -> Start:
    """Read memory between the requests; what that takes is part of none of them."""
    before = memory_of(pid)
    paged = client.measure([first], repeats=1)
    start_cpu, after_first = cpu_seconds_of(pid), memory_of(pid)
    filtered = client.measure([then], repeats=1)
    return Start(
        ready=ready,
        first=paged.seconds[0],
        filter=filtered.seconds[0],
        start_cpu=start_cpu,
        filter_cpu=filtered.cpu_seconds,
        before=before,
        after_first=after_first,
        after_filter=memory_of(pid),
    )
