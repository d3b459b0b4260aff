"""Aim's and MLflow's servers on the same runs: made once by their own means, kept, and asked the nearest questions."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode

import httpx

from tests.bench import machine, population, reads
from tests.bench.processes import Memory, memory_of
from tests.bench.stores import kept_store
from tests.bench.table import Table
from tests.bench.timed import Client, Request, Timing, digits
from tests.support import loopback
from tests.support.server import free_port

ROOT: Final = Path(__file__).parents[2]
AIM_PYTHON: Final = "MATYAN_BENCH_AIM_PYTHON"
MLFLOW_PYTHON: Final = "MATYAN_BENCH_MLFLOW_PYTHON"
START_SECONDS_MAX: Final = 180.0
REPEATS: Final = 5
RUNS_PER_HISTORY: Final = 100
"""As many runs as MLflow's own UI asks for at once."""
READS: Final = (
    reads.FIRST_PAGE,
    reads.ONE_METRIC,
    reads.BY_PARAM,
    reads.BY_EQUALITY,
    reads.BY_LAST,
    reads.UNINDEXED,
    reads.PARAM_NAMES,
)


class Answers(NamedTuple):
    """How a tracker answers."""

    cold_start: float
    """Seconds from the start of the process to the last byte of the first page."""
    timings: Mapping[str, Timing]
    """By what is done; what it cannot do is missing."""
    memory: Memory
    disk_bytes: int


class Peer(NamedTuple):
    """A tracker that is asked besides ours."""

    name: str
    answers: Answers


def table(cache: Path, count: int) -> Table:
    """Measure Matyan and its peers on the same runs, one after another, and return what it took."""
    measured = reads.measure_size(cache, count, READS)
    timings = {read.work: timing for read, timing in zip(READS, measured.timings, strict=True)}
    disk_bytes = machine.disk_bytes(kept_store(cache, count))
    ours = Answers(measured.served.cold_start, timings, measured.after_all, disk_bytes)
    peers = list(_peers(cache, count))
    rows = [
        _row("cold start to the first page", ours, peers, lambda each: each.cold_start * 1e3),
        *(_timing_row(name, ours, peers) for name in timings),
        _row("anonymous memory after these reads, MB", ours, peers, lambda each: each.memory.anonymous),
        _row("on disk, MB", ours, peers, lambda each: each.disk_bytes / 1e6),
    ]
    columns = [column for peer in peers for column in (peer.name, "ratio")]
    return Table(f"Reads of {count:,} runs beside peers, ms (median)", ("work", "Matyan", *columns), rows)


def _peers(cache: Path, count: int) -> Iterator[Peer]:
    for variable, measure in ((AIM_PYTHON, _measure_aim), (MLFLOW_PYTHON, _measure_mlflow)):
        python = os.environ.get(variable)
        if python is None:
            print(f"{variable} names no Python: what it stands for is skipped.\n")
        else:
            yield measure(Path(python), cache, count)


def _timing_row(work: str, ours: Answers, peers: Sequence[Peer]) -> Sequence[str]:
    def median(answers: Answers) -> float | None:
        return answers.timings[work].quantile(0.5) * 1e3 if work in answers.timings else None

    return _row(work, ours, peers, median)


def _row(work: str, ours: Answers, peers: Sequence[Peer], figure: Callable[[Answers], float | None]) -> Sequence[str]:
    """Return a row: our figure, then each peer's and how many times it is ours."""
    mine = figure(ours)
    assert mine is not None
    cells = [digits(mine)]
    for peer in peers:
        theirs = figure(peer.answers)
        cells += ["-", "-"] if theirs is None else [digits(theirs), f"{theirs / mine:,.1f} times"]
    return (work, *cells)


# ---- Aim


def _measure_aim(python: Path, cache: Path, count: int) -> Peer:
    """Measure `aim up`, which is asked exactly what Matyan is asked."""
    made = _made(python, "aim", cache, count)
    port = free_port()
    command = [python.with_name("aim"), "up", "--repo", made / "data", "--host", "127.0.0.1", "--port", port]
    wanted = {read.work: read.requests(count) for read in READS}
    answers = _ask(made, command, f"http://127.0.0.1:{port}/api", "/projects/", lambda _: wanted)
    return Peer("Aim 3.29.1", answers)


# ---- MLflow


