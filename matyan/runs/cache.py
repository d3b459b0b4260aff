"""RunCache: the newest runs of each project in memory, never older than the store was when a search began (ADR 0023).

Before a search the cache reads the change feed from where it stood, and what the feed names: in a quiet store, one read
of one key. Runs come into it as searches go over them, from the newest on, until the memory is full; what is older is
read from the store each time, so that no scan, however long, drives out what the next one wants.
"""

from __future__ import annotations

import logging
import threading
from array import array
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from matyan.catalog import repository as catalog
from matyan.catalog.model import RunPlace
from matyan.engines.kv.protocol import KvEngine, KvReader
from matyan.errors import TooSlowError, UnavailableError
from matyan.ids import Project, RunNumber
from matyan.runs import repository as runs
from matyan.runs.model import Run
from matyan.runs.repository import Page
from matyan.runs.window import Entity, Window, weigh
from matyan.store import changes, keyspace
from matyan.store.changes import Change
from matyan.store.subspaces import Subspace

logger = logging.getLogger(__name__)

BYTES_MAX: Final = 256 * 1024 * 1024
NOTES_PER_READ: Final = 1000
RUNS_PER_READ: Final = 64
"""Bounds of one transaction that follows changes."""
READS_MAX: Final = 10
CHANGED_RUNS_MAX: Final = 1000
"""Bounds of what one search follows, tens of milliseconds; where more has changed, the window begins anew."""


class HeldNumbers(NamedTuple):
    """Runs in memory in the order of creation, newest first."""

    numbers: array[int]
    runs: Sequence[Run]


class _News(NamedTuple):
    """What the change feed told in one read."""

    place: bytes | None
    """Of the newest note read."""
    has_more: bool
    """Whether there may be more."""
    numbers: Sequence[RunNumber]
    """Of runs that changed."""
    entities: Mapping[str, Entity | None]
    """The present form of experiments and tags that changed, None for those that are gone."""


