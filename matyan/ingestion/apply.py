"""Log records -> the store: one slice of a partition in one transaction, together with the applied offset."""

from __future__ import annotations

import contextlib
import logging
import struct
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Final, NamedTuple

import msgspec

from matyan.engines.blob.protocol import BlobEngine
from matyan.engines.kv.protocol import KvEngine, KvTransaction
from matyan.engines.log.protocol import LogRecord, TopicPartition
from matyan.errors import MatyanError, OffsetMovedError, TooLargeError, UnavailableError
from matyan.ids import RunNumber
from matyan.ingestion.batches import Piece, RunGroup, Spoilt, decode_records, group, make_ids, moment_ms, split
from matyan.ingestion.burial import Burial, RunKey, Tombstones, bury, read_tombstones, runs_of, schedule_uploads
from matyan.ingestion.editing import EDITS, RunEditor
from matyan.ingestion.objects import TERMINAL, Prepared, prepare
from matyan.limits import INLINE_BYTES_MAX, SLICE_BYTES_MAX
from matyan.runs import repository as runs
from matyan.runs.model import RunDocument
from matyan.sequences import items, terminal
from matyan.sequences import repository as sequences
from matyan.sequences.model import SequenceKey, Summary
from matyan.sequences.repository import SequenceRef
from matyan.store import deadletters, keyspace, offsets
from matyan.store.deadletters import EXCERPT_BYTES_MAX, DeadLetter
from matyan.store.offsets import Applied
from matyan.wire.frames import encode_commands, tag_of, unpacked_bytes
from matyan.wire.messages import CreateRun, Refusal

logger = logging.getLogger(__name__)

_MILLISECONDS: Final = struct.Struct("<Q")
_FAULTS_OF_DATA: Final = (MatyanError, OverflowError, ValueError, TypeError, msgspec.MsgspecError)
"""What the command itself brings about, and would again."""
_SPILL_BYTES: Final = 8_192
"""When a slice is too large for a transaction, items above this go to blobs before the slice is cut."""


class Outcome(NamedTuple):
    """What `Applier.handle` did."""

    records: int
    commands: int
    dead_letters: int
    dropped_deleted: int
    """Commands of runs that are deleted."""
    received_ms_min: int
    """Arrival of the oldest record applied."""


class _Tally(NamedTuple):
    """Commands that were not applied."""

    dead_letters: int = 0
    dropped: int = 0

    def plus(self, other: _Tally) -> _Tally:
        return _Tally(self.dead_letters + other.dead_letters, self.dropped + other.dropped)


class _TombstonesMovedError(Exception):
    """A run of the slice was deleted, or cleared, since the slice was made ready."""


class _Slice(NamedTuple):
    """What one transaction applies, made ready outside of it."""

    begin: Applied
    end: Applied
    runs: Sequence[RunKey]
    graves: Tombstones
    """Of `runs`, as they were when the slice was made ready."""
    burial: Burial
    groups: Sequence[RunGroup]
    prepared: Sequence[Sequence[Prepared]]
    ids: Mapping[str, str]
    letters: Sequence[DeadLetter]


