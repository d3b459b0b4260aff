"""/runs/{hash}/{images,texts,distributions,audios,figures}/{get-batch,get-step}."""

from __future__ import annotations

from typing import Any, Final

from litestar import Response, post
from litestar.di import NamedDependency, Provide
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath, JSONBody

from matyan.http.dialect import Dialect
from matyan.http.openapi import streams
from matyan.http.params import ALL, StepRange, integer, step_range
from matyan.http.streaming import stream
from matyan.ids import RunId
from matyan.sequences.model import Bucket
from matyan.sequences.objects import BatchForm, ObjectReads
from matyan.sequences.ranges import INDEX_DENSITY, RECORD_DENSITY, Asked, OpenRange
from matyan.sequences.service import TraceName
from matyan.sequences.values import LIST_BUCKETS, OBJECT_BUCKETS

LAST: Final = -1


def range_params(bucket: Bucket) -> dict[str, Provide]:
    """Return the parameters that say which part of its sequences a request wants to see.

    Kinds without lists take no notice of the ones about positions, right or wrong.
    """
    has_lists = bucket in LIST_BUCKETS
    return {
        "record_range": step_range("record_range"),
        "record_density": integer("record_density", default=RECORD_DENSITY),
        "index_range": step_range("index_range") if has_lists else Provide(lambda: ALL, sync_to_thread=False),
        "index_density": integer("index_density", default=INDEX_DENSITY)
        if has_lists
        else Provide(lambda: INDEX_DENSITY, sync_to_thread=False),
    }


def asked_for(record_range: StepRange, record_density: int, index_range: StepRange, index_density: int) -> Asked:
    """Return what the parameters of `range_params` say."""
    return Asked(
        records=OpenRange(*record_range),
        record_density=record_density,
        positions=OpenRange(*index_range),
        position_density=index_density,
    )


def _batch_route(bucket: Bucket) -> HTTPRouteHandler:
    @post(
        f"/runs/{{run_id:str}}/{bucket.word}/get-batch",
        status_code=200,
        operation_id=f"read{bucket.word.title()}OfRun",
        responses=streams("A tree for each sequence."),
        description=f"Stream records of {bucket.word} of one run.",
        dependencies=range_params(bucket),
    )
    async def object_batch(
        run_id: FromPath[str],
        data: JSONBody[list[TraceName]],
        object_reads: NamedDependency[ObjectReads],
        dialect: NamedDependency[Dialect],
        record_range: NamedDependency[StepRange],
        record_density: NamedDependency[int],
        index_range: NamedDependency[StepRange],
        index_density: NamedDependency[int],
    ) -> Response[Any]:
        asked = asked_for(record_range, record_density, index_range, index_density)
        return stream(lambda: object_reads.batch(RunId(run_id), bucket, data, asked, _form(dialect)))

    return object_batch


def _step_route(bucket: Bucket) -> HTTPRouteHandler:
    positions = {name: made for name, made in range_params(bucket).items() if name.startswith("index")}

    @post(
        f"/runs/{{run_id:str}}/{bucket.word}/get-step",
        status_code=200,
        operation_id=f"readStepOf{bucket.word.title()}OfRun",
        responses=streams("A tree for each sequence."),
        description=f"Stream the records of one step of {bucket.word} of one run; -1 is the last step.",
        dependencies={"record_step": integer("record_step", default=LAST), **positions},
    )
    async def object_step(
        run_id: FromPath[str],
        data: JSONBody[list[TraceName]],
        object_reads: NamedDependency[ObjectReads],
        dialect: NamedDependency[Dialect],
        record_step: NamedDependency[int],
        index_range: NamedDependency[StepRange],
        index_density: NamedDependency[int],
    ) -> Response[Any]:
        asked = asked_for(ALL, RECORD_DENSITY, index_range, index_density)
        return stream(lambda: object_reads.batch(RunId(run_id), bucket, data, asked, _form(dialect), step=record_step))

    return object_step


def _form(dialect: Dialect) -> BatchForm:
    return BatchForm(
        index_range_name=dialect.batch_index_range_name, null_index_ranges=dialect.batch_index_ranges_are_null
    )


ROUTES: Final[tuple[HTTPRouteHandler, ...]] = tuple(
    make(bucket) for bucket in OBJECT_BUCKETS for make in (_batch_route, _step_route)
)
