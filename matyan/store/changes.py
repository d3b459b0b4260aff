"""The change feed: which runs, experiments and tags each transaction changed, in the order of commits.

A note is a key written in the transaction that makes the change, so a snapshot that holds a note holds what it tells
of. Whoever keeps something in memory (a cache, a live view) remembers the place of the last note it has seen and reads
on from there. Notes are trimmed by age, the newest never: a reader that no longer finds the note at its own place has
missed some, and begins anew (ADR 0023).
"""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec

from matyan.engines.kv.protocol import KvEngine, KvReader, KvTransaction
from matyan.engines.kv.tuples import pack, unpack
from matyan.ids import Project
from matyan.store import cursors, keyspace
from matyan.store.records import RecordCodec
from matyan.store.scans import scan_pages
from matyan.store.subspaces import Subspace

_STAMP_BYTES: Final = 10
_CURSOR: Final = "trim-changes/"


class Change(NamedTuple):
    """Something was written or deleted."""

    place: bytes
    """Where the note stands; notes of later commits have greater places."""
    space: Subspace
    """RUNS (a run's document), EXPERIMENTS or TAGS."""
    id: int | str
    """A run's number, an experiment's or tag's id."""


class _Mark(msgspec.Struct, array_like=True, frozen=True):
    """The newest note at a moment."""

    seconds: float
    place: bytes


_marks: Final = RecordCodec(_Mark)


def note(tx: KvTransaction, project: Project, space: Subspace, changed: int | str) -> None:
    """Tell that this transaction changes a run, an experiment or a tag; twice for one is once."""
    tx.put_versionstamped(keyspace.changes(project), pack((int(space), changed)), b"")


def read(reader: KvReader, project: Project, *, since: bytes | None, rows_max: int) -> list[Change]:
    """Return notes in the order of commits, from the one at the place `since` on, that one included when it is left.

    None is the beginning of what is left.
    """
    begin, end = keyspace.children(keyspace.changes(project))
    rows = reader.scan(begin if since is None else since, end, rows_max=rows_max)
    return [_change(key, len(begin) - 1 + _STAMP_BYTES) for key, _ in rows]


def newest(reader: KvReader, project: Project) -> bytes | None:
    """Return the place of the newest note, or None when there never was one."""
    rows = reader.scan(*keyspace.children(keyspace.changes(project)), rows_max=1, reverse=True)
    return rows[0][0] if rows else None


def trim(kv: KvEngine, project: Project, *, now_seconds: float, keep_seconds: float) -> int:
    """Forget notes that are older than `keep_seconds`, some of twice that age; return how many.

    Notes have no times, since no transaction reads a clock: a mark says which note was the newest when, and once the
    mark is old enough, what lies before it goes.
    """
    cursor = f"{_CURSOR}{project}"
    known = kv.read(lambda reader: cursors.get(reader, cursor))
    mark = _marks.decode(known) if known else None
    age = None if mark is None else now_seconds - mark.seconds
    if age is not None and 0 <= age < keep_seconds:
        return 0
    # A mark from the future tells nothing: somebody set the clock back.
    trimmed = _clear_before(kv, project, mark.place) if mark is not None and age is not None and age >= 0 else 0
    place = kv.read(lambda reader: newest(reader, project))
    if place is not None:
        kv.write(lambda tx: cursors.put(tx, cursor, _marks.encode(_Mark(now_seconds, place))))
    return trimmed


def _clear_before(kv: KvEngine, project: Project, place: bytes) -> int:
    """Clear the notes before a place, so many per transaction that no other writer waits long."""
    begin, _ = keyspace.children(keyspace.changes(project))
    trimmed = 0
    for rows in scan_pages(kv, begin, place):
        end = rows[-1][0] + b"\x00"
        kv.write(lambda tx, end=end: tx.clear_range(begin, end))  # type: ignore[misc]  # mypy cannot infer a lambda with a default
        trimmed += len(rows)
    return trimmed


def _change(key: bytes, noted_at: int) -> Change:
    space, changed = unpack(key[noted_at:])
    assert isinstance(space, int)
    assert isinstance(changed, int | str)
    return Change(key, Subspace(space), changed)
