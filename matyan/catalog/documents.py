"""What people save in the UI: apps (explorer states), dashboards (their names), reports, pinned sequences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Generic, TypeVar

import msgspec

from matyan.engines.kv.protocol import KvReader, KvTransaction
from matyan.ids import Project
from matyan.store import keyspace
from matyan.store.records import RecordCodec, clear_document, get_documents, put_document, read_documents
from matyan.store.subspaces import Subspace

DOCUMENT_ROWS_MAX: Final = 100
"""Rows that one scan of documents brings into memory: up to 90 kB each."""


class App(msgspec.Struct, array_like=True, frozen=True, kw_only=True):
    """A saved state of an explorer page."""

    id: str
    """UUID text."""
    type: str
    """The page: `metrics`, `runs`, ...; any text."""
    state: bytes
    """JSON text of an object, as the UI sent it: kept byte for byte."""
    created_at_seconds: float = 0.0
    updated_at_seconds: float = 0.0


class Dashboard(msgspec.Struct, array_like=True, frozen=True, kw_only=True):
    """A name for an app in the list of bookmarks."""

    id: str
    name: str
    description: str | None = None
    app_id: str | None = None
    created_at_seconds: float = 0.0
    updated_at_seconds: float = 0.0


class Report(msgspec.Struct, array_like=True, frozen=True, kw_only=True):
    """A page of text with live charts."""

    id: str
    name: str
    code: str | None = None
    description: str | None = None
    created_at_seconds: float = 0.0
    updated_at_seconds: float = 0.0


D = TypeVar("D", App, Dashboard, Report)


class Documents(Generic[D]):
    """One kind of saved document, in pieces, by id."""

    def __init__(self, kind: type[D], space: Subspace) -> None:
        self._codec: RecordCodec[D] = RecordCodec(kind)
        self._space = space

    def get_many(self, reader: KvReader, project: Project, ids: Sequence[str]) -> dict[str, D]:
        """Return those that exist, by id."""
        found = get_documents(reader, [keyspace.entity(project, self._space, document_id) for document_id in ids])
        return {
            document_id: self._codec.decode(data)
            for document_id, data in zip(ids, found, strict=True)
            if data is not None
        }

    def get(self, reader: KvReader, project: Project, document_id: str) -> D | None:
        """Return one, or None."""
        return self.get_many(reader, project, [document_id]).get(document_id)

    def list(self, reader: KvReader, project: Project) -> list[D]:
        """Return all, in no particular order."""
        where = keyspace.children(keyspace.subspace(project, self._space))
        return [self._codec.decode(data) for _, data in read_documents(reader, *where, rows_max=DOCUMENT_ROWS_MAX)]

    def put(self, tx: KvTransaction, project: Project, document: D) -> None:
        """Store a document, replacing the one of its id.

        Raises:
            TooLargeError: the document passes what a transaction holds.
        """
        put_document(tx, keyspace.entity(project, self._space, document.id), self._codec.encode(document))

    def clear(self, tx: KvTransaction, project: Project, document_id: str) -> None:
        """Delete a document; a missing one is fine."""
        clear_document(tx, keyspace.entity(project, self._space, document_id))


apps: Final = Documents(App, Subspace.APPS)
dashboards: Final = Documents(Dashboard, Subspace.DASHBOARDS)
reports: Final = Documents(Report, Subspace.REPORTS)


def get_pinned(reader: KvReader, project: Project) -> bytes | None:
    """Return the pinned sequences as stored: JSON text, or None when nothing was ever pinned."""
    return get_documents(reader, [keyspace.subspace(project, Subspace.PINNED_SEQUENCES)])[0]


def put_pinned(tx: KvTransaction, project: Project, sequences: bytes) -> None:
    """Store the pinned sequences, JSON text."""
    put_document(tx, keyspace.subspace(project, Subspace.PINNED_SEQUENCES), sequences)
