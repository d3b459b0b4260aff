"""Row by row: what the source has of a run against what is stored here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, Final

import numpy as np

from matyan.catalog import repository as catalog
from matyan.catalog.repository import E, Entities
from matyan.engines.blob.protocol import BlobEngine
from matyan.engines.kv.protocol import KvEngine
from matyan.ids import Project, RunId, RunNumber
from matyan.runs import repository as runs
from matyan.runs.model import Run
from matyan.sequences import items
from matyan.sequences import repository as sequences
from matyan.sequences.model import Bucket, Columns, SequenceKey, Summary
from matyan.transfer import aim_objects
from matyan.transfer.aim_catalog import AimExperiment, AimTag
from matyan.transfer.aim_documents import Names, find_known
from matyan.transfer.aim_objects import Made
from matyan.transfer.aim_points import ITEMS_AT_ONCE, Count, same_rows
from matyan.transfer.aim_runs import AimRun, AimSequence
from matyan.transfer.aim_source import AimItem, AimRunReader
from matyan.wire.codec import encode_tree

DIFFERENCES_MAX: Final = 20
"""Shown of one run."""


class RunCheck:
    """Compares one run."""

    def __init__(
        self,
        *,
        kv: KvEngine,
        blobs: BlobEngine,
        project: Project,
        run_id: RunId,
        reader: AimRunReader,
        names: Names,
        count: Count,
    ) -> None:
        self._kv = kv
        self._blobs = blobs
        self._project = project
        self._run_id = run_id
        self._reader = reader
        self._names = names
        self._count = count

    def differences(self, written: frozenset[str]) -> Iterator[str]:
        """Yield what differs, as sentences without the run's name; nothing when all is equal.

        Args:
            written: fields of the run's document that were just taken from the source: of name, tags, end, ... only
                these are compared, as the others may have been edited here.

        Raises:
            AimDataError: the source cannot be read.
        """
        run = self._kv.read(lambda reader: runs.find(reader, self._project, self._run_id, system_params=True))
        if run is None:
            yield "it is not here"
            return
        yield from self._reader.run.losses
        yield from _said_differences(self._reader.run, run)
        yield from self._field_differences(run, written)
        summaries = self._summaries(run.number)
        for sequence in self._reader.run.sequences:
            compare = self._metric if sequence.key.bucket == Bucket.METRIC else self._objects
            for text in compare(sequence, run.number, summaries.get(sequence.key)):
                yield f"{_title(sequence.key)}: {text}"
        for key in summaries.keys() - {sequence.key for sequence in self._reader.run.sequences}:
            yield f"{_title(key)}: not in the source"

    def _summaries(self, number: RunNumber) -> dict[SequenceKey, Summary]:
        (found,) = self._kv.read(lambda reader: sequences.list_summaries(reader, self._project, [number]))
        return {summary.key: summary for summary in found}

    def _field_differences(self, run: Run, written: frozenset[str]) -> Iterator[str]:
        source, document = self._reader.run, run.document
        row, end = source.row, source.end_time_seconds
        pairs: dict[str, tuple[str, Any, Any]] = {
            "name": ("name", document.name, row.name),
            "description": ("description", document.description, row.description),
            "archived": ("archived", document.archived, row.archived),
            "created_at_seconds": ("creation time", document.created_at_seconds, source.created_at_seconds),
            "end_time_seconds": ("end time", document.end_time_seconds, end),
            "active": ("active", document.active, end is None),
        }
        for field in sorted(written & pairs.keys()):
            what, here, there = pairs[field]
            if here != there:
                yield _unequal(what, here, there)
        if "experiment_id" in written and row.experiment is not None:
            yield from self._experiment_differences(run, row.experiment)
        if "tag_ids" in written:
            yield from self._tag_differences(run, row.tags)

    def _experiment_differences(self, run: Run, name: str) -> Iterator[str]:
        # By its id: the experiment may have another name here.
        wanted = self._known(catalog.experiments, [self._names.experiments[name]])
        if [run.document.experiment_id] != wanted:
            yield _unequal("experiment", run.experiment and run.experiment.name, name)

    def _tag_differences(self, run: Run, names: Sequence[str]) -> Iterator[str]:
        wanted = self._known(catalog.tags, [self._names.tags[name] for name in names])
        if list(run.document.tag_ids) != wanted:
            yield _unequal("tags", [tag.name for tag in run.tags], list(names))

    def _known(self, entities: Entities[E], sources: Sequence[AimExperiment | AimTag]) -> list[str]:
        """Return the ids that experiments or tags of the source have here, each once."""
        found = self._kv.read(lambda reader: [find_known(reader, self._project, entities, each) for each in sources])
        return list(dict.fromkeys(each.id for each in found if each is not None))

    def _metric(self, sequence: AimSequence, number: RunNumber, summary: Summary | None) -> Iterator[str]:
        columns = self._reader.columns(sequence)
        self._count(len(columns))
        yield from self._losses(sequence, int(columns.steps[-1]) if len(columns) else None)
        if summary is None:
            if len(columns):
                yield f"{len(columns)} points in the source, none here"
            return
        stored = self._kv.read(lambda reader: sequences.read_all(reader, self._project, number, summary))
        if len(stored) != len(columns):
            yield f"{len(columns)} points in the source, {len(stored)} here"
        different = ~same_rows(columns, stored)
        if different.any():
            row = int(np.flatnonzero(different)[0])
            yield f"{int(different.sum())} points differ, the first {_point(columns, row)}"
        if len(columns) and not _same(summary.last, float(columns.values[-1])):
            yield f"last is {summary.last} here, {columns.values[-1]} in the source"

    def _objects(self, sequence: AimSequence, number: RunNumber, summary: Summary | None) -> Iterator[str]:
        total, last_step = 0, None
        source = self._reader.items(sequence)
        while found := list(islice(source, ITEMS_AT_ONCE)):
            total += len(found)
            steps = [each.step for each in found]
            last_step = max(steps if last_step is None else [last_step, *steps])
            self._count(len(found))
            yield from self._different_items(sequence, number, found)
        yield from self._losses(sequence, last_step)
        count = 0 if summary is None else summary.count
        if count != total:
            yield f"{total} steps in the source, {count} here"

    def _losses(self, sequence: AimSequence, last_step: int | None) -> Iterator[str]:
        """Tell of points that the source itself has lost: a damaged write-ahead log is read up to the damage only."""
        noted = sequence.last_step
        is_finished = self._reader.run.end_time_seconds is not None  # else it may write the very next point now
        if is_finished and noted is not None and (last_step is None or last_step < noted):
            there = "there are none" if last_step is None else f"they end at step {last_step}"
            yield f"the source is damaged: it noted points up to step {noted}, and {there}"

    def _different_items(self, sequence: AimSequence, number: RunNumber, found: list[AimItem]) -> Iterator[str]:
        steps = [each.step for each in found]
        stored = self._kv.read(lambda reader: items.get_many(reader, self._project, number, sequence.key, steps))
        for each, item in zip(found, stored, strict=True):
            made = aim_objects.make(each, sequence.dtype, self._project, self._run_id)
            if item is None:
                yield f"step {each.step} is not here"
            elif items.encode(items.whole(item, self._blobs)) != items.encode(made.item):
                yield f"step {each.step} differs"
            else:
                yield from self._different_blobs(each.step, made)

    def _different_blobs(self, step: int, made: Made) -> Iterator[str]:
        for blob in made.blobs:
            if self._blobs.get(blob.key) != blob.content:
                yield f"step {step} differs in its bytes"


def _said_differences(source: AimRun, run: Run) -> Iterator[str]:
    """Yield what differs of the things that only the program says."""
    params = dict(source.params)
    if source.system_params is not None:
        params["__system_params"] = source.system_params
    if encode_tree(_sorted(params)) != encode_tree(_sorted(run.params)):
        yield "params differ"
    stored = {each.path: (each.uri, each.origin) for each in run.document.artifacts}
    there = {each.path: (each.uri, each.origin) for each in source.artifacts}
    here = {path: stored.get(path) for path in there}
    if here != there:
        yield _unequal("artifacts", here, there)


def _unequal(what: str, here: object, there: object) -> str:
    return f"{what}: {there!r} in the source, {here!r} here"


def _sorted(tree: Any) -> Any:
    """Return a tree with dicts in one order: equal trees have equal bytes, NaN included."""
    if isinstance(tree, dict):
        return {key: _sorted(tree[key]) for key in sorted(tree, key=lambda key: (str(type(key)), key))}
    return [_sorted(item) for item in tree] if isinstance(tree, list | tuple) else tree


def _title(key: SequenceKey) -> str:
    return f"{key.bucket.word} {key.name!r} {key.context}"


def _point(columns: Columns, row: int) -> str:
    steps, values, epochs, times = columns
    return f"at step {steps[row]}: value {values[row]}, epoch {epochs[row]}, time {times[row]} ms in the source"


def _same(here: float | None, there: float) -> bool:
    return here is not None and (here == there or (here != here and there != there))  # noqa: PLR0124 (NaN)
