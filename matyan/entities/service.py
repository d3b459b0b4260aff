"""ExperimentService and TagService: named records and the runs that belong to them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain, islice
from typing import Final, Generic, NamedTuple, TypeVar

import msgspec

from matyan.catalog import repository as catalog
from matyan.catalog.model import Experiment, Tag
from matyan.catalog.notes import Note, experiment_notes
from matyan.catalog.repository import Entities
from matyan.clock import Clock, SystemClock
from matyan.engines.kv.protocol import KvEngine, KvReader, KvTransaction
from matyan.errors import ConflictError, InvalidArgumentError, NotFoundError
from matyan.ids import DEFAULT_PROJECT, Project, RunId, RunNumber, make_id
from matyan.limits import LABEL_BYTES_MAX
from matyan.runs import repository as runs
from matyan.runs.activity import Activity
from matyan.runs.model import Run

E = TypeVar("E", Experiment, Tag)

PAGE_RUNS: Final = 500
"""Runs that one read transaction looks at."""


class Counted(NamedTuple, Generic[E]):
    """An experiment or tag with the number of its runs, archived ones included."""

    entity: E
    runs: int


class EntityService(Generic[E]):
    """What experiments and tags have in common. Every method raises NotFoundError for one that is not there."""

    def __init__(self, *, kv: KvEngine, entities: Entities[E], noun: str) -> None:
        self._kv = kv
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
            return [Counted(entity, self._entities.count_runs(reader, project, entity.id)) for entity in found]

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
        before = None if after is None else self._kv.read(lambda reader: runs.get_number(reader, project, after))
        numbers: Sequence[RunNumber] | None = None
        while numbers is None or len(numbers) == rows_max:
            numbers, page = self._kv.read(
                partial(self._page, project=project, entity_id=entity_id, before=before, rows_max=rows_max)
            )
            yield page
            before = numbers[-1] if numbers else None

    def _page(
        self, reader: KvReader, *, project: Project, entity_id: str, before: RunNumber | None, rows_max: int
    ) -> tuple[Sequence[RunNumber], Sequence[Run]]:
        numbers = self._entities.list_runs(reader, project, entity_id, before=before, rows_max=rows_max)
        return numbers, runs.load(reader, project, numbers)

    def _create(self, entity: E, project: Project) -> E:
        size = len(entity.name.encode(errors="surrogatepass"))
        if size > LABEL_BYTES_MAX:
            raise InvalidArgumentError(f"the name has {size} bytes, limit {LABEL_BYTES_MAX}")

        def write(tx: KvTransaction) -> None:
            if self._entities.find(tx, project, entity.name) is not None:
                raise ConflictError(f"{self._noun} with name '{entity.name}' already exists.")
            self._entities.put(tx, project, entity)

        self._kv.write(write)
        return entity

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

    def __init__(self, *, kv: KvEngine, clock: Clock | None = None) -> None:
        super().__init__(kv=kv, entities=catalog.experiments, noun="Experiment")
        self._clock = clock or SystemClock()

    def create(self, name: str, *, project: Project = DEFAULT_PROJECT) -> Experiment:
        """Make an experiment. Raises ConflictError when the name is taken."""
        now = self._clock.now_seconds()
        return self._create(Experiment(id=make_id(), name=name.strip(), created_at_seconds=now), project)

    def list_all(self, *, project: Project = DEFAULT_PROJECT) -> list[Counted[Experiment]]:
        """Return all: those with the newest runs first, then those without runs in the order of creation."""

        def newest(reader: KvReader) -> dict[str, RunNumber]:
            ids = [counted.entity.id for counted in counted_ones]
            found = [(one, self._entities.list_runs(reader, project, one, rows_max=1)) for one in ids]
            return {one: numbers[0] for one, numbers in found if numbers}

        counted_ones = super().list_all(project=project)
        numbers = self._kv.read(newest)
        return sorted(counted_ones, key=lambda counted: -numbers.get(counted.entity.id, RunNumber(0)))

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

    def __init__(self, *, kv: KvEngine, clock: Clock | None = None) -> None:
        super().__init__(kv=kv, entities=catalog.tags, noun="Tag")
        self._clock = clock or SystemClock()

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

    def search(self, text: str, *, project: Project = DEFAULT_PROJECT) -> Sequence[Counted[Tag]]:
        """Return those whose name contains `text`, stripped; `%` and `_` stand for others."""
        return self._search(text.strip(), project)


def containing(pattern: str) -> Callable[[str], bool]:
    """Return the test of SQL's `LIKE '%pattern%'`: `%` is any text, `_` one character, ASCII case is ignored."""
    # Part after part, each at its first place: unlike one expression with `.*` this never backtracks.
    parts = [re.compile("".join(map(_one, part)), re.DOTALL) for part in pattern.split("%") if part]

    def matches(text: str) -> bool:
        position = 0
        for part in parts:
            found = part.search(text, position)
            if found is None:
                return False
            position = found.end()
        return True

    return matches


def _one(character: str) -> str:
    if character == "_":
        return "."
    is_letter = character.isascii() and character.isalpha()
    return f"[{character.lower()}{character.upper()}]" if is_letter else re.escape(character)


def _age(entity: Experiment | Tag) -> float:
    return entity.created_at_seconds
