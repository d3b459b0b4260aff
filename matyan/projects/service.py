"""ProjectService: activity, the union of all params and sequences, pinned sequences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

import msgspec

from matyan.catalog import documents
from matyan.catalog import repository as catalog
from matyan.engines.kv.protocol import KvEngine, KvReader
from matyan.errors import InvalidArgumentError
from matyan.ids import DEFAULT_PROJECT, Project, RunNumber
from matyan.projects.model import ParamTree
from matyan.runs import repository as runs
from matyan.runs.activity import Activity
from matyan.runs.model import SYSTEM_PARAMS, RunDocument
from matyan.sequences import repository as sequences
from matyan.sequences.model import Bucket
from matyan.wire.codec import decode_tree

PAGE_RUNS: Final = 500
"""Runs that one read transaction looks at."""
_BUCKETS_EACH_MAX: Final = 2
"""Asked for more kinds than this, one range over a run's summaries of every kind is cheaper than one per kind."""


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


class _Page(NamedTuple):
    """Some runs; `position` leads to the next page, None behind the last."""

    numbers: list[RunNumber]
    documents: list[RunDocument]
    position: bytes | None


_pins: Final = msgspec.json.Decoder(list[PinnedSequence])


class ProjectService:
    """Reads over all runs of a project. They take one short transaction per page of runs, so they may mix moments."""

    def __init__(self, *, kv: KvEngine) -> None:
        self._kv = kv

    def activity(self, *, timezone_offset_minutes: int, project: Project = DEFAULT_PROJECT) -> ProjectActivity:
        """Count experiments and runs, archived ones included."""
        activity = Activity()
        for page in self._pages(project):
            for document in page.documents:
                activity.add(document, timezone_offset_minutes=timezone_offset_minutes)
        experiments = self._kv.read(lambda reader: len(catalog.experiments.list(reader, project)))
        return ProjectActivity(experiments, activity)

    def vocabulary(
        self, buckets: Sequence[Bucket], *, with_params: bool, project: Project = DEFAULT_PROJECT
    ) -> Vocabulary:
        """Return the union of the params of all runs, and the names and contexts of their sequences of some kinds."""
        tree = ParamTree()
        known: dict[Bucket, dict[str, dict[str, dict[str, Any]]]] = {bucket: {} for bucket in buckets}
        for page in self._pages(project):
            if buckets:
                self._kv.read(partial(_add_sequences, project=project, numbers=page.numbers, known=known))
            if with_params:
                self._add_params(project, page, tree)
        found = {
            bucket: {name: list(contexts.values()) for name, contexts in names.items()}
            for bucket, names in known.items()
        }
        return Vocabulary(tree.tree() if with_params else None, found)

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

    def _pages(self, project: Project) -> Iterator[_Page]:
        position: bytes | None = None
        while True:
            page = self._kv.read(partial(_read_page, project=project, after=position))
            yield page
            position = page.position
            if position is None:
                return

    def _add_params(self, project: Project, page: _Page, tree: ParamTree) -> None:
        with_system = [
            number for number, document in zip(page.numbers, page.documents, strict=True) if document.has_system_params
        ]
        system = self._kv.read(lambda reader: runs.get_system_params(reader, project, with_system))
        for document in page.documents:
            tree.add(decode_tree(document.params))
        for data in system:
            if data is not None:
                tree.add({SYSTEM_PARAMS: decode_tree(data)})


def _read_page(reader: KvReader, *, project: Project, after: bytes | None) -> _Page:
    listed = runs.list_newest(reader, project, after=after, rows_max=PAGE_RUNS)
    found = runs.read_documents(reader, project, [run.number for run in listed])
    present = [(run.number, document) for run, document in zip(listed, found, strict=True) if document is not None]
    return _Page(
        [number for number, _ in present],
        [document for _, document in present],
        listed[-1].position if len(listed) == PAGE_RUNS else None,
    )


def _add_sequences(
    reader: KvReader,
    *,
    project: Project,
    numbers: Sequence[RunNumber],
    known: dict[Bucket, dict[str, dict[str, dict[str, Any]]]],
) -> None:
    """Add names and contexts (canonical text -> object); adding twice changes nothing, as a read may run again."""
    kinds: Sequence[Bucket | None] = list(known) if len(known) <= _BUCKETS_EACH_MAX else [None]
    for kind in kinds:
        for summaries in sequences.list_summaries(reader, project, numbers, kind):
            for summary in summaries:
                names = known.get(Bucket(summary.bucket))
                if names is not None and summary.context not in (contexts := names.setdefault(summary.name, {})):
                    contexts[summary.context] = summary.context_object
