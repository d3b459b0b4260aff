"""Space: the bytes that a run, or everything, takes in the store and in the bucket. Read, not estimated."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Final, NamedTuple

from matyan.blobs.service import blob_key
from matyan.engines.blob.protocol import BlobEngine
from matyan.engines.kv.protocol import KeyRange, KvEngine, KvReader
from matyan.errors import NotFoundError
from matyan.ids import Project, RunId, RunNumber
from matyan.runs import entries, tombstones
from matyan.runs import repository as runs
from matyan.runs.model import RunDocument
from matyan.sequences import repository as sequences
from matyan.store import indexes, keyspace
from matyan.store.deadletters import BLOB_PREFIX
from matyan.store.scans import scan_all, scan_pages
from matyan.store.subspaces import Subspace

_ROWS_PER_READ: Final = 100
"""Of up to 100 kB each."""
_SYSTEM: Final = Project("")


class Amount(NamedTuple):
    """How many things, and how many bytes they take."""

    entries: int = 0
    size_bytes: int = 0

    def plus(self, other: Amount) -> Amount:
        """Return both together."""
        return Amount(self.entries + other.entries, self.size_bytes + other.size_bytes)


class Space(NamedTuple):
    """What something takes."""

    keys: Mapping[Subspace, Amount]
    """Keys and values in the store; only subspaces that hold some."""
    files: Amount

    @property
    def store(self) -> Amount:
        """All keys together."""
        return total(self.keys.values())


def total(amounts: Iterable[Amount]) -> Amount:
    """Return the sum of amounts."""
    found = Amount()
    for amount in amounts:
        found = found.plus(amount)
    return found


def of_run(kv: KvEngine, blobs: BlobEngine, project: Project, run_id: RunId) -> Space:
    """Return what a run takes, also one that is deleted: its tombstone leads to what is left of it.

    Raises:
        NotFoundError: there is no such run, and never was as far as anybody remembers.
    """
    ranges = kv.read(partial(_ranges_of, project=project, run_id=run_id))
    index = kv.read(partial(_index_of, project=project, run_id=run_id))
    found = _measure(kv, ranges) | ({Subspace.INDEX: index} if index.entries else {})
    return Space(found, _files(blobs, blob_key(project, run_id, "")))


def of_project(kv: KvEngine, blobs: BlobEngine, project: Project) -> Space:
    """Return what a project and what belongs to none take; reads all of it."""
    ranges = [(space, _below(keyspace.subspace(owner, space))) for owner in (_SYSTEM, project) for space in Subspace]
    return Space(_measure(kv, ranges), _files(blobs, f"{project}/").plus(_files(blobs, BLOB_PREFIX)))


def _ranges_of(reader: KvReader, *, project: Project, run_id: RunId) -> list[tuple[Subspace, KeyRange]]:
    number = runs.get_number(reader, project, run_id)
    stone = tombstones.get(reader, project, run_id)
    numbers = {one for one in (number, None if stone is None else stone.number) if one is not None}
    if not numbers:
        raise NotFoundError(f"no run {run_id} is stored, and none of that name was deleted as far as is remembered")
    found = [
        (Subspace.RUN_NUMBERS, _only(keyspace.run_number(project, run_id))),
        (Subspace.TOMBSTONES, _only(keyspace.tombstone(project, run_id))),
        (Subspace.CRASHED_RUNS, _only(keyspace.crashed_run(project, run_id))),
    ]
    for one in numbers:
        found += _ranges_of_number(project, one)
    if number is not None:
        (document,) = runs.read_documents(reader, project, [number])
        found += [] if document is None else _links(project, number, document)
    return found


def _index_of(reader: KvReader, *, project: Project, run_id: RunId) -> Amount:
    """Return what the entries of a run take, which lie among those of all; those of a deleted one are on their way."""
    number = runs.get_number(reader, project, run_id)
    if number is None:
        return Amount()
    (document,) = runs.read_documents(reader, project, [number])
    held = {} if document is None else entries.entries_of(document)
    held |= sequences.stored_entries(scan_all(reader, *keyspace.children(keyspace.summaries(project, number))))
    keys = [indexes.entry_key(project, place, number) for place in held]
    return Amount(len(held), sum(map(len, keys)) + sum(map(len, held.values())))


def _ranges_of_number(project: Project, number: RunNumber) -> list[tuple[Subspace, KeyRange]]:
    contents = zip(keyspace.CONTENTS, keyspace.run_contents(project, number), strict=True)
    return [
        (Subspace.RUNS, _below(keyspace.run_document(project, number))),
        (Subspace.ACTIVE_RUNS, _only(keyspace.active_run(project, number))),
        (Subspace.UNSETTLED_RUNS, _only(keyspace.unsettled_run(project, number))),
        (Subspace.LAST_SEEN, _only(keyspace.last_seen(project, number))),
        *contents,
    ]


def _links(project: Project, number: RunNumber, document: RunDocument) -> list[tuple[Subspace, KeyRange]]:
    place = document.place(number)
    owners = [(Subspace.TAG_RUNS, tag_id) for tag_id in document.tag_ids]
    if document.experiment_id is not None:
        owners.append((Subspace.EXPERIMENT_RUNS, document.experiment_id))
    return [
        (Subspace.RUNS_BY_TIME, _only(keyspace.run_by_time(project, *place))),
        *((space, _only(keyspace.entity_run(project, space, owner, *place))) for space, owner in owners),
    ]


def _only(key: bytes) -> KeyRange:
    return KeyRange(key, key + b"\x00")


def _below(prefix: bytes) -> KeyRange:
    return KeyRange(prefix, prefix + b"\xff")


def _measure(kv: KvEngine, ranges: Iterable[tuple[Subspace, KeyRange]]) -> dict[Subspace, Amount]:
    found: dict[Subspace, Amount] = {}
    for space, where in ranges:
        amount = _count(kv, where)
        if amount.entries:
            found[space] = found.get(space, Amount()).plus(amount)
    return found


def _count(kv: KvEngine, where: KeyRange) -> Amount:
    """Count a range of any length; each page is read in a transaction of its own."""
    pages = scan_pages(kv, *where, rows_max=_ROWS_PER_READ)
    return total(Amount(len(rows), sum(len(key) + len(value) for key, value in rows)) for rows in pages)


def _files(blobs: BlobEngine, prefix: str) -> Amount:
    return total(Amount(1, entry.size_bytes) for entry in blobs.entries(prefix))