class Applier:
    """Applies the records of the partitions of one topic. Belongs to one worker thread."""

    def __init__(self, *, kv: KvEngine, log_id: str, blobs: BlobEngine) -> None:
        self._kv = kv
        self._log_id = log_id
        self._blobs = blobs
        self._positions: dict[TopicPartition, Applied] = {}

    def start_offset(self, partition: TopicPartition) -> int | None:
        """Return where to read a newly assigned partition from; None for its start."""
        applied = self._kv.read(lambda reader: offsets.get(reader, self._log_id, partition))
        self._positions[partition] = applied or offsets.START
        return None if applied is None else applied.offset

    def handle(self, partition: TopicPartition, records: Sequence[LogRecord]) -> Outcome:
        """Apply records, in as many transactions as their size asks for. Repeats are harmless.

        Raises:
            OffsetMovedError: the records do not continue what is applied; seek there and poll again.
            UnavailableError: an engine cannot work now; offer the same records again.
        """
        position = self._positions[partition]
        fresh = [record for record in records if record.offset >= position.offset]
        if not fresh:
            return Outcome(0, 0, 0, 0, 0)
        if fresh[0].offset > position.offset and position != offsets.START:
            raise OffsetMovedError(position.offset)
        commands, tally = 0, _Tally()
        for part in _by_size(fresh):
            pieces, spoilt = _skip_done(decode_records(part), self._positions[partition])
            commands += sum(piece.end - piece.begin for piece in pieces)
            tally = tally.plus(self._apply(partition, pieces, spoilt))
        return Outcome(len(fresh), commands, *tally, fresh[0].timestamp_ms)

    def _apply(self, partition: TopicPartition, pieces: Sequence[Piece], spoilt: Sequence[Spoilt]) -> _Tally:
        """Apply pieces; cut them where they are too much for one transaction."""
        try:
            return self._commit(partition, pieces, spoilt, inline_bytes_max=INLINE_BYTES_MAX)
        except (OffsetMovedError, UnavailableError):
            self._reload(partition)
            raise
        except (MemoryError, OSError) as error:
            self._reload(partition)
            raise UnavailableError(f"a slice cannot be applied now: {error!r}") from error
        except Exception as error:  # noqa: BLE001 (whatever one item can do, it costs that item alone)
            return self._apply_in_halves(partition, pieces, spoilt, error)

    def _apply_in_halves(
        self, partition: TopicPartition, pieces: Sequence[Piece], spoilt: Sequence[Spoilt], error: Exception
    ) -> _Tally:
        if isinstance(error, TooLargeError):
            try:
                return self._commit(partition, pieces, spoilt, inline_bytes_max=_SPILL_BYTES)
            except TooLargeError as still:
                error = still
        halves = split(pieces)
        if halves is not None:
            first, second = halves
            last = (first[-1].offset, first[-1].end)
            early = [one for one in spoilt if (one.offset, one.item) < last]
            late = [one for one in spoilt if (one.offset, one.item) >= last]
            return self._apply(partition, first, early).plus(self._apply(partition, second, late))
        return self._give_up(partition, pieces[0], spoilt, error)

    def _give_up(self, partition: TopicPartition, piece: Piece, spoilt: Sequence[Spoilt], error: Exception) -> _Tally:
        """Keep the one command that cannot be applied as a dead letter, and say so in the run's log."""
        if not isinstance(error, _FAULTS_OF_DATA):
            try:  # perhaps the fault was not the command's: nothing is given up at the first try
                return self._commit(partition, [piece], spoilt, inline_bytes_max=INLINE_BYTES_MAX)
            except (OffsetMovedError, UnavailableError, MemoryError, OSError):
                raise
            except Exception as again:  # noqa: BLE001 (see `_apply`)
                error = again
        logger.error("an item cannot be applied", exc_info=error, extra={"run": piece.envelope.run_id})
        commands = list(piece.commands[piece.begin : piece.end])
        reason = f"{type(error).__name__}: {error}"
        payload = encode_commands(commands)
        alone = Spoilt(piece.offset, piece.begin, reason, payload, piece.envelope)
        refusals = piece.envelope.refusals if piece.begin == 0 else ()
        told = Refusal(piece.begin, tag_of(commands[0]), f"{reason}; see `matyan deadletters list`")
        envelope = msgspec.structs.replace(piece.envelope, refusals=(*refusals, told))
        empty = Piece(piece.offset, envelope, (), 0, 0)
        return self._commit(partition, [empty], [*spoilt, alone], inline_bytes_max=INLINE_BYTES_MAX, end=_end_of(piece))

    def _commit(
        self,
        partition: TopicPartition,
        pieces: Sequence[Piece],
        spoilt: Sequence[Spoilt],
        *,
        inline_bytes_max: int,
        end: Applied | None = None,
    ) -> _Tally:
        while True:
            work = self._make_ready(partition, pieces, spoilt, inline_bytes_max=inline_bytes_max, end=end)
            # What the machine loses with its power is still in the log, so the commit need not reach the disk yet.
            with contextlib.suppress(_TombstonesMovedError):
                self._kv.write(partial(self._transact, partition=partition, work=work), durable=False)
                self._positions[partition] = work.end
                return _Tally(len(work.letters), work.burial.dropped)

    def _make_ready(
        self,
        partition: TopicPartition,
        pieces: Sequence[Piece],
        spoilt: Sequence[Spoilt],
        *,
        inline_bytes_max: int,
        end: Applied | None,
    ) -> _Slice:
        """Do what a transaction must not: read ahead, make ids, write blobs (none for a run that is dead)."""
        named = runs_of(pieces)
        graves = self._kv.read(partial(read_tombstones, runs=named))
        burial = bury(pieces, spoilt, self._log_id, graves)
        groups = group(burial.pieces, self._log_id)
        return _Slice(
            begin=self._positions[partition],
            end=end or _end_of(pieces[-1]),
            runs=named,
            graves=graves,
            burial=burial,
            groups=groups,
            prepared=[prepare(found, self._blobs, inline_bytes_max=inline_bytes_max) for found in groups],
            ids=make_ids(groups),
            letters=[self._letter(partition, one) for one in burial.spoilt],
        )

    def _transact(self, tx: KvTransaction, *, partition: TopicPartition, work: _Slice) -> None:
        offsets.advance(tx, self._log_id, partition, expected=work.begin, to=work.end)
        if read_tombstones(tx, work.runs) != work.graves:
            raise _TombstonesMovedError
        schedule_uploads(tx, work.burial)
        for letter in work.letters:
            deadletters.put(tx, letter)
        numbers = _numbers(tx, work.groups)
        for found, prepared, number in zip(work.groups, work.prepared, numbers, strict=True):
            apply_group(tx, found, prepared, number, work.ids)

    def _letter(self, partition: TopicPartition, spoilt: Spoilt) -> DeadLetter:
        """Make a letter; what its excerpt cannot hold goes to a blob, under the same name however often."""
        envelope = spoilt.envelope
        blob_key = None
        if len(spoilt.payload) > EXCERPT_BYTES_MAX:
            place = f"{self._log_id}/{partition.topic}/{partition.partition}/{spoilt.offset}/{spoilt.item}"
            blob_key = f"deadletters/{place}"
            self._blobs.put(blob_key, [spoilt.payload], content_type="application/x-matyan-commands")
        return DeadLetter(
            log_id=self._log_id,
            topic=partition.topic,
            partition=partition.partition,
            offset=spoilt.offset,
            index=spoilt.item,
            project="" if envelope is None else envelope.project,
            run_id="" if envelope is None else envelope.run_id,
            reason=spoilt.reason,
            excerpt=spoilt.payload[:EXCERPT_BYTES_MAX],
            blob_key=blob_key,
            received_ms=0 if envelope is None else envelope.received_ms,
        )

    def _reload(self, partition: TopicPartition) -> None:
        applied = self._kv.read(lambda reader: offsets.get(reader, self._log_id, partition))
        self._positions[partition] = applied or offsets.START


