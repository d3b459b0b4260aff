"""How the UI answers while twenty writers write as fast as they can, and while nobody writes."""

from __future__ import annotations

import shutil
import threading
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from tests.bench.processes import memory_of
from tests.bench.reads import PARAM_NAMES
from tests.bench.stores import kept_store
from tests.bench.table import Table
from tests.bench.timed import Client, Request, Timing, search
from tests.bench.writer_process import WriterProcess
from tests.support.rest import MATYAN_BASE
from tests.support.server import MatyanServer

WRITERS: Final = 20
SESSIONS: Final = 4
POLL_SECONDS: Final = 4.0
_PREFIX: Final = "load"
_RUN: Final = f"{_PREFIX}-0"
_METRICS: Final = [{"name": f"metric_{index}", "context": {"subset": "train"}} for index in range(10)]


class Poll(NamedTuple):
    """What a page asks for again and again."""

    work: str
    request: Request


POLLS: Final = (
    Poll("Runs page: 45 runs", search("run", "", limit=45)),
    Poll(
        "Metrics explorer: a metric of 20 runs, 500 points",
        search("metric", f"metric.name == 'metric_0' and run.hash.startswith('{_PREFIX}')", p=500),
    ),
    Poll("run page: settings", Request(f"/runs/{_RUN}/info/")),
    Poll("run page: ten metrics", Request(f"/runs/{_RUN}/metric/get-batch/", _METRICS)),
    Poll("runs that are active", Request("/runs/active/")),
    Poll("names of params and metrics", PARAM_NAMES.requests(0)[0]),
)


class _Session(threading.Thread):
    """One page that polls on a connection of its own, beginning at a moment of its own."""

    def __init__(self, server: MatyanServer, delay: float, until: float) -> None:
        super().__init__(daemon=True)
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self._server = server
        self._delay = delay
        self._until = until

    def run(self) -> None:
        """Ask every POLL_SECONDS until it is time to end; the next round begins so long after the last one began."""
        time.sleep(self._delay)
        with Client(self._server.url + MATYAN_BASE, self._server.pid) as client:
            while (begin := time.perf_counter()) < self._until:
                for poll in POLLS:
                    self.seconds[poll.work] += client.measure([poll.request], repeats=1).seconds
                time.sleep(max(0.0, POLL_SECONDS - (time.perf_counter() - begin)))


def table(cache: Path, folder: Path, count: int, seconds: float) -> Table:
    """Measure on a copy of a store of `count` runs: first while writers write, then, when all is applied, without."""
    home = folder / "home"
    shutil.copytree(kept_store(cache, count), home)
    with MatyanServer(home) as server:
        writers = WriterProcess(server.port, _PREFIX, WRITERS, 0, seconds=seconds + 1)
        writers.begin()
        time.sleep(1)
        busy = _poll(server, seconds)
        report = writers.wait()
        idle = _poll(server, seconds)
        memory = memory_of(server.pid)
        server.stop()
    rate = report["points"] / report["seconds"]
    title = f"Polling of {SESSIONS} pages every {POLL_SECONDS:.0f} s on {count:,} runs, ms: median (p99)"
    columns = ("request", "times", "nobody writes", f"{WRITERS} writers at full speed ({rate:,.0f} points/s taken)")
    rows = [(work, str(len(busy[work].seconds)), idle[work].text(), busy[work].text()) for work in busy]
    return Table(title, columns, [*rows, ("memory in the end: anonymous / PSS / RSS", "", "", memory.text())])


def _poll(server: MatyanServer, seconds: float) -> Mapping[str, Timing]:
    until = time.perf_counter() + seconds
    sessions = [_Session(server, index * POLL_SECONDS / SESSIONS, until) for index in range(SESSIONS)]
    for session in sessions:
        session.start()
    for session in sessions:
        session.join()
    return {poll.work: _joined(sessions, poll.work) for poll in POLLS}


def _joined(sessions: Sequence[_Session], work: str) -> Timing:
    return Timing([each for session in sessions for each in session.seconds[work]], 0.0, 0)
