"""How far the import of a run has come, kept in the transactions that move it on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from matyan.engines.kv.protocol import KvReader, KvTransaction
from matyan.ids import Project, RunId, RunNumber
from matyan.store import keyspace
from matyan.store.records import RecordCodec, get_documents, put_document

AIM: Final = "aim"
"""The source of every Aim repository: hashes of runs are random, so equal ones mean copies of one run."""
CATALOG: Final = RunId("")
"""In place of a run: experiments and their notes."""


class Seen(msgspec.Struct, array_like=True, frozen=True):
    """What the source said last time of things that people edit here too; what differs now changed there since."""

    name: str | None = None
    description: str | None = None
    archived: bool = False
    experiment: str | None = None
    """Its name."""
    tags: tuple[str, ...] = ()
    """Their names."""
    end_time_seconds: float | None = None


class NoteSeen(msgspec.Struct, array_like=True, frozen=True):
    """A note of the source, and what it became."""

    number: int
    updated_at_seconds: float
    """At the source."""


class ImportProgress(msgspec.Struct, array_like=True, frozen=True, kw_only=True):
    """The state of one run's import."""

    number: RunNumber = RunNumber(0)
    """The run it became; a deletion here leaves it pointing nowhere."""
    signature: str = ""
    """Of the source when everything of the run had arrived; empty until then."""
    seen: Seen = Seen()
    params_digest: bytes = b""
    """Of the params as they were in the source."""
    notes: Mapping[str, NoteSeen] = {}
    """By their identity in the source."""
    named: tuple[str, ...] = ()
    """Of the catalog: ids of experiments and tags that came here, sorted. What is gone since was deleted here."""


_codec: Final = RecordCodec(ImportProgress)


def get(reader: KvReader, project: Project, source: str, run_id: RunId) -> ImportProgress | None:
    """Return the progress of a run, None when it was never begun."""
    (data,) = get_documents(reader, [keyspace.import_progress(project, source, run_id)])
    return None if data is None else _codec.decode(data)


def put(tx: KvTransaction, project: Project, source: str, run_id: RunId, progress: ImportProgress) -> None:
    """Store the progress of a run."""
    put_document(tx, keyspace.import_progress(project, source, run_id), _codec.encode(progress))
