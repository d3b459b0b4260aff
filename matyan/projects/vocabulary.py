"""Which params and sequences there are in a project, read from the index: one look for each, however many runs have it.

Entries that say the same (a param that is a plain value; one that is built in the same way; a name with a context) lie
together and make a unit. Only the first entry of a unit is read, then the place behind the unit is looked up. What was
found the last time tells where to look at once: each unit known, to see whether it is still there, and each gap
between two, where a new one may be. So a project that has not changed costs one round trip, not one for each unit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final, TypeVar

from matyan.engines.kv.protocol import KeyRange, KvEngine, KvReader, Pair
from matyan.ids import Project, RunNumber
from matyan.projects.model import ParamTree
from matyan.runs import repository as runs
from matyan.runs.entries import TYPES
from matyan.runs.model import SYSTEM_PARAMS
from matyan.sequences import repository as sequences
from matyan.sequences.model import Bucket, Summary
from matyan.store import indexes, keyspace
from matyan.store.indexes import NONE_CODE, SHAPE_BYTES, Class, Kind
from matyan.store.scans import scan_pages
from matyan.wire.codec import decode_tree

T = TypeVar("T")

RANGES_PER_READ: Final = 500
"""Units that one read transaction looks at."""
RUNS_PER_READ: Final = 100
_ROWS_PER_LOOK: Final = 100
"""Where the first entry is of a run that is deleted and not yet freed."""
_UNITS_KNOWN_MAX: Final = 20_000
_EXAMPLES: Final[Mapping[bytes, object]] = {code: kind() for kind, code in TYPES.items()}


class VocabularyReader:
    """Reads what there is, and remembers where."""

    def __init__(self, kv: KvEngine) -> None:
        self._kv = kv
        self._known: dict[bytes, list[KeyRange]] = {}
        """Beginning of the keys of some kind -> the units found last."""

    def params(self, project: Project) -> ParamTree:
        """Return the union of the params of all runs."""
        tree = ParamTree()
        whole: set[RunNumber] = set()
        system: set[RunNumber] = set()
        base = keyspace.index(project) + indexes.field_of(Kind.PARAM)
        for key, value in self._first_entries(project, base):
            path, at = indexes.read_parts(key, len(base))
            if key[at] < Class.SHAPE and not any(isinstance(part, bytes) for part in path):
                tree.add(_nested(path, _EXAMPLES[value]))
                continue
            # The key does not tell: the first run that has it does, which may be added as it is.
            whole.add(indexes.number_of(key))
            if path == [SYSTEM_PARAMS]:
                system.add(indexes.number_of(key))
        self._add_runs(project, tree, whole | set(self._unindexed(project)))
        self._add_system_params(project, tree, system)
        return tree

    def sequences(self, project: Project, bucket: Bucket) -> dict[str, dict[str, Any]]:
        """Return the contexts (canonical text -> object) of each name that sequences of a kind have."""
        base = keyspace.index(project) + bytes((Kind.SEQUENCE, bucket))
        rows = self._first_entries(project, base)
        found: dict[str, dict[str, Any]] = {}
        for summary in self._summaries(project, bucket, rows, len(base)):
            found.setdefault(summary.name, {}).setdefault(summary.context, summary.context_object)
        return found

    # ---- units

    def _first_entries(self, project: Project, base: bytes) -> list[Pair]:
        """Return the first entry of each unit below `base`."""
        waiting = list(_split(KeyRange(base, indexes.after(base)), self._known.get(base, [])))
        found: dict[KeyRange, Pair] = {}
        while waiting:
            part, waiting = waiting[:RANGES_PER_READ], waiting[RANGES_PER_READ:]
            # Entries of params go with their run's document, those of sequences some time after it.
            look = partial(_look, project=project, ranges=part, may_be_dead=base[-1] != Kind.PARAM)
            for where, row in self._kv.read(look):
                unit = _unit_of(row[0], len(base))
                found[unit] = row
                if unit.end < where.end:
                    waiting.append(KeyRange(unit.end, where.end))
        self._known[base] = sorted(found)[:_UNITS_KNOWN_MAX]
        return [found[unit] for unit in sorted(found)]

    def _summaries(self, project: Project, bucket: Bucket, rows: Iterable[Pair], at: int) -> Iterator[Summary]:
        """Yield a record for each entry, with the whole name and context and, where these are short, nothing else."""
        long: list[bytes] = []
        for key, digest in rows:
            if digest:
                long.append(keyspace.summary(project, indexes.number_of(key), bucket, digest))
                continue
            (name, context), _ = indexes.read_parts(key, at)
            assert isinstance(name, str)
            assert isinstance(context, str)
            yield Summary(bucket=bucket, name=name, context=context, dtype="")
        for part in _parts(long):
            yield from self._kv.read(partial(sequences.read_stored, keys=part))

    # ---- runs

    def _unindexed(self, project: Project) -> Iterator[RunNumber]:
        """Yield the runs whose params have no entries."""
        begin = keyspace.index(project) + indexes.field_of(Kind.UNINDEXED)
        for rows in scan_pages(self._kv, begin, indexes.after(begin)):
            yield from (indexes.number_of(key) for key, _ in rows)

    def _add_runs(self, project: Project, tree: ParamTree, numbers: Iterable[RunNumber]) -> None:
        for part in _parts(sorted(numbers)):
            for document in self._kv.read(partial(runs.read_documents, project=project, numbers=part)):
                if document is not None:
                    tree.add(decode_tree(document.params))

    def _add_system_params(self, project: Project, tree: ParamTree, numbers: Iterable[RunNumber]) -> None:
        for part in _parts(sorted(numbers)):
            for stored in self._kv.read(partial(runs.get_system_params, project=project, numbers=part)):
                if stored is not None:
                    tree.add({SYSTEM_PARAMS: decode_tree(stored)})


def _split(space: KeyRange, known: Sequence[KeyRange]) -> Iterator[KeyRange]:
    """Yield the units known and the gaps between them."""
    begin = space.begin
    for unit in known:
        if begin < unit.begin:
            yield KeyRange(begin, unit.begin)
        yield unit
        begin = unit.end
    yield KeyRange(begin, space.end)


def _unit_of(key: bytes, at: int) -> KeyRange:
    """Return the range of all entries that say the same as one, whose field's parts begin at `at`."""
    _, code_at = indexes.read_parts(key, at)
    field = key[:code_at]
    if key[code_at] < Class.SHAPE:
        return KeyRange(field + NONE_CODE, field + bytes((Class.SHAPE,)))
    built = key[: code_at + 1 + SHAPE_BYTES]
    return KeyRange(built, indexes.after(built))


