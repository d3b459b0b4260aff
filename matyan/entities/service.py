"""ExperimentService and TagService: named records and the runs that belong to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain, islice
from operator import itemgetter
from typing import Final, Generic, NamedTuple, TypeVar

import msgspec

from matyan.catalog import repository as catalog
from matyan.catalog.model import Experiment, RunPlace, Tag
from matyan.catalog.notes import Note, experiment_notes
from matyan.catalog.repository import Entities
from matyan.clock import Clock, SystemClock
from matyan.engines.kv.protocol import KvEngine, KvReader, KvTransaction
from matyan.entities.deletion import EntityDeletions
from matyan.entities.matching import containing
from matyan.errors import ConflictError, InvalidArgumentError, NotFoundError
from matyan.ids import DEFAULT_PROJECT, Project, RunId, check_label, make_id
from matyan.runs import repository as runs
from matyan.runs.activity import Activity
from matyan.runs.model import Run
from matyan.store.events import announce, make_occasion
from matyan.wire.events import ExperimentDeleted, Payload, TagDeleted

E = TypeVar("E", Experiment, Tag)

PAGE_RUNS: Final = 500
"""Runs that one read transaction looks at."""
DETACH_SECONDS: Final = 1.0
"""How long a request takes runs out of what it deleted, which nobody sees; a periodic job does the rest."""


class Counted(NamedTuple, Generic[E]):
    """An experiment or tag with the number of its runs, archived ones included."""

    entity: E
    runs: int
    newest: RunPlace | None = None


class ExperimentEdit(msgspec.Struct, frozen=True, kw_only=True):
    """The properties of an experiment to change; None leaves one as it is, and so does an empty name."""

    name: str | None = None
    description: str | None = ""
    """One that is missing is cleared, as in Aim."""
    archived: bool | None = None


class TagEdit(msgspec.Struct, frozen=True, kw_only=True):
    """The properties of a tag to change; None leaves one as it is, and so does an empty name."""

    name: str | None = None
    color: str | None = None
    description: str | None = None
    archived: bool | None = None


class EntityService(Generic[E]):
    """What experiments and tags have in common. Every method raises NotFoundError for one that is not there."""

    def __init__(
        self,
        *,
        kv: KvEngine,
        entities: Entities[E],
        deletions: EntityDeletions,
        noun: str,
        deleted: Callable[[str, Project], Payload],
        clock: Clock | None,
    ) -> None:
        """Put the engine to use.

        Args:
            kv: the store.
            entities: those that this service is about.
            deletions: what ends deletions that are begun here.
            noun: what messages call one.
            deleted: makes the event that tells of a deletion, from id and project.
            clock: for times of creation and of events.
        """
        self._kv = kv
        self._clock = clock or SystemClock()
        self._deleted = deleted
        self._deletions = deletions
        self._entities: Entities[E] = entities
        self._noun = noun

    def get(self, entity_id: str, *, project: Project = DEFAULT_PROJECT) -> Counted[E]:
        """Return one with the number of its runs."""

        def read(reader: KvReader) -> Counted[E]:
            entity = self._require(reader, project, entity_id)
            return Counted(entity, self._entities.count_runs(reader, project, entity_id))

        return self._kv.read(read)

    def list_all(self, *, project: Project = DEFAULT_PROJECT) -> list[Counted[E]]:
        """Return all, archived ones included, in the order of creation."""

        def read(reader: KvReader) -> list[Counted[E]]:
            found = sorted(self._entities.list(reader, project), key=_age)
            runs_of = self._entities.look_at_runs(reader, project, [entity.id for entity in found])
            return [Counted(entity, *its_runs) for entity, its_runs in zip(found, runs_of, strict=True)]

        return self._kv.read(read)

    def list_runs(
        self,
        entity_id: str,
        *,
        limit: int | None = None,
        after: RunId | None = None,
        project: Project = DEFAULT_PROJECT,
    ) -> list[Run]:
        """Return the runs that belong here, the newest first, archived ones included.

        Args:
            entity_id: the experiment or tag.
            limit: how many at most; None for all.
            after: begin behind this run; an unknown one means from the start.
            project: where it is.
        """
        pages = self._pages(project, entity_id, after=after, rows_max=min(PAGE_RUNS, limit or PAGE_RUNS))
        return list(islice(chain.from_iterable(pages), limit))

    def activity(self, entity_id: str, *, timezone_offset_minutes: int, project: Project = DEFAULT_PROJECT) -> Activity:
        """Count the runs that belong here; the offset is UTC minus local."""
        activity = Activity()
        for run in chain.from_iterable(self._pages(project, entity_id)):
            activity.add(run.document, timezone_offset_minutes=timezone_offset_minutes)
        return activity

    def _pages(
        self, project: Project, entity_id: str, *, after: RunId | None = None, rows_max: int = PAGE_RUNS
    ) -> Iterator[Sequence[Run]]:
        """Yield runs, the newest first, one short transaction each."""
        self._kv.read(lambda reader: self._require(reader, project, entity_id))
        before = None if after is None else self._kv.read(lambda reader: runs.get_place(reader, project, after))
        places: Sequence[RunPlace] | None = None
        while places is None or len(places) == rows_max:
            places, page = self._kv.read(
                partial(self._page, project=project, entity_id=entity_id, before=before, rows_max=rows_max)
            )
            yield page
            before = places[-1] if places else None

    def _page(
        self, reader: KvReader, *, project: Project, entity_id: str, before: RunPlace | None, rows_max: int
    ) -> tuple[Sequence[RunPlace], Sequence[Run]]:
        places = self._entities.list_runs(reader, project, entity_id, before=before, rows_max=rows_max)
        return places, runs.load(reader, project, [place.number for place in places])

    def _create(self, entity: E, project: Project) -> E:
        check_label(entity.name, f"{self._noun.lower()} name")

        def write(tx: KvTransaction) -> None:
            self._require_free(tx, project, entity)
            self._entities.put(tx, project, entity)

        self._kv.write(write)
        return entity

    def _replace(self, tx: KvTransaction, project: Project, before: E, after: E) -> None:
        """Store the changed form of an entity. Raises ConflictError when another has its new name."""
        if after.name != before.name:
            check_label(after.name, f"{self._noun.lower()} name")
            self._require_free(tx, project, after)
        self._entities.replace(tx, project, before, after)

    def _begin_deletion(self, entity_id: str, project: Project, *, deletes_runs: bool) -> None:
        occasion = make_occasion(self._clock.now_seconds())
        begun: list[E] = []  # by an earlier attempt, which was committed if this one no longer finds the entity

        def write(tx: KvTransaction) -> None:
            if begun and self._entities.get(tx, project, entity_id) is None:
                return
            entity = self._require(tx, project, entity_id)
            begun.append(entity)
            self._entities.begin_deletion(tx, project, entity, deletes_runs=deletes_runs)
            announce(tx, self._deleted(entity_id, project), occasion)

        self._kv.write(write)

    def _require_free(self, tx: KvTransaction, project: Project, entity: E) -> None:
        """Raise ConflictError when another entity has the name; its own it has after a commit whose answer was lost."""
        found = self._entities.find(tx, project, entity.name)
        if found is not None and found.id != entity.id:
            raise ConflictError(f"{self._noun} with name '{entity.name}' already exists.")

    def _search(self, pattern: str, project: Project) -> list[Counted[E]]:
        matches = containing(pattern)
        return [counted for counted in self.list_all(project=project) if matches(counted.entity.name)]

    def _require(self, reader: KvReader, project: Project, entity_id: str) -> E:
        entity = self._entities.get(reader, project, entity_id)
        if entity is None:
            raise NotFoundError("Not Found")
        return entity


class ExperimentService(EntityService[Experiment]):
    """Experiments of a project."""

    def __init__(self, *, kv: KvEngine, deletions: EntityDeletions, clock: Clock | None = None) -> None:
        super().__init__(
            kv=kv,
            entities=catalog.experiments,
            deletions=deletions,
            noun="Experiment",
            deleted=lambda entity_id, project: ExperimentDeleted(experiment_id=entity_id, project=project),
            clock=clock,
        )

    def create(self, name: str, *, project: Project = DEFAULT_PROJECT) -> Experiment:
        """Make an experiment. Raises ConflictError when the name is taken."""
        now = self._clock.now_seconds()
        return self._create(Experiment(id=make_id(), name=name.strip(), created_at_seconds=now), project)

    def list_all(self, *, project: Project = DEFAULT_PROJECT) -> list[Counted[Experiment]]:
        """Return all: those with the newest runs first, then those without runs in the order of creation."""
        all_of_them = super().list_all(project=project)
        with_runs = [(counted.newest, counted) for counted in all_of_them if counted.newest is not None]
        without = [counted for counted in all_of_them if counted.newest is None]
        return [counted for _, counted in sorted(with_runs, key=itemgetter(0), reverse=True)] + without

    def edit(self, experiment_id: str, edit: ExperimentEdit, *, project: Project = DEFAULT_PROJECT) -> None:
        """Change properties of an experiment.

        Raises:
            NotFoundError: no such experiment.
            ConflictError: another has the name; nothing changes.
            InvalidArgumentError: the name is too long; or it is to be archived and has runs, which leaves it as it is,
                while the rest is changed.
        """

        def write(tx: KvTransaction) -> bool:
            before = self._require(tx, project, experiment_id)
            is_refused = bool(edit.archived and self._entities.list_runs(tx, project, experiment_id, rows_max=1))
            after = Experiment(
                id=before.id,
                name=(edit.name or "").strip() or before.name,
                description=before.description if edit.description is None else edit.description,
                archived=before.archived if edit.archived is None or is_refused else edit.archived,
                created_at_seconds=before.created_at_seconds,
            )
            self._replace(tx, project, before, after)
            return is_refused

        if self._kv.write(write):
            raise InvalidArgumentError(f"Cannot archive experiment '{experiment_id}'. Experiment has associated runs.")

    def delete(self, experiment_id: str, *, deletes_runs: bool, project: Project = DEFAULT_PROJECT) -> None:
        """Delete an experiment, and its runs or only what ties them to it. Raises NotFoundError.

        When this returns, its runs are gone, or show no experiment. When the process dies in between, a periodic job
        deletes the rest of them.
        """
        self._begin_deletion(experiment_id, project, deletes_runs=deletes_runs)
        seconds_max = None if deletes_runs else DETACH_SECONDS
        self._deletions.finish(self._entities, experiment_id, seconds_max=seconds_max, project=project)

    def search(self, text: str, *, project: Project = DEFAULT_PROJECT) -> list[Counted[Experiment]]:
        """Return those whose name contains `text`, which is not stripped; `%` and `_` stand for others."""
        return self._search(text, project)

    # ---- notes

    def list_notes(self, experiment_id: str, *, project: Project = DEFAULT_PROJECT) -> Sequence[Note]:
        """Return the notes of an experiment, the newest first."""

        def read(reader: KvReader) -> Sequence[Note]:
            self._require(reader, project, experiment_id)
            return experiment_notes.list(reader, project, experiment_id)

        return self._kv.read(read)

    def get_note(self, experiment_id: str, number: int, *, project: Project = DEFAULT_PROJECT) -> Note:
        """Return a note."""
        return self._kv.read(lambda reader: self._note(reader, project, experiment_id, number))

    def create_note(self, experiment_id: str, content: str, *, project: Project = DEFAULT_PROJECT) -> Note:
        """Leave a note."""
        now = self._clock.now_seconds()

        def write(tx: KvTransaction) -> Note:
            self._require(tx, project, experiment_id)
            return experiment_notes.create(tx, project, experiment_id, content.strip(), now)

        return self._kv.write(write)

    def edit_note(self, experiment_id: str, number: int, content: str, *, project: Project = DEFAULT_PROJECT) -> Note:
        """Replace the text of a note."""
        now = self._clock.now_seconds()

        def write(tx: KvTransaction) -> Note:
            before = self._note(tx, project, experiment_id, number)
            note = msgspec.structs.replace(before, content=content.strip(), updated_at_seconds=now)
            experiment_notes.put(tx, project, experiment_id, note)
            return note

        return self._kv.write(write)

    def delete_note(self, experiment_id: str, number: int, *, project: Project = DEFAULT_PROJECT) -> None:
        """Take a note away."""

        def write(tx: KvTransaction) -> None:
            self._note(tx, project, experiment_id, number)
            experiment_notes.clear(tx, project, experiment_id, number)

        self._kv.write(write)

    def _note(self, reader: KvReader, project: Project, experiment_id: str, number: int) -> Note:
        note = experiment_notes.get(reader, project, experiment_id, number)
        if note is None:
            raise NotFoundError(f"Note with id {number} is not found in this experiment.")
        return note


class TagService(EntityService[Tag]):
    """Tags of a project."""

    def __init__(self, *, kv: KvEngine, deletions: EntityDeletions, clock: Clock | None = None) -> None:
        super().__init__(
            kv=kv,
            entities=catalog.tags,
            deletions=deletions,
            noun="Tag",
            deleted=lambda entity_id, project: TagDeleted(tag_id=entity_id, project=project),
            clock=clock,
        )

    def create(self, name: str, *, color: str = "", description: str = "", project: Project = DEFAULT_PROJECT) -> Tag:
        """Make a tag. Raises ConflictError when the name is taken."""
        tag = Tag(
            id=make_id(),
            name=name.strip(),
            color=color.strip(),
            description=description.strip(),
            created_at_seconds=self._clock.now_seconds(),
        )
        return self._create(tag, project)

    def edit(self, tag_id: str, edit: TagEdit, *, project: Project = DEFAULT_PROJECT) -> None:
        """Change properties of a tag.

        Raises:
            NotFoundError: no such tag.
            ConflictError: another has the name; nothing changes.
            InvalidArgumentError: the name is too long.
        """

        def write(tx: KvTransaction) -> None:
            before = self._require(tx, project, tag_id)
            after = Tag(
                id=before.id,
                name=(edit.name or "").strip() or before.name,
                color=before.color if edit.color is None else edit.color.strip(),
                description=before.description if edit.description is None else edit.description.strip(),
                archived=before.archived if edit.archived is None else edit.archived,
                created_at_seconds=before.created_at_seconds,
            )
            self._replace(tx, project, before, after)

        self._kv.write(write)

    def delete(self, tag_id: str, *, project: Project = DEFAULT_PROJECT) -> None:
        """Delete a tag; no run shows it any more when this returns. Raises NotFoundError."""
        self._begin_deletion(tag_id, project, deletes_runs=False)
        self._deletions.finish(self._entities, tag_id, seconds_max=DETACH_SECONDS, project=project)

    def search(self, text: str, *, project: Project = DEFAULT_PROJECT) -> Sequence[Counted[Tag]]:
        """Return those whose name contains `text`, stripped; `%` and `_` stand for others."""
        return self._search(text.strip(), project)


def _age(entity: Experiment | Tag) -> float:
    return entity.created_at_seconds
