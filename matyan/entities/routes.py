"""Experiments and tags over HTTP."""

from __future__ import annotations

from typing import Final

import msgspec
from litestar import Response, delete, get, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody

from matyan.catalog.model import Experiment, Tag
from matyan.entities.board_routes import BOARD_ROUTES
from matyan.entities.note_routes import NOTE_ROUTES
from matyan.entities.service import Counted, ExperimentEdit, ExperimentService, TagEdit, TagService
from matyan.errors import NotFoundError
from matyan.http.answers import json_response
from matyan.http.app import REFUSED_WHEN_READ_ONLY
from matyan.http.dialect import Dialect
from matyan.http.openapi import answers
from matyan.http.params import optional_integer, timezone_offset
from matyan.ids import RunId
from matyan.runs.views import Done, Ok
from matyan.threads import query_pool, run_blocking


class ExperimentAnswer(msgspec.Struct, frozen=True):
    """An experiment; `run_count` includes archived runs."""

    id: str
    name: str
    description: str | None
    run_count: int
    archived: bool
    creation_time: float | None


class ExperimentRun(msgspec.Struct, frozen=True):
    """A run in the list of an experiment."""

    run_id: str
    name: str
    creation_time: float
    end_time: float | None
    archived: bool


class ExperimentRuns(msgspec.Struct, frozen=True):
    """Runs of an experiment, the newest first."""

    id: str
    runs: list[ExperimentRun]


class ExperimentActivity(msgspec.Struct, frozen=True):
    """Counts, and runs created per hour (Aim) or day (Matyan) of local time."""

    num_runs: int
    num_archived_runs: int
    num_active_runs: int
    activity_map: dict[str, int]


class TagAnswer(msgspec.Struct, frozen=True):
    """A tag; `run_count` includes archived runs."""

    id: str
    name: str
    color: str | None
    description: str | None
    run_count: int
    archived: bool


class TagRun(msgspec.Struct, frozen=True):
    """A run in the list of a tag."""

    run_id: str
    name: str
    experiment: str | None
    creation_time: float
    end_time: float | None


class TagRuns(msgspec.Struct, frozen=True):
    """Runs that carry a tag."""

    id: str
    runs: list[TagRun]


class NewExperiment(msgspec.Struct, frozen=True):
    """The experiment to make."""

    name: str


class NewTag(msgspec.Struct, frozen=True):
    """The tag to make."""

    name: str
    color: str | None = None
    description: str | None = None


# ---- experiments


@get("/experiments", operation_id="listExperiments", responses=answers(list[ExperimentAnswer], "All experiments."))
async def list_experiments(experiments: NamedDependency[ExperimentService]) -> Response[bytes]:
    """Return all experiments, those with the newest runs first."""
    return json_response([_experiment(counted) for counted in await run_blocking(experiments.list_all)])


@get(
    "/experiments/search",
    operation_id="searchExperiments",
    responses=answers(list[ExperimentAnswer], "Those that match."),
)
async def search_experiments(
    experiments: NamedDependency[ExperimentService], q: FromQuery[str] = ""
) -> Response[bytes]:
    """Return the experiments whose name contains `q`; as in Aim without description and time."""
    found = [_experiment(counted) for counted in await run_blocking(experiments.search, q)]
    return json_response([msgspec.structs.replace(one, description="", creation_time=None) for one in found])


@post("/experiments", status_code=200, operation_id="createExperiment", responses=answers(Done, "Its id."))
async def create_experiment(
    data: JSONBody[NewExperiment], experiments: NamedDependency[ExperimentService]
) -> Response[bytes]:
    """Make an experiment."""
    return json_response(Done((await run_blocking(experiments.create, data.name)).id))


@get(
    "/experiments/{experiment_id:str}",
    operation_id="getExperiment",
    responses=answers(ExperimentAnswer, "The experiment."),
)
async def get_experiment(
    experiment_id: FromPath[str], experiments: NamedDependency[ExperimentService]
) -> Response[bytes]:
    """Return an experiment."""
    return json_response(_experiment(await run_blocking(experiments.get, experiment_id)))


@put(
    "/experiments/{experiment_id:str}",
    opt=dict(REFUSED_WHEN_READ_ONLY),
    operation_id="editExperiment",
    responses=answers(Done, "It is changed."),
)
async def edit_experiment(
    experiment_id: FromPath[str], data: JSONBody[ExperimentEdit], experiments: NamedDependency[ExperimentService]
) -> Response[bytes]:
    """Change properties of an experiment; a missing description is cleared, what else is missing stays."""
    await run_blocking(experiments.edit, experiment_id, data)
    return json_response(Done(experiment_id))


@delete(
    "/experiments/{experiment_id:str}",
    opt=dict(REFUSED_WHEN_READ_ONLY),
    status_code=200,
    operation_id="deleteExperiment",
    responses=answers(Ok, "It is gone."),
)
async def delete_experiment(
    experiment_id: FromPath[str], experiments: NamedDependency[ExperimentService], dialect: NamedDependency[Dialect]
) -> Response[bytes]:
    """Delete an experiment: with its runs (Aim) or without (Matyan); an unknown one is an error in Matyan only."""
    deletes_runs = dialect.deletes_runs_with_experiment
    try:
        await run_blocking(experiments.delete, experiment_id, deletes_runs=deletes_runs)
    except NotFoundError:
        if dialect.missing_delete_is_error:
            raise
    return json_response(Ok())


