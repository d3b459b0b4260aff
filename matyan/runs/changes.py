"""RunChanges: edits of runs, their tags, their deletion; of one or of any number, in bounded transactions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final, NamedTuple

import msgspec

from matyan.catalog import repository as catalog
from matyan.catalog.model import Experiment, Tag
from matyan.clock import Clock, SystemClock
from matyan.engines.kv.protocol import KvEngine, KvTransaction
from matyan.errors import NotFoundError
from matyan.ids import DEFAULT_PROJECT, Project, RunId, RunNumber, check_label, make_id
from matyan.runs import repository, tombstones
from matyan.runs.graves import Graves
from matyan.runs.model import EditMark, RunDocument
from matyan.runs.tombstones import Tombstone, first_due
from matyan.store.events import Occasion, announce, make_occasion
from matyan.store.parts import write_in_parts
from matyan.wire.events import RunArchived, RunDeleted, RunUnarchived

MarkOf = Callable[[Project, RunId], EditMark]
"""Where the log of a run ends now; handed in, since the log's topics are not known here."""

RUNS_PER_TRANSACTION: Final = 50
QUEUED_PROPERTIES: Final = ("name", "description", "archived", "experiment")
"""What a run itself may have queued in the log when somebody edits it."""
MARKED_PROPERTIES: Final = (*QUEUED_PROPERTIES, "active")
"""Where it matters that a person has decided: a run that somebody set going is never taken for crashed."""


class RunEdit(msgspec.Struct, frozen=True, kw_only=True):
    """The properties to change; None leaves one as it is."""

    name: str | None = None
    description: str | None = None
    archived: bool | None = None
    active: bool | None = None
    experiment: str | None = None
    """A name; the experiment is made when unknown."""


class _Stored(NamedTuple):
    number: RunNumber
    document: RunDocument


class _Given(NamedTuple):
    """What a change of one run needs and no transaction may find out or make."""

    mark: EditMark
    """Taken before the transaction: what comes later than the mark is newer than the change."""
    occasion: Occasion


_Change = Callable[[KvTransaction, RunId, _Stored, _Given], None]


class RunChanges:
    """Everything that changes or deletes runs on behalf of people."""

    def __init__(self, *, kv: KvEngine, graves: Graves, mark_of: MarkOf, clock: Clock | None = None) -> None:
        self._kv = kv
        self._graves = graves
        self._mark_of = mark_of
        self._clock = clock or SystemClock()

    # ---- edits

    def edit(self, run_id: RunId, edit: RunEdit, *, project: Project = DEFAULT_PROJECT) -> None:
        """Change properties of a run. Properties that the run itself queued before this are older and do not undo it.

        Raises:
            NotFoundError: no such run.
            InvalidArgumentError: a name is too long.
        """
        if not self.edit_many([run_id], edit, project=project):
            raise NotFoundError("Not Found")

    def edit_many(self, run_ids: Sequence[RunId], edit: RunEdit, *, project: Project = DEFAULT_PROJECT) -> int:
        """Change properties of runs in the same way, some at a time; return how many of them there are.

        Raises:
            InvalidArgumentError: a name is too long.
        """
        check_label(edit.name or "", "run name")
        now = self._clock.now_seconds()
        fresh = Experiment(
            id=make_id(),
            name=check_label((edit.experiment or "").strip(), "experiment name"),
            created_at_seconds=now,
        )

        def change(tx: KvTransaction, run_id: RunId, stored: _Stored, given: _Given) -> None:
            number, document = stored
            if edit.archived not in (None, document.archived):
                event = RunArchived if edit.archived else RunUnarchived
                announce(tx, event(run_id=run_id, project=project), given.occasion)
            _apply_edit(document, edit, now)
            if edit.experiment is not None:
                _move(tx, project, number, document, fresh)
            edited = [name for name in MARKED_PROPERTIES if getattr(edit, name) is not None]
            document.edits |= dict.fromkeys(edited, given.mark)
            repository.put(tx, project, number, document)

        return self._for_each(run_ids, change, project, now)

    def add_tag(self, run_id: RunId, name: str, *, project: Project = DEFAULT_PROJECT) -> str:
        """Attach the tag of this name, which is made when unknown; return its id. Twice is no error.

        Raises:
            NotFoundError: no such run.
            InvalidArgumentError: the name is too long.
        """
        fresh = Tag(id=make_id(), name=check_label(name, "tag name"), created_at_seconds=self._clock.now_seconds())

        def write(tx: KvTransaction) -> str:
            number, document = _require(tx, project, run_id)
            tag = catalog.tags.find(tx, project, name)
            if tag is None:
                tag = fresh
                catalog.tags.put(tx, project, tag)
            if tag.id not in document.tag_ids:
                document.tag_ids = (*document.tag_ids, tag.id)
                repository.put(tx, project, number, document)
                catalog.tags.link(tx, project, tag.id, document.place(number))
            return tag.id

        return self._kv.write(write)

    def remove_tag(self, run_id: RunId, tag_id: str, *, project: Project = DEFAULT_PROJECT) -> bool:
        """Detach a tag; return whether it was attached.

        Raises:
            NotFoundError: no such run.
        """
        was_attached: list[bool] = []  # as each attempt found it: the first may be committed and its answer lost

        def write(tx: KvTransaction) -> None:
            stored = _require(tx, project, run_id)
            was_attached.append(detach_tag(tx, project, *stored, tag_id))

        self._kv.write(write)
        return any(was_attached)

    # ---- deletion

    def delete(self, run_id: RunId, *, project: Project = DEFAULT_PROJECT) -> bool:
        """Delete a run; return whether there was one. It is gone for every reader at once and freed soon after."""
        return self.delete_many([run_id], project=project) > 0

    def delete_many(
        self, run_ids: Sequence[RunId], *, only_in: str | None = None, project: Project = DEFAULT_PROJECT
    ) -> int:
        """Delete runs, some at a time; return how many of them there were.

        `only_in` is the id of an experiment: a run that has left it meanwhile stays.
        """
        now = self._clock.now_seconds()

        def change(tx: KvTransaction, run_id: RunId, stored: _Stored, given: _Given) -> None:
            number, document = stored
            if only_in is not None and document.experiment_id != only_in:
                return
            repository.clear(tx, project, number, document)
            stone = Tombstone(mark=given.mark, deleted_at_seconds=now, number=number)
            tombstones.put(tx, project, run_id, stone)
            tombstones.schedule(tx, project, first_due(run_id, number, now))
            event = RunDeleted(run_id=run_id, project=project, number=number, deleted_at_seconds=now)
            announce(tx, event, given.occasion)

        return self._for_each(run_ids, change, project, now)

    def clear_tombstone(self, run_id: RunId, *, project: Project = DEFAULT_PROJECT) -> None:
        """Let the hash of a deleted run be used again, for what is logged from now on; nothing for any other."""
        # What is appended between this moment and the end of clearing was sent before the answer: it may be dropped.
        self._graves.clear(project, run_id, self._mark_of(project, run_id), self._clock.now_seconds())

    def _for_each(self, run_ids: Sequence[RunId], change: _Change, project: Project, now_seconds: float) -> int:
        """Change those runs that exist, in transactions of bounded size; return how many."""
        # Kept over the attempts of a transaction: what an attempt no longer finds, one before it has changed for good.
        changed: set[RunId] = set()

        def write(tx: KvTransaction, part: Sequence[RunId], given: Mapping[RunId, _Given]) -> None:
            found = _find(tx, project, part)
            changed.update(found)
            for run_id, stored in found.items():
                change(tx, run_id, stored, given[run_id])

        unique = list(dict.fromkeys(run_ids))
        for at in range(0, len(unique), RUNS_PER_TRANSACTION):
            part = unique[at : at + RUNS_PER_TRANSACTION]
            given = {run_id: _Given(self._mark_of(project, run_id), make_occasion(now_seconds)) for run_id in part}
            for _ in write_in_parts(self._kv, part, partial(write, given=given)):
                pass
        return len(changed)


