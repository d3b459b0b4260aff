"""Graves: the files of deleted runs, freed while their hash is dead and never after it lives again."""

from __future__ import annotations

import threading
from typing import Final

import msgspec

from matyan.blobs.service import blob_key
from matyan.engines.blob.protocol import BlobEngine
from matyan.engines.kv.protocol import KvEngine, KvTransaction
from matyan.ids import Project, RunId
from matyan.runs import tombstones
from matyan.runs.model import EditMark

_LOCKS: Final = 64


class Graves:
    """Frees files by the prefix of their run, which a later run of the same hash will use again.

    So freeing and clearing exclude each other: one object serves all who do either. Locks are striped by run; whoever
    clears a tombstone waits at most for the freeing of that run's files.
    """

    def __init__(self, *, kv: KvEngine, blobs: BlobEngine) -> None:
        self._kv = kv
        self._blobs = blobs
        self._locks = tuple(threading.Lock() for _ in range(_LOCKS))

    def free_files(self, project: Project, run_id: RunId) -> int:
        """Delete the files of a run that is dead; return how many. Nothing is done for a hash that lives again."""
        with self._lock(project, run_id):
            tombstone = self._kv.read(lambda reader: tombstones.get(reader, project, run_id))
            if tombstone is None or tombstone.is_cleared:
                return 0
            return self._free(project, run_id)

    def clear(self, project: Project, run_id: RunId, mark: EditMark, now_seconds: float) -> bool:
        """Let a hash live again, for records behind `mark`; return whether it was dead.

        Its files are freed first: later they could not be told from those of the new run.
        """

        def write(tx: KvTransaction) -> bool:
            found = tombstones.get(tx, project, run_id)
            if found is None or found.is_cleared:
                return False
            cleared = msgspec.structs.replace(found, mark=mark, cleared_at_seconds=now_seconds)
            tombstones.put(tx, project, run_id, cleared)
            return True

        with self._lock(project, run_id):
            found = self._kv.read(lambda reader: tombstones.get(reader, project, run_id))
            if found is None or found.is_cleared:
                return False
            self._free(project, run_id)
            return self._kv.write(write)

    def _free(self, project: Project, run_id: RunId) -> int:
        return self._blobs.delete_prefix(blob_key(project, run_id, ""))

    def _lock(self, project: Project, run_id: RunId) -> threading.Lock:
        return self._locks[hash((project, run_id)) % _LOCKS]
