"""Graves: the files of deleted runs, freed while their hash is dead and never after it lives again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from typing import Final

import msgspec

from matyan.blobs.service import blob_key
from matyan.engines.blob.protocol import BlobEngine
from matyan.engines.kv.protocol import KvEngine, KvTransaction
from matyan.errors import LeaseLostError, UnavailableError
from matyan.ids import Project, RunId
from matyan.runs import tombstones
from matyan.runs.model import EditMark
from matyan.workers.leases import Lease, Leases, ProcessLeases

FREEING_WAIT_SECONDS: Final = 1.0
"""A job that finds somebody else at a grave has other work to do."""
CLEARING_WAIT_SECONDS: Final = 10.0
"""Somebody waits for the answer, and gives up after 30 seconds."""


class Graves:
    """Frees files by the prefix of their run, which a later run of the same hash will use again.

    So freeing and clearing exclude each other by a lease per run, over all processes that do either. Whoever clears a
    tombstone waits for the freeing of that run's files, for a bounded time.
    """

    def __init__(self, *, kv: KvEngine, blobs: BlobEngine, leases: Leases | None = None) -> None:
        """Put the engines to use; without `leases` nobody but the threads with this object may free or clear."""
        self._kv = kv
        self._blobs = blobs
        self._leases = leases or ProcessLeases()

    def free_files(self, project: Project, run_id: RunId) -> int:
        """Delete the files of a run that is dead; return how many. Nothing is done for a hash that lives again.

        Raises:
            UnavailableError: somebody else frees them now, or an engine cannot; not all may be deleted.
        """
        with self._opened(project, run_id, FREEING_WAIT_SECONDS) as lease:
            return self._free(project, run_id, lease) if self._is_dead(project, run_id) else 0

    def clear(self, project: Project, run_id: RunId, mark: EditMark, now_seconds: float) -> bool:
        """Let a hash live again, for records behind `mark`; return whether it was dead.

        Its files are freed first: later they could not be told from those of the new run.

        Raises:
            UnavailableError: they are being freed for too long, or an engine cannot work; the hash is still dead.
        """

        def write(tx: KvTransaction, lease: Lease) -> bool:
            lease.require(tx)
            found = tombstones.get(tx, project, run_id)
            if found is None or found.is_cleared:
                return False
            cleared = msgspec.structs.replace(found, mark=mark, cleared_at_seconds=now_seconds)
            tombstones.put(tx, project, run_id, cleared)
            return True

        if not self._is_dead(project, run_id):
            return False
        with self._opened(project, run_id, CLEARING_WAIT_SECONDS) as lease:
            if not self._is_dead(project, run_id):  # any more: somebody else has cleared it meanwhile
                return False
            self._free(project, run_id, lease)
            return self._kv.write(partial(write, lease=lease))

    def _is_dead(self, project: Project, run_id: RunId) -> bool:
        found = self._kv.read(lambda reader: tombstones.get(reader, project, run_id))
        return found is not None and not found.is_cleared

    def _free(self, project: Project, run_id: RunId, lease: Lease) -> int:
        freed = self._blobs.delete_prefix(blob_key(project, run_id, ""), may_go_on=lease.is_held)
        if not lease.is_held():
            raise LeaseLostError(f"the files of run {run_id} were being freed for too long")
        return freed

    @contextlib.contextmanager
    def _opened(self, project: Project, run_id: RunId, wait_seconds: float) -> Iterator[Lease]:
        name = f"grave/{project}/{run_id}"
        try:
            with self._leases.holding(name, wait_seconds=wait_seconds, forget=True) as lease:
                yield lease
        except LeaseLostError as error:
            raise UnavailableError(
                f"the files of the deleted run {run_id} are being freed by another process; try again in some seconds"
            ) from error