def apply_group(
    tx: KvTransaction,
    found: RunGroup,
    prepared: Sequence[Prepared],
    number: RunNumber | None,
    ids: Mapping[str, str],
) -> None:
    """Apply everything that a slice holds for one run; `number` is None for an unknown one."""
    if number is None or found.events:
        number = _edit(tx, found, number, ids)
    _append_points(tx, found, number)
    if prepared:
        _put_items(tx, found, prepared, number)
    tx.put(keyspace.unsettled_run(found.project, number), _MILLISECONDS.pack(found.received_ms))


def _edit(tx: KvTransaction, found: RunGroup, number: RunNumber | None, ids: Mapping[str, str]) -> RunNumber:
    document = None if number is None else runs.read_documents(tx, found.project, [number])[0]
    editor = RunEditor(tx, found.project, number, document or _fresh_document(found), ids)
    for event in found.events:
        edit = EDITS.get(type(event.command))
        if edit is not None:
            edit(editor, event)
    editor.place_default(found.received_ms)
    editor.save()
    return editor.number


def _fresh_document(found: RunGroup) -> RunDocument:
    """Return the document of a run that is not known yet, opened by `create_run` or implied by any other command."""
    created_ms = next(
        (
            moment_ms(event.command.client_datetime, event.received_ms)
            for event in found.events
            if isinstance(event.command, CreateRun)
        ),
        found.received_ms,
    )
    return RunDocument(
        hash=found.run_id, created_at_seconds=created_ms / 1000, updated_at_seconds=found.received_ms / 1000
    )