def detach_tag(tx: KvTransaction, project: Project, number: RunNumber, document: RunDocument, tag_id: str) -> bool:
    """Take a tag from a run; return whether it was there."""
    catalog.tags.unlink(tx, project, tag_id, document.place(number))
    if tag_id not in document.tag_ids:
        return False
    document.tag_ids = tuple(one for one in document.tag_ids if one != tag_id)
    repository.put(tx, project, number, document)
    return True


def detach_experiment(
    tx: KvTransaction, project: Project, number: RunNumber, document: RunDocument, experiment_id: str
) -> bool:
    """Take a run out of an experiment; return whether it was in it."""
    catalog.experiments.unlink(tx, project, experiment_id, document.place(number))
    if document.experiment_id != experiment_id:
        return False
    document.experiment_id = None
    repository.put(tx, project, number, document)
    return True


def _find(tx: KvTransaction, project: Project, run_ids: Sequence[RunId]) -> dict[RunId, _Stored]:
    numbers = repository.get_numbers(tx, project, run_ids)
    known = [(run_id, number) for run_id, number in zip(run_ids, numbers, strict=True) if number is not None]
    documents = repository.read_documents(tx, project, [number for _, number in known])
    return {
        run_id: _Stored(number, document)
        for (run_id, number), document in zip(known, documents, strict=True)
        if document is not None
    }


def _require(tx: KvTransaction, project: Project, run_id: RunId) -> _Stored:
    stored = _find(tx, project, [run_id]).get(run_id)
    if stored is None:
        raise NotFoundError("Not Found")
    return stored


def _apply_edit(document: RunDocument, edit: RunEdit, now_seconds: float) -> None:
    document.updated_at_seconds = now_seconds
    if edit.name is not None:
        document.name = edit.name.strip()
    if edit.description is not None:
        document.description = edit.description.strip()
    if edit.archived is not None:
        document.archived = edit.archived
    if edit.active is not None:
        document.active = edit.active
        document.crashed = False
        if edit.active:
            document.end_time_seconds = None
        elif document.end_time_seconds is None:
            document.end_time_seconds = now_seconds


def _move(tx: KvTransaction, project: Project, number: RunNumber, document: RunDocument, fresh: Experiment) -> None:
    """Move a run to the experiment of the name of `fresh`, which is stored when there is none."""
    experiment = catalog.experiments.find(tx, project, fresh.name)
    if experiment is None:
        experiment = fresh
        catalog.experiments.put(tx, project, experiment)
    if document.experiment_id not in (None, experiment.id):
        catalog.experiments.unlink(tx, project, document.experiment_id, document.place(number))
    document.experiment_id = experiment.id
    catalog.experiments.link(tx, project, experiment.id, document.place(number))
