"""The project: its name, activity, vocabulary for queries, pinned sequences."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from litestar import Response, get, post
from litestar.di import NamedDependency
from litestar.params import JSONBody

from matyan.http.answers import json_bytes, json_response
from matyan.http.dialect import Dialect
from matyan.http.openapi import answers
from matyan.http.params import flag, texts, timezone_offset
from matyan.ids import DEFAULT_PROJECT
from matyan.projects.service import PinnedSequence, ProjectService
from matyan.runs.views import buckets_of
from matyan.sequences.model import PUBLIC_BUCKETS, Bucket
from matyan.threads import query_pool, run_blocking


class ProjectInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What the side bar shows. Telemetry stays off, and nothing here ever needs the warnings' repairs."""

    name: str
    path: str
    description: str = ""
    telemetry_enabled: int = 0
    warn_index: bool = False
    warn_runs: bool = False


class ActivityAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Counts, and runs created per hour (Aim) or day (Matyan) of local time."""

    num_experiments: int
    num_runs: int
    num_archived_runs: int
    num_active_runs: int
    activity_map: dict[str, int]


class Pins(msgspec.Struct, frozen=True):
    """The list of pinned sequences."""

    sequences: list[PinnedSequence]


@get("/projects", operation_id="getProject", responses=answers(ProjectInfo, "The project."))
async def project() -> Response[bytes]:
    """Return the project."""
    return json_response(ProjectInfo(name=DEFAULT_PROJECT, path=DEFAULT_PROJECT))


@get("/projects/status", operation_id="getProjectStatus", responses=answers(str, "`up-to-date`."))
async def status() -> Response[bytes]:
    """Return the state of the index, which is never behind."""
    return json_response("up-to-date")


@get(
    "/projects/activity",
    dependencies={"timezone": timezone_offset()},
    operation_id="getActivity",
    responses=answers(ActivityAnswer, "Counts and calendar."),
)
async def activity(
    projects: NamedDependency[ProjectService], timezone: NamedDependency[int], dialect: NamedDependency[Dialect]
) -> Response[bytes]:
    """Return counts and the calendar of runs."""
    found = await query_pool().run(projects.activity, timezone_offset_minutes=timezone)
    answer = ActivityAnswer(
        num_experiments=found.experiments,
        num_runs=found.runs.runs,
        num_archived_runs=found.runs.archived,
        num_active_runs=found.runs.active,
        activity_map=found.runs.by_day() if dialect.activity_by_day else found.runs.by_hour(),
    )
    return json_response(answer)


@get(
    "/projects/params",
    dependencies={"sequence": texts("sequence"), "exclude_params": flag("exclude_params", default=False)},
    operation_id="getVocabulary",
    responses=answers(dict[str, Any], "Params, and kinds with names and contexts."),
)
async def params(
    projects: NamedDependency[ProjectService],
    sequence: NamedDependency[list[str]],
    exclude_params: NamedDependency[bool],
) -> Response[bytes]:
    """Return the union of all params, and names and contexts of sequences by kind."""
    buckets = tuple(bucket for bucket in buckets_of(sequence) if bucket in PUBLIC_BUCKETS)
    return Response(
        await query_pool().run(_vocabulary, projects, buckets, with_params=not exclude_params),
        media_type="application/json",
    )


@get("/projects/pinned-sequences", operation_id="getPinnedSequences", responses=answers(Pins, "What is pinned."))
async def pinned(projects: NamedDependency[ProjectService]) -> Response[bytes]:
    """Return the pinned sequences."""
    return json_response(Pins(await run_blocking(projects.pinned)))


@post(
    "/projects/pinned-sequences",
    status_code=200,
    operation_id="setPinnedSequences",
    responses=answers(Pins, "What is pinned now."),
)
async def pin(data: JSONBody[Pins], projects: NamedDependency[ProjectService]) -> Response[bytes]:
    """Replace the pinned sequences."""
    await run_blocking(projects.pin, data.sequences)
    return json_response(data)


def _vocabulary(projects: ProjectService, buckets: tuple[Bucket, ...], *, with_params: bool) -> bytes:
    """Read and encode in the pool's thread: the answer can be large."""
    found = projects.vocabulary(buckets, with_params=with_params)
    answer: dict[str, Any] = {} if found.params is None else {"params": found.params}
    return json_bytes(answer | {bucket.word: names for bucket, names in found.sequences.items()})


ROUTES: Final = (project, status, activity, params, pinned, pin)
