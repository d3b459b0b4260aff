"""Window: the newest runs of a project in memory, in the order of creation, without a gap. Pure; it reads nothing."""

from __future__ import annotations

import sys
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Final, TypeVar, cast

import msgspec

from matyan.catalog.model import Experiment, RunPlace, Tag
from matyan.ids import RunNumber
from matyan.runs.model import EditMark, Run, RunDocument

Entity = Experiment | Tag
E = TypeVar("E", Experiment, Tag)

_NEVER: Final = RunPlace(1 << 80, RunNumber(0))
_ALWAYS: Final = RunPlace(-(1 << 80), RunNumber(0))
"""Places after and before those of all runs."""
RUN_BYTES: Final = 600
"""What a run takes besides its texts and params: the structs, numbers, tuples, its entries in list and table."""
ENTITY_BYTES: Final = 500
ARTIFACT_BYTES: Final = 500
EDIT_BYTES: Final = 400
_NO_EDITS: Final[dict[str, EditMark]] = {}


class _Shared(msgspec.Struct):
    """An experiment or a tag, one object for all runs that refer to it."""

    entity: Entity
    """The form that was read last. Snapshots only get newer, so no other form is; runs that were read before have
    theirs until the note of the change is followed."""
    users: int = 0
    """How many references of runs there are; without any it goes."""


class Window:
    """The runs from some place in the order of creation on, up to the newest: all that are there, or none yet."""

    def __init__(self) -> None:
        self._runs: list[Run] = []
        """Oldest first."""
        self._by_number: dict[RunNumber, Run] = {}
        self._entities: dict[str, _Shared] = {}
        """What the runs refer to, by id."""
        self._begin = _NEVER
        """No run that is not held has this place or a later one."""
        self._run_bytes = 0

    def __len__(self) -> int:
        """Return how many runs are held."""
        return len(self._runs)

    @property
    def bytes_held(self) -> int:
        """About how much memory all this takes."""
        return self._run_bytes + ENTITY_BYTES * len(self._entities)

    @property
    def is_whole(self) -> bool:
        """Whether every run of the project is held."""
        return self._begin == _ALWAYS

    def get(self, number: RunNumber) -> Run | None:
        """Return a run that is held, or None."""
        return self._by_number.get(number)

    def continues(self, before: RunPlace | None) -> bool:
        """Return whether the newest run before a place (None: of all) is held, or is the next to be held."""
        return before is None or before >= self._begin

    def list_newest(self, *, before: RunPlace | None, rows_max: int) -> list[Run]:
        """Return runs that are held, newest first, beginning before a place."""
        end = len(self._runs) if before is None else self._index(before)
        return self._runs[max(0, end - rows_max) : end][::-1]

    @property
    def end(self) -> RunPlace | None:
        """The place before which the next older run stands; None while the window has not begun."""
        return None if self._begin == _NEVER else self._begin

    # ---- growing

    def extend(self, older: Sequence[Run], *, bytes_max: int, is_last: bool) -> None:
        """Hold the runs that follow the oldest one, newest first, as far as they fit.

        `is_last` tells that there are no older ones.
        """
        fitting: list[Run] = []
        for run in older:
            held, size = self._shared(run), weigh(run)
            if self.bytes_held + size > bytes_max:
                self._release(held)
                break
            self._run_bytes += size
            fitting.append(held)
        self._by_number |= {run.number: run for run in fitting}
        self._runs[:0] = fitting[::-1]
        if fitting:
            self._begin = _place(fitting[-1])
        if is_last and len(fitting) == len(older):
            self._begin = _ALWAYS

    # ---- following changes

    def put(self, run: Run) -> None:
        """Hold the present form of a run, unless it is older than the window."""
        if _place(run) < self._begin:
            return
        self.remove(run.number)
        held = self._shared(run)
        self._runs.insert(self._index(_place(held)), held)
        self._by_number[held.number] = held
        self._run_bytes += weigh(held)

    def remove(self, number: RunNumber) -> None:
        """Forget a run; one that is not held is fine."""
        run = self._by_number.pop(number, None)
        if run is not None:
            del self._runs[self._index(_place(run))]
            self._release(run)
            self._run_bytes -= weigh(run)

    def put_entities(self, changed: Mapping[str, Entity | None]) -> None:
        """Give all runs the present forms of experiments and tags; None for one that was deleted."""
        for index, run in enumerate(self._runs):
            if _refers(run.document, changed.keys()):
                self._runs[index] = self._by_number[run.number] = self._shared(_resolved(run, changed))
                self._release(run)

    def shrink(self, bytes_max: int) -> None:
        """Forget the oldest runs until the rest fits."""
        surplus = 0
        while self.bytes_held > bytes_max and surplus < len(self._runs):
            run = self._runs[surplus]
            del self._by_number[run.number]
            self._release(run)
            self._run_bytes -= weigh(run)
            surplus += 1
        if surplus:
            del self._runs[:surplus]
            self._begin = _place(self._runs[0]) if self._runs else _NEVER

    # ---- inside

    def _index(self, place: RunPlace) -> int:
        return bisect_left(self._runs, place, key=_place)

    def _shared(self, run: Run) -> Run:
        """Return the run in the form that takes least memory: what other runs have, too, is theirs."""
        document = run.document
        if document.experiment_id is not None:
            document.experiment_id = sys.intern(document.experiment_id)
        if document.tag_ids:
            document.tag_ids = tuple(map(sys.intern, document.tag_ids))
        document.edits = document.edits or _NO_EDITS
        return Run(
            number=run.number,
            document=document,
            experiment=None if run.experiment is None else self._share(run.experiment),
            tags=tuple(map(self._share, run.tags)),
        )

    def _share(self, entity: E) -> E:
        shared = self._entities.get(entity.id)
        if shared is None:
            shared = self._entities[entity.id] = _Shared(entity)
        elif shared.entity is not entity and shared.entity != entity:
            shared.entity = entity
        shared.users += 1
        return cast("E", shared.entity)

    def _release(self, run: Run) -> None:
        """Forget what only this run refers to; once for each run that `_shared` returned."""
        for entity in _entities_of(run):
            shared = self._entities[entity.id]
            shared.users -= 1
            if not shared.users:
                del self._entities[entity.id]


