"""What changes or deletes runs, over HTTP: one by one, or any number at a time."""

from __future__ import annotations

from typing import Final

import msgspec
from litestar import Response, delete, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody

from matyan.errors import NotFoundError
from matyan.http.answers import json_response
from matyan.http.app import REFUSED_WHEN_READ_ONLY
from matyan.http.dialect import Dialect
from matyan.http.openapi import answers
from matyan.http.params import flag
from matyan.ids import RunId
from matyan.runs.changes import RunChanges, RunEdit
from matyan.runs.views import Done, Ok
from matyan.threads import run_blocking


class EmptyObject(msgspec.Struct, frozen=True):
    """What matyan-client sends for an empty list."""


RunIds = list[str] | EmptyObject


class TagName(msgspec.Struct, frozen=True):
    """The tag to attach."""

    tag_name: str


class Tagged(msgspec.Struct, frozen=True):
    """The answer to attaching a tag."""

    id: str
    tag_id: str
    status: str = "OK"


class Untagged(msgspec.Struct, frozen=True):
    """The answer to detaching a tag."""

    id: str
    removed: bool
    status: str = "OK"


@put(
    "/runs/{run_id:str}",
    opt=dict(REFUSED_WHEN_READ_ONLY),
    operation_id="editRun",
    responses=answers(Done, "It is changed."),
)
async def edit(
    run_id: FromPath[str], data: JSONBody[RunEdit], run_changes: NamedDependency[RunChanges]
) -> Response[bytes]:
    """Change properties of a run; those that are missing or null stay."""
    await run_blocking(run_changes.edit, RunId(run_id), data)
    return json_response(Done(run_id))


@delete(
    "/runs/{run_id:str}",
    opt=dict(REFUSED_WHEN_READ_ONLY),
    status_code=200,
    operation_id="deleteRun",
    responses=answers(Done, "It is gone."),
)
async def delete_run(
    run_id: FromPath[str], run_changes: NamedDependency[RunChanges], dialect: NamedDependency[Dialect]
) -> Response[bytes]:
    """Delete a run and everything it logged; an unknown one is an error in the Matyan dialect only."""
    found = await run_blocking(run_changes.delete, RunId(run_id))
    if not found and dialect.missing_delete_is_error:
        raise NotFoundError("Run not found.")
    return json_response(Done(run_id))


@post(
    "/runs/delete-batch",
    opt=dict(REFUSED_WHEN_READ_ONLY),
    status_code=200,
    operation_id="deleteRuns",
    responses=answers(Ok, "They are gone."),
)
async def delete_batch(data: JSONBody[RunIds], run_changes: NamedDependency[RunChanges]) -> Response[bytes]:
    """Delete runs; unknown ones do not matter."""
    await run_blocking(run_changes.delete_many, _run_ids(data))
    return json_response(Ok())


@post(
    "/runs/archive-batch",
    opt=dict(REFUSED_WHEN_READ_ONLY),
    dependencies={"archive": flag("archive", default=True)},
    status_code=200,
    operation_id="archiveRuns",
    responses=answers(Ok, "They are changed."),
)
async def archive_batch(
    data: JSONBody[RunIds], archive: NamedDependency[bool], run_changes: NamedDependency[RunChanges]
) -> Response[bytes]:
    """Archive runs, or bring them back; 404 when there is none of them."""
    if not await run_blocking(run_changes.edit_many, _run_ids(data), RunEdit(archived=archive)):
        raise NotFoundError("Not Found")
    return json_response(Ok())


@post(
    "/runs/finish-batch",
    opt=dict(REFUSED_WHEN_READ_ONLY),
    status_code=200,
    operation_id="finishRuns",
    responses=answers(Ok, "They have ended."),
)
async def finish_batch(data: JSONBody[RunIds], run_changes: NamedDependency[RunChanges]) -> Response[bytes]:
    """Mark runs as ended now, unless they have an end; unknown ones do not matter."""
    await run_blocking(run_changes.edit_many, _run_ids(data), RunEdit(active=False))
    return json_response(Ok())


@post("/runs/{run_id:str}/clear-tombstone", status_code=204, operation_id="clearTombstone")
async def clear_tombstone(run_id: FromPath[str], run_changes: NamedDependency[RunChanges]) -> None:
    """Let the hash of a deleted run be used again, for what is logged from now on."""
    await run_blocking(run_changes.clear_tombstone, RunId(run_id))


@post(
    "/runs/{run_id:str}/tags/new",
    status_code=200,
    operation_id="addRunTag",
    responses=answers(Tagged, "The id of the tag."),
)
async def add_tag(
    run_id: FromPath[str], data: JSONBody[TagName], run_changes: NamedDependency[RunChanges]
) -> Response[bytes]:
    """Attach a tag, which is made when unknown."""
    return json_response(Tagged(run_id, await run_blocking(run_changes.add_tag, RunId(run_id), data.tag_name)))


@delete(
    "/runs/{run_id:str}/tags/{tag_id:str}",
    status_code=200,
    operation_id="removeRunTag",
    responses=answers(Untagged, "Whether it was attached."),
)
async def remove_tag(
    run_id: FromPath[str], tag_id: FromPath[str], run_changes: NamedDependency[RunChanges]
) -> Response[bytes]:
    """Detach a tag; one that is not attached is no error."""
    return json_response(Untagged(run_id, await run_blocking(run_changes.remove_tag, RunId(run_id), tag_id)))


def _run_ids(data: RunIds) -> list[RunId]:
    return [] if isinstance(data, EmptyObject) else [RunId(run_id) for run_id in data]


CHANGE_ROUTES: Final = (
    edit,
    delete_run,
    delete_batch,
    archive_batch,
    finish_batch,
    clear_tombstone,
    add_tag,
    remove_tag,
)
