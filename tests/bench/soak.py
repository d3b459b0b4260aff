"""Memory of every role while millions of points go through, and how it grows."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from tests.bench.frames import METRICS, POINTS_PER_FRAME
from tests.bench.pipeline import apart
from tests.bench.processes import Memory, memory_of, open_files_of
from tests.bench.table import Table
from tests.bench.timed import Client, search
from tests.bench.visibility import seconds_until_visible
from tests.bench.writer_process import WriterProcess
from tests.support.rest import MATYAN_BASE
from tests.support.server import MatyanServer

WRITERS: Final = 20
LEG_POINTS: Final = 1_000_000
"""After so many memory is read. Every leg writes new runs, which are also read, as a user would look at them."""
LEGS_MIN: Final = 3
_WARM_UP_LEGS: Final = 4
"""Caches fill; growth is looked for behind these."""


class Soaked(NamedTuple):
    """What one process had in memory over the soak."""

    points: Sequence[int]
    """Written in all when each reading was taken."""
    readings: Sequence[Memory]
    open_files: int

    def slope(self) -> float:
        """Return how many megabytes of anonymous memory a million points leave behind, by least squares."""
        skipped = min(_WARM_UP_LEGS, len(self.points) - LEGS_MIN + 1)
        millions = np.array(self.points[skipped:]) / 1e6
        return float(np.polyfit(millions, [reading.anonymous for reading in self.readings[skipped:]], 1)[0])


def tables(folder: Path, points: int) -> Sequence[Table]:
    """Soak one process, then the four roles where Kafka and S3 can be had."""
    return [_one_process(folder, points), *_four_roles(folder, points)]


def _one_process(folder: Path, points: int) -> Table:
    with MatyanServer(folder / "home") as server:
        soaked = _soak(server, server, {"matyan up": server}, points)
        server.stop()
    return _table("one process", soaked)


def _four_roles(folder: Path, points: int) -> Sequence[Table]:
    with apart(folder / "apart") as roles:
        if roles is None:
            return []
        soaked = _soak(roles["frontier"], roles["serve"], roles.servers, points)
    return [_table("four roles on Kafka and S3", soaked)]


def _soak(
    frontier: MatyanServer, serve: MatyanServer, servers: Mapping[str, MatyanServer], points: int
) -> Mapping[str, Soaked]:
    legs = max(LEGS_MIN, points // LEG_POINTS)
    frames = max(1, points // legs // WRITERS // POINTS_PER_FRAME)
    written, marks = 0, []
    readings: dict[str, list[Memory]] = {name: [] for name in servers}
    for leg in range(legs):
        written += _write(frontier.port, serve, f"leg-{leg}", frames)
        marks.append(written)
        for name, server in servers.items():
            readings[name].append(memory_of(server.pid))
    return {name: Soaked(marks, readings[name], open_files_of(server.pid)) for name, server in servers.items()}


def _write(port: int, serve: MatyanServer, prefix: str, frames: int) -> int:
    """Write one leg, wait until it is visible, look at it, and return its points."""
    writers = WriterProcess(port, prefix, WRITERS, frames, seconds=1e9)
    begin = time.perf_counter()
    writers.begin()
    points: int = writers.wait()["points"]
    seconds_until_visible(serve.url, writers.runs, frames, begin)
    with Client(serve.url + MATYAN_BASE, serve.pid) as client:
        client.send(search("run", "", limit=50))
        client.send(search("metric", f"metric.name == 'metric_{METRICS - 1}' and run.hash.startswith('{prefix}')"))
    return points


def _table(what: str, soaked: Mapping[str, Soaked]) -> Table:
    total = next(iter(soaked.values())).points[-1]
    columns = ("process", "after the first leg", "at half", "in the end", "MB per million points", "open files")
    rows = [(name, *_cells(each)) for name, each in soaked.items()]
    return Table(f"Memory over {total:,} points, {what} (anonymous / PSS / RSS)", columns, rows)


def _cells(soaked: Soaked) -> Sequence[str]:
    moments = (soaked.readings[index].text() for index in (0, len(soaked.readings) // 2, -1))
    return *moments, f"{soaked.slope():.2f}", str(soaked.open_files)
