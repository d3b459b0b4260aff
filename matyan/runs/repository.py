"""Run documents in the store: numbers, order of creation, active runs, system params."""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from matyan.catalog import repository as catalog
from matyan.catalog.model import RunPlace, Tag
from matyan.engines.kv.protocol import KvReader, KvTransaction
from matyan.ids import Project, RunId, RunNumber
from matyan.limits import SCAN_ROWS_MAX
from matyan.runs import entries
from matyan.runs.model import Run, RunDocument
from matyan.store import changes, indexes, keyspace
from matyan.store.records import RecordCodec, clear_document, get_documents, head_key, put_document
from matyan.store.records import read_documents as scan_documents
from matyan.store.subspaces import Subspace

_codec: Final = RecordCodec(RunDocument)
_NUMBER: Final = struct.Struct("<Q")
FIRST_NUMBER: Final = RunNumber(1)
STRETCH_LEAST: Final = 16
"""To scan fewer documents is no faster than to look them up."""
GAP_MAX: Final = 2
"""Between numbers that are scanned together: where one is missing, the scan reads its run for nothing."""


class Listed(NamedTuple):
    """A run in the order of creation; `position` continues the listing after it."""

    number: RunNumber
    position: bytes


class Page(NamedTuple):
    """Runs in the order of creation, newest first."""

    runs: list[Run]
    position: bytes | None
    """Behind which the next page begins; None when there is none."""


class CreatedPage(NamedTuple):
    """When runs were created."""

    moments_us: NDArray[np.int64]
    """Microseconds since 1970-01-01 UTC, the latest first; see `keyspace.created_us_array`."""
    position: bytes | None
    """Continues the listing; None when there is no run more."""


class RunState(NamedTuple):
    """What a worker needs to know of a run ahead."""

    number: RunNumber | None
    """None for an unknown run."""
    is_crashed: bool


def get_states(reader: KvReader, project: Project, run_ids: Sequence[RunId]) -> list[RunState]:
    """Return the state of each run, in one round trip."""
    keys = [make(project, run_id) for make in (keyspace.run_number, keyspace.crashed_run) for run_id in run_ids]
    values = reader.get_many(keys)
    count = len(run_ids)
    return [
        RunState(None if number is None else RunNumber(_NUMBER.unpack(number)[0]), crashed is not None)
        for number, crashed in zip(values[:count], values[count:], strict=True)
    ]


def get_numbers(reader: KvReader, project: Project, run_ids: Sequence[RunId]) -> list[RunNumber | None]:
    """Return the number of each run, None for unknown ones."""
    values = reader.get_many([keyspace.run_number(project, run_id) for run_id in run_ids])
    return [None if value is None else RunNumber(_NUMBER.unpack(value)[0]) for value in values]


def get_number(reader: KvReader, project: Project, run_id: RunId) -> RunNumber | None:
    """Return the number of a run, or None."""
    return get_numbers(reader, project, [run_id])[0]


def next_number(reader: KvReader, project: Project) -> RunNumber:
    """Return the number that the next new run gets."""
    value = reader.get(keyspace.run_counter(project))
    return FIRST_NUMBER if value is None else RunNumber(_NUMBER.unpack(value)[0])


def create(tx: KvTransaction, project: Project, document: RunDocument) -> RunNumber:
    """Store a new run and return the number it got. The caller has seen that its hash is unknown."""
    number = next_number(tx, project)
    tx.put(keyspace.run_counter(project), _NUMBER.pack(number + 1))
    tx.put(keyspace.run_number(project, RunId(document.hash)), _NUMBER.pack(number))
    if number == FIRST_NUMBER:
        indexes.begin(tx, project)
    tx.put(_by_time(project, document, number), b"")
    put(tx, project, number, document, is_new=True)
    return number


def put(tx: KvTransaction, project: Project, number: RunNumber, document: RunDocument, *, is_new: bool = False) -> None:
    """Store a run's document and keep index and list of active runs. `created_at_seconds` never changes."""
    (before,) = [None] if is_new else read_documents(tx, project, [number])
    entries.update(tx, project, number, before, document)
    put_document(tx, keyspace.run_document(project, number), _codec.encode(document), is_new=is_new)
    changes.note(tx, project, Subspace.RUNS, number)
    if document.active:
        tx.put(keyspace.active_run(project, number), b"")
    else:
        tx.clear(keyspace.active_run(project, number))
        tx.clear(keyspace.last_seen(project, number))