@get(
    "/experiments/{experiment_id:str}/runs",
    dependencies={"limit": optional_integer("limit")},
    operation_id="listExperimentRuns",
    responses=answers(ExperimentRuns, "Its runs."),
)
async def experiment_runs(
    experiment_id: FromPath[str],
    limit: NamedDependency[int | None],
    experiments: NamedDependency[ExperimentService],
    offset: FromQuery[str] = "",
) -> Response[bytes]:
    """Return the runs of an experiment; `offset` is the run to begin behind and counts only with a limit."""
    limit = limit if limit and limit > 0 else None
    after = RunId(offset) if offset and limit else None
    runs = await run_blocking(experiments.list_runs, experiment_id, limit=limit, after=after)
    listed = [
        ExperimentRun(
            run.hash,
            run.name,
            run.document.created_at_seconds,
            run.document.end_time_seconds,
            run.document.archived,
        )
        for run in runs
    ]
    return json_response(ExperimentRuns(experiment_id, listed))


@get(
    "/experiments/{experiment_id:str}/activity",
    dependencies={"timezone": timezone_offset()},
    operation_id="getExperimentActivity",
    responses=answers(ExperimentActivity, "Counts and calendar."),
)
async def experiment_activity(
    experiment_id: FromPath[str],
    timezone: NamedDependency[int],
    experiments: NamedDependency[ExperimentService],
    dialect: NamedDependency[Dialect],
) -> Response[bytes]:
    """Return counts and the calendar of an experiment's runs."""
    found = await query_pool().run(experiments.activity, experiment_id, timezone_offset_minutes=timezone)
    calendar = found.by_day() if dialect.activity_by_day else found.by_hour()
    return json_response(ExperimentActivity(found.runs, found.archived, found.active, calendar))


# ---- tags


@get("/tags", operation_id="listTags", responses=answers(list[TagAnswer], "All tags."))
async def list_tags(tags: NamedDependency[TagService]) -> Response[bytes]:
    """Return all tags in the order of creation."""
    return json_response([_tag(counted) for counted in await run_blocking(tags.list_all)])


@get("/tags/search", operation_id="searchTags", responses=answers(list[TagAnswer], "Those that match."))
async def search_tags(tags: NamedDependency[TagService], q: FromQuery[str] = "") -> Response[bytes]:
    """Return the tags whose name contains `q`."""
    return json_response([_tag(counted) for counted in await run_blocking(tags.search, q)])


@post("/tags", status_code=200, operation_id="createTag", responses=answers(Done, "Its id."))
async def create_tag(data: JSONBody[NewTag], tags: NamedDependency[TagService]) -> Response[bytes]:
    """Make a tag."""
    tag = await run_blocking(tags.create, data.name, color=data.color or "", description=data.description or "")
    return json_response(Done(tag.id))


@get("/tags/{tag_id:str}", operation_id="getTag", responses=answers(TagAnswer, "The tag."))
async def get_tag(tag_id: FromPath[str], tags: NamedDependency[TagService]) -> Response[bytes]:
    """Return a tag."""
    return json_response(_tag(await run_blocking(tags.get, tag_id)))


@put("/tags/{tag_id:str}", operation_id="editTag", responses=answers(Done, "It is changed."))
async def edit_tag(
    tag_id: FromPath[str], data: JSONBody[TagEdit], tags: NamedDependency[TagService]
) -> Response[bytes]:
    """Change properties of a tag; those that are missing or null stay."""
    await run_blocking(tags.edit, tag_id, data)
    return json_response(Done(tag_id))


@delete("/tags/{tag_id:str}", status_code=200, operation_id="deleteTag", responses=answers(None, "It is gone."))
async def delete_tag(tag_id: FromPath[str], tags: NamedDependency[TagService]) -> Response[bytes]:
    """Delete a tag; its runs lose it."""
    await run_blocking(tags.delete, tag_id)
    return json_response(None)


@get("/tags/{tag_id:str}/runs", operation_id="listTagRuns", responses=answers(TagRuns, "Its runs."))
async def tag_runs(tag_id: FromPath[str], tags: NamedDependency[TagService]) -> Response[bytes]:
    """Return the runs that carry a tag, the oldest first."""
    listed = [
        TagRun(
            run.hash,
            run.name,
            None if run.experiment is None else run.experiment.name,
            run.document.created_at_seconds,
            run.document.end_time_seconds,
        )
        for run in reversed(await run_blocking(tags.list_runs, tag_id))
    ]
    return json_response(TagRuns(tag_id, listed))


def _experiment(counted: Counted[Experiment]) -> ExperimentAnswer:
    one = counted.entity
    return ExperimentAnswer(one.id, one.name, one.description, counted.runs, one.archived, one.created_at_seconds)


def _tag(counted: Counted[Tag]) -> TagAnswer:
    one = counted.entity
    return TagAnswer(one.id, one.name, one.color, one.description, counted.runs, one.archived)


ROUTES: Final = (
    list_experiments,
    search_experiments,
    create_experiment,
    get_experiment,
    edit_experiment,
    delete_experiment,
    experiment_runs,
    experiment_activity,
    list_tags,
    search_tags,
    create_tag,
    get_tag,
    edit_tag,
    delete_tag,
    tag_runs,
    *NOTE_ROUTES,
    *BOARD_ROUTES,
)
