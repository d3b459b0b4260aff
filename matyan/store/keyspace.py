"""The map of the database: table of subspaces, and the one place where keys are made.

Every key begins with the project; what belongs to no project begins with the empty text. `docs/reference/keyspace.md`
is generated from the table.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from enum import IntEnum
from functools import lru_cache
from typing import Final, NamedTuple

from matyan.engines.kv.protocol import KeyRange
from matyan.engines.kv.tuples import pack, unpack
from matyan.ids import Project, RunId, RunNumber

_SYSTEM: Final = ""
_SEVEN_BYTES: Final = 0x1B
"""First byte of a packed integer of seven bytes, see `engines/kv/tuples.py`."""
_HOT_KEYS_MAX: Final = 65_536
"""Keys of sequences being written are asked for with every slice."""


class Subspace(IntEnum):
    """Second element of every key. Numbers are for ever; gaps are for neighbours to come.

    32 and 42 held runs of experiments and tags in another order before the first release: they are not used again.
    """

    APPLIED = 2
    DEAD_LETTERS = 3
    OUTBOX = 4
    LEASES = 5
    GATEWAYS = 6
    CURSORS = 7
    DEAD_LETTER_RETRIES = 8
    RUN_COUNTER = 10
    RUN_NUMBERS = 11
    RUNS = 12
    SYSTEM_PARAMS = 13
    RUNS_BY_TIME = 14
    ACTIVE_RUNS = 15
    UNSETTLED_RUNS = 16
    TOMBSTONES = 17
    DELETIONS = 18
    LAST_SEEN = 19
    SUMMARIES = 20
    POINTS = 21
    ITEMS = 22
    TERMINALS = 23
    CRASHED_RUNS = 24
    EXPERIMENTS = 30
    EXPERIMENT_NAMES = 31
    EXPERIMENT_RUNS = 33
    EXPERIMENT_DELETIONS = 34
    TAGS = 40
    TAG_NAMES = 41
    TAG_RUNS = 43
    TAG_DELETIONS = 44
    APPS = 50
    DASHBOARDS = 51
    REPORTS = 52
    NOTE_COUNTER = 53
    RUN_NOTES = 54
    EXPERIMENT_NOTES = 55
    PINNED_SEQUENCES = 56
    IMPORTS = 60
    INDEX = 70
    INDEX_STATE = 71
    CHANGES = 80
    CLEARED_RUNS = 81


class Row(NamedTuple):
    """One line of the map."""

    owner: str
    key: str
    value: str


TABLE: Final = {
    Subspace.APPLIED: Row("store/offsets.py", "(log id, topic, partition)", "Applied: next offset, items done of it"),
    Subspace.DEAD_LETTERS: Row("store/deadletters.py", "(log id, topic, partition, offset, index)", "DeadLetter"),
    Subspace.OUTBOX: Row("store/outbox.py", "(topic) + versionstamp + name", "OutboxEntry"),
    Subspace.LEASES: Row("store/leases.py", "(name)", "LeaseRecord"),
    Subspace.GATEWAYS: Row("store/gateways.py", "(log id, topic, partition, gateway)", "Numbers: its records applied"),
    Subspace.CURSORS: Row("store/cursors.py", "(name)", "where a job stands that goes on another time"),
    Subspace.DEAD_LETTER_RETRIES: Row(
        "store/deadletters.py", "(log id, topic, partition, offset, index)", "Retry: somebody wants it tried again"
    ),
    Subspace.RUN_COUNTER: Row("runs/repository.py", "()", "the next run number, uint64 little-endian"),
    Subspace.RUN_NUMBERS: Row("runs/repository.py", "(run id)", "run number, uint64 little-endian"),
    Subspace.RUNS: Row("runs/repository.py", "(run number) + piece", "RunDocument, in pieces"),
    Subspace.SYSTEM_PARAMS: Row("runs/repository.py", "(run number) + piece", "msgpack tree, in pieces"),
    Subspace.RUNS_BY_TIME: Row("runs/repository.py", "(creation time in us, run number)", "empty"),
    Subspace.ACTIVE_RUNS: Row("runs/repository.py", "(run number)", "empty"),
    Subspace.UNSETTLED_RUNS: Row("maintenance/settle.py", "(run number)", "time of the last points in ms, uint64"),
    Subspace.TOMBSTONES: Row("runs/tombstones.py", "(run id)", "Tombstone"),
    Subspace.DELETIONS: Row(
        "runs/tombstones.py", "(due time in ms, run number)", "Deletion: a run with something left to free"
    ),
    Subspace.LAST_SEEN: Row("runs/signs.py", "(run number)", "time of the last sign of life in ms, uint64"),
    Subspace.SUMMARIES: Row("sequences/repository.py", "(run number, bucket, digest)", "Summary"),
    Subspace.POINTS: Row("sequences/repository.py", "(run number, digest) + block number", "columns"),
    Subspace.ITEMS: Row("sequences/items.py", "(run number, bucket, digest, step) + piece", "Item, in pieces"),
    Subspace.TERMINALS: Row("sequences/terminal.py", "(run number)", "Terminal: lines numbered so far, by writer"),
    Subspace.CRASHED_RUNS: Row("runs/signs.py", "(run id)", "empty"),
    Subspace.EXPERIMENTS: Row("catalog/repository.py", "(id)", "Experiment"),
    Subspace.EXPERIMENT_NAMES: Row("catalog/repository.py", "(digest of the name)", "id"),
    Subspace.EXPERIMENT_RUNS: Row("catalog/repository.py", "(experiment id, creation time in us, run number)", "empty"),
    Subspace.EXPERIMENT_DELETIONS: Row("catalog/repository.py", "(id)", "EntityDeletion: its runs are not done with"),
    Subspace.TAGS: Row("catalog/repository.py", "(id)", "Tag"),
    Subspace.TAG_NAMES: Row("catalog/repository.py", "(digest of the name)", "id"),
    Subspace.TAG_RUNS: Row("catalog/repository.py", "(tag id, creation time in us, run number)", "empty"),
    Subspace.TAG_DELETIONS: Row("catalog/repository.py", "(id)", "EntityDeletion: its runs are not done with"),
    Subspace.APPS: Row("catalog/documents.py", "(id) + piece", "App, in pieces"),
    Subspace.DASHBOARDS: Row("catalog/documents.py", "(id) + piece", "Dashboard, in pieces"),
    Subspace.REPORTS: Row("catalog/documents.py", "(id) + piece", "Report, in pieces"),
    Subspace.NOTE_COUNTER: Row("catalog/notes.py", "()", "the next note number, uint64 little-endian"),
    Subspace.RUN_NOTES: Row("catalog/notes.py", "(run number, note number) + piece", "Note, in pieces"),
    Subspace.EXPERIMENT_NOTES: Row("catalog/notes.py", "(experiment id, note number) + piece", "Note, in pieces"),
    Subspace.PINNED_SEQUENCES: Row("catalog/documents.py", "() + piece", "JSON list of name and context, in pieces"),
    Subspace.IMPORTS: Row("transfer/progress.py", "(source, run id) + piece", "ImportProgress, in pieces"),
    Subspace.INDEX: Row(
        "store/indexes.py",
        "() + kind + field + code of the value + run number, 8 bytes big-endian",
        "empty, or what the key has no room for",
    ),
    Subspace.INDEX_STATE: Row("store/indexes.py", "()", "version of the index, when it is complete"),
    Subspace.CHANGES: Row("store/changes.py", "() + versionstamp + (subspace, number or id)", "empty"),
    Subspace.CLEARED_RUNS: Row("runs/repository.py", "()", "how many runs were cleared, int64 little-endian"),
}

CONTENTS: Final = (
    Subspace.SUMMARIES,
    Subspace.POINTS,
    Subspace.ITEMS,
    Subspace.TERMINALS,
    Subspace.SYSTEM_PARAMS,
    Subspace.RUN_NOTES,
)
"""What only a run's own number leads to, in the order of `run_contents`."""
PREVIEW: Final = 0
TAIL: Final = 2**32 - 1


