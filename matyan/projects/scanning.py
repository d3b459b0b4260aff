"""Activity and vocabulary read from every run there is: for a store whose index is not complete yet.

One short transaction per page of runs, so they may mix moments.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

from matyan.engines.kv.protocol import KvEngine, KvReader
from matyan.ids import Project, RunNumber
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

Contexts = dict[str, dict[str, Any]]
"""Name of a sequence -> canonical text of a context -> the context."""


class _Page(NamedTuple):
    """Some runs; `position` leads to the next page, None behind the last."""

    numbers: list[RunNumber]
    documents: list[RunDocument]
    position: bytes | None


def activity(kv: KvEngine, project: Project, *, timezone_offset_minutes: int) -> Activity:
    """Count all runs."""
    found = Activity()
    for page in _pages(kv, project):
        for document in page.documents:
            found.add(document, timezone_offset_minutes=timezone_offset_minutes)
    return found


def params(kv: KvEngine, project: Project) -> ParamTree:
    """Return the union of the params of all runs."""
    tree = ParamTree()
    for page in _pages(kv, project):
        _add_params(kv, project, page, tree)
    return tree


def contexts(kv: KvEngine, project: Project, buckets: Sequence[Bucket]) -> dict[Bucket, Contexts]:
    """Return the names and contexts of the sequences of all runs, of some kinds."""
    known: dict[Bucket, Contexts] = {bucket: {} for bucket in buckets}
    for page in _pages(kv, project):
        kv.read(partial(_add_sequences, project=project, numbers=page.numbers, known=known))
    return known


def _pages(kv: KvEngine, project: Project) -> Iterator[_Page]:
    position: bytes | None = None
    while True:
        page = kv.read(partial(_read_page, project=project, after=position))
        yield page
        position = page.position
        if position is None:
            return


def _add_params(kv: KvEngine, project: Project, page: _Page, tree: ParamTree) -> None:
    with_system = [
        number for number, document in zip(page.numbers, page.documents, strict=True) if document.has_system_params
    ]
    system = kv.read(lambda reader: runs.get_system_params(reader, project, with_system))
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
    reader: KvReader, *, project: Project, numbers: Sequence[RunNumber], known: dict[Bucket, Contexts]
) -> None:
    """Add names and contexts; adding twice changes nothing, as a read may run again."""
    kinds: Sequence[Bucket | None] = list(known) if len(known) <= _BUCKETS_EACH_MAX else [None]
    for kind in kinds:
        for summaries in sequences.list_summaries(reader, project, numbers, kind):
            for summary in summaries:
                names = known.get(Bucket(summary.bucket))
                if names is not None and summary.context not in (of_name := names.setdefault(summary.name, {})):
                    of_name[summary.context] = summary.context_object
