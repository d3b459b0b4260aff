"""Log records -> the store: one slice of a partition in one transaction, together with the applied offset."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Final, NamedTuple

import msgspec

from matyan.clock import Clock, SystemClock
from matyan.engines.blob.protocol import BlobEngine
from matyan.engines.kv.protocol import KvEngine, KvReader, KvTransaction
from matyan.engines.log.protocol import LogRecord, TopicPartition
from matyan.errors import OffsetMovedError, TooLargeError, TooSlowError, UnavailableError
from matyan.ingestion.batches import (
    FAULTS_OF_DATA,
    Piece,
    RunGroup,
    Spoilt,
    decode_records,
    group,
    make_ids,
    split,
)
from matyan.ingestion.burial import Burial, RunKey, Tombstones, bury, note_burial, read_tombstones, runs_of
from matyan.ingestion.groups import apply_groups
from matyan.ingestion.handover import Handover
from matyan.ingestion.letters import Waiting, leave_out_repeats, make_letter, read_waiting, settled
from matyan.ingestion.measures import Attempt, IngestMeasures
from matyan.ingestion.objects import Prepared, prepare
from matyan.ingestion.repeats import Repeats
from matyan.limits import INLINE_BYTES_MAX, SLICE_BYTES_MAX
from matyan.observe.metrics import Metrics
from matyan.store import deadletters, gateways, offsets
from matyan.store.deadletters import DeadLetter
from matyan.store.gateways import Numbers
from matyan.store.offsets import Applied
from matyan.wire.frames import encode_commands, tag_of, unpacked_bytes
from matyan.wire.messages import Origin, Refusal

logger = logging.getLogger(__name__)

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


class _StaleSliceError(Exception):
    """A run of the slice was deleted or cleared, or a letter of it dropped, since the slice was made ready."""


class _ReadAhead(NamedTuple):
    """What a slice is made ready for."""

    graves: Tombstones
    waiting: Waiting
    """The letters it brings again."""


class _Slice(NamedTuple):
    """What one transaction applies, made ready outside of it."""

    begin: Applied
    end: Applied
    runs: Sequence[RunKey]
    pieces: Sequence[Piece]
    ahead: _ReadAhead
    """Of `runs` and `pieces`, as they were when the slice was made ready."""
    burial: Burial
    groups: Sequence[RunGroup]
    prepared: Sequence[Sequence[Prepared]]
    ids: Mapping[str, str]
    letters: Sequence[DeadLetter]
    settled: Sequence[Origin]
    """Letters that came again and are done with."""
    numbers: Mapping[str, Numbers]
    """What is applied of its gateways' records when it is."""

    def useless_blobs(self) -> list[str]:
        """Return the blobs of letters that are no more."""
        kept = {letter.blob_key for letter in self.letters}
        gone = (self.ahead.waiting[origin].blob_key for origin in self.settled)
        return [key for key in gone if key is not None and key not in kept]


