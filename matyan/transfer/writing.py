"""The bulk writer: data of a run straight into the store, in transactions of bounded size.

What arrives whole needs no log: the source is the record from which an interrupted import goes on. So points are
compressed once, and nothing waits for the disk before the end (ADR 0012).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, NamedTuple

import numpy as np

from matyan.blobs.service import blob_key
from matyan.engines.blob.protocol import BlobEngine
from matyan.engines.kv.protocol import KvEngine, KvTransaction
from matyan.errors import MatyanError, UnavailableError
from matyan.ids import Project, RunId, RunNumber
from matyan.limits import CHUNK_POINTS_MAX, INLINE_BYTES_MAX
from matyan.runs import repository as runs
from matyan.runs import signs
from matyan.sequences import chunks, items, terminal
from matyan.sequences import repository as sequences
from matyan.sequences.model import Bucket, Columns, Item, Points, SequenceKey, Summary
from matyan.sequences.repository import SequenceRef, Whole

Change = Callable[[KvTransaction], None]
BATCH_BYTES: Final = 1_000_000
"""About what one transaction holds, as for workers."""
_KEY_BYTES: Final = 100


class RunGoneError(MatyanError):
    """The run was deleted while it was being written."""

    code = "conflict"


class _Waiting(NamedTuple):
    """A change to a run that waits to be applied."""

    run_id: RunId
    number: RunNumber
    change: Change


class Batch:
    """Changes to runs, applied in order, those of many small runs in one transaction: each commit waits for the disk.

    What is wrong with one run costs no other: `check` tells whose changes could not be applied.
    """

    def __init__(self, kv: KvEngine, project: Project) -> None:
        self._kv = kv
        self._project = project
        self._waiting: list[_Waiting] = []
        self._bytes = 0
        self._errors: dict[RunNumber, Exception] = {}

    def add(self, run_id: RunId, number: RunNumber, change: Change, size_bytes: int) -> None:
        """Apply `change` after those before it; it may run more than once.

        Raises:
            UnavailableError: the store cannot work now.
            RunGoneError: as for `check`, of the changes before it; then this one is not applied.
        """
        if self._bytes + size_bytes > BATCH_BYTES:
            self.flush()
        self.check(number)
        self._waiting.append(_Waiting(run_id, number, change))
        self._bytes += size_bytes

    def flush(self) -> None:
        """Apply every change that waits; it survives the end of the process, and of the machine when the store synced.

        Raises:
            UnavailableError: the store cannot work now.
        """
        waiting, self._waiting, self._bytes = self._waiting, [], 0
        if not waiting:
            return
        try:
            self._write(waiting)
        except UnavailableError:
            raise
        except Exception:  # noqa: BLE001 - whatever it is, it is looked for run by run
            self._write_apart(waiting)

    def check(self, number: RunNumber) -> None:
        """Raise what kept changes to this run from being applied, if anything did.

        Raises:
            RunGoneError: the run was deleted meanwhile. Or what a change raised.
        """
        error = self._errors.get(number)
        if error is not None:
            raise error

    def _write_apart(self, waiting: Sequence[_Waiting]) -> None:
        for number in dict.fromkeys(each.number for each in waiting):
            try:
                self._write([each for each in waiting if each.number == number])
            except UnavailableError:
                raise
            except Exception as error:  # noqa: BLE001 - told to whoever checks
                self._errors[number] = error

    def _write(self, waiting: Sequence[_Waiting]) -> None:
        for run_id, number in self._kv.write(partial(self._apply, waiting), durable=False):
            self._errors[number] = RunGoneError(f"the run {run_id} was deleted here meanwhile")

    def _apply(self, waiting: Sequence[_Waiting], tx: KvTransaction) -> Sequence[tuple[RunId, RunNumber]]:
        """Return the runs that are gone: a deletion frees what it finds, so nothing is written behind its back."""
        owners = dict.fromkeys((each.run_id, each.number) for each in waiting)
        found = runs.get_numbers(tx, self._project, [run_id for run_id, _ in owners])
        gone = [owner for owner, now in zip(owners, found, strict=True) if now != owner[1]]
        lost = {number for _, number in gone}
        for each in waiting:
            if each.number not in lost:
                each.change(tx)
        return gone


class RunWriter:
    """Writes to one run. Changes are applied in order, many in one transaction; `flush` applies what is left."""

    def __init__(
        self,
        *,
        kv: KvEngine,
        blobs: BlobEngine,
        project: Project,
        run_id: RunId,
        number: RunNumber,
        batch: Batch | None = None,
    ) -> None:
        """Make it.

        Args:
            batch: shared with the writers of other runs, so that small runs share transactions too.
        """
        self._batch = batch or Batch(kv, project)
        self._blobs = blobs
        self._project = project
        self._run_id = run_id
        self._number = number

    def add(self, change: Change, size_bytes: int) -> None:
        """Apply `change` after those before it; it may run more than once.

        Raises:
            RunGoneError: the run is not there any more; nothing more is written. Or what an earlier change raised.
        """
        self._batch.add(self._run_id, self._number, change, size_bytes)

    def flush(self) -> None:
        """Apply every change that waits; it survives the end of the process, and of the machine when the store synced.

        Raises:
            RunGoneError: as for `add`.
        """
        self._batch.flush()
        self._batch.check(self._number)

    # ---- metrics

    def put_metric(self, whole: Whole) -> None:
        """Store a metric that was not there; readers see it when all of it is stored."""
        ref = SequenceRef(self._number, whole.summary.key)
        for number, block in whole.blocks:
            self.add(partial(_put_block, self._project, ref, number, block), len(block) + _KEY_BYTES)
        self.put_summary(whole.summary, is_settled=True)

    def append_points(self, key: SequenceKey, columns: Columns, *, dtype: str) -> None:
        """Add points to a metric that is there; of a step that it has already these are true."""
        ref = SequenceRef(self._number, key)
        for part in chunks.cut(columns, CHUNK_POINTS_MAX):
            # A full chunk, the preview and the small blocks that are merged with it: twice the points at most.
            self.add(partial(_append, self._project, ref, part, dtype), 4 * sum(column.nbytes for column in part))

    # ---- objects

    def put_item(self, key: SequenceKey, step: int, item: Item) -> None:
        """Store one step of a sequence of objects, a line or a record; a large one goes to the object store."""
        stored, encoded = stored_item(self._project, self._run_id, item)
        if stored.blob_key is not None:
            self.put_blob(stored.blob_key, encoded, "application/x-matyan-item")
            encoded = items.encode(stored)
        self.add(lambda tx: items.put(tx, self._project, self._number, key, step, encoded), len(encoded) + _KEY_BYTES)

    def put_summary(self, summary: Summary, *, is_settled: bool = False) -> None:
        """Store the record of a sequence; `is_settled` says that nothing of it waits to be settled."""
        size = len(summary.name) + len(summary.context) + 2 * _KEY_BYTES
        put = partial(sequences.put_summary, project=self._project, number=self._number, summary=summary)
        self.add(partial(put, is_settled=is_settled), size)
        if summary.bucket == Bucket.LOGS:
            self.add(lambda tx: _continue_lines(tx, self._project, self._number, summary.last_step + 1), _KEY_BYTES)

    def put_blob(self, key: str, content: bytes, content_type: str) -> None:
        """Store bytes of the run in the object store, at once.

        Raises:
            RunGoneError: as for `add`.
        """
        self._batch.check(self._number)
        self._blobs.put(key, [content], content_type=content_type)


def stored_item(project: Project, run_id: RunId, item: Item) -> tuple[Item, bytes]:
    """Return the form in which an item is stored, and the whole item encoded; a large one only names its blob."""
    encoded = items.encode(item)
    if len(encoded) <= INLINE_BYTES_MAX:
        return item, encoded
    return items.spilled(item, encoded, blob_key(project, run_id, "")), encoded


def _put_block(project: Project, ref: SequenceRef, number: int, block: bytes, tx: KvTransaction) -> None:
    sequences.put_block(tx, project, ref, number, block)


def _append(project: Project, ref: SequenceRef, columns: Columns, dtype: str, tx: KvTransaction) -> None:
    (opened,) = sequences.open_many(tx, project, [ref])
    epochs = None if bool(np.isnan(columns.epochs).all()) else columns.epochs.tolist()
    points = Points(columns.steps.tolist(), columns.values.tolist(), epochs, columns.times.tolist())
    sequences.append(tx, project, ref, opened, points, dtype=dtype)
    # As behind ingestion, the periodic job stores the sequence compactly when it has fallen quiet.
    signs.note_data(tx, project, ref.number, max(0, int(columns.times.max())))


def _continue_lines(tx: KvTransaction, project: Project, number: RunNumber, line_next: int) -> None:
    """Let what the run may still print here follow the lines imported."""
    state = terminal.get(tx, project, number)
    state.line_next = max(state.line_next, line_next)
    terminal.put(tx, project, number, state)
