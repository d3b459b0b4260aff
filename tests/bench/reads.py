"""The reads of design section 9 over HTTP, on stores of different size: what grows, and what stays."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from tests.bench.population import LONG_METRIC, planned_run
from tests.bench.processes import Memory, memory_of, open_files_of
from tests.bench.starts import TIMES, Start, Where, started, starts, text_of
from tests.bench.stores import kept_store
from tests.bench.table import Table
from tests.bench.timed import Request, Timing, milliseconds, search
from tests.support import treestream

PAGE_RUNS: Final = 50
REPEATS: Final = 20


class Read(NamedTuple):
    """One row: what a user does, the requests that it takes, and what it may cost."""

    work: str
    requests: Callable[[int], Sequence[Request]]
    """Of a store of so many runs."""
    budget: str = "-"
    repeats: int = REPEATS


def page(query: str = "") -> Sequence[Request]:
    """Return the first page of the runs that match, with params and last values."""
    return [search("run", query, limit=PAGE_RUNS)]


def run_page(count: int) -> Sequence[Request]:
    """Return what the page of one run asks for: its settings and all its metrics."""
    run = planned_run(count // 2, count)
    wanted = [{"name": curve.name, "context": dict(curve.context)} for curve in run.curves]
    return [Request(f"/runs/{run.hash}/info/"), Request(f"/runs/{run.hash}/metric/get-batch/", wanted)]


ONE_METRIC: Final = Read(
    "one metric of 1,000 runs, 50 points each",
    lambda _: [search("metric", "metric.name == 'accuracy' and run.sweep == 0", p=50)],
    "120",
)
FIRST_PAGE: Final = Read("first 50 runs, with params and last values", lambda _: page(), "60")
BY_PARAM: Final = Read(
    "indexed filter, first page: a param's range", lambda _: page("run.hparams.learning_rate < 0.00002"), "120"
)
BY_EQUALITY: Final = Read("... a param's value", lambda _: page("run.model.name == 'resnet50'"), "120")
BY_LAST: Final = Read(
    "... a metric's last value", lambda _: page("run.metrics['loss', {'subset': 'val'}].last < 0.25"), "120"
)
UNINDEXED: Final = Read(
    "unindexed filter, complete, warm", lambda _: [search("run", "run.seed % 1000 == 7")], "400", repeats=5
)
PARAM_NAMES: Final = Read(
    "names of params and metrics (projects/params)", lambda _: [Request("/projects/params/?sequence=metric")]
)
READS: Final = (
    ONE_METRIC,
    FIRST_PAGE,
    BY_PARAM,
    BY_EQUALITY,
    BY_LAST,
    Read("... a beginning of the name", lambda _: page("run.name.startswith('vit-base #1')"), "120"),
    Read("... experiment and tag", lambda _: page("run.experiment == 'study-03' and 'best' in run.tags"), "120"),
    Read("... nothing matches", lambda _: page("run.hparams.batch_size == 48"), "120"),
    UNINDEXED,
    Read(
        "one metric of 1,000,000 steps, all points",
        lambda _: [search("metric", f"metric.name == '{LONG_METRIC}'", p=-1)],
        "150",
        repeats=7,
    ),
    Read("the same, 500 points", lambda _: [search("metric", f"metric.name == '{LONG_METRIC}'", p=500)], "50"),
    Read("the page of one run: settings and metrics", run_page),
    PARAM_NAMES,
    Read("activity of the project", lambda _: [Request("/projects/activity/")]),
    Read("experiments with counts", lambda _: [Request("/experiments/")]),
    Read("tags with counts", lambda _: [Request("/tags/")]),
)


class Cold(NamedTuple):
    """What a server does once in its life."""

    work: str
    budget: str
    seconds_of: Callable[[Start], float]
    cpu_seconds_of: Callable[[Start], float]


COLD: Final = (
    Cold(
        "cold start of `matyan up` to the first page",
        "2,000",
        lambda start: start.cold_start,
        lambda start: start.start_cpu,
    ),
    Cold(
        "unindexed filter, complete, cold",
        "1,500",
        lambda start: start.filter,
        lambda start: start.filter_cpu,
    ),
)


class Measured(NamedTuple):
    """Everything of one size."""

    size: int
    starts: Mapping[Where, Sequence[Start]]
    timings: Sequence[Timing]
    runs: Sequence[int]
    """How many runs each answer holds, where it holds runs."""
    after_all: Memory
    open_files: int

    @property
    def served(self) -> Start:
        """The start of the server that answered all reads."""
        return self.starts[Where.MEMORY][-1]


def measure_size(cache: Path, count: int, reads: Sequence[Read] = READS) -> Measured:
    """Start servers on a store, and measure all reads with the last of them."""
    home = kept_store(cache, count)
    (first,), (then,) = FIRST_PAGE.requests(count), UNINDEXED.requests(count)
    from_disk = starts(home, Where.DISK, first, then)
    from_memory = starts(home, Where.MEMORY, first, then, times=TIMES - 1)
    with started(home, Where.MEMORY, first, then) as (pid, client, last):
        runs = [_count_runs(client.send(read.requests(count)[0])) for read in reads]
        timings = [client.measure(read.requests(count), repeats=read.repeats) for read in reads]
        all_starts = {Where.DISK: from_disk, Where.MEMORY: [*from_memory, last]}
        return Measured(count, all_starts, timings, runs, memory_of(pid), open_files_of(pid))


def tables(cache: Path, counts: Sequence[int]) -> Sequence[Table]:
    """Measure every size and return what it took: time, the server's processor time, and the server itself."""
    found = [measure_size(cache, count) for count in counts]
    sizes = [f"{each.size:,} runs" for each in found]
    return [
        Table("Reads, ms: median (p99)", ("work", "budget", *sizes), [*_cold_rows(found), *_rows(found, Timing.text)]),
        Table(
            "Reads, processor time of the server, ms; runs in the answer",
            ("work", *(column for size in sizes for column in (size, "runs"))),
            [*_cold_cpu_rows(found), *(_cpu_row(found, index, read) for index, read in enumerate(READS))],
        ),
        Table("The server", ("what", "budget", *sizes), _server_rows(found)),
    ]


