"""Notes that people leave on a run or an experiment; numbered from 1 in a project, whatever they hang on."""

from __future__ import annotations

import struct
from typing import Final

import msgspec

from matyan.catalog.documents import DOCUMENT_ROWS_MAX
from matyan.engines.kv.protocol import KvReader, KvTransaction
from matyan.ids import Project, RunNumber
from matyan.store import keyspace
from matyan.store.records import RecordCodec, clear_document, get_documents, put_document, read_documents
from matyan.store.subspaces import Subspace

Owner = str | RunNumber
"""An experiment's id, or a run's number."""


class Note(msgspec.Struct, array_like=True, frozen=True, kw_only=True):
    """A text of a person about a run or experiment."""

    number: int
    content: str
    created_at_seconds: float
    updated_at_seconds: float


_codec: Final = RecordCodec(Note)
_NUMBER: Final = struct.Struct("<Q")


class Notes:
    """The notes of one kind of owner."""

    def __init__(self, space: Subspace) -> None:
        self._space = space

    def list(self, reader: KvReader, project: Project, owner: Owner) -> list[Note]:
        """Return the notes of an owner, the newest first."""
        found = read_documents(
            reader, *keyspace.children(keyspace.notes(project, self._space, owner)), rows_max=DOCUMENT_ROWS_MAX
        )
        return [_codec.decode(data) for _, data in found][::-1]

    def get(self, reader: KvReader, project: Project, owner: Owner, number: int) -> Note | None:
        """Return one, or None when this owner has none of that number."""
        (data,) = get_documents(reader, [keyspace.note(project, self._space, owner, number)])
        return None if data is None else _codec.decode(data)

    def create(self, tx: KvTransaction, project: Project, owner: Owner, content: str, now_seconds: float) -> Note:
        """Store a new note and return it with its number."""
        counter = keyspace.note_counter(project)
        before = tx.get(counter)
        number = 1 if before is None else _NUMBER.unpack(before)[0]
        tx.put(counter, _NUMBER.pack(number + 1))
        note = Note(number=number, content=content, created_at_seconds=now_seconds, updated_at_seconds=now_seconds)
        self.put(tx, project, owner, note)
        return note

    def put(self, tx: KvTransaction, project: Project, owner: Owner, note: Note) -> None:
        """Store a note, replacing the one of its number."""
        put_document(tx, keyspace.note(project, self._space, owner, note.number), _codec.encode(note))

    def clear(self, tx: KvTransaction, project: Project, owner: Owner, number: int) -> None:
        """Delete a note; a missing one is fine."""
        clear_document(tx, keyspace.note(project, self._space, owner, number))


run_notes: Final = Notes(Subspace.RUN_NOTES)
experiment_notes: Final = Notes(Subspace.EXPERIMENT_NOTES)