def name_digest(name: str) -> bytes:
    """Return 16 bytes that stand for a name of any length in keys."""
    return hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def last_number(key: bytes) -> int:
    """Return the number that ends a key: a run number, a step."""
    number = unpack(key)[-1]
    assert isinstance(number, int)
    return number


def last_text(key: bytes) -> str:
    """Return the text that ends a key: a run id."""
    text = unpack(key)[-1]
    assert isinstance(text, str)
    return text


def children(prefix: bytes) -> KeyRange:
    """Return the range of all tuples that continue the packed tuple `prefix`."""
    return KeyRange(prefix + b"\x00", prefix + b"\xff")


@lru_cache
def subspace(project: Project, space: Subspace) -> bytes:
    """Return the common beginning of a subspace's keys."""
    return pack((project, int(space)))


# ---- system


def applied(log_id: str, topic: str, partition: int) -> bytes:
    """Key of a partition's applied offset."""
    return pack((_SYSTEM, int(Subspace.APPLIED), log_id, topic, partition))


def dead_letter(log_id: str, topic: str, partition: int, offset: int, index: int) -> bytes:
    """Key of one dead letter."""
    return pack((_SYSTEM, int(Subspace.DEAD_LETTERS), log_id, topic, partition, offset, index))


def dead_letters() -> KeyRange:
    """Range of all dead letters."""
    return children(pack((_SYSTEM, int(Subspace.DEAD_LETTERS))))