def clear(tx: KvTransaction, project: Project, number: RunNumber, document: RunDocument) -> None:
    """Take a run out of everything that lists or names it; what only its number leads to stays.

    Args:
        tx: the transaction.
        project: the project.
        number: the run.
        document: as it is stored.
    """
    entries.update(tx, project, number, document, None)
    tx.clear(keyspace.run_number(project, RunId(document.hash)))
    tx.clear(_by_time(project, document, number))
    tx.clear(keyspace.active_run(project, number))
    tx.clear(keyspace.unsettled_run(project, number))
    tx.clear(keyspace.last_seen(project, number))
    tx.clear(keyspace.crashed_run(project, RunId(document.hash)))
    clear_document(tx, keyspace.run_document(project, number))
    tx.add(keyspace.cleared_runs(project), 1)
    changes.note(tx, project, Subspace.RUNS, number)
    if document.experiment_id is not None:
        catalog.experiments.unlink(tx, project, document.experiment_id, document.place(number))
    for tag_id in document.tag_ids:
        catalog.tags.unlink(tx, project, tag_id, document.place(number))


def put_system_params(tx: KvTransaction, project: Project, number: RunNumber, tree: bytes) -> None:
    """Store a run's system params (msgpack), which are kilobytes and rarely wanted."""
    put_document(tx, keyspace.system_params(project, number), tree)


def get_system_params(reader: KvReader, project: Project, numbers: Sequence[RunNumber]) -> list[bytes | None]:
    """Return the system params of runs, undecoded."""
    return get_documents(reader, [keyspace.system_params(project, number) for number in numbers])


def read_documents(reader: KvReader, project: Project, numbers: Sequence[RunNumber]) -> list[RunDocument | None]:
    """Return the documents of runs, None for those that are gone."""
    found = get_documents(reader, [keyspace.run_document(project, number) for number in numbers])
    return [None if value is None else _codec.decode(value) for value in found]


def which_exist(reader: KvReader, project: Project, numbers: Collection[RunNumber]) -> set[RunNumber]:
    """Return those of some runs that are there."""
    asked = list(numbers)
    values = reader.get_many([head_key(keyspace.run_document(project, number)) for number in asked])
    return {number for number, value in zip(asked, values, strict=True) if value is not None}


def load(reader: KvReader, project: Project, numbers: Sequence[RunNumber], *, system_params: bool = False) -> list[Run]:
    """Return runs with experiment and tags resolved, in the order asked; those that are gone are left out."""
    documents = dict(zip(numbers, read_documents(reader, project, numbers), strict=True))
    found = _resolved(
        reader, project, {number: document for number, document in documents.items() if document is not None}
    )
    return with_system_params(reader, project, found) if system_params else found


def load_newest(reader: KvReader, project: Project, *, after: bytes | None, rows_max: int) -> Page:
    """Return runs with experiment and tags resolved by time of creation, newest first, behind the position `after`.

    It does what listing and loading them does, in a third of the time on FoundationDB: runs that were created one after
    the other have documents that lie together.
    """
    keys = _newest_keys(reader, project, after, rows_max)
    numbers = keyspace.place_numbers(keys, len(_by_time_base(project)))
    stored = _read_together(reader, project, numbers)
    documents = dict(zip(stored, _codec.decode_many([*stored.values()]), strict=True))
    found = {number: documents[number] for number in numbers if number in documents}
    return Page(_resolved(reader, project, found), keys[-1] if len(keys) == rows_max else None)


def _read_together(reader: KvReader, project: Project, numbers: Sequence[RunNumber]) -> dict[RunNumber, bytes]:
    """Return what is stored of runs, and of some between them: close numbers by a scan, the others one by one."""
    found: dict[RunNumber, bytes] = {}
    scattered: list[RunNumber] = []
    at = len(keyspace.subspace(project, Subspace.RUNS))
    for stretch in _stretches(numbers):
        if len(stretch) < STRETCH_LEAST:
            scattered += stretch
            continue
        documents = list(scan_documents(reader, *keyspace.run_documents(project, stretch[0], stretch[-1])))
        together = keyspace.document_numbers([base for base, _ in documents], at)
        found.update(zip(together, [data for _, data in documents], strict=True))
    single = get_documents(reader, [keyspace.run_document(project, number) for number in scattered])
    found.update((number, data) for number, data in zip(scattered, single, strict=True) if data is not None)
    return found


def _stretches(numbers: Sequence[RunNumber]) -> Iterator[list[RunNumber]]:
    """Yield numbers ascending, in lists without large gaps."""
    ordered = sorted(numbers)
    begin = 0
    for end, (number, following) in enumerate(pairwise(ordered), 1):
        if following - number > GAP_MAX:
            yield ordered[begin:end]
            begin = end
    yield ordered[begin:]


