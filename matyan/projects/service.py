"""ProjectService: activity, the union of all params and sequences, pinned sequences."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Final, NamedTuple

import msgspec

from matyan.catalog import documents
from matyan.catalog import repository as catalog
from matyan.engines.kv.protocol import KeyRange, KvEngine
from matyan.errors import InvalidArgumentError
from matyan.ids import DEFAULT_PROJECT, Project
from matyan.projects import scanning
from matyan.projects.vocabulary import VocabularyReader
from matyan.runs import repository as runs
from matyan.runs.activity import Activity
from matyan.sequences.model import Bucket
from matyan.store import indexes, keyspace
from matyan.store.indexes import Kind, is_complete
from matyan.store.scans import scan_pages
from matyan.store.subspaces import Subspace


class PinnedSequence(msgspec.Struct, frozen=True):
    """A metric shown on every run page."""

    name: str
    context: dict[str, Any]


class ProjectActivity(NamedTuple):
    """What goes on in a project."""

    experiments: int
    runs: Activity


class Vocabulary(NamedTuple):
    """What queries can name: for auto-completion and select boxes."""

    params: dict[str, Any] | None
    """The union of all params (`ParamTree.tree`); None when it was not asked for."""
    sequences: dict[Bucket, dict[str, list[dict[str, Any]]]]
    """Kind -> sequence name -> the contexts it has somewhere."""


_pins: Final = msgspec.json.Decoder(list[PinnedSequence])


class ProjectService:
    """Reads about all runs of a project, from its lists and its index. They may mix moments: they take several reads.

    While the index is not complete (a store of an earlier release), they look at every run instead.
    """

    def __init__(self, *, kv: KvEngine) -> None:
        self._kv = kv
        self._vocabulary = VocabularyReader(kv)

    def activity(self, *, timezone_offset_minutes: int, project: Project = DEFAULT_PROJECT) -> ProjectActivity:
        """Count experiments and runs, archived ones included."""
        count = self._count_runs if self._is_indexed(project) else partial(scanning.activity, self._kv)
        activity = count(project, timezone_offset_minutes=timezone_offset_minutes)
        experiments = self._kv.read(lambda reader: len(catalog.experiments.list(reader, project)))
        return ProjectActivity(experiments, activity)

    def vocabulary(
        self, buckets: Sequence[Bucket], *, with_params: bool, project: Project = DEFAULT_PROJECT
    ) -> Vocabulary:
        """Return the union of the params of all runs, and the names and contexts of their sequences of some kinds."""
        if self._is_indexed(project):
            known = {bucket: self._vocabulary.sequences(project, bucket) for bucket in buckets}
            tree = self._vocabulary.params(project) if with_params else None
        else:
            known = scanning.contexts(self._kv, project, buckets)
            tree = scanning.params(self._kv, project) if with_params else None
        found = {
            bucket: {name: list(contexts.values()) for name, contexts in names.items()}
            for bucket, names in known.items()
        }
        return Vocabulary(None if tree is None else tree.tree(), found)

    def pinned(self, *, project: Project = DEFAULT_PROJECT) -> list[PinnedSequence]:
        """Return the pinned sequences."""
        stored = self._kv.read(lambda reader: documents.get_pinned(reader, project))
        return [] if stored is None else _pins.decode(stored)

    def pin(self, pinned: Sequence[PinnedSequence], *, project: Project = DEFAULT_PROJECT) -> None:
        """Replace the pinned sequences.

        Raises:
            InvalidArgumentError: a text holds a lone surrogate.
        """
        try:
            data = msgspec.json.encode(pinned)
        except UnicodeEncodeError as error:
            raise InvalidArgumentError("a text is not valid unicode") from error
        self._kv.write(lambda tx: documents.put_pinned(tx, project, data))

    def _is_indexed(self, project: Project) -> bool:
        return self._kv.read(partial(is_complete, project=project))

    def _count_runs(self, project: Project, *, timezone_offset_minutes: int) -> Activity:
        archived = keyspace.index(project) + indexes.field_of(Kind.ARCHIVED)
        found = Activity(
            archived=self._count(KeyRange(archived, indexes.after(archived))),
            active=self._count(keyspace.children(keyspace.subspace(project, Subspace.ACTIVE_RUNS))),
        )
        after: bytes | None = None
        while True:
            moments_us, after = self._kv.read(partial(runs.list_created, project=project, after=after))
            found.count(moments_us, timezone_offset_minutes=timezone_offset_minutes)
            if after is None:
                return found

    def _count(self, where: KeyRange) -> int:
        return sum(map(len, scan_pages(self._kv, *where)))