def _measure_mlflow(python: Path, cache: Path, count: int) -> Peer:
    """Measure `mlflow server` with one worker on SQLite."""
    made = _made(python, "mlflow", cache, count)
    port = free_port()
    store = f"sqlite:///{made / 'data' / 'mlflow.db'}"
    command = [python.with_name("mlflow"), "server", "--backend-store-uri", store, "--port", port]
    command += ["--host", "127.0.0.1", "--workers", "1"]
    answers = _ask(
        made, command, f"http://127.0.0.1:{port}/ajax-api/2.0/mlflow", "/experiments/search?max_results=1", _nearest
    )
    return Peer(f"MLflow {_report(made)['version']}", answers)


def _nearest(client: Client) -> Mapping[str, Sequence[Request]]:
    """Return the requests of MLflow that come nearest to ours; params are texts there, and arithmetic is unknown."""
    found = json.loads(client.send(Request("/experiments/search?max_results=1000")))["experiments"]
    experiments = [each["experiment_id"] for each in found]
    runs = json.loads(client.send(_search(experiments, runs_max=1_000)))["runs"]
    return {
        reads.FIRST_PAGE.work: [_search(experiments)],
        reads.ONE_METRIC.work: [_histories([run["info"]["run_id"] for run in part]) for part in _parts(runs)],
        reads.BY_EQUALITY.work: [_search(experiments, "params.`model.name` = 'resnet50'")],
        reads.BY_LAST.work: [_search(experiments, "metrics.`loss/val` < 0.25")],
    }


def _search(experiments: Sequence[str], text: str = "", *, runs_max: int = reads.PAGE_RUNS) -> Request:
    order = ["attributes.start_time DESC"]
    body = {"experiment_ids": experiments, "filter": text, "max_results": runs_max, "order_by": order}
    return Request("/runs/search", body)


def _histories(runs: Sequence[str]) -> Request:
    wanted = [("metric_key", "accuracy/val"), ("max_results", "25000"), *(("run_id", run) for run in runs)]
    return Request(f"/metrics/get-history-bulk?{urlencode(wanted)}")


def _parts(runs: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for begin in range(0, len(runs), RUNS_PER_HISTORY):
        yield runs[begin : begin + RUNS_PER_HISTORY]


# ---- both


def _ask(
    made: Path,
    command: Sequence[object],
    url: str,
    ready: str,
    wanted: Callable[[Client], Mapping[str, Sequence[Request]]],
) -> Answers:
    """Start a server, measure its start and every request that it is to answer, and end it."""
    begin = time.perf_counter()
    with _serving(command) as pid:
        _wait(url + ready)
        with Client(url, pid) as client:
            requests = wanted(client)
            client.measure(requests[reads.FIRST_PAGE.work], repeats=1)
            cold_start = time.perf_counter() - begin
            timings = {work: client.measure(each, repeats=REPEATS) for work, each in requests.items()}
        return Answers(cold_start, timings, memory_of(pid), _report(made)["bytes"])


@contextmanager
def _serving(command: Sequence[object]) -> Iterator[int]:
    """Run a server, its children included, until the end of the block."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            list(map(str, command)), stdout=log, stderr=subprocess.STDOUT, start_new_session=True, env=_environment()
        )
        try:
            yield process.pid
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _wait(url: str) -> None:
    deadline = time.monotonic() + START_SECONDS_MAX
    while True:
        try:
            if loopback.get(url, timeout=START_SECONDS_MAX).is_success:
                return
        except httpx.TransportError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.05)


def _made(python: Path, name: str, cache: Path, count: int) -> Path:
    """Return the folder of a peer's runs, written once by `tests.bench.<name>_runs`; its data is in `data`."""
    home = cache / f"{name}-{count}-{population.VERSION}"
    if not home.exists():
        fresh = home.with_name(f"{home.name}.{os.getpid()}")
        command = [str(python), "-m", f"tests.bench.{name}_runs", str(fresh / "data"), str(count)]
        done = subprocess.run(command, cwd=ROOT, env=_environment(), check=True, stdout=subprocess.PIPE, text=True)
        (fresh / "report.json").write_text(done.stdout.splitlines()[-1])
        fresh.rename(home)
    return home


def _report(made: Path) -> Any:
    return json.loads((made / "report.json").read_text())


def _environment() -> dict[str, str]:
    """Return the environment without proxies on the way to this machine, and without anybody's telemetry."""
    kept = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    return {**kept, "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
