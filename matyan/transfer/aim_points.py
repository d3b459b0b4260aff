"""Points and objects of one run: what is not stored yet, or differs, is written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from matyan.engines.blob.protocol import BlobEngine
from matyan.engines.kv.protocol import KvEngine
from matyan.ids import Project, RunId, RunNumber
from matyan.sequences import chunks, items
from matyan.sequences import repository as sequences
from matyan.sequences.model import Bucket, Columns, Item, Summary
from matyan.sequences.repository import SequenceRef, Whole
from matyan.transfer import aim_objects
from matyan.transfer.aim_objects import Made
from matyan.transfer.aim_runs import AimSequence
from matyan.transfer.aim_source import AimItem, AimRunReader
from matyan.transfer.writing import Batch, RunWriter, stored_item

ITEMS_AT_ONCE: Final = 64
Count = Callable[[int], None]
"""Told of points and objects that have been looked at."""


class PointImport:
    """Brings the sequences of one run here."""

    def __init__(
        self,
        *,
        kv: KvEngine,
        blobs: BlobEngine,
        project: Project,
        run_id: RunId,
        number: RunNumber,
        reader: AimRunReader,
        count: Count,
        batch: Batch,
    ) -> None:
        self._kv = kv
        self._project = project
        self._run_id = run_id
        self._number = number
        self._reader = reader
        self._count = count
        self.writer = RunWriter(kv=kv, blobs=blobs, project=project, run_id=run_id, number=number, batch=batch)

    def bring(self, sequence: AimSequence) -> None:
        """Write what a sequence has and the store has not.

        Raises:
            AimDataError: it cannot be read; what was read of it before may be stored.
            RunGoneError: the run was deleted here meanwhile.
        """
        ref = SequenceRef(self._number, sequence.key)
        (summary,) = self._kv.read(lambda reader: sequences.get_summaries(reader, self._project, [ref]))
        if sequence.key.bucket == Bucket.METRIC:
            self._bring_metric(sequence, summary)
        else:
            self._bring_objects(sequence, summary)

    # ---- metrics

    def _bring_metric(self, sequence: AimSequence, summary: Summary | None) -> None:
        columns = self._reader.columns(sequence)
        if not len(columns):
            return
        if summary is None:
            self.writer.put_metric(whole_metric(sequence, columns))
        else:
            known = summary
            stored = self._kv.read(lambda reader: sequences.read_all(reader, self._project, self._number, known))
            fresh = chunks.take(columns, ~same_rows(columns, stored))
            if len(fresh):
                self.writer.append_points(sequence.key, fresh, dtype=sequence.dtype)
        self._count(len(columns))

    # ---- objects

    def _bring_objects(self, sequence: AimSequence, known: Summary | None) -> None:
        summary: Summary | None = None
        for found in _in_parts(self._reader.items(sequence)):
            made = [aim_objects.make(each, sequence.dtype, self._project, self._run_id) for each in found]
            stored: list[Item | None] = [None] * len(found)
            if known is not None:
                stored = self._stored(sequence, [each.step for each in found])
            for each, this, before in zip(found, made, stored, strict=True):
                time_ms = this.item.time_ms
                summary = items.counted(
                    summary, sequence.key, each.step, dtype=this.dtype, objects=this.objects, time_ms=time_ms
                )
                if before is None or not self._is_stored(before, this.item):
                    self._put(sequence, each.step, this)
            self._count(len(found))
        if summary is None:
            return
        if sequence.first_step is not None:
            summary.first_step = sequence.first_step
        # Counted anew each time: an interrupted import may have left items that the record does not know.
        now = summary if known is None else _widest(known, summary)
        if now != known:
            self.writer.put_summary(now)

    def _put(self, sequence: AimSequence, step: int, made: Made) -> None:
        for blob in made.blobs:
            self.writer.put_blob(*blob)
        self.writer.put_item(sequence.key, step, made.item)

    def _is_stored(self, before: Item, item: Item) -> bool:
        form, _ = stored_item(self._project, self._run_id, item)
        return items.encode(before) == items.encode(form)

    def _stored(self, sequence: AimSequence, steps: list[int]) -> list[Item | None]:
        return self._kv.read(lambda reader: items.get_many(reader, self._project, self._number, sequence.key, steps))


def whole_metric(sequence: AimSequence, columns: Columns) -> Whole:
    """Return a metric as ingestion would have left it: Aim still knows what was tracked first, and the extremes."""
    whole = sequences.encode_whole(sequence.key, columns, dtype=sequence.dtype)
    summary = whole.summary
    if sequence.first_step is not None and sequence.first is not None:
        summary.first_step, summary.first = sequence.first_step, sequence.first
    summary.minimum = _extreme(min, summary.minimum, sequence.minimum)
    summary.maximum = _extreme(max, summary.maximum, sequence.maximum)
    return whole


def same_rows(columns: Columns, stored: Columns) -> NDArray[np.bool_]:
    """Return which rows of `columns` are in `stored`, bit for bit; steps of both rise strictly."""
    if not len(stored):
        return np.zeros(len(columns), np.bool_)
    places = np.minimum(np.searchsorted(stored.steps, columns.steps), len(stored) - 1)
    other = chunks.take(stored, places)
    same: NDArray[np.bool_] = (columns.steps == other.steps) & (columns.times == other.times)
    for mine, theirs in ((columns.values, other.values), (columns.epochs, other.epochs)):
        same &= (mine.view(np.int64) == theirs.view(np.int64)) | (np.isnan(mine) & np.isnan(theirs))
    return same


def _widest(known: Summary, counted: Summary) -> Summary:
    """Return the record of a sequence of objects that covers what is known here and what the source has."""
    return msgspec.structs.replace(
        known,
        dtype=counted.dtype if counted.dtype.startswith("list(") else known.dtype,
        count=max(known.count, counted.count),
        last_step=max(known.last_step, counted.last_step),
        step_min=min(known.step_min, counted.step_min),
        time_first_ms=min(known.time_first_ms, counted.time_first_ms),
        time_last_ms=max(known.time_last_ms, counted.time_last_ms),
        record_length_max=max(known.record_length_max, counted.record_length_max),
    )


def _extreme(choose: Callable[[float, float], float], mine: float | None, theirs: float | None) -> float | None:
    if mine is None or theirs is None:
        return theirs if mine is None else mine
    return choose(mine, theirs)


def _in_parts(found: Iterator[AimItem]) -> Iterator[list[AimItem]]:
    while part := list(islice(found, ITEMS_AT_ONCE)):
        yield part
