"""Notes of experiments over HTTP."""

from __future__ import annotations

from typing import Final

from litestar import Response, delete, get, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody

from matyan.entities.service import ExperimentService
from matyan.http.answers import json_response
from matyan.http.dialect import Dialect
from matyan.http.openapi import answers
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
from matyan.runs.views import Ok
from matyan.threads import run_blocking


@get(
    "/experiments/{experiment_id:str}/note",
    operation_id="listExperimentNotes",
    responses=answers(list[NoteEntry], "Its notes."),
)
async def list_notes(
    experiment_id: FromPath[str], experiments: NamedDependency[ExperimentService], dialect: NamedDependency[Dialect]
) -> Response[bytes]:
    """Return the notes of an experiment, the newest first."""
    notes = await run_blocking(experiments.list_notes, experiment_id)
    return json_response([note_entry(note, dialect, experiment_id=experiment_id) for note in notes])


@post(
    "/experiments/{experiment_id:str}/note",
    operation_id="createExperimentNote",
    responses=answers(NoteCreated, "The id of the note.", status=201),
)
async def create_note(
    experiment_id: FromPath[str],
    data: JSONBody[NoteText],
    experiments: NamedDependency[ExperimentService],
    dialect: NamedDependency[Dialect],
) -> Response[bytes]:
    """Leave a note on an experiment."""
    note = await run_blocking(experiments.create_note, experiment_id, data.content)
    return json_response(note_created(note, dialect), status=201)


@get(
    "/experiments/{experiment_id:str}/note/{note:str}",
    dependencies={"number": note_number()},
    operation_id="getExperimentNote",
    responses=answers(NoteAnswer, "The note."),
)
async def get_note(
    experiment_id: FromPath[str],
    number: NamedDependency[int],
    experiments: NamedDependency[ExperimentService],
    dialect: NamedDependency[Dialect],
) -> Response[bytes]:
    """Return a note."""
    return json_response(note_answer(await run_blocking(experiments.get_note, experiment_id, number), dialect))


@put(
    "/experiments/{experiment_id:str}/note/{note:str}",
    dependencies={"number": note_number()},
    operation_id="editExperimentNote",
    responses=answers(NoteAnswer, "The note as it is now."),
)
async def edit_note(
    experiment_id: FromPath[str],
    number: NamedDependency[int],
    data: JSONBody[NoteText],
    experiments: NamedDependency[ExperimentService],
    dialect: NamedDependency[Dialect],
) -> Response[bytes]:
    """Replace the text of a note."""
    note = await run_blocking(experiments.edit_note, experiment_id, number, data.content)
    return json_response(note_answer(note, dialect))


@delete(
    "/experiments/{experiment_id:str}/note/{note:str}",
    dependencies={"number": note_number()},
    status_code=200,
    operation_id="deleteExperimentNote",
    responses=answers(Ok, "It is gone."),
)
async def delete_note(
    experiment_id: FromPath[str], number: NamedDependency[int], experiments: NamedDependency[ExperimentService]
) -> Response[bytes]:
    """Take a note away."""
    await run_blocking(experiments.delete_note, experiment_id, number)
    return json_response(Ok())


NOTE_ROUTES: Final = (list_notes, create_note, get_note, edit_note, delete_note)
