"""/runs/search/run, /runs/search/metric, /runs/active."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from litestar import Response, get
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromQuery

from matyan.http.dialect import Dialect
from matyan.http.openapi import streams
from matyan.http.params import flag, integer, timezone_offset, wants_plan
from matyan.http.streaming import stream
from matyan.query.searches import Search, Searches
from matyan.query.service import MetricSearch, RunSearch, SearchService
from matyan.query.syntax import RUN
from matyan.sequences.model import Bucket
from matyan.threads import query_pool

COMMON: Final = {
    "tz_offset_minutes": timezone_offset(),
    "skip_system": flag("skip_system", default=True),
    "report_progress": flag("report_progress", default=True),
    "wants_plan": wants_plan(),
}
"""Parameters of every search, besides the query."""
PLAN_HEADER: Final = "X-Matyan-Plan"


async def plan_header(searches: Searches, search: Search, word: str, *, wanted: bool) -> Mapping[str, str]:
    """Return the header that tells the plan of a search, or none."""
    return {PLAN_HEADER: await query_pool().run(searches.explain, search, word)} if wanted else {}


@get(
    "/runs/search/run",
    operation_id="searchRuns",
    responses=streams("A tree for each run, and progress."),
    dependencies={
        **COMMON,
        "run_limit": integer("limit"),
        "exclude_params": flag("exclude_params", default=False),
        "exclude_traces": flag("exclude_traces", default=False),
    },
)
async def search_runs(
    search: NamedDependency[SearchService],
    dialect: NamedDependency[Dialect],
    tz_offset_minutes: NamedDependency[int],
    skip_system: NamedDependency[bool],
    report_progress: NamedDependency[bool],
    wants_plan: NamedDependency[bool],
    run_limit: NamedDependency[int],
    exclude_params: NamedDependency[bool],
    exclude_traces: NamedDependency[bool],
    q: FromQuery[str] = "",
    offset: FromQuery[str | None] = None,
    sort: FromQuery[str] = "",
) -> Response[Any]:
    """Stream the runs that match a query, newest first or as `sort` says."""
    asked = RunSearch(
        q=q,
        tz_offset_minutes=tz_offset_minutes,
        skip_system=skip_system,
        report_progress=report_progress,
        limit=run_limit,
        offset=offset,
        sort=sort,
        exclude_params=exclude_params,
        exclude_traces=exclude_traces,
        excluded_params_are_empty=dialect.excluded_params_are_empty,
    )
    return stream(lambda: search.runs(asked), headers=await plan_header(search, asked, RUN, wanted=wants_plan))


@get(
    "/runs/search/metric",
    operation_id="searchMetrics",
    responses=streams("A tree for each run, and progress."),
    dependencies={**COMMON, "points": integer("p", default=50)},
)
async def search_metrics(
    search: NamedDependency[SearchService],
    tz_offset_minutes: NamedDependency[int],
    skip_system: NamedDependency[bool],
    report_progress: NamedDependency[bool],
    wants_plan: NamedDependency[bool],
    points: NamedDependency[int],
    q: FromQuery[str] = "",
    x_axis: FromQuery[str | None] = None,
) -> Response[Any]:
    """Stream the runs that have metrics that match a query, with samples of these."""
    asked = MetricSearch(
        q=q,
        tz_offset_minutes=tz_offset_minutes,
        skip_system=skip_system,
        report_progress=report_progress,
        points=points,
        x_axis=(x_axis or "").strip(),
    )
    word = Bucket.METRIC.word
    return stream(lambda: search.metrics(asked), headers=await plan_header(search, asked, word, wanted=wants_plan))


@get("/runs/active", operation_id="listActiveRuns", responses=streams("A tree for each run, and progress."))
async def active_runs(search: NamedDependency[SearchService]) -> Response[Any]:
    """Stream the runs that have not ended."""
    return stream(search.active)


ROUTES: Final[tuple[HTTPRouteHandler, ...]] = (search_runs, search_metrics, active_runs)
