"""Experiments and tags in the store, and which runs belong to them. Counts are derived from the associations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import islice
from typing import Final, Generic, NamedTuple, TypeVar

from matyan.catalog.model import EntityDeletion, Experiment, RunPlace, Tag
from matyan.engines.kv.protocol import KvReader, KvTransaction, Pair
from matyan.ids import Project
from matyan.limits import SCAN_ROWS_MAX
from matyan.store import changes, keyspace
from matyan.store.records import RecordCodec
from matyan.store.scans import scan_all
from matyan.store.subspaces import Subspace

E = TypeVar("E", Experiment, Tag)
DECODED_MAX: Final = 4096
_deletions: Final = RecordCodec(EntityDeletion)


class RunsOf(NamedTuple):
    """The runs that belong to an experiment or a tag, archived ones included."""

    runs: int
    newest: RunPlace | None


class Entities(Generic[E]):
    """One kind of named record; names are unique in a project."""

    def __init__(
        self, kind: type[E], *, records: Subspace, names: Subspace, runs: Subspace, deletions: Subspace
    ) -> None:
        self._codec: RecordCodec[E] = RecordCodec(kind)
        # Runs in memory share what they refer to, and pages of runs refer to the same few again and again.
        self._decode: Callable[[bytes], E] = lru_cache(DECODED_MAX)(self._codec.decode)
        self._records = records
        self._names = names
        self._runs = runs
        self._deletions = deletions

    def get_many(self, reader: KvReader, project: Project, ids: Sequence[str]) -> dict[str, E]:
        """Return those that exist, by id."""
        values = reader.get_many([keyspace.entity(project, self._records, entity_id) for entity_id in ids])
        return {
            entity_id: self._decode(value) for entity_id, value in zip(ids, values, strict=True) if value is not None
        }

    def get(self, reader: KvReader, project: Project, entity_id: str) -> E | None:
        """Return one, or None."""
        return self.get_many(reader, project, [entity_id]).get(entity_id)

    def find(self, reader: KvReader, project: Project, name: str) -> E | None:
        """Return the one of exactly this name, or None."""
        return self.find_many(reader, project, [name]).get(name)

    def find_many(self, reader: KvReader, project: Project, names: Sequence[str]) -> dict[str, E]:
        """Return those that exist, by name, in two round trips at most."""
        if not names:
            return {}
        ids = reader.get_many([keyspace.entity_name(project, self._names, name) for name in names])
        known = {name: found.decode() for name, found in zip(names, ids, strict=True) if found is not None}
        entities = self.get_many(reader, project, list(known.values())) if known else {}
        return {name: entities[entity_id] for name, entity_id in known.items() if entity_id in entities}

    def list(self, reader: KvReader, project: Project, *, entities_max: int | None = None) -> list[E]:
        """Return all, or no more than `entities_max` of them, in no particular order."""
        where = keyspace.children(keyspace.subspace(project, self._records))
        size = SCAN_ROWS_MAX if entities_max is None else min(SCAN_ROWS_MAX, entities_max)
        found = islice(scan_all(reader, *where, rows_max=size), entities_max)
        return [self._codec.decode(value) for _, value in found]

    def put(self, tx: KvTransaction, project: Project, entity: E) -> None:
        """Store a new record and its name. Later changes go through `replace`."""
        tx.put(keyspace.entity(project, self._records, entity.id), self._codec.encode(entity))
        tx.put(keyspace.entity_name(project, self._names, entity.name), entity.id.encode())
        changes.note(tx, project, self._records, entity.id)

    def replace(self, tx: KvTransaction, project: Project, before: E, after: E) -> None:
        """Store the changed form of a record; its old name, if it has another now, is free again."""
        if after.name != before.name:
            tx.clear(keyspace.entity_name(project, self._names, before.name))
        self.put(tx, project, after)

    def link(self, tx: KvTransaction, project: Project, entity_id: str, place: RunPlace) -> None:
        """Note that a run belongs here."""
        tx.put(keyspace.entity_run(project, self._runs, entity_id, *place), b"")

    def unlink(self, tx: KvTransaction, project: Project, entity_id: str, place: RunPlace) -> None:
        """Note that a run no longer belongs here."""
        tx.clear(keyspace.entity_run(project, self._runs, entity_id, *place))

    def list_runs(
        self,
        reader: KvReader,
        project: Project,
        entity_id: str,
        *,
        before: RunPlace | None = None,
        rows_max: int = SCAN_ROWS_MAX,
    ) -> Sequence[RunPlace]:
        """Return runs that belong here, the newest first, beginning behind `before`, which need not be one of them."""
        begin, end = keyspace.children(keyspace.entity(project, self._runs, entity_id))
        if before is not None:
            end = keyspace.entity_run(project, self._runs, entity_id, *before)
        rows = reader.scan(begin, end, rows_max=rows_max, reverse=True)
        return [RunPlace(*keyspace.entity_run_place(key)) for key, _ in rows]

    def count_runs(self, reader: KvReader, project: Project, entity_id: str) -> int:
        """Return how many runs belong here, archived ones included."""
        return self.look_at_runs(reader, project, [entity_id])[0].runs

    def look_at_runs(self, reader: KvReader, project: Project, ids: Sequence[str]) -> Sequence[RunsOf]:
        """Return how many runs belong to each, and the newest: asked for all at once."""
        ranges = [keyspace.children(keyspace.entity(project, self._runs, entity_id)) for entity_id in ids]
        pages = reader.scan_many(ranges, rows_max=SCAN_ROWS_MAX)
        return [_look(reader, page, where.end) for page, where in zip(pages, ranges, strict=True)]

    # ---- deletion

    def begin_deletion(self, tx: KvTransaction, project: Project, entity: E, *, deletes_runs: bool) -> None:
        """Delete a record and its name, and note that its runs have to be dealt with."""
        tx.clear(keyspace.entity(project, self._records, entity.id))
        tx.clear(keyspace.entity_name(project, self._names, entity.name))
        changes.note(tx, project, self._records, entity.id)
        deletion = EntityDeletion(id=entity.id, deletes_runs=deletes_runs)
        tx.put(keyspace.entity(project, self._deletions, entity.id), _deletions.encode(deletion))

    def list_deletions(self, reader: KvReader, project: Project, *, rows_max: int) -> Sequence[EntityDeletion]:
        """Return deletions that are not ended."""
        where = keyspace.children(keyspace.subspace(project, self._deletions))
        return [_deletions.decode(value) for _, value in reader.scan(*where, rows_max=rows_max)]

    def get_deletion(self, reader: KvReader, project: Project, entity_id: str) -> EntityDeletion | None:
        """Return the deletion of a record if it is not ended."""
        value = reader.get(keyspace.entity(project, self._deletions, entity_id))
        return None if value is None else _deletions.decode(value)

    def end_deletion(self, tx: KvTransaction, project: Project, entity_id: str) -> None:
        """Note that no run refers to a deleted record any more."""
        tx.clear(keyspace.entity(project, self._deletions, entity_id))


def _look(reader: KvReader, page: Sequence[Pair], end: bytes) -> RunsOf:
    """Count on from the first page of an association."""
    runs, rows = len(page), page
    while len(rows) == SCAN_ROWS_MAX:
        rows = reader.scan(rows[-1][0] + b"\x00", end, rows_max=SCAN_ROWS_MAX)
        runs, page = runs + len(rows), rows or page
    return RunsOf(runs, RunPlace(*keyspace.entity_run_place(page[-1][0])) if page else None)


experiments: Final = Entities(
    Experiment,
    records=Subspace.EXPERIMENTS,
    names=Subspace.EXPERIMENT_NAMES,
    runs=Subspace.EXPERIMENT_RUNS,
    deletions=Subspace.EXPERIMENT_DELETIONS,
)
tags: Final = Entities(
    Tag,
    records=Subspace.TAGS,
    names=Subspace.TAG_NAMES,
    runs=Subspace.TAG_RUNS,
    deletions=Subspace.TAG_DELETIONS,
)
