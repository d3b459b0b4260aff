"""Blobs that nothing refers to are deleted: a job that looks at a part of the bucket each time and goes on from there.

What is looked for: files of runs that are deleted, or were never heard of, and contents of dead letters that are gone.
Nobody has heard of a run when no record made it and no dead letter could.
Files of a run that is stored are left alone, whether or not the run names them: see ADR 0019.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Final, NamedTuple

import msgspec

from matyan.clock import Clock
from matyan.engines.blob.protocol import BlobEngine, BlobEntry
from matyan.engines.kv.protocol import KvEngine, KvReader
from matyan.errors import UnavailableError
from matyan.ids import Project, RunId
from matyan.maintenance.deletion import LATE_SECONDS
from matyan.maintenance.letters import read_claims
from matyan.runs import repository as runs
from matyan.runs import tombstones
from matyan.runs.graves import Graves
from matyan.store import cursors, deadletters
from matyan.store.deadletters import BLOB_PREFIX
from matyan.wire.messages import Origin

logger = logging.getLogger(__name__)

REST_SECONDS: Final = 3600.0
"""Between two passes: listing a bucket costs money where somebody else keeps it."""
LETTER_SECONDS_MIN: Final = 3600.0
"""A letter's content is younger than this while the worker that puts it has yet to commit the letter."""
_BATCH: Final = 1000
_RUN_PARTS: Final = 3
_LETTER_PARTS: Final = 6


class Graces(msgspec.Struct, frozen=True, kw_only=True):
    """How old a blob must be, in seconds, before it is taken for an orphan."""

    unknown_seconds: float
    """Of a run nobody has heard of: what is said of it may still be under way."""
    dead_seconds: float = LATE_SECONDS
    """Of a run that is deleted: until then its deletion looks for it."""


class Swept(NamedTuple):
    """What one call did."""

    looked_at: int
    deleted: int
    is_complete: bool
    """Whether it reached the end; the next call then begins anew."""

    def plus(self, other: Swept) -> Swept:
        """Return both together."""
        return Swept(
            self.looked_at + other.looked_at, self.deleted + other.deleted, self.is_complete and other.is_complete
        )


class _Fates(NamedTuple):
    known: set[RunId]
    dead: set[RunId]