def cursor(name: str) -> bytes:
    """Key of where a job stands."""
    return pack((_SYSTEM, int(Subspace.CURSORS), name))


def dead_letter_retry(log_id: str, topic: str, partition: int, offset: int, index: int) -> bytes:
    """Key of the request that a dead letter be tried again."""
    return pack((_SYSTEM, int(Subspace.DEAD_LETTER_RETRIES), log_id, topic, partition, offset, index))


def dead_letter_retries() -> KeyRange:
    """Range of all these requests."""
    return children(pack((_SYSTEM, int(Subspace.DEAD_LETTER_RETRIES))))


def dead_letter_place(key: bytes) -> tuple[str, str, int, int, int]:
    """Return log id, topic, partition, offset and index of a dead letter's key, or of the request for its retry."""
    log_id, topic, partition, offset, index = unpack(key)[2:]
    assert isinstance(log_id, str)
    assert isinstance(topic, str)
    assert isinstance(partition, int)
    assert isinstance(offset, int)
    assert isinstance(index, int)
    return log_id, topic, partition, offset, index


def outbox(topic: str) -> bytes:
    """Beginning of what waits to be appended to a topic; a versionstamp and a name follow."""
    return pack((_SYSTEM, int(Subspace.OUTBOX), topic))


def gateway(log_id: str, topic: str, partition: int, source: str) -> bytes:
    """Key of what is applied of a gateway's records in a partition."""
    return pack((_SYSTEM, int(Subspace.GATEWAYS), log_id, topic, partition, source))


def gateways() -> KeyRange:
    """Range of what is known of all gateways."""
    return children(pack((_SYSTEM, int(Subspace.GATEWAYS))))


def lease(name: str) -> bytes:
    """Key of who may do what `name` stands for."""
    return pack((_SYSTEM, int(Subspace.LEASES), name))


# ---- runs


def run_counter(project: Project) -> bytes:
    """Key of the next run number."""
    return pack((project, int(Subspace.RUN_COUNTER)))


def cleared_runs(project: Project) -> bytes:
    """Key of how many of the numbers given out belong to no run any more."""
    return pack((project, int(Subspace.CLEARED_RUNS)))


