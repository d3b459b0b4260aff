"""/runs/search/{images,texts,distributions,audios,figures}."""

from __future__ import annotations

from typing import Any, Final

from litestar import Response, get
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromQuery

from matyan.http.openapi import streams
from matyan.http.params import StepRange
from matyan.http.streaming import stream
from matyan.query.objects import ObjectSearch, ObjectSearchService
from matyan.query.routes import COMMON, plan_header
from matyan.sequences.model import Bucket
from matyan.sequences.object_routes import asked_for, range_params
from matyan.sequences.values import OBJECT_BUCKETS


def _object_route(bucket: Bucket) -> HTTPRouteHandler:
    @get(
        f"/runs/search/{bucket.word}",
        operation_id=f"search{bucket.word.title()}",
        responses=streams("A tree for each run, and progress."),
        description=f"Stream the runs that have {bucket.word} that match a query, with records of these.",
        dependencies={**COMMON, **range_params(bucket)},
    )
    async def search_objects(
        object_search: NamedDependency[ObjectSearchService],
        tz_offset_minutes: NamedDependency[int],
        skip_system: NamedDependency[bool],
        report_progress: NamedDependency[bool],
        wants_plan: NamedDependency[bool],
        record_range: NamedDependency[StepRange],
        record_density: NamedDependency[int],
        index_range: NamedDependency[StepRange],
        index_density: NamedDependency[int],
        q: FromQuery[str] = "",
    ) -> Response[Any]:
        search = ObjectSearch(
            q=q,
            tz_offset_minutes=tz_offset_minutes,
            skip_system=skip_system,
            report_progress=report_progress,
            bucket=bucket,
            asked=asked_for(record_range, record_density, index_range, index_density),
        )
        headers = await plan_header(object_search, search, bucket.word, wanted=wants_plan)
        return stream(lambda: object_search.objects(search), headers=headers)

    return search_objects


ROUTES: Final[tuple[HTTPRouteHandler, ...]] = tuple(map(_object_route, OBJECT_BUCKETS))