class _Held:
    """What is held of one project. Its lock is taken to follow changes, to read a held page, or to grow by one."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.window = Window()
        self.place: bytes | None = None
        """Of the newest note of the change feed that the window knows."""
        self.has_begun = False
        """Whether `place` says what the window knows; before, the window stays empty."""


class RunCache:
    """Runs in memory for the searches of one process. Its methods may be called by any thread."""

    def __init__(self, kv: KvEngine, *, bytes_max: int = BYTES_MAX) -> None:
        """Begin with nothing.

        Args:
            kv: the store.
            bytes_max: what all runs held may take, as `window.weigh` counts; 0 holds none.
        """
        self._kv = kv
        self._bytes_max = bytes_max
        self._lock = threading.Lock()
        self._held: dict[Project, _Held] = {}
        """The project that was asked for last comes last."""

    @property
    def bytes_held(self) -> int:
        """About how much memory all runs take."""
        return sum(held.window.bytes_held for held in self._projects())

    @property
    def runs_held(self) -> int:
        """How many runs there are in memory."""
        return sum(len(held.window) for held in self._projects())

    def catch_up(self, project: Project) -> None:
        """Take in every change that was committed before this call."""
        held = self._of(project)
        with held.lock:
            if not self._follow(project, held):
                self._begin_anew(project, held)
            held.window.shrink(self._room(held))

    def list_newest(self, project: Project, *, after: bytes | None, rows_max: int) -> Page:
        """Return up to `rows_max` runs behind the position `after` (None: the newest), one at least if there are any.

        Those in memory are as of the last `catch_up` or newer.
        """
        held = self._of(project)
        before = _place(after)
        with held.lock:
            found = held.window.list_newest(before=before, rows_max=rows_max)
            if found:
                return Page(found, keyspace.run_by_time(project, *found[-1].document.place(found[-1].number)))
            if held.window.is_whole:
                return Page([], None)
            if held.has_begun and held.window.continues(before):
                return self._grow(project, held, after, rows_max)
        return self._read(project, after, rows_max)

    def list_held(self, project: Project, *, after: bytes | None, rows_max: int) -> HeldNumbers | None:
        """Return which runs `list_newest` does, as far as they are in memory; None where the next one is not."""
        held = self._of(project)
        before = _place(after)
        with held.lock:
            found = held.window.list_newest(before=before, rows_max=rows_max)
            if found:
                return HeldNumbers(held.window.list_numbers(before=before, rows_max=rows_max), found)
            return HeldNumbers(array("Q"), found) if held.window.is_whole else None

    def load(self, reader: KvReader, project: Project, numbers: Sequence[RunNumber]) -> list[Run]:
        """Return runs in the order asked, those that are gone left out; `reader` reads what is not in memory."""
        window = self._of(project).window
        found = {number: run for number in numbers if (run := window.get(number)) is not None}
        missing = [number for number in numbers if number not in found]
        if missing:
            found |= {run.number: run for run in runs.load(reader, project, missing)}
        return [found[number] for number in numbers if number in found]

    # ---- inside

    def _projects(self) -> list[_Held]:
        with self._lock:
            return list(self._held.values())

    def _of(self, project: Project) -> _Held:
        with self._lock:
            held = self._held.pop(project, None) or _Held()
            self._held[project] = held
            return held

    def _room(self, held: _Held, wanted: Sequence[Run] = ()) -> int:
        """Return how much a project may hold, which wants some more; others give way, the longest unasked first."""
        with self._lock:
            others = {project: other for project, other in self._held.items() if other is not held}
            if not others:
                return self._bytes_max
            needed = held.window.bytes_held + sum(map(weigh, wanted))
            taken = sum(other.window.bytes_held for other in others.values())
            for project, other in others.items():
                if taken + needed <= self._bytes_max:
                    break
                del self._held[project]
                taken -= other.window.bytes_held
        return self._bytes_max - taken

    def _begin_anew(self, project: Project, held: _Held) -> None:
        """Forget all runs; from now on the window follows what is committed after this. The lock is held."""
        held.window, held.has_begun = Window(), False
        held.place = self._kv.read(lambda reader: changes.newest(reader, project))
        held.has_begun = True

    def _follow(self, project: Project, held: _Held) -> bool:
        """Take in what the change feed tells; return False where the window has to begin anew. The lock is held."""
        if not held.has_begun or held.window.end is None:
            return False
        try:
            news = self._gather(project, held.place)
            if news is not None:
                self._take_in(project, held, news)
        except TooSlowError:
            return False
        except UnavailableError:
            raise
        except Exception:  # whatever one change is, it must not stop the searches that do not come by it
            logger.exception("what changed in project %s cannot be followed: its runs are read again", project)
            return False
        return news is not None

    def _gather(self, project: Project, place: bytes | None) -> _News | None:
        """Return all that the change feed tells behind `place`; None where some is missing, or it is too much."""
        numbers: dict[RunNumber, None] = {}
        entities: dict[str, Entity | None] = {}
        for _ in range(READS_MAX):
            news = self._kv.read(lambda reader, since=place: _read_news(reader, project, since))  # type: ignore[misc]  # mypy cannot infer a lambda with a default
            if news is None:
                return None
            place = news.place
            numbers |= dict.fromkeys(news.numbers)
            entities |= news.entities
            if len(numbers) > CHANGED_RUNS_MAX:
                return None
            if not news.has_more:
                return _News(place, False, list(numbers), entities)
        return None

    def _take_in(self, project: Project, held: _Held, news: _News) -> None:
        """Bring the window to the state that the news tell of, or a later one, within the memory there is."""
        if news.entities:
            held.window.put_entities(news.entities)
        for begin in range(0, len(news.numbers), RUNS_PER_READ):
            self._renew(project, held.window, news.numbers[begin : begin + RUNS_PER_READ])
            held.window.shrink(self._room(held))
            if held.window.end is None:
                break  # Not one run fits: there is nothing to keep right.
        held.place = news.place

    def _renew(self, project: Project, window: Window, numbers: Sequence[RunNumber]) -> None:
        """Take in the present form of runs that changed. That it is newer than the note of the change does no harm."""
        found = {run.number: run for run in self._kv.read(lambda reader: runs.load(reader, project, numbers))}
        for number in numbers:
            if number in found:
                window.put(found[number])
            else:
                window.remove(number)

    def _grow(self, project: Project, held: _Held, after: bytes | None, rows_max: int) -> Page:
        """Read the next runs and hold them as far as they fit. The lock is held.

        The lock is what makes it right: what is read is never older than what the window knows of the change feed.
        """
        end = held.window.end
        begin = after if end is None else keyspace.run_by_time(project, *end)
        page = self._read(project, begin, rows_max)
        held.window.extend(page.runs, bytes_max=self._room(held, page.runs), is_last=page.position is None)
        return page

    def _read(self, project: Project, after: bytes | None, rows_max: int) -> Page:
        """Read runs behind a position from the store."""
        return self._kv.read(lambda reader: runs.load_newest(reader, project, after=after, rows_max=rows_max))


def _place(position: bytes | None) -> RunPlace | None:
    return None if position is None else RunPlace(*keyspace.run_by_time_place(position))


def _read_news(reader: KvReader, project: Project, place: bytes | None) -> _News | None:
    """Read the notes behind `place`; None when some may have been trimmed that nobody has read."""
    notes = changes.read(reader, project, since=place, rows_max=NOTES_PER_READ)
    if place is None:
        # Before the first note nobody can tell whether there were others.
        return None if notes else _News(place, False, [], {})
    if not notes or notes[0].place != place:
        return None
    numbers = dict.fromkeys(RunNumber(note.id) for note in notes[1:] if isinstance(note.id, int))
    entities = _read_entities(reader, project, notes[1:])
    return _News(notes[-1].place, len(notes) == NOTES_PER_READ, list(numbers), entities)


def _read_entities(reader: KvReader, project: Project, notes: Sequence[Change]) -> dict[str, Entity | None]:
    """Return the experiments and tags among what has changed, None for those that are gone."""
    ids = {
        space: sorted({note.id for note in notes if note.space == space and isinstance(note.id, str)})
        for space in (Subspace.EXPERIMENTS, Subspace.TAGS)
    }
    found: dict[str, Entity | None] = dict.fromkeys(entity_id for each in ids.values() for entity_id in each)
    if found:
        found |= catalog.experiments.get_many(reader, project, ids[Subspace.EXPERIMENTS])
        found |= catalog.tags.get_many(reader, project, ids[Subspace.TAGS])
    return found
