"""Tombstones and deletions in the store: that a run is dead, and that something of it is left to free.

A tombstone is written in the transaction that hides its run and stays: records of the run may still lie in the log, or
be sent by a client that goes on training. Clearing it lets the hash live again, for records from then on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from matyan.engines.kv.protocol import KvReader, KvTransaction
from matyan.ids import Project, RunId, RunNumber
from matyan.runs.model import EditMark
from matyan.store import keyspace
from matyan.store.records import RecordCodec
from matyan.store.subspaces import Subspace

LATE_NOTE_SECONDS: Final = 3600.0
"""A client that goes on with a deleted run is noted no more often than this."""


class Tombstone(msgspec.Struct, array_like=True, frozen=True, kw_only=True):
    """That the run of this hash was deleted."""

    mark: EditMark
    """The end of the run's log when it was deleted, or when the tombstone was cleared."""
    deleted_at_seconds: float
    number: RunNumber
    """Of the run that was deleted last under this hash."""
    cleared_at_seconds: float | None = None
    """When somebody asked for the hash to live again; None while it is dead."""
    late_at_seconds: float = 0.0
    """When a record of the dead run came last, give or take LATE_NOTE_SECONDS; 0 for none."""

    @property
    def is_cleared(self) -> bool:
        """Whether the hash may live again."""
        return self.cleared_at_seconds is not None

    @property
    def touched_at_seconds(self) -> float:
        """When the run was deleted, cleared, or sent for by a client that does not know of it: the last of them."""
        return max(self.deleted_at_seconds, self.cleared_at_seconds or 0.0, self.late_at_seconds)

    def buries(self, log_id: str, offset: int) -> bool:
        """Return whether a record belongs to the deleted run: any until it is cleared, the older ones for ever."""
        if not self.is_cleared:
            return True
        return self.mark.log_id == log_id and offset < self.mark.end_offset


class Deletion(msgspec.Struct, array_like=True, frozen=True, kw_only=True):
    """A deleted run with something left to free: the durable seed of everything that follows a deletion."""

    run_id: RunId
    deleted_at_seconds: float
    is_late: bool = False
    """Whether it was freed before, and this is about files that may have been uploaded since."""


class Due(NamedTuple):
    """A deletion and where it stands."""

    due_ms: int
    number: RunNumber
    deletion: Deletion


def first_due(run_id: RunId, number: RunNumber, deleted_at_seconds: float) -> Due:
    """Return where a deletion stands that has just been made: it is due at once."""
    return Due(int(deleted_at_seconds * 1000), number, Deletion(run_id=run_id, deleted_at_seconds=deleted_at_seconds))


_codec: Final = RecordCodec(Tombstone)
_deletions: Final = RecordCodec(Deletion)


def get_many(reader: KvReader, runs: Sequence[tuple[Project, RunId]]) -> list[Tombstone | None]:
    """Return the tombstone of each run, None for one that was never deleted."""
    values = reader.get_many([keyspace.tombstone(project, run_id) for project, run_id in runs])
    return [None if value is None else _codec.decode(value) for value in values]


def get(reader: KvReader, project: Project, run_id: RunId) -> Tombstone | None:
    """Return the tombstone of a run, or None."""
    return get_many(reader, [(project, run_id)])[0]


def put(tx: KvTransaction, project: Project, run_id: RunId, tombstone: Tombstone) -> None:
    """Store a tombstone, replacing the one of an earlier deletion."""
    tx.put(keyspace.tombstone(project, run_id), _codec.encode(tombstone))


def schedule(tx: KvTransaction, project: Project, due: Due) -> None:
    """Note that a run has something to free when the time has come."""
    tx.put(keyspace.deletion(project, due.due_ms, due.number), _deletions.encode(due.deletion))


def unschedule(tx: KvTransaction, project: Project, due: Due) -> None:
    """Note that this has been done."""
    tx.clear(keyspace.deletion(project, due.due_ms, due.number))


def is_scheduled(reader: KvReader, project: Project, due: Due) -> bool:
    """Return whether this is still to be done."""
    return reader.get(keyspace.deletion(project, due.due_ms, due.number)) is not None


def list_due(reader: KvReader, project: Project, now_ms: int, *, rows_max: int) -> list[Due]:
    """Return deletions whose time has come, the oldest first."""
    rows = reader.scan(*keyspace.deletions_until(project, now_ms), rows_max=rows_max)
    return [Due(*keyspace.deletion_place(key), _deletions.decode(value)) for key, value in rows]


def list_scheduled(reader: KvReader, project: Project, after: Due | None, *, rows_max: int) -> list[Due]:
    """Return deletions behind another, whether or not their time has come, in the order in which they are due."""
    begin, end = keyspace.children(keyspace.subspace(project, Subspace.DELETIONS))
    if after is not None:
        begin = keyspace.deletion(project, after.due_ms, after.number) + b"\x00"
    rows = reader.scan(begin, end, rows_max=rows_max)
    return [Due(*keyspace.deletion_place(key), _deletions.decode(value)) for key, value in rows]


def list_all(
    reader: KvReader, project: Project, after: RunId | None, *, rows_max: int
) -> list[tuple[RunId, Tombstone]]:
    """Return tombstones in the order of their hashes, beginning behind one of them."""
    begin, end = keyspace.children(keyspace.subspace(project, Subspace.TOMBSTONES))
    if after is not None:
        begin = keyspace.tombstone(project, after) + b"\x00"
    rows = reader.scan(begin, end, rows_max=rows_max)
    return [(RunId(keyspace.last_text(key)), _codec.decode(value)) for key, value in rows]


def clear_if_same(tx: KvTransaction, project: Project, run_id: RunId, seen: Tombstone) -> bool:
    """Forget that a run was deleted, unless something has happened to it since; return whether it is forgotten."""
    if get(tx, project, run_id) != seen:
        return False
    tx.clear(keyspace.tombstone(project, run_id))
    return True
