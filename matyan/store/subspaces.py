"""The map of the database: the table of subspaces. `docs/reference/keyspace.md` is generated from it."""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NamedTuple


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
