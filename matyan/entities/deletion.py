"""EntityDeletions: the runs of a deleted experiment or tag are deleted or detached, in bounded, resumable steps.

The record and its name are gone with the first transaction, so nobody finds it or joins it any more, and readers leave
out what a run's document still says of it. What follows only tidies up, unless the runs are to be deleted too.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from matyan.catalog import repository as catalog
from matyan.catalog.model import EntityDeletion, RunPlace
from matyan.catalog.repository import Entities
from matyan.engines.kv.protocol import KvEngine, KvReader, KvTransaction
from matyan.ids import DEFAULT_PROJECT, Project, RunId, RunNumber
from matyan.runs import repository as runs
from matyan.runs.changes import RUNS_PER_TRANSACTION, RunChanges, detach_experiment, detach_tag
from matyan.runs.model import RunDocument
from matyan.store import keyspace
from matyan.store.parts import write_in_parts
from matyan.store.subspaces import Subspace

HasTime = Callable[[], bool]
Detach = Callable[[KvTransaction, Project, RunNumber, RunDocument, str], bool]
_KINDS: Final[Sequence[tuple[Entities[Any], Detach]]] = (
    (catalog.experiments, detach_experiment),
    (catalog.tags, detach_tag),
)
_DELETIONS_PER_READ: Final = 100


class EntityDeletions:
    """Ends deletions that were begun. Several may work at the same one: every step is harmless to repeat."""

    def __init__(self, *, kv: KvEngine, run_changes: RunChanges) -> None:
        self._kv = kv
        self._run_changes = run_changes

    def finish_all(self, *, seconds_max: float | None, project: Project = DEFAULT_PROJECT) -> None:
        """Go on with every deletion for `seconds_max` seconds of work, or to the end with None."""
        has_time = _timer(seconds_max)
        for kind, _ in _KINDS:
            begun = self._kv.read(partial(kind.list_deletions, project=project, rows_max=_DELETIONS_PER_READ))
            for deletion in begun:
                self._finish(kind, deletion, project, has_time)

    def finish(
        self, kind: Entities[Any], entity_id: str, *, seconds_max: float | None, project: Project = DEFAULT_PROJECT
    ) -> None:
        """Go on with one deletion, as `finish_all` does with all."""
        deletion = self._kv.read(lambda reader: kind.get_deletion(reader, project, entity_id))
        if deletion is not None:
            self._finish(kind, deletion, project, _timer(seconds_max))

    def _finish(self, kind: Entities[Any], deletion: EntityDeletion, project: Project, has_time: HasTime) -> None:
        detach = dict(_KINDS)[kind]
        while has_time():
            places = self._kv.read(
                lambda reader: kind.list_runs(reader, project, deletion.id, rows_max=RUNS_PER_TRANSACTION)
            )
            if not places:
                self._kv.write(lambda tx: _end(tx, kind, project, deletion.id))
                return
            if deletion.deletes_runs:
                hashes = self._kv.read(partial(_hashes, project=project, places=places))
                self._run_changes.delete_many(hashes, only_in=deletion.id, project=project)
            each = partial(_detach_each, kind=kind, detach=detach, project=project, entity_id=deletion.id)
            list(write_in_parts(self._kv, places, each, durable=False))


def _timer(seconds_max: float | None) -> HasTime:
    ends = math.inf if seconds_max is None else time.monotonic() + seconds_max
    return lambda: time.monotonic() < ends


def _hashes(reader: KvReader, *, project: Project, places: Sequence[RunPlace]) -> list[RunId]:
    found = runs.read_documents(reader, project, [place.number for place in places])
    return [RunId(one.hash) for one in found if one is not None]


def _detach_each(
    tx: KvTransaction,
    places: Sequence[RunPlace],
    *,
    kind: Entities[Any],
    detach: Detach,
    project: Project,
    entity_id: str,
) -> None:
    documents = runs.read_documents(tx, project, [place.number for place in places])
    for place, document in zip(places, documents, strict=True):
        kind.unlink(tx, project, entity_id, place)
        if document is not None:
            detach(tx, project, place.number, document, entity_id)


def _end(tx: KvTransaction, kind: Entities[Any], project: Project, entity_id: str) -> None:
    """Forget the deletion, unless a run has been linked since: then there is more to do."""
    if kind.list_runs(tx, project, entity_id, rows_max=1):
        return
    if kind is catalog.experiments:
        tx.clear_range(*keyspace.children(keyspace.notes(project, Subspace.EXPERIMENT_NOTES, entity_id)))
    kind.end_deletion(tx, project, entity_id)
