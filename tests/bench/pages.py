"""How soon Chromium shows the first row of the Runs page, and the first curve of the Metrics explorer."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from tests.bench.population import SWEEP_RUNS, planned_run
from tests.bench.processes import cpu_seconds_of
from tests.bench.stores import kept_store
from tests.bench.table import Table
from tests.bench.timed import digits
from tests.support.browser import WatchedPage, launched, metrics_path, profile, tab
from tests.support.golden_pages import CURVES
from tests.support.server import MatyanServer

VISITS: Final = 3
"""After the first one."""
MILLISECONDS_MAX: Final = 240_000
"""A busy machine is no failure."""
_HALF_A_SWEEP: Final = "metric.name == 'accuracy' and run.sweep == 0 and run.model.pretrained == True"
_COUNT: Final = f"document.querySelectorAll('{CURVES}').length"


class Visit(NamedTuple):
    """Seconds from the address being entered."""

    first: float
    whole: float
    server_cpu: float


def table(cache: Path, count: int, share: float) -> Table:
    """Open the pages on a store of `count` runs, all VISITS or a share; no rows where there is no browser."""
    try:
        rows = _measure(cache, count, max(1, int(VISITS * share)))
    except pytest.skip.Exception as reason:
        print(f"The pages are skipped: {reason}.\n")
        rows = []
    columns = ("page", "visit", "first row or curve", "all of them", "processor time of the server")
    return Table(f"Pages on {count:,} runs, in Chromium, ms", columns, rows)


def _measure(cache: Path, count: int, visits: int) -> Sequence[Sequence[str]]:
    curves = sum(run.params["model"]["pretrained"] for run in _sweep(count))
    newest = planned_run(count - 1, count).name
    steps: Sequence[tuple[str, Callable[[WatchedPage], tuple[float, float]]]] = (
        ("Runs, first page", lambda page: _see_runs(page, newest)),
        (f"Metrics explorer, {curves} curves of 50 points", lambda page: _see_curves(page, curves)),
    )
    rows: list[Sequence[str]] = []
    with launched() as browser, MatyanServer(kept_store(cache, count)) as server:
        for name, see in steps:
            rows += _visits(browser, server, name, see, visits)
    return rows


def _visits(
    browser: Any, server: MatyanServer, name: str, see: Callable[[WatchedPage], tuple[float, float]], times: int
) -> Sequence[Sequence[str]]:
    """Visit a page in a fresh profile and then again; return a row for the first visit and the median of the others."""
    visits = []
    with profile(browser) as context:
        for _ in range(1 + times):
            with tab(context, server.url) as page:
                page.page.set_default_timeout(MILLISECONDS_MAX)
                begin_cpu = cpu_seconds_of(server.pid)
                visits.append(Visit(*see(page), cpu_seconds_of(server.pid) - begin_cpu))
                assert page.complaints == [], page.complaints
    again = sorted(visits[1:], key=lambda visit: visit.first)[times // 2]
    return [
        (name, which, *(digits(seconds * 1e3) for seconds in visit))
        for which, visit in (("first", visits[0]), ("again", again))
    ]


def _see_runs(page: WatchedPage, newest: str) -> tuple[float, float]:
    begin = time.perf_counter()
    page.page.goto(f"{page.origin}/runs", wait_until="commit")
    page.wait_for_text(newest)
    first = time.perf_counter() - begin
    page.page.wait_for_load_state("networkidle")
    return first, time.perf_counter() - begin


def _see_curves(page: WatchedPage, curves: int) -> tuple[float, float]:
    begin = time.perf_counter()
    page.page.goto(page.origin + metrics_path(_HALF_A_SWEEP), wait_until="commit")
    page.page.wait_for_function(f"{_COUNT} > 0")
    first = time.perf_counter() - begin
    page.page.wait_for_function(f"{_COUNT} >= {curves}")
    return first, time.perf_counter() - begin


def _sweep(count: int) -> Sequence[Any]:
    """Return the runs of sweep 0."""
    return [planned_run(index, count) for index in range(0, count, max(1, count // SWEEP_RUNS))]
