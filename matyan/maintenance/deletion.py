"""A deleted run's keys and files, freed in bounded, resumable steps: at its event, or by a job that looks what is due.

Every step may be repeated, by several processes at once. What is left to do stands in the store (`DELETIONS`) and is
forgotten only after it is done, so a process that dies in between leaves nothing behind that is not found again.
"""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import Final

import msgspec

from matyan.blobs.service import PRESIGNED_SECONDS
from matyan.clock import Clock
from matyan.engines.kv.protocol import KvEngine, KvTransaction
from matyan.errors import UnavailableError
from matyan.ids import Project, RunNumber
from matyan.runs import tombstones
from matyan.runs.graves import Graves
from matyan.runs.tombstones import Due
from matyan.sequences import repository as sequences
from matyan.store import keyspace
from matyan.store.subspaces import Subspace

logger = logging.getLogger(__name__)

LATE_SECONDS: Final = 2 * PRESIGNED_SECONDS
"""How long after a deletion its files are looked for again: an upload begins before its address expires, ends later."""
RETRY_SECONDS: Final = 60.0
"""A deletion that an engine did not let happen comes again after this, and does not hold up the others."""
_ROWS_PER_TRANSACTION: Final = 100
"""Of up to 100 kB each, and all of it is read."""
_DELETIONS_PER_READ: Final = 100


class FilesUnavailableError(UnavailableError):
    """The files of a deleted run cannot be freed now; its keys are."""


class Deletions:
    """Frees what deleted runs leave behind."""

    def __init__(self, *, kv: KvEngine, graves: Graves, clock: Clock) -> None:
        self._kv = kv
        self._graves = graves
        self._clock = clock

    def free(self, project: Project, due: Due, *, seconds_max: float) -> bool:
        """Free one run, if that is still to be done, for about `seconds_max` seconds; return whether it is done.

        Raises:
            FilesUnavailableError: the object store cannot be reached, or somebody else frees the same files.
            UnavailableError: the store cannot be reached.
        """
        if not self._kv.read(partial(tombstones.is_scheduled, project=project, due=due)):
            return True
        return self._free(project, due, time.monotonic() + seconds_max)

    def free_due(self, project: Project, *, seconds_max: float, patience_seconds: float = 0.0) -> int:
        """Free runs whose time came `patience_seconds` ago, for about `seconds_max` seconds; return how many are done.

        Whatever is not done is done by the next call. The patience leaves what is fresh to those who were told of it.
        """
        ends, freed = time.monotonic() + seconds_max, 0
        while time.monotonic() < ends:
            now_ms = int((self._clock.now_seconds() - patience_seconds) * 1000)
            found = self._kv.read(
                partial(tombstones.list_due, project=project, now_ms=now_ms, rows_max=_DELETIONS_PER_READ)
            )
            if not found:
                break
            for due in found:
                if time.monotonic() >= ends or not self._free_or_postpone(project, due, ends):
                    return freed
                freed += 1
        return freed

    def _free_or_postpone(self, project: Project, due: Due, ends: float) -> bool:
        """Work at one deletion; return False when the time is over before it is done."""
        try:
            return self._free(project, due, ends)
        except UnavailableError as error:
            logger.warning(
                "a deleted run cannot be freed now", extra={"run": due.deletion.run_id, "reason": error.message}
            )
            later = int((self._clock.now_seconds() + RETRY_SECONDS) * 1000)
            self._kv.write(partial(_move, project=project, due=due, to=due._replace(due_ms=later)), durable=False)
            return True

    def _free(self, project: Project, due: Due, ends: float) -> bool:
        # Not durable: what the machine loses with its power is found and freed again.
        while self._kv.write(partial(_clear_some, project=project, number=due.number), durable=False):
            if time.monotonic() >= ends:
                return False
        try:
            files = self._graves.free_files(project, due.deletion.run_id)
        except UnavailableError as error:
            raise FilesUnavailableError(error.message) from error
        self._kv.write(partial(_move, project=project, due=due, to=_later(due)), durable=False)
        logger.debug("deleted run freed", extra={"run": due.deletion.run_id, "files": files})
        return True


def _later(due: Due) -> Due | None:
    """Return when to look for late uploads of a run that was freed, or None when that was it."""
    if due.deletion.is_late:
        return None
    due_ms = int((due.deletion.deleted_at_seconds + LATE_SECONDS) * 1000)
    return Due(due_ms, due.number, msgspec.structs.replace(due.deletion, is_late=True))


def _clear_some(tx: KvTransaction, *, project: Project, number: RunNumber) -> bool:
    """Clear the first rows of what a run has left, and their entries in the index; return whether there may be more."""
    rows_left = _ROWS_PER_TRANSACTION
    for space, where in zip(keyspace.CONTENTS, keyspace.run_contents(project, number), strict=True):
        rows = tx.scan(*where, rows_max=rows_left)
        if rows:
            if space is Subspace.SUMMARIES:
                for _, value in rows:
                    sequences.clear_entries(tx, project, number, value)
            tx.clear_range(where.begin, rows[-1][0] + b"\x00")
        rows_left -= len(rows)
        if not rows_left:
            return True
    return False


def _move(tx: KvTransaction, *, project: Project, due: Due, to: Due | None) -> None:
    if not tombstones.is_scheduled(tx, project, due):
        return  # somebody else has done it, or postponed it
    tombstones.unschedule(tx, project, due)
    if to is not None:
        tombstones.schedule(tx, project, to)
