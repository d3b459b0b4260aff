"""Notes over HTTP: ids and times in both dialects, shared by the notes of runs and of experiments."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from litestar import Request
from litestar.di import Provide

from matyan.catalog.notes import Note
from matyan.errors import NotFoundError
from matyan.http.dialect import Dialect, dialect_of
from matyan.http.faults import RequestFaultError, text_fault

Moment = str | float
NoteId = int | str

_NUMBER_BITS: Final = 64


class NoteText(msgspec.Struct, frozen=True):
    """What a person writes."""

    content: str


class NoteEntry(msgspec.Struct, frozen=True, omit_defaults=True):
    """A note in a list; under Matyan it names its owner."""

    id: NoteId
    content: str
    created_at: Moment
    updated_at: Moment
    run_hash: str | None = None
    experiment_id: str | None = None


class NoteCreated(msgspec.Struct, frozen=True):
    """A note just made."""

    id: NoteId
    created_at: Moment


class NoteAnswer(msgspec.Struct, frozen=True):
    """One note."""

    id: NoteId
    content: str
    updated_at: Moment


def moment(seconds: float, dialect: Dialect) -> Moment:
    """Return a time of a note, app, dashboard or report as the dialect writes it."""
    if not dialect.iso_times:
        return seconds
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None).isoformat()


def note_id(number: int, dialect: Dialect) -> NoteId:
    """Return the id of a note; a UUID holds nothing but the number."""
    return str(uuid.UUID(int=number)) if dialect.note_uuids else number


def note_number() -> Provide:
    """Make the dependency of a note's id in the path, `{note:str}`: its number."""

    def read(request: Request[Any, Any, Any]) -> int:
        text = str(request.path_params["note"])
        if dialect_of(request.scope["path"]).note_uuids:
            return _number_in(text)
        try:
            return int(text)
        except ValueError as error:
            raise RequestFaultError(text_fault("int", "path", "_id", text)) from error

    return Provide(read, sync_to_thread=False)


def note_entry(note: Note, dialect: Dialect, **owner: str) -> NoteEntry:
    """Return a note for a list; `owner` is `run_hash` or `experiment_id`."""
    return NoteEntry(
        note_id(note.number, dialect),
        note.content,
        moment(note.created_at_seconds, dialect),
        moment(note.updated_at_seconds, dialect),
        **(owner if dialect.note_uuids else {}),
    )


def note_created(note: Note, dialect: Dialect) -> NoteCreated:
    """Return the answer to a note's making."""
    return NoteCreated(note_id(note.number, dialect), moment(note.created_at_seconds, dialect))


def note_answer(note: Note, dialect: Dialect) -> NoteAnswer:
    """Return one note."""
    return NoteAnswer(note_id(note.number, dialect), note.content, moment(note.updated_at_seconds, dialect))


def _number_in(text: str) -> int:
    try:
        number = uuid.UUID(text).int
    except ValueError:
        number = 2**_NUMBER_BITS
    if number >= 2**_NUMBER_BITS:
        raise NotFoundError(f"Note with id {text} is not found.")
    return number