def _append_points(tx: KvTransaction, found: RunGroup, number: RunNumber) -> None:
    refs = [SequenceRef(number, key) for key in found.points]
    opened = sequences.open_many(tx, found.project, refs)
    for ref, known, buffer in zip(refs, opened, found.points.values(), strict=True):
        last_step = -1 if known.summary is None else known.summary.last_step
        sequences.append(tx, found.project, ref, known, buffer.points(last_step), dtype=buffer.dtype)


def _put_items(tx: KvTransaction, found: RunGroup, prepared: Sequence[Prepared], number: RunNumber) -> None:
    keys = list(dict.fromkeys(item.key for item in prepared))
    known = sequences.get_summaries(tx, found.project, [SequenceRef(number, key) for key in keys])
    summaries: dict[SequenceKey, Summary | None] = dict(zip(keys, known, strict=True))
    lines = terminal.get(tx, found.project, number) if TERMINAL in summaries else None
    for item in prepared:
        before = summaries[item.key]
        if lines is not None and item.key == TERMINAL:
            step = terminal.place(lines, item.writer, item.step or 0)
        elif item.step is None:
            step = 0 if before is None else before.last_step + 1
        else:
            step = item.step
        items.put(tx, found.project, number, item.key, step, item.encoded)
        summaries[item.key] = items.counted(
            before, item.key, step, dtype=item.dtype, objects=item.objects, time_ms=item.time_ms
        )
    for summary in summaries.values():
        assert summary is not None
        sequences.put_summary(tx, found.project, number, summary)
    if lines is not None:
        terminal.put(tx, found.project, number, lines)


def _numbers(tx: KvTransaction, groups: Sequence[RunGroup]) -> list[RunNumber | None]:
    """Return the run number of each group, in one read per project."""
    found: dict[tuple[str, str], RunNumber | None] = {}
    for project in {one.project for one in groups}:
        run_ids = [one.run_id for one in groups if one.project == project]
        numbers = runs.get_numbers(tx, project, run_ids)
        found |= {(project, run_id): number for run_id, number in zip(run_ids, numbers, strict=True)}
    return [found[one.project, one.run_id] for one in groups]


def _by_size(records: Sequence[LogRecord]) -> Iterator[list[LogRecord]]:
    """Cut records into parts that unpack to about SLICE_BYTES_MAX."""
    part: list[LogRecord] = []
    size = 0
    for record in records:
        unpacked = unpacked_bytes(record.value)
        if part and size + unpacked > SLICE_BYTES_MAX:
            yield part
            part, size = [], 0
        part.append(record)
        size += unpacked
    yield part


def _skip_done(read: tuple[list[Piece], list[Spoilt]], position: Applied) -> tuple[list[Piece], list[Spoilt]]:
    """Leave out the commands of the first record that an earlier transaction applied."""
    pieces, spoilt = read
    if position.items and pieces[0].offset == position.offset:
        pieces[0] = pieces[0]._replace(begin=position.items)
        spoilt = [one for one in spoilt if (one.offset, one.item) >= (position.offset, position.items)]
    return pieces, spoilt


def _end_of(piece: Piece) -> Applied:
    return Applied(piece.offset + 1) if piece.is_last else Applied(piece.offset, piece.end)
