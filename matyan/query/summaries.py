"""Which sequences of a run a search reads: no more than its plan says it can look at."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from matyan.engines.kv.protocol import KvReader
from matyan.ids import Project, RunNumber
from matyan.query.plan import Wanted
from matyan.runs import index
from matyan.sequences import repository as sequences
from matyan.sequences.model import Bucket, SequenceKey, Summary
from matyan.sequences.repository import SequenceRef

KEYS_MAX: Final = 64
"""Beyond this, to read all sequences of a run is likely to be faster."""
CONTEXTS_MAX: Final = 8
"""Of a name, when the query does not tell the context: most runs have few of those that there are."""


class Sequences:
    """The sequences of a kind, or of all kinds, as far as they are wanted."""

    def __init__(self, bucket: Bucket | None = None, keys: Iterable[SequenceKey] | None = None) -> None:
        """Name them.

        Args:
            bucket: the kind; None for all.
            keys: what they are called; None for anything.
        """
        self._bucket = bucket
        self.keys = None if keys is None else sorted(set(keys), key=lambda key: (key.bucket, key.digest()))
        """What they are called, in the order in which the store lists them; None for anything."""

    def read(self, reader: KvReader, project: Project, numbers: Sequence[RunNumber]) -> list[list[Summary]]:
        """Return the summaries of each run that are wanted, in the order of the store."""
        if self.keys is None:
            return sequences.list_summaries(reader, project, numbers, self._bucket)
        refs = [SequenceRef(number, key) for number in numbers for key in self.keys]
        found = iter(sequences.get_summaries(reader, project, refs))
        return [[summary for summary in (next(found) for _ in self.keys) if summary is not None] for _ in numbers]


def keys_of(reader: KvReader, project: Project, wanted: Wanted, bucket: Bucket) -> list[SequenceKey] | None:
    """Return what sequences of a kind can be called that are wanted; None when that may be anything, or too much."""
    if wanted.names is None or len(wanted.names) > KEYS_MAX:
        return None
    keys: list[SequenceKey] = []
    for name in sorted(wanted.names):
        contexts = wanted.contexts
        if contexts is None:
            contexts = index.contexts_of(reader, project, bucket, name, contexts_max=CONTEXTS_MAX)
        if contexts is None:
            return None
        keys += [SequenceKey(bucket, name, context) for context in sorted(contexts)]
    return keys if len(keys) <= KEYS_MAX else None


def keys_looked_up(looked_up: frozenset[tuple[str, str]]) -> list[SequenceKey]:
    """Return what `run.metrics` looks for: sequences of every kind."""
    return [SequenceKey(bucket, name, context) for name, context in looked_up for bucket in Bucket]
