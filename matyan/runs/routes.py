"""One run over HTTP: info, logs, notes; changes and files have modules of their own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from litestar import Response, delete, get, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody

from matyan.http.answers import JSON, json_bytes, json_response
from matyan.http.dialect import Dialect
from matyan.http.openapi import answers, streams
from matyan.http.params import StepRange, flag, step_range, texts
from matyan.http.streaming import stream
from matyan.ids import RunId
from matyan.runs.artifact_routes import ARTIFACT_ROUTES
from matyan.runs.change_routes import CHANGE_ROUTES
from matyan.runs.logs import LINES, RECORDS, RunLogs
from matyan.runs.notes import (
    NoteAnswer,
    NoteCreated,
    NoteEntry,
    NoteText,
    note_answer,
    note_created,
    note_entry,
    note_number,
)
from matyan.runs.service import RunService
from matyan.runs.views import Ok, RunInfo, buckets_of, listed_buckets, record_tree, run_info
from matyan.sequences.model import Bucket
from matyan.threads import download_pool, run_blocking
from matyan.wire.trees import encode_tree_records

RECORDS_TAIL: Final = 200
"""Log records that are sent when no range is asked for."""


@get(
    "/runs/{run_id:str}/info",
    dependencies={"skip_system": flag("skip_system", default=False), "sequence": texts("sequence")},
    operation_id="getRunInfo",
    responses=answers(RunInfo, "Everything but the points."),
)
async def info(
    run_id: FromPath[str],
    skip_system: NamedDependency[bool],
    sequence: NamedDependency[list[str]],
    runs: NamedDependency[RunService],
    dialect: NamedDependency[Dialect],
) -> Response[bytes]:
    """Return params, sequences, properties and files of a run."""
    asked = buckets_of(sequence)
    body = await run_blocking(_info, runs, RunId(run_id), asked, dialect, system_params=not skip_system)
    return Response(body, media_type=JSON)


@get(
    "/runs/{run_id:str}/logs",
    dependencies={"record_range": step_range("record_range")},
    operation_id="readLogs",
    responses=streams("Trees `{number: text}`."),
)
async def logs(
    run_id: FromPath[str],
    record_range: NamedDependency[StepRange],
    run_logs: NamedDependency[RunLogs],
    dialect: NamedDependency[Dialect],
) -> Response[Any]:
    """Stream terminal lines: `{number: text}`, ascending."""

    def trees() -> Iterator[bytes]:
        begin, end = record_range
        lines = run_logs.select(RunId(run_id), LINES, begin=begin, end=end, tail=dialect.log_tail_lines)
        return (encode_tree_records({number: str(item.value or "")}) for number, item in lines.entries)

    return stream(trees, pool=download_pool())


@get(
    "/runs/{run_id:str}/log-records",
    dependencies={"record_range": step_range("record_range")},
    operation_id="readLogRecords",
    responses=streams("Their number, and trees `{index: record}`."),
)
async def log_records(
    run_id: FromPath[str],
    record_range: NamedDependency[StepRange],
    run_logs: NamedDependency[RunLogs],
    dialect: NamedDependency[Dialect],
) -> Response[Any]:
    """Stream log records: how many there are, then `{index: record}`, ascending. Nothing for a run without any."""

    def trees() -> Iterator[bytes]:
        begin, end = record_range
        records = run_logs.select(RunId(run_id), RECORDS, begin=begin, end=end, tail=RECORDS_TAIL)
        if records.total:
            yield encode_tree_records({"log_records_count": records.total})
        for index, item in records.entries:
            yield encode_tree_records({index: record_tree(item, dialect)})

    return stream(trees, pool=download_pool())


# ---- notes


@get("/runs/{run_id:str}/note", operation_id="listRunNotes", responses=answers(list[NoteEntry], "Its notes."))
async def list_notes(
    run_id: FromPath[str], runs: NamedDependency[RunService], dialect: NamedDependency[Dialect]
) -> Response[bytes]:
    """Return the notes of a run, the newest first."""
    notes = await run_blocking(runs.list_notes, RunId(run_id))
    return json_response([note_entry(note, dialect, run_hash=run_id) for note in notes])


@post(
    "/runs/{run_id:str}/note",
    operation_id="createRunNote",
    responses=answers(NoteCreated, "The id of the note.", status=201),
)
async def create_note(
    run_id: FromPath[str],
    data: JSONBody[NoteText],
    runs: NamedDependency[RunService],
    dialect: NamedDependency[Dialect],
) -> Response[bytes]:
    """Leave a note on a run."""
    note = await run_blocking(runs.create_note, RunId(run_id), data.content)
    return json_response(note_created(note, dialect), status=201)


@get(
    "/runs/{run_id:str}/note/{note:str}",
    dependencies={"number": note_number()},
    operation_id="getRunNote",
    responses=answers(NoteAnswer, "The note."),
)
async def get_note(
    run_id: FromPath[str],
    number: NamedDependency[int],
    runs: NamedDependency[RunService],
    dialect: NamedDependency[Dialect],
) -> Response[bytes]:
    """Return a note."""
    return json_response(note_answer(await run_blocking(runs.get_note, RunId(run_id), number), dialect))


@put(
    "/runs/{run_id:str}/note/{note:str}",
    dependencies={"number": note_number()},
    operation_id="editRunNote",
    responses=answers(NoteAnswer, "The note as it is now."),
)
async def edit_note(
    run_id: FromPath[str],
    number: NamedDependency[int],
    data: JSONBody[NoteText],
    runs: NamedDependency[RunService],
    dialect: NamedDependency[Dialect],
) -> Response[bytes]:
    """Replace the text of a note."""
    return json_response(note_answer(await run_blocking(runs.edit_note, RunId(run_id), number, data.content), dialect))


@delete(
    "/runs/{run_id:str}/note/{note:str}",
    dependencies={"number": note_number()},
    status_code=200,
    operation_id="deleteRunNote",
    responses=answers(Ok, "It is gone."),
)
async def delete_note(
    run_id: FromPath[str], number: NamedDependency[int], runs: NamedDependency[RunService]
) -> Response[bytes]:
    """Take a note away."""
    await run_blocking(runs.delete_note, RunId(run_id), number)
    return json_response(Ok())


def _info(runs: RunService, run_id: RunId, asked: Sequence[Bucket], dialect: Dialect, *, system_params: bool) -> bytes:
    """Read and encode in the pool's thread: params and summaries can be many."""
    run, summaries = runs.details(run_id, buckets=listed_buckets(asked), system_params=system_params)
    return json_bytes(run_info(run, summaries, asked, dialect))


ROUTES: Final = (
    info,
    logs,
    log_records,
    *CHANGE_ROUTES,
    *ARTIFACT_ROUTES,
    list_notes,
    create_note,
    get_note,
    edit_note,
    delete_note,
)
