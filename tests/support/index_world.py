"""A project that a test changes in every way that there is, and what its runs say should be found in it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np

from matyan.clock import ManualClock
from matyan.engines.blob.protocol import BlobEngine
from matyan.engines.kv.protocol import KvEngine, KvTransaction
from matyan.ids import Project, RunId, RunNumber
from matyan.maintenance.deletion import Deletions
from matyan.maintenance.settle import settle_quiet_runs
from matyan.runs import repository as runs
from matyan.runs import signs
from matyan.runs.changes import RunChanges, RunEdit
from matyan.runs.entries import shape_digest
from matyan.runs.graves import Graves
from matyan.runs.index import Field, Kind
from matyan.runs.model import EditMark, Run
from matyan.sequences import repository as sequences
from matyan.sequences.model import Bucket, Columns, Points, SequenceKey, Summary, canonical_context
from matyan.sequences.repository import SequenceRef
from matyan.transfer.writing import RunWriter
from matyan.wire.codec import decode_tree, encode_tree
from tests.support.store import make_objects, make_run

ABSENT: Final = object()
_STEPS: Final = itertools.count(1)


class IndexWorld:
    """A project in a store, changed through what the product changes it by."""

    def __init__(self, kv: KvEngine, blobs: BlobEngine, project: Project) -> None:
        self.kv = kv
        self.project = project
        self.clock = ManualClock()
        self._blobs = blobs
        self._graves = Graves(kv=kv, blobs=blobs)
        self.changes = RunChanges(kv=kv, graves=self._graves, mark_of=lambda *_: EditMark("log", 7), clock=self.clock)

    # ---- changes

    def create(self, name: str, params: dict[Any, Any], created_at_seconds: float, ended: float | None) -> None:
        """Store a run, unless there is one of this name."""
        if self._number(name) is None:
            make_run(
                self.kv,
                name,
                params=params,
                created_at_seconds=created_at_seconds,
                end_time_seconds=ended,
                project=self.project,
            )

    def set_params(self, name: str, params: dict[Any, Any]) -> None:
        """Replace params, as ingestion does it."""
        self._change(name, params=encode_tree(params))

    def set_system_params(self, name: str, params: dict[Any, Any]) -> None:
        """Replace system params."""
        number = self._number(name)
        if number is None:
            return

        def write(tx: KvTransaction) -> None:
            runs.put_system_params(tx, self.project, number, encode_tree(params))

        self.kv.write(write, durable=False)
        self._change(name, has_system_params=True, system_shape=shape_digest(params))

    def edit(self, run: str, /, **fields: Any) -> None:
        """Change a run as a person does."""
        self.changes.edit_many([RunId(run)], RunEdit(**fields), project=self.project)

    def end(self, name: str, seconds: float | None) -> None:
        """End a run, with or without a time."""
        self._change(name, active=False, end_time_seconds=seconds)

    def tag(self, name: str, tag: str) -> None:
        """Attach a tag."""
        if self._number(name) is not None:
            self.changes.add_tag(RunId(name), tag, project=self.project)

    def track(self, name: str, metric: str, context: dict[str, Any], values: Sequence[float]) -> None:
        """Append points, as ingestion does it."""
        number = self._number(name)
        if number is None:
            return
        ref = SequenceRef(number, SequenceKey(Bucket.METRIC, metric, canonical_context(context)))
        steps = [next(_STEPS) for _ in values]

        def write(tx: KvTransaction) -> None:
            (opened,) = sequences.open_many(tx, self.project, [ref])
            points = Points(steps, list(values), None, [1000] * len(steps))
            sequences.append(tx, self.project, ref, opened, points, dtype="float")
            signs.note_data(tx, self.project, number, 1000)

        self.kv.write(write, durable=False)

    def bring(self, name: str, metric: str, values: Sequence[float]) -> None:
        """Write a whole metric, as the importer does it."""
        number = self._number(name)
        if number is None:
            return
        count = len(values)
        columns = Columns(np.arange(count), np.array(values), np.full(count, math.nan), np.full(count, 1000))
        key = SequenceKey(Bucket.METRIC, metric)
        writer = RunWriter(kv=self.kv, blobs=self._blobs, project=self.project, run_id=RunId(name), number=number)
        writer.put_metric(sequences.encode_whole(key, columns, dtype="float"))
        writer.flush()

    def track_text(self, name: str, sequence: str) -> None:
        """Store a sequence of objects."""
        number = self._number(name)
        if number is not None:
            make_objects(self.kv, number, "text", sequence, [{"data": "x"}], project=self.project)

    def settle(self) -> None:
        """Settle every run."""
        settle_quiet_runs(self.kv, self.project, self.clock, all_runs=True)

    def delete(self, name: str) -> None:
        """Delete a run; what it leaves behind stays until `free`."""
        self.changes.delete(RunId(name), project=self.project)

    def free(self) -> None:
        """Free what deleted runs left behind."""
        Deletions(kv=self.kv, graves=self._graves, clock=self.clock).free_due(self.project, seconds_max=60)

    def _change(self, name: str, **fields: Any) -> None:
        number = self._number(name)
        if number is None:
            return

        def write(tx: KvTransaction) -> None:
            (document,) = runs.read_documents(tx, self.project, [number])
            assert document is not None
            runs.put(tx, self.project, number, msgspec.structs.replace(document, **fields))

        self.kv.write(write, durable=False)

    def _number(self, name: str) -> RunNumber | None:
        return self.kv.read(lambda reader: runs.get_number(reader, self.project, RunId(name)))

    # ---- what is there

    def runs(self) -> dict[int, tuple[Run, list[Summary]]]:
        """Return all runs and their sequences, by number."""

        def read(reader: Any) -> dict[int, tuple[Run, list[Summary]]]:
            numbers = [each.number for each in runs.list_newest(reader, self.project)]
            found = runs.load(reader, self.project, numbers)
            summaries = sequences.list_summaries(reader, self.project, [run.number for run in found])
            return {run.number: (run, each) for run, each in zip(found, summaries, strict=True)}

        return self.kv.read(read)


def values_of(run: Run, summaries: Iterable[Summary], field: Field) -> list[Any]:
    """Return the values that a run has in a field, as a query sees them."""
    reader = _OF_RUNS.get(field.kind)
    if reader is not None:
        return [value for value in reader(run) if value is not None]
    if field.kind is Kind.PARAM:
        return [_param(decode_tree(run.document.params), field.path)]
    return _of_sequences(summaries, field)


def _duration(run: Run) -> float | None:
    ended = run.document.end_time_seconds
    return None if ended is None else ended - run.document.created_at_seconds


_OF_RUNS: Final[Mapping[Kind, Callable[[Run], list[Any]]]] = {
    Kind.HASH: lambda run: [run.document.hash],
    Kind.NAME: lambda run: [run.name],
    Kind.CREATED: lambda run: [run.document.created_at_seconds],
    Kind.ENDED: lambda run: [run.document.end_time_seconds],
    Kind.DURATION: lambda run: [_duration(run)],
    Kind.EXPERIMENT: lambda run: [run.experiment and run.experiment.name],
    Kind.TAG: lambda run: [tag.name for tag in run.tags],
    Kind.ACTIVE: lambda run: [run.document.active],
    Kind.ARCHIVED: lambda run: [run.document.archived],
}


def _known(value: float | None) -> Any:
    return ABSENT if value is None else value


def _param(tree: Any, path: Sequence[str]) -> Any:
    for key in path:
        if not isinstance(tree, dict) or key not in tree:
            return ABSENT
        tree = tree[key]
    return tree


def _of_sequences(summaries: Iterable[Summary], field: Field) -> list[Any]:
    word, name, *context = field.path
    attribute = {Kind.LAST: "last", Kind.MINIMUM: "minimum", Kind.MAXIMUM: "maximum"}.get(field.kind)
    return [
        True if attribute is None else _known(getattr(summary, attribute))
        for summary in summaries
        if Bucket(summary.bucket).word == word and summary.name == name and context in ([], [summary.context])
    ]


def lies_in(value: Any, span: Any) -> bool:
    """Return whether a value lies in a span, by Python's own comparisons."""
    if value is ABSENT or (value is None and (span.low is not None or span.high is not None)):
        return False
    if value is not None and not isinstance(value, bool | int | float | str):
        return False
    bounds = [bound for bound in (span.low, span.high) if bound is not None]
    if any(isinstance(bound, str) != isinstance(value, str) for bound in bounds) or value != value:  # noqa: PLR0124
        return False
    above = span.low is None or (value >= span.low if span.includes_low else value > span.low)
    return above and (span.high is None or (value <= span.high if span.includes_high else value < span.high))
