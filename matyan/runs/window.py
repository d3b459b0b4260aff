"""Window: the newest runs of a project in memory, in the order of creation, without a gap. Pure; it reads nothing."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import chain
from typing import Final, cast

from matyan.catalog.model import Experiment, RunPlace, Tag
from matyan.ids import RunNumber
from matyan.runs.model import EditMark, Run, RunDocument

Entity = Experiment | Tag

_NEVER: Final = RunPlace(1 << 80, RunNumber(0))
_ALWAYS: Final = RunPlace(-(1 << 80), RunNumber(0))
"""Places after and before those of all runs."""
RUN_BYTES: Final = 560
"""What a run takes besides its texts and params: the structs, numbers, hash, tuples, its entries in list and table."""
ENTITY_BYTES: Final = 500
TEXT_BYTES: Final = 76
"""And its characters."""
ARTIFACT_BYTES: Final = 500
TAG_BYTES: Final = 16
EDIT_BYTES: Final = 400
_NO_EDITS: Final[dict[str, EditMark]] = {}


class Window:
    """The runs from some place in the order of creation on, up to the newest: all that are there, or none yet."""

    def __init__(self) -> None:
        self._runs: list[Run] = []
        """Oldest first."""
        self._numbers = array("Q")
        """Of these, in the same order: to look for some of them in all takes a hundredth of the time."""
        self._by_number: dict[RunNumber, Run] = {}
        self._entities: dict[str, Entity] = {}
        """What the runs refer to, by id: one object for all that refer to it, in the form that was read last. Snapshots
        only get newer, so no other form is; runs that were read before have theirs until the note of the change is
        followed."""
        self._users: Counter[str] = Counter()
        """How many references of runs there are to each; without any it goes."""
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

    def list_numbers(self, *, before: RunPlace | None, rows_max: int) -> array[int]:
        """Return the numbers of what `list_newest` returns."""
        end = len(self._runs) if before is None else self._index(before)
        return self._numbers[max(0, end - rows_max) : end][::-1]

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
        shared = self._shared(older)
        entity_bytes = ENTITY_BYTES * len(self._entities)
        for run in shared:
            size = weigh(run)
            if self._run_bytes + size + entity_bytes > bytes_max:
                break
            self._run_bytes += size
            fitting.append(run)
        self._count(fitting)
        self._forget_unused(shared[len(fitting) :])
        numbers = [run.number for run in fitting]
        self._by_number.update(zip(numbers, fitting, strict=True))
        self._runs[:0] = fitting[::-1]
        self._numbers[:0] = array("Q", numbers[::-1])
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
        (held,) = self._shared([run])
        self._count([held])
        index = self._index(_place(held))
        self._runs.insert(index, held)
        self._numbers.insert(index, held.number)
        self._by_number[held.number] = held
        self._run_bytes += weigh(held)

    def remove(self, number: RunNumber) -> None:
        """Forget a run; one that is not held is fine."""
        run = self._by_number.pop(number, None)
        if run is not None:
            index = self._index(_place(run))
            del self._runs[index], self._numbers[index]
            self._release([run])
            self._run_bytes -= weigh(run)

    def put_entities(self, changed: Mapping[str, Entity | None]) -> None:
        """Give all runs the present forms of experiments and tags; None for one that was deleted."""
        ids = changed.keys()
        places = [index for index, run in enumerate(self._runs) if _refers(run.document, ids)]
        before = [self._runs[index] for index in places]
        held = self._shared([_resolved(run, changed) for run in before])
        self._count(held)
        for index, run in zip(places, held, strict=True):
            self._runs[index] = self._by_number[run.number] = run
        self._release(before)

    def shrink(self, bytes_max: int) -> None:
        """Forget the oldest runs until the rest fits."""
        surplus = 0
        while self.bytes_held > bytes_max and surplus < len(self._runs):
            run = self._runs[surplus]
            del self._by_number[run.number]
            self._release([run])
            self._run_bytes -= weigh(run)
            surplus += 1
        if surplus:
            del self._runs[:surplus], self._numbers[:surplus]
            self._begin = _place(self._runs[0]) if self._runs else _NEVER

    # ---- inside

    def _index(self, place: RunPlace) -> int:
        return bisect_left(self._runs, place, key=_place)

    def _shared(self, runs: Sequence[Run]) -> Sequence[Run]:
        """Return runs in the form that takes least memory: what other runs have, too, is theirs."""
        for run in runs:
            if not run.document.edits:
                run.document.edits = _NO_EDITS
        # Runs that were read together have the same objects where they refer to the same: each is looked at once.
        experiments = {id(run.experiment): run.experiment for run in runs if run.experiment is not None}
        tags = {id(run.tags): run.tags for run in runs}
        found: list[Entity] = [*experiments.values(), *chain.from_iterable(tags.values())]
        are_the_ones = [self._is_the_one(entity) for entity in found]
        return runs if all(are_the_ones) else list(map(self._with_the_ones, runs))

    def _is_the_one(self, entity: Entity) -> bool:
        """Return whether an entity is the object that all runs have, or is to be it from now on."""
        known = self._entities.setdefault(entity.id, entity)
        if known is not entity and known != entity:
            known = self._entities[entity.id] = entity
        return known is entity

    def _with_the_ones(self, run: Run) -> Run:
        experiment = None if run.experiment is None else cast("Experiment", self._entities[run.experiment.id])
        tags = tuple(cast("Tag", self._entities[tag.id]) for tag in run.tags)
        return Run(number=run.number, document=run.document, experiment=experiment, tags=tags)

    def _count(self, runs: Sequence[Run]) -> None:
        """Count what runs refer to that are held from now on."""
        self._users.update([run.experiment.id for run in runs if run.experiment is not None])
        self._users.update([tag.id for run in runs for tag in run.tags])

    def _release(self, runs: Sequence[Run]) -> None:
        """Take back what was counted, of runs that are held no more."""
        for run in runs:
            for entity in _entities_of(run):
                self._users[entity.id] -= 1
        self._forget_unused(runs)

    def _forget_unused(self, runs: Iterable[Run]) -> None:
        """Forget what only these runs refer to, which are not held."""
        for run in runs:
            for entity in _entities_of(run):
                if not self._users[entity.id]:
                    self._entities.pop(entity.id, None)
                    del self._users[entity.id]


def weigh(run: Run) -> int:
    """Return about how many bytes a run takes in memory, without what it shares with others."""
    document = run.document
    size = RUN_BYTES + len(document.params) + len(document.system_shape) + TAG_BYTES * len(document.tag_ids)
    if document.name is not None:
        size += _weigh_text(document.name)
    if document.description is not None:
        size += _weigh_text(document.description)
    if document.artifacts:
        size += sum(ARTIFACT_BYTES + 4 * len(artifact.path) + 4 * len(artifact.uri) for artifact in document.artifacts)
    return size + EDIT_BYTES * len(document.edits) if document.edits else size


def _weigh_text(text: str) -> int:
    # As `sys.getsizeof` says at most, in a third of its time.
    return TEXT_BYTES + (len(text) if text.isascii() else 4 * len(text))


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