def run_number(project: Project, run_id: RunId) -> bytes:
    """Key of a run id's number."""
    return pack((project, int(Subspace.RUN_NUMBERS), run_id))


def run_document(project: Project, number: RunNumber) -> bytes:
    """Base of a run's document."""
    return subspace(project, Subspace.RUNS) + pack((number,))


def system_params(project: Project, number: RunNumber) -> bytes:
    """Base of a run's system params."""
    return pack((project, int(Subspace.SYSTEM_PARAMS), number))


def run_by_time(project: Project, created_us: int, number: RunNumber) -> bytes:
    """Key of a run in the order of creation."""
    return pack((project, int(Subspace.RUNS_BY_TIME), created_us, number))


def place_numbers(keys: Sequence[bytes], at: int) -> list[RunNumber]:
    """Return the numbers of keys that end with a creation time, from `at` on, and a run number.

    A scan asks this of every run, and to unpack the whole key takes ten times as long: only times before 1978 or after
    4253, which a client's clock may say, have not seven bytes.
    """
    return [
        RunNumber(int.from_bytes(key[at + 9 :], "big")) if key[at] == _SEVEN_BYTES else RunNumber(last_number(key))
        for key in keys
    ]


def run_by_time_place(key: bytes) -> tuple[int, RunNumber]:
    """Return creation time and number of a key of `run_by_time`."""
    created_us, number = unpack(key)[-2:]
    assert isinstance(created_us, int)
    assert isinstance(number, int)
    return created_us, RunNumber(number)


def created_us(key: bytes, at: int) -> int:
    """Return the creation time in a key of `run_by_time`, where it begins at `at`."""
    if key[at] == _SEVEN_BYTES:  # as in `place_numbers`
        return int.from_bytes(key[at + 1 : at + 8], "big")
    moment_us = unpack(key)[-2]
    assert isinstance(moment_us, int)
    return moment_us


def active_run(project: Project, number: RunNumber) -> bytes:
    """Key that exists while a run is active."""
    return pack((project, int(Subspace.ACTIVE_RUNS), number))


def last_seen(project: Project, number: RunNumber) -> bytes:
    """Key of when a run was heard of last, as far as `unsettled_run` does not tell."""
    return pack((project, int(Subspace.LAST_SEEN), number))


def crashed_run(project: Project, run_id: RunId) -> bytes:
    """Key that exists while a run counts as crashed."""
    return pack((project, int(Subspace.CRASHED_RUNS), run_id))


def unsettled_run(project: Project, number: RunNumber) -> bytes:
    """Key that exists while a run has points that are not yet stored as compactly as they can be."""
    return pack((project, int(Subspace.UNSETTLED_RUNS), number))


def tombstone(project: Project, run_id: RunId) -> bytes:
    """Key of what is known of a deleted run."""
    return pack((project, int(Subspace.TOMBSTONES), run_id))


def deletion(project: Project, due_ms: int, number: RunNumber) -> bytes:
    """Key of the note that a run has something left to free, in the order in which it is due."""
    return pack((project, int(Subspace.DELETIONS), due_ms, number))


def deletion_place(key: bytes) -> tuple[int, RunNumber]:
    """Return due time and run number of a key of `deletion`."""
    due_ms, number = unpack(key)[-2:]
    assert isinstance(due_ms, int)
    assert isinstance(number, int)
    return due_ms, RunNumber(number)


def deletions_until(project: Project, now_ms: int) -> KeyRange:
    """Range of the deletions that are due."""
    return KeyRange(
        children(subspace(project, Subspace.DELETIONS)).begin, pack((project, int(Subspace.DELETIONS), now_ms + 1))
    )


def run_contents(project: Project, number: RunNumber) -> tuple[KeyRange, ...]:
    """Ranges of everything that only a run's own number leads to, its document not included.

    Summaries come first: who finds none writes no points either.
    """
    prefixes = [pack((project, int(space), number)) for space in CONTENTS]
    return tuple(KeyRange(prefix, prefix + b"\xff") for prefix in prefixes)