def _count_runs(content: bytes) -> int:
    return 0 if content[:1] in b"[{" else len(treestream.runs(content))


def _rows(found: Sequence[Measured], cell: Callable[[Timing], str]) -> list[Sequence[str]]:
    return [
        (read.work, read.budget, *(cell(each.timings[index]) for each in found)) for index, read in enumerate(READS)
    ]


def _cold_rows(found: Sequence[Measured]) -> list[Sequence[str]]:
    return [
        (f"{cold.work}, {where.value}", cold.budget, *(text_of(each.starts[where], cold.seconds_of) for each in found))
        for cold in COLD
        for where in Where
    ]


def _cold_cpu_rows(found: Sequence[Measured]) -> list[Sequence[str]]:
    return [
        (
            f"{cold.work}, {where.value}",
            *(cell for each in found for cell in (text_of(each.starts[where], cold.cpu_seconds_of), "-")),
        )
        for cold in COLD
        for where in Where
    ]


def _cpu_row(found: Sequence[Measured], index: int, read: Read) -> Sequence[str]:
    cells = ((milliseconds(each.timings[index].cpu_seconds), f"{each.runs[index]:,}") for each in found)
    return (read.work, *(text for pair in cells for text in pair))


def _server_rows(found: Sequence[Measured]) -> list[Sequence[str]]:
    memory = "memory {}: anonymous / PSS / RSS"
    served = [each.served for each in found]
    return [
        (memory.format("before the first query"), "150 MB", *(each.before.text() for each in served)),
        (memory.format("after the first page"), "400 MB", *(each.after_first.text() for each in served)),
        (memory.format("after the unindexed filter"), "400 MB", *(each.after_filter.text() for each in served)),
        (memory.format("after all reads"), "400 MB", *(each.after_all.text() for each in found)),
        ("open files after all reads", "-", *(str(each.open_files) for each in found)),
    ]
