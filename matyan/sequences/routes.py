"""/runs/search/metric/align, /runs/{hash}/metric/get-batch."""

from __future__ import annotations

from typing import Any, Final

from litestar import Response, post
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath, JSONBody

from matyan.http.answers import JSON, json_bytes
from matyan.http.dialect import Dialect
from matyan.http.openapi import answers, streams
from matyan.http.params import StepRange, integer, step_range
from matyan.http.streaming import stream
from matyan.ids import RunId
from matyan.sequences.ranges import EVERYTHING, OpenRange
from matyan.sequences.service import AlignRequest, BatchTrace, MetricReads, TraceName
from matyan.threads import run_blocking

BATCH_POINTS: Final = 200
"""Points of a metric on the page of a run, unless the request says otherwise."""


@post(
    "/runs/search/metric/align", status_code=200, operation_id="alignMetrics", responses=streams("A tree for each run.")
)
async def align_metrics(data: JSONBody[AlignRequest], metric_reads: NamedDependency[MetricReads]) -> Response[Any]:
    """Stream the values of one metric at the steps of others."""
    return stream(lambda: metric_reads.aligned(data))


@post(
    "/runs/{run_id:str}/metric/get-batch",
    status_code=200,
    operation_id="readMetrics",
    responses=answers(list[BatchTrace], "Samples of those that are known, in the order asked."),
    dependencies={
        "record_range": step_range("record_range"),
        "points": integer("record_density", default=BATCH_POINTS),
    },
)
async def metric_batch(
    run_id: FromPath[str],
    data: JSONBody[list[TraceName]],
    metric_reads: NamedDependency[MetricReads],
    dialect: NamedDependency[Dialect],
    record_range: NamedDependency[StepRange],
    points: NamedDependency[int],
) -> Response[bytes]:
    """Read samples of metrics of one run; numbers that JSON has no word for are null."""
    wanted = OpenRange(*record_range) if dialect.metric_batch_params else EVERYTHING
    points_max = points if dialect.metric_batch_params else BATCH_POINTS

    def read() -> bytes:
        return json_bytes(metric_reads.batch(RunId(run_id), data, points=points_max, wanted=wanted))

    return Response(await run_blocking(read), media_type=JSON)


ROUTES: Final[tuple[HTTPRouteHandler, ...]] = (align_metrics, metric_batch)