class Orphans:
    """Finds and deletes blobs without an owner."""

    def __init__(
        self,
        *,
        kv: KvEngine,
        blobs: BlobEngine,
        graves: Graves,
        limit: Callable[[float], float],
        clock: Clock,
        graces: Graces,
    ) -> None:
        """Put the engines to use.

        Args:
            kv: the store.
            blobs: the bucket.
            graves: frees the files of deleted runs.
            limit: returns when something of an age in seconds happened at the latest, with all that was said of it
                applied, see `Watch`: a run that is only late is not unknown.
            clock: for ages.
            graces: ages.
        """
        self._kv = kv
        self._blobs = blobs
        self._graves = graves
        self._limit = limit
        self._clock = clock
        self._graces = graces
        self._rests_until = 0.0

    def sweep_some(self, project: Project, *, seconds_max: float) -> Swept | None:
        """Go on with a pass over everything, for about twice `seconds_max` seconds; None while it rests between passes.

        Raises:
            UnavailableError: an engine cannot work now.
        """
        now = self._clock.now_seconds()
        if now < self._rests_until:
            return None
        swept = self.sweep_runs(project, seconds_max=seconds_max)
        swept = swept.plus(self.sweep_letters(seconds_max=seconds_max))
        if swept.is_complete:
            self._rests_until = now + REST_SECONDS
        return swept

    def begin_anew(self, project: Project) -> None:
        """Have the next calls look at everything."""
        for prefix in (f"{project}/", BLOB_PREFIX):
            self._note(_cursor(prefix), "")

    def sweep_runs(self, project: Project, *, seconds_max: float) -> Swept:
        """Look at files of runs for about `seconds_max` seconds, from where the last call ended.

        Raises:
            UnavailableError: an engine cannot work now.
        """
        return self._sweep(f"{project}/", partial(self._free_runs, project), seconds_max)

    def sweep_letters(self, *, seconds_max: float) -> Swept:
        """Likewise with the contents of dead letters."""
        return self._sweep(BLOB_PREFIX, self._free_letters, seconds_max)

    def _sweep(self, prefix: str, free: Callable[[Sequence[BlobEntry]], int], seconds_max: float) -> Swept:
        cursor = _cursor(prefix)
        after = self._kv.read(partial(cursors.get, name=cursor)).decode("utf-8", "surrogatepass")
        swept = Swept(0, 0, is_complete=False)
        ends: float | None = None
        for batch in _batches(self._blobs.entries(prefix, after=after)):
            # Counted from the first batch on: an engine may have to look at much to find where to begin.
            ends = ends or time.monotonic() + seconds_max
            swept = swept.plus(Swept(len(batch), free(batch), is_complete=False))
            self._note(cursor, batch[-1].key)
            if time.monotonic() >= ends:
                return swept
        self._note(cursor, "")
        return swept._replace(is_complete=True)

    def _note(self, cursor: str, key: str) -> None:
        place = key.encode("utf-8", "surrogatepass")
        self._kv.write(partial(cursors.put, name=cursor, place=place), durable=False)

    # ---- runs

    def _free_runs(self, project: Project, batch: Sequence[BlobEntry]) -> int:
        files: dict[RunId, list[BlobEntry]] = {}
        for entry in batch:
            parts = entry.key.split("/", _RUN_PARTS - 1)
            if len(parts) == _RUN_PARTS:
                files.setdefault(RunId(parts[1]), []).append(entry)
        fates = self._kv.read(partial(_read_fates, project=project, run_ids=list(files)))
        unknown = files.keys() - fates.known - fates.dead
        deleted = sum(self._free_dead(project, run_id, files[run_id]) for run_id in files.keys() & fates.dead)
        return deleted + self._free_unknown(project, {run_id: files[run_id] for run_id in sorted(unknown)})

    def _free_dead(self, project: Project, run_id: RunId, entries: Sequence[BlobEntry]) -> int:
        limit = self._clock.now_seconds() - self._graces.dead_seconds
        if not any(entry.modified_at_seconds <= limit for entry in entries):
            return 0
        try:
            deleted = self._graves.free_files(project, run_id)
        except UnavailableError as error:  # somebody else is at this grave; the next pass finds what is left
            logger.warning("files of a deleted run stay for now", extra={"run": run_id, "reason": error.message})
            return 0
        logger.info("files of a deleted run found", extra={"run": run_id, "files": deleted})
        return deleted

    def _free_unknown(self, project: Project, files: Mapping[RunId, Sequence[BlobEntry]]) -> int:
        """Delete old files of runs that were never heard of, though all that was said by the horizon is visible."""
        limit = self._limit(self._graces.unknown_seconds) if files else 0.0
        old = _older(files, limit)
        if not old:
            return 0
        claims = read_claims(self._kv)  # before the fates: what a letter that goes meanwhile has made is seen there
        deleted = 0
        for run_id, entries in old.items():
            fates = self._kv.read(partial(_read_fates, project=project, run_ids=[run_id]))
            if not (claims.has(run_id) or fates.known or fates.dead):
                deleted += self._delete(entries, limit)
                logger.info("files of an unknown run deleted", extra={"run": run_id, "files": len(entries)})
        return deleted

    # ---- dead letters

    def _free_letters(self, batch: Sequence[BlobEntry]) -> int:
        limit = self._clock.now_seconds() - max(self._graces.unknown_seconds, LETTER_SECONDS_MIN)
        old = {origin: entry for entry in batch if (origin := _origin_of(entry.key)) is not None}
        old = {origin: entry for origin, entry in old.items() if entry.modified_at_seconds <= limit}
        letters = self._kv.read(partial(deadletters.get_many, origins=list(old)))
        return self._delete([entry for entry, one in zip(old.values(), letters, strict=True) if one is None], limit)

    def _delete(self, entries: Iterable[BlobEntry], limit: float) -> int:
        """Delete objects, save those that were put again since they were listed; return how many."""
        deleted = 0
        for entry in entries:
            now = self._blobs.info(entry.key)
            if now is not None and now.modified_at_seconds <= limit:
                self._blobs.delete(entry.key)
                deleted += 1
        return deleted


def _cursor(prefix: str) -> str:
    return f"orphans/{prefix}"


def _older(files: Mapping[RunId, Sequence[BlobEntry]], limit: float) -> dict[RunId, list[BlobEntry]]:
    """Return what was put by a moment; runs of which nothing was are left out."""
    found = {run_id: [one for one in entries if one.modified_at_seconds <= limit] for run_id, entries in files.items()}
    return {run_id: entries for run_id, entries in found.items() if entries}


def _read_fates(reader: KvReader, *, project: Project, run_ids: Sequence[RunId]) -> _Fates:
    numbers = runs.get_numbers(reader, project, run_ids)
    stones = tombstones.get_many(reader, [(project, run_id) for run_id in run_ids])
    return _Fates(
        known={run_id for run_id, number in zip(run_ids, numbers, strict=True) if number is not None},
        dead={run_id for run_id, one in zip(run_ids, stones, strict=True) if one is not None and not one.is_cleared},
    )


def _origin_of(key: str) -> Origin | None:
    """Return the letter that a blob belongs to, or None when this is no letter's blob."""
    parts = key.split("/")
    if len(parts) != _LETTER_PARTS:
        return None
    try:
        return Origin(parts[1], parts[2], int(parts[3]), int(parts[4]), int(parts[5]))
    except ValueError:
        return None


def _batches(entries: Iterator[BlobEntry]) -> Iterator[list[BlobEntry]]:
    while batch := list(itertools.islice(entries, _BATCH)):
        yield batch