def _resolved(reader: KvReader, project: Project, documents: Mapping[RunNumber, RunDocument]) -> list[Run]:
    """Return runs with experiment and tags, in the order of their documents.

    A page of runs refers to the same few, in few combinations: these are looked up once, and shared.
    """
    experiment_ids = {document.experiment_id for document in documents.values() if document.experiment_id is not None}
    combinations = {document.tag_ids for document in documents.values()}
    experiments = catalog.experiments.get_many(reader, project, sorted(experiment_ids))
    tags = catalog.tags.get_many(reader, project, sorted({tag_id for ids in combinations for tag_id in ids}))
    attached = _attached(combinations, tags.values())
    found: list[Run] = []
    for number, document in documents.items():
        experiment = experiments.get(document.experiment_id or "")
        if experiment is not None:
            document.experiment_id = experiment.id
        document.tag_ids, visible = attached[document.tag_ids]
        found.append(Run(number=number, document=document, experiment=experiment, tags=visible))
    return found


def _attached(
    combinations: Collection[tuple[str, ...]], tags: Collection[Tag]
) -> dict[tuple[str, ...], tuple[tuple[str, ...], tuple[Tag, ...]]]:
    """Return, by ids of tags, the same ids as texts that all share, and the tags that are there and not archived."""
    shared = {tag.id: tag.id for tag in tags}
    visible = {tag.id: tag for tag in tags if not tag.archived}
    return {
        ids: (tuple(map(shared.get, ids, ids)), tuple([visible[each] for each in ids if each in visible]))
        for ids in combinations
    }


def with_system_params(reader: KvReader, project: Project, found: Sequence[Run]) -> list[Run]:
    """Return the runs with their system params read, too."""
    wanted = [run.number for run in found if run.document.has_system_params]
    system = dict(zip(wanted, get_system_params(reader, project, wanted), strict=True))
    return [msgspec.structs.replace(run, raw_system_params=system.get(run.number)) for run in found]


def find(reader: KvReader, project: Project, run_id: RunId, *, system_params: bool = False) -> Run | None:
    """Return one run by its hash, or None."""
    number = get_number(reader, project, run_id)
    found = [] if number is None else load(reader, project, [number], system_params=system_params)
    return found[0] if found else None


def list_newest(
    reader: KvReader, project: Project, *, after: bytes | None = None, rows_max: int = SCAN_ROWS_MAX
) -> list[Listed]:
    """Return runs by time of creation, newest first, beginning behind the position `after`."""
    keys = _newest_keys(reader, project, after, rows_max)
    return list(map(Listed, keyspace.place_numbers(keys, len(_by_time_base(project))), keys))


def _newest_keys(reader: KvReader, project: Project, after: bytes | None, rows_max: int) -> list[bytes]:
    begin, end = keyspace.children(_by_time_base(project))
    return [key for key, _ in reader.scan(begin, end if after is None else after, rows_max=rows_max, reverse=True)]


def _by_time_base(project: Project) -> bytes:
    return keyspace.subspace(project, Subspace.RUNS_BY_TIME)


def list_created(reader: KvReader, project: Project, *, after: bytes | None = None) -> CreatedPage:
    """Return when runs were created, newest first, beginning behind the position `after`."""
    base = _by_time_base(project)
    begin, end = keyspace.children(base)
    rows = reader.scan(begin, end if after is None else after, rows_max=SCAN_ROWS_MAX, reverse=True)
    moments = keyspace.created_us_array([key for key, _ in rows], len(base))
    return CreatedPage(moments, rows[-1][0] if len(rows) == SCAN_ROWS_MAX else None)


def get_place(reader: KvReader, project: Project, run_id: RunId) -> RunPlace | None:
    """Return where a run stands in the order of creation, or None for an unknown one."""
    number = get_number(reader, project, run_id)
    if number is None:
        return None
    (document,) = read_documents(reader, project, [number])
    return None if document is None else document.place(number)


def position(reader: KvReader, project: Project, run_id: RunId) -> bytes | None:
    """Return the `Listed.position` of a run, or None for an unknown one."""
    place = get_place(reader, project, run_id)
    return None if place is None else keyspace.run_by_time(project, *place)


def list_active(
    reader: KvReader, project: Project, *, after: RunNumber | None = None, rows_max: int = SCAN_ROWS_MAX
) -> list[RunNumber]:
    """Return the runs that have not ended, oldest number first, beginning behind the number `after`."""
    begin, end = keyspace.children(keyspace.subspace(project, Subspace.ACTIVE_RUNS))
    if after is not None:
        begin = keyspace.active_run(project, after) + b"\x00"
    return [RunNumber(keyspace.last_number(key)) for key, _ in reader.scan(begin, end, rows_max=rows_max)]


def count(reader: KvReader, project: Project) -> int:
    """Return how many runs there are, archived ones included: numbers given out without those of cleared runs."""
    given, cleared = reader.get_many([keyspace.run_counter(project), keyspace.cleared_runs(project)])
    return (_NUMBER.unpack(given)[0] - 1 if given else 0) - (_NUMBER.unpack(cleared)[0] if cleared else 0)


def _by_time(project: Project, document: RunDocument, number: RunNumber) -> bytes:
    return keyspace.run_by_time(project, *document.place(number))
