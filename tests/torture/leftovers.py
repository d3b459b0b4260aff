"""What lies in the store and among the files that no living run owns, and what of the files of living ones does not."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator
from typing import Final

from matyan.blobs.service import blob_key
from matyan.engines.blob.protocol import BlobEngine
from matyan.engines.kv.protocol import KvEngine
from matyan.engines.kv.tuples import _decode, unpack
from matyan.ids import DEFAULT_PROJECT
from matyan.store.keyspace import children, dead_letters, subspace
from matyan.store.scans import scan_all
from matyan.store.subspaces import Subspace
from tests.torture.checker import Finding
from tests.torture.journal import Journals, digest

NUMBER_AT: Final = {
    Subspace.RUNS: 0,
    Subspace.SYSTEM_PARAMS: 0,
    Subspace.SUMMARIES: 0,
    Subspace.POINTS: 0,
    Subspace.ITEMS: 0,
    Subspace.TERMINALS: 0,
    Subspace.ACTIVE_RUNS: 0,
    Subspace.UNSETTLED_RUNS: 0,
    Subspace.RUN_NOTES: 0,
    Subspace.RUNS_BY_TIME: 1,
    Subspace.EXPERIMENT_RUNS: 2,
    Subspace.TAG_RUNS: 2,
}
"""Subspace -> which element behind project and subspace is the run number."""


def left_in_store(kv: KvEngine, deleted: Collection[str]) -> Iterator[Finding]:
    """Yield what the store holds of deleted runs, and of run numbers that no run has."""
    runs = {str(unpack(key)[2]): int.from_bytes(value, "little") for key, value in _pairs(kv, Subspace.RUN_NUMBERS)}
    for run in sorted(set(deleted) & runs.keys()):
        yield Finding("undead", run, "the store knows its number")
    numbers = set(runs.values())
    for space, index in NUMBER_AT.items():
        found = [number for key, _ in _pairs(kv, space) if (number := _element(key, index)) not in numbers]
        if found:
            yield Finding("orphan", "-", f"{len(found)} keys of {space.name}, of run numbers such as {found[0]}")
    if letters := _scan(kv, *dead_letters()):
        yield Finding("lost", "-", f"{len(letters)} dead letters, the first is {letters[0][1][:200]!r}")


def left_among_files(blobs: BlobEngine, living: Collection[str], named: Collection[str]) -> Iterator[Finding]:
    """Yield files of runs that do not live, and files of living ones that nobody named.

    Args:
        blobs: where the files are.
        living: runs that may have files.
        named: keys that writers uploaded to; besides them, workers keep large items under `items/`.
    """
    project = blob_key(DEFAULT_PROJECT, "", "").rstrip("/")
    for info in blobs.list(f"{project}/"):
        run, path = info.key.removeprefix(f"{project}/").split("/", 1)
        if run not in living:
            yield Finding("orphan", run, f"the file {path!r} of a run that is gone")
        elif f"{run}/{path}" not in named and not path.startswith(_OWN):
            yield Finding("orphan", run, f"the file {path!r}, which nobody named")


_OWN: Final = "items/"


def lost_files(blobs: BlobEngine, journals: Journals, deleted: Collection[str]) -> Iterator[Finding]:
    """Yield files that were uploaded to a run that is stored, and are not in the bucket or hold other bytes there.

    A writer announces a file when its upload was answered, so it has to be there whether or not the announcement was
    acknowledged, and whether or not an item or artifact of the run names it.

    Args:
        blobs: where the files are.
        journals: what was uploaded and announced.
        deleted: runs whose files are to be gone.
    """
    stored = journals.acknowledged_runs() - set(deleted)
    for run, path in sorted(file for file in journals.announced() if file[0] in stored):
        data = blobs.get(blob_key(DEFAULT_PROJECT, run, path))
        if data is None:
            yield Finding("lost", run, f"the file {path!r} was uploaded and is not in the bucket")
        elif digest(data) not in journals.uploads[f"{run}/{path}"]:
            yield Finding("wrong", run, f"the file {path!r} in the bucket has other bytes than were uploaded")


def _pairs(kv: KvEngine, space: Subspace) -> list[tuple[bytes, bytes]]:
    return _scan(kv, *children(subspace(DEFAULT_PROJECT, space)))


def _scan(kv: KvEngine, begin: bytes, end: bytes) -> list[tuple[bytes, bytes]]:
    return kv.read(lambda reader: [(key, value) for key, value in scan_all(reader, begin, end)])


def _element(key: bytes, index: int) -> object:
    """Return an element behind project and subspace; what follows the tuple, such as a piece's number, is not read."""
    position, item = 0, None
    for _ in itertools.repeat(None, index + 3):
        item, position = _decode(key, position)
    return item