class Applier:
    """Applies the records of the partitions of one topic. Belongs to one worker thread."""

    def __init__(
        self,
        *,
        kv: KvEngine,
        log_id: str,
        blobs: BlobEngine,
        measures: IngestMeasures | None = None,
        clock: Clock | None = None,
        handover: Handover | None = None,
    ) -> None:
        """Make it.

        Args:
            kv: the store.
            log_id: of the log that the records come from.
            blobs: takes what is too large for the store.
            measures: count what is done.
            clock: for times of dead letters.
            handover: of a gateway in this process, which has decoded the newest frames already.
        """
        self._kv = kv
        self._log_id = log_id
        self._blobs = blobs
        self._clock = clock or SystemClock()
        self._measures = measures or IngestMeasures(Metrics())
        self._positions: dict[TopicPartition, Applied] = {}
        self._repeats = Repeats(kv=kv, log_id=log_id)
        self._handover = handover or Handover()
        self._handover.join()

    def start_offset(self, partition: TopicPartition) -> int | None:
        """Return where to read a newly assigned partition from; None for its start."""
        applied = self._reload(partition)
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
        if fresh[0].offset > position.offset:
            raise OffsetMovedError(position.offset)
        repeated, commands, tally = 0, 0, _Tally()
        for part in _by_size(fresh):
            read = _skip_done(decode_records(part, self._handover), self._positions[partition])
            pieces, spoilt, again = self._repeats.leave_out(partition, *read)
            repeated += again
            commands += self._measures.consumed(pieces, spoilt)
            tally = tally.plus(self._apply(partition, pieces, spoilt))
        return Outcome(len(fresh) - repeated, commands, *tally, fresh[0].timestamp_ms)

    def _apply(self, partition: TopicPartition, pieces: Sequence[Piece], spoilt: Sequence[Spoilt]) -> _Tally:
        """Apply pieces; what stops that for now is told as what it is, and everything remembered is asked for again."""
        try:
            return self._apply_cut(partition, pieces, spoilt)
        except (OffsetMovedError, UnavailableError) as error:
            self._measures.failed(error)
            self._reload(partition)
            raise
        except (MemoryError, OSError) as error:
            self._measures.failed(error)
            self._reload(partition)
            raise UnavailableError(f"a slice cannot be applied now: {error!r}") from error

    def _apply_cut(self, partition: TopicPartition, pieces: Sequence[Piece], spoilt: Sequence[Spoilt]) -> _Tally:
        """Apply pieces; cut them where they are too much for one transaction, in bytes or in seconds."""
        try:
            return self._commit(partition, pieces, spoilt, inline_bytes_max=INLINE_BYTES_MAX)
        except TooSlowError as error:
            return self._apply_in_halves(partition, pieces, spoilt, error)
        except (OffsetMovedError, UnavailableError, MemoryError, OSError):
            raise
        except Exception as error:  # noqa: BLE001 (whatever one item can do, it costs that item alone)
            return self._apply_in_halves(partition, pieces, spoilt, error)

    def _apply_in_halves(
        self, partition: TopicPartition, pieces: Sequence[Piece], spoilt: Sequence[Spoilt], error: Exception
    ) -> _Tally:
        if isinstance(error, TooLargeError):
            try:
                return self._commit(partition, pieces, spoilt, inline_bytes_max=_SPILL_BYTES)
            except (TooLargeError, TooSlowError) as still:
                self._measures.failed(still)
                error = still
        halves = split(pieces)
        if halves is not None:
            first, second = halves
            last = (first[-1].offset, first[-1].end)
            early = [one for one in spoilt if (one.offset, one.item) < last]
            late = [one for one in spoilt if (one.offset, one.item) >= last]
            if isinstance(error, TooSlowError):
                logger.warning("a slice is cut, as it takes too long", extra={"partition": partition.partition})
            return self._apply_cut(partition, first, early).plus(self._apply_cut(partition, second, late))
        if isinstance(error, TooSlowError):
            raise error  # the store is slow, not the item at fault
        return self._give_up(partition, pieces[0], spoilt, error)

    def _give_up(self, partition: TopicPartition, piece: Piece, spoilt: Sequence[Spoilt], error: Exception) -> _Tally:
        """Keep the one command that cannot be applied as a dead letter, and say so in the run's log."""
        if not isinstance(error, FAULTS_OF_DATA):
            try:  # perhaps the fault was not the command's: nothing is given up at the first try
                return self._commit(partition, [piece], spoilt, inline_bytes_max=INLINE_BYTES_MAX)
            except (OffsetMovedError, UnavailableError, MemoryError, OSError):
                raise
            except Exception as again:  # noqa: BLE001 (see `_apply`)
                error = again
        self._measures.failed(error)
        logger.error("an item cannot be applied", exc_info=error, extra={"run": piece.envelope.run_id})
        commands = list(piece.own_commands)
        if not commands:  # a sign of life, or refusals that the client has been told of: nothing to keep
            return self._commit(partition, [], spoilt, inline_bytes_max=INLINE_BYTES_MAX, end=_end_of(piece))
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
            with contextlib.suppress(_StaleSliceError):
                with self._measures.transaction(work.groups) as attempt:
                    transact = partial(self._transact, partition=partition, work=work, attempt=attempt)
                    self._kv.write(transact, durable=False)
                self._positions[partition] = work.end
                self._repeats.remember(partition, work.numbers)
                self._delete(work.useless_blobs())
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
        end = end or _end_of(pieces[-1])
        named = runs_of(pieces)
        ahead = self._kv.read(partial(_read_ahead, runs=named, pieces=pieces))
        left, spoilt = leave_out_repeats(pieces, spoilt, ahead.waiting)
        burial = bury(left, spoilt, self._log_id, ahead.graves)
        groups = group(burial.pieces, self._log_id)
        now_ms = int(self._clock.now_seconds() * 1000)
        letter = partial(
            make_letter,
            partition=partition,
            log_id=self._log_id,
            waiting=ahead.waiting,
            blobs=self._blobs,
            now_ms=now_ms,
        )
        return _Slice(
            begin=self._positions[partition],
            end=end,
            runs=named,
            pieces=pieces,
            ahead=ahead,
            burial=burial,
            groups=groups,
            prepared=[prepare(found, self._blobs, inline_bytes_max=inline_bytes_max) for found in groups],
            ids=make_ids(groups),
            letters=[letter(one) for one in burial.spoilt],
            settled=settled(left, end),
            numbers=self._repeats.applied_by(partition, pieces, end, now_ms),
        )

    def _transact(self, tx: KvTransaction, *, partition: TopicPartition, work: _Slice, attempt: Attempt) -> None:
        attempt.begin()
        offsets.advance(tx, self._log_id, partition, expected=work.begin, to=work.end)
        if _read_ahead(tx, work.runs, work.pieces) != work.ahead:
            raise _StaleSliceError
        gateways.put(tx, self._log_id, partition, work.numbers)
        note_burial(tx, work.burial)
        for origin in work.settled:
            deadletters.clear(tx, origin)
        for letter in work.letters:
            deadletters.put(tx, letter)
        apply_groups(tx, work.groups, work.prepared, work.ids)
        attempt.written_bytes = tx.written_bytes

    def _delete(self, blobs: Sequence[str]) -> None:
        for key in blobs:
            with contextlib.suppress(UnavailableError):  # found by the sweep of blobs that nothing refers to
                self._blobs.delete(key)

    def _reload(self, partition: TopicPartition) -> Applied | None:
        """Ask the store how far a partition is applied, and believe nothing else of it any more."""
        self._repeats.forget(partition)
        applied = self._kv.read(lambda reader: offsets.get(reader, self._log_id, partition))
        self._positions[partition] = applied or offsets.START
        return applied


def _read_ahead(reader: KvReader, runs: Sequence[RunKey], pieces: Sequence[Piece]) -> _ReadAhead:
    return _ReadAhead(read_tombstones(reader, runs), read_waiting(reader, pieces))


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