def _look(
    reader: KvReader, *, project: Project, ranges: Sequence[KeyRange], may_be_dead: bool
) -> list[tuple[KeyRange, Pair]]:
    """Return the ranges that have an entry of a run that is there, each with the first."""
    found: list[tuple[KeyRange, Pair]] = []
    waiting, rows_max = list(ranges), 1
    while waiting:
        pages = reader.scan_many(waiting, rows_max=rows_max)
        numbers = {indexes.number_of(key) for page in pages for key, _ in page}
        alive = runs.which_exist(reader, project, numbers) if may_be_dead else numbers
        left = []
        for where, page in zip(waiting, pages, strict=True):
            row = next((row for row in page if indexes.number_of(row[0]) in alive), None)
            if row is not None:
                found.append((KeyRange(row[0], where.end), row))
            elif len(page) == rows_max:
                left.append(KeyRange(page[-1][0] + b"\x00", where.end))
        waiting, rows_max = left, _ROWS_PER_LOOK
    return found


def _nested(path: Sequence[str | bytes], value: object) -> object:
    """Return the params of a run that has one value at a path and nothing else."""
    for part in reversed(path):
        value = {part: value}
    return value


def _parts(things: Sequence[T]) -> Iterator[Sequence[T]]:
    for begin in range(0, len(things), RUNS_PER_READ):
        yield things[begin : begin + RUNS_PER_READ]