# ---- sequences


def summaries(project: Project, number: RunNumber) -> bytes:
    """Beginning of a run's summaries."""
    return pack((project, int(Subspace.SUMMARIES), number))


def summaries_of(project: Project, number: RunNumber, bucket: int) -> bytes:
    """Beginning of a run's summaries of one kind."""
    return pack((project, int(Subspace.SUMMARIES), number, bucket))


@lru_cache(_HOT_KEYS_MAX)
def summary(project: Project, number: RunNumber, bucket: int, digest: bytes) -> bytes:
    """Key of a sequence's summary."""
    return pack((project, int(Subspace.SUMMARIES), number, bucket, digest))


@lru_cache(_HOT_KEYS_MAX)
def points(project: Project, number: RunNumber, digest: bytes) -> bytes:
    """Beginning of a scalar sequence's blocks: append four bytes big-endian, PREVIEW, a chunk number or TAIL."""
    return pack((project, int(Subspace.POINTS), number, digest))


def items(project: Project, number: RunNumber, bucket: int, digest: bytes) -> bytes:
    """Beginning of an object sequence's items."""
    return pack((project, int(Subspace.ITEMS), number, bucket, digest))


def item(project: Project, number: RunNumber, bucket: int, digest: bytes, step: int) -> bytes:
    """Base of one item."""
    return pack((project, int(Subspace.ITEMS), number, bucket, digest, step))


def terminal(project: Project, number: RunNumber) -> bytes:
    """Key of the state of a run's terminal log."""
    return pack((project, int(Subspace.TERMINALS), number))


# ---- catalog


def entity(project: Project, space: Subspace, entity_id: str) -> bytes:
    """Key of an experiment or tag."""
    return pack((project, int(space), entity_id))


def entity_name(project: Project, space: Subspace, name: str) -> bytes:
    """Key that leads from a name to an id."""
    return pack((project, int(space), name_digest(name)))


def entity_run(project: Project, space: Subspace, entity_id: str, created_us: int, number: RunNumber) -> bytes:
    """Key that says that a run belongs to an experiment or carries a tag, in the order of creation."""
    return pack((project, int(space), entity_id, created_us, number))


def entity_run_place(key: bytes) -> tuple[int, RunNumber]:
    """Return creation time and number of the run that a key of `entity_run` names."""
    created_us, number = unpack(key)[-2:]
    assert isinstance(created_us, int)
    assert isinstance(number, int)
    return created_us, RunNumber(number)


# ---- documents


def note_counter(project: Project) -> bytes:
    """Key of the next note number."""
    return pack((project, int(Subspace.NOTE_COUNTER)))


def notes(project: Project, space: Subspace, owner: str | RunNumber) -> bytes:
    """Beginning of the notes of a run or experiment."""
    return pack((project, int(space), owner))


def note(project: Project, space: Subspace, owner: str | RunNumber, number: int) -> bytes:
    """Base of one note."""
    return pack((project, int(space), owner, number))


# ---- indexes


@lru_cache
def index(project: Project) -> bytes:
    """Beginning of all entries of the index."""
    return pack((project, int(Subspace.INDEX)))


def index_state(project: Project) -> bytes:
    """Key of the version in which the index is complete."""
    return pack((project, int(Subspace.INDEX_STATE)))


# ---- changes


def changes(project: Project) -> bytes:
    """Beginning of the notes of what was changed; a versionstamp and what it was follow."""
    return pack((project, int(Subspace.CHANGES)))


# ---- transfer


def import_progress(project: Project, source: str, run_id: RunId) -> bytes:
    """Base of the progress of a run's import; the empty run id stands for what belongs to no run."""
    return pack((project, int(Subspace.IMPORTS), source, run_id))
