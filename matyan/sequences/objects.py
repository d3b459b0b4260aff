"""ObjectReader, ObjectReads: images, texts, distributions, audios and figures -> the records of answer streams.

A trace is written record by record: figures and texts can be megabytes each, and no more than a few are in memory.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Final

import msgspec

from matyan.blobs.service import BlobService
from matyan.engines.blob.protocol import BlobEngine
from matyan.engines.kv.protocol import KvEngine, KvReader
from matyan.errors import NotFoundError
from matyan.ids import DEFAULT_PROJECT, Project, RunId, RunNumber
from matyan.sequences import items, repository
from matyan.sequences.items import StepPage
from matyan.sequences.model import Bucket, Item, SequenceKey, Summary, canonical_context
from matyan.sequences.ranges import Asked, Totals, Window, thin_out
from matyan.sequences.repository import SequenceRef
from matyan.sequences.service import NumbersOf, TraceName
from matyan.sequences.values import LIST_BUCKETS, record_value
from matyan.wire.trees import encode_tree_records

ITEMS_PER_READ: Final = 16
"""Items that one read transaction fetches; each is at most half a megabyte, larger ones lie in blobs."""
MILLISECONDS_PER_SECOND: Final = 1000

Path = tuple[str | int, ...]


class RunRef(msgspec.Struct, frozen=True):
    """A run as reads of its sequences need it."""

    project: Project
    number: RunNumber
    run_id: RunId


class BatchForm(msgspec.Struct, frozen=True, kw_only=True):
    """How the answer about the traces of one run names its index ranges."""

    index_range_name: str
    null_index_ranges: bool
    """Kinds without lists say null for both (else nothing)."""


class ObjectReader:
    """Reads records of object sequences, a bounded part of them per transaction."""

    def __init__(self, *, kv: KvEngine, engine: BlobEngine, blobs: BlobService) -> None:
        """Put the engines to use.

        Args:
            kv: the store.
            engine: where values lie that are too large for the store.
            blobs: makes the URIs by which clients ask for images and audios.
        """
        self._kv = kv
        self._engine = engine
        self._blobs = blobs

    def trace(self, path: Path, run: RunRef, summary: Summary, window: Window, *, moments: bool) -> Iterator[bytes]:
        """Yield the records of one trace: name, context, values, iters, and epochs and timestamps with `moments`.

        Args:
            path: where the trace stands in the answer; the empty path spreads it over the top level.
            run: whose sequence it is.
            summary: the sequence.
            window: what is shown of it.
            moments: whether a search asks; its lists of epochs and timestamps stand in a list each (recorded).
        """
        yield _records(path, {"name": summary.name, "context": summary.context_object, "values": []})
        bucket, positions = Bucket(summary.bucket), window.shown_positions
        uri_of = partial(self._blobs.uri_of, run.run_id, project=run.project)
        steps: list[int] = []
        epochs: list[float | None] = []
        times: list[float] = []
        for step, item in self._items(run, summary, window):
            yield _records((*path, "values", len(steps)), record_value(bucket, item, positions, uri_of))
            steps.append(step)
            epochs.append(item.epoch)
            times.append(item.time_ms / MILLISECONDS_PER_SECOND)
        yield _records(path, {"iters": steps} | ({"epochs": [epochs], "timestamps": [times]} if moments else {}))

    def _items(self, run: RunRef, summary: Summary, window: Window) -> Iterator[tuple[int, Item]]:
        """Yield (step, record) of what is shown, ascending; one that was deleted meanwhile is left out."""
        key = summary.key
        chosen = thin_out(self._steps(run, key, window), window.record_density)
        for begin in range(0, len(chosen), ITEMS_PER_READ):
            part = chosen[begin : begin + ITEMS_PER_READ]
            found = self._kv.read(lambda reader, part=part: items.get_many(reader, run.project, run.number, key, part))  # type: ignore[misc]  # mypy cannot infer a lambda with a default
            for step, item in zip(part, found, strict=True):
                if item is not None:
                    yield step, items.whole(item, self._engine)

    def _steps(self, run: RunRef, key: SequenceKey, window: Window) -> Sequence[int]:
        begin, end = window.shown_steps
        steps = array("q")
        page: StepPage | None = None
        while begin < end and (page is None or page.begin_next is not None):
            page = self._kv.read(
                lambda reader, page=page: items.read_steps(reader, run.project, run.number, key, begin, end, page)  # type: ignore[misc]  # mypy cannot infer a lambda with a default
            )
            steps.extend(page.steps)
        return steps


class ObjectReads:
    """Reads of object sequences that a client names itself; searches find theirs."""

    def __init__(self, *, kv: KvEngine, reader: ObjectReader, numbers_of: NumbersOf) -> None:
        self._kv = kv
        self._reader = reader
        self._numbers_of = numbers_of

    def batch(
        self,
        run_id: RunId,
        bucket: Bucket,
        traces: Sequence[TraceName],
        asked: Asked,
        form: BatchForm,
        *,
        step: int | None = None,
        project: Project = DEFAULT_PROJECT,
    ) -> Iterator[bytes]:
        """Check the request, then stream one flat tree per sequence, in the order asked; unknown ones are left out.

        Args:
            run_id: the run.
            bucket: the kind of all sequences.
            traces: the sequences.
            asked: what to show of them.
            form: names in the answer.
            step: show this step only; a negative one counts from the end of all, -1 is the last step.
            project: whose run it is.

        Raises:
            NotFoundError: no such run.
            InvalidArgumentError: a density is not positive.
        """
        asked.check()
        keys = [SequenceKey(bucket, trace.name, canonical_context(trace.context)) for trace in traces]
        number, summaries = self._kv.read(lambda reader: self._find(reader, project, run_id, keys))
        totals = Totals()
        for summary in summaries:
            totals.add(summary)
        window = totals.window(asked)
        if step is not None:
            window = window.at_step(step)
        ends = _records((), _ranges(bucket, window, form))
        return self._traces(RunRef(project, number, run_id), summaries, window, ends)

    def _find(
        self, reader: KvReader, project: Project, run_id: RunId, keys: Sequence[SequenceKey]
    ) -> tuple[RunNumber, list[Summary]]:
        (number,) = self._numbers_of(reader, project, [run_id])
        if number is None:
            raise NotFoundError("Run not found.")
        found = repository.get_summaries(reader, project, [SequenceRef(number, key) for key in keys])
        return number, [summary for summary in found if summary is not None]

    def _traces(self, run: RunRef, summaries: Sequence[Summary], window: Window, ends: bytes) -> Iterator[bytes]:
        for summary in summaries:
            yield from self._reader.trace((), run, summary, window, moments=False)
            yield ends


def window_ranges(bucket: Bucket, window: Window) -> dict[str, Any]:
    """Return the ranges that a search says of each run."""
    ranges = {"record_range_used": window.records, "record_range_total": window.records_total}
    if bucket in LIST_BUCKETS:
        ranges |= {"index_range_used": window.positions, "index_range_total": window.positions_total}
    return ranges


def _ranges(bucket: Bucket, window: Window, form: BatchForm) -> dict[str, Any]:
    ranges: dict[str, Any] = {"record_range_used": window.records, "record_range_total": window.records_total}
    if bucket in LIST_BUCKETS:
        return ranges | {form.index_range_name: window.positions, "index_range_total": window.positions_total}
    return ranges | ({form.index_range_name: None, "index_range_total": None} if form.null_index_ranges else {})


def _records(path: Path, tree: Any) -> bytes:
    """Return the records of a tree that stands at a path."""
    for key in reversed(path):
        tree = {key: tree}
    return encode_tree_records(tree)