def weigh(run: Run) -> int:
    """Return about how many bytes a run takes in memory."""
    document = run.document
    size = RUN_BYTES + len(document.params) + len(document.hash) + len(document.system_shape)
    size += sum(sys.getsizeof(text) for text in (document.name, document.description) if text is not None)
    if document.artifacts:
        size += sum(ARTIFACT_BYTES + 4 * len(artifact.path) + 4 * len(artifact.uri) for artifact in document.artifacts)
    return size + 16 * len(document.tag_ids) + EDIT_BYTES * len(document.edits)


def _place(run: Run) -> RunPlace:
    return run.document.place(run.number)


def _refers(document: RunDocument, entity_ids: AbstractSet[str]) -> bool:
    return document.experiment_id in entity_ids or not entity_ids.isdisjoint(document.tag_ids)


def _entities_of(run: Run) -> tuple[Entity, ...]:
    return run.tags if run.experiment is None else (run.experiment, *run.tags)


def _resolved(run: Run, changed: Mapping[str, Entity | None]) -> Run:
    """Return a run with the present forms of what it refers to: those that changed, and its own of the others."""
    own = {entity.id: entity for entity in _entities_of(run)}

    def present(entity_id: str) -> Entity | None:
        return changed[entity_id] if entity_id in changed else own.get(entity_id)

    experiment = present(run.document.experiment_id or "")
    tags = map(present, run.document.tag_ids)
    return Run(
        number=run.number,
        document=run.document,
        experiment=experiment if isinstance(experiment, Experiment) else None,
        tags=tuple(tag for tag in tags if isinstance(tag, Tag) and not tag.archived),
    )
