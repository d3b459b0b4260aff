"""One partition of the embedded log: its segment files, what of them is durable, and its newest records in memory."""

from __future__ import annotations

import logging
import os
import threading
from bisect import bisect_right
from pathlib import Path
from typing import Final, NamedTuple

from matyan.engines.disk import Disk, make_directory, unavailable
from matyan.engines.log.protocol import LogRecord
from matyan.engines.log.recovery import Segment, create_segment, list_segments, recover_segment
from matyan.engines.log.segments import crc_seed, damage, encode_record, read_frames
from matyan.engines.log.tail import Tail
from matyan.errors import CorruptedError

logger = logging.getLogger(__name__)

ROLL_BYTES_MIN: Final = 4 * 1024 * 1024
ROLL_AGE_SECONDS: Final = 3600.0
"""An active segment that nobody needs any more is closed, so that it can be deleted, from this size or age on."""
READ_AHEAD_BYTES: Final = 4 * 1024 * 1024


class PartitionSettings(NamedTuple):
    """What all partitions of a log share."""

    disk: Disk
    log_id: bytes
    segment_bytes: int
    tail_bytes_max: int


class Batch:
    """The records of one partition that become durable together."""

    def __init__(self, next_offset: int, timestamp_ms: int, seed: int) -> None:
        self.records: list[LogRecord] = []
        self.pieces: list[bytes] = []
        self._next_offset = next_offset
        self._timestamp_ms = timestamp_ms
        self._seed = seed

    def add(self, key: bytes, value: bytes) -> int:
        """Add a record; return its offset."""
        place = len(self.records)
        record = LogRecord(self._next_offset + place, self._timestamp_ms, key, value)
        self.records.append(record)
        self.pieces += encode_record(record, place, self._seed)
        return record.offset


class Partition:
    """Written by one thread at a time (the log's files lock), read by any.

    A batch goes through `write`, `sync` and `publish`, or, after an error in the first two, `roll_back`. Readers see
    what was published and nothing else.
    """

    def __init__(self, directory: Path, settings: PartitionSettings) -> None:
        self._directory = directory
        self._settings = settings
        self._disk = settings.disk
        self._seed = crc_seed(settings.log_id)
        self._lock = threading.Lock()
        make_directory(self._disk, directory)
        self._segments = self._open_segments()
        self._end_offset = self._active.base_offset
        self._tail = Tail(next_offset=self._end_offset, bytes_max=settings.tail_bytes_max)
        for records in recover_segment(self._active, settings.log_id, self._disk):
            self._tail.extend(records)
            self._end_offset += len(records)
        # A killed process may have left names that are not durable yet.
        self._disk.sync_directory(directory)
        self._disk.sync_directory(directory.parent)
        self._fd = os.open(self._active.path, os.O_RDWR)
        self._suspect = False

    @property
    def start_offset(self) -> int:
        """The offset of the oldest record kept."""
        return self._segments[0].base_offset

    @property
    def end_offset(self) -> int:
        """The offset that the next durable record will get."""
        return self._end_offset

    @property
    def directory(self) -> Path:
        """Where the segments lie."""
        return self._directory

    def begin(self, timestamp_ms: int) -> Batch:
        """Return an empty batch that continues the partition."""
        return Batch(self._end_offset, timestamp_ms, self._seed)

    # ---- the writer's side

    def write(self, batch: Batch) -> None:
        """Hand the batch to the operating system.

        Raises:
            OSError: call `roll_back`.
        """
        if self._suspect:
            self._restore()
        if self._active.size_bytes >= self._settings.segment_bytes:
            self._roll()
        self._disk.write(self._fd, b"".join(batch.pieces), self._active.size_bytes)

    def sync(self) -> None:
        """Make what was written durable.

        Raises:
            OSError: call `roll_back`.
        """
        self._disk.sync(self._fd)

    def publish(self, batch: Batch) -> None:
        """Show a durable batch to readers."""
        active = self._active
        with self._lock:
            active.note(batch.records[0])
            active.size_bytes += sum(map(len, batch.pieces))
            self._tail.extend(batch.records)
            self._end_offset += len(batch.records)

    def roll_back(self) -> None:
        """Take back what was written and not published, durably; if even that fails, before the next write."""
        self._suspect = True
        try:
            self._restore()
        except OSError:
            logger.exception("log segment cannot be restored yet", extra={"path": str(self._active.path)})

    def _restore(self) -> None:
        # After a failed fsync the kernel marks the pages clean and forgets the error, so a second fsync would lie
        # (https://wiki.postgresql.org/wiki/Fsync_Errors). Nothing of them is trusted: the file is opened again and cut
        # back to what an earlier sync confirmed; the cut also rewrites the last page that both share.
        self._release()
        self._fd = os.open(self._active.path, os.O_RDWR)
        self._disk.truncate(self._fd, self._active.size_bytes)
        self._disk.sync(self._fd)
        self._suspect = False

    def _roll(self) -> None:
        fresh = create_segment(self._directory, self._end_offset, self._settings.log_id, self._disk)
        fd = os.open(fresh.path, os.O_RDWR)
        os.close(self._fd)
        self._fd = fd
        with self._lock:
            self._segments = [*self._segments, fresh]

    def trim(self, before_offset: int, now_seconds: float) -> int:
        """Delete whole segments below `before_offset`; return the bytes freed."""
        if self._is_worth_rolling(before_offset, now_seconds):
            self._roll()
        with self._lock:
            # A segment ends where the next one begins; the active one has no next and stays.
            bases = [segment.base_offset for segment in self._segments[1:]]
            doomed = self._segments[: bisect_right(bases, before_offset)]
            self._segments = self._segments[len(doomed) :]
        for segment in doomed:  # the oldest first: what a crash leaves is still without a gap
            segment.path.unlink(missing_ok=True)
        if doomed:
            self._disk.sync_directory(self._directory)
        return sum(segment.size_bytes for segment in doomed)

    def _is_worth_rolling(self, before_offset: int, now_seconds: float) -> bool:
        active = self._active
        if self._suspect or before_offset < self._end_offset or self._end_offset == active.base_offset:
            return False
        is_large = active.size_bytes >= min(ROLL_BYTES_MIN, self._settings.segment_bytes)
        return is_large or now_seconds - active.since_ms / 1000 >= ROLL_AGE_SECONDS

    def close(self) -> None:
        """Take back what was refused and is still in the file, if the disk lets us; release the file."""
        if self._suspect:
            self.roll_back()
        self._release()

    def _release(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    # ---- the readers' side

    def read(self, offset: int, records_max: int) -> list[LogRecord]:
        """Return records from `offset` on; more than asked when they come from a file and are there anyway.

        Raises:
            CorruptedError: the records were deleted, or the file is damaged.
        """
        with self._lock:
            self._check_kept(offset)
            recent = self._tail.read(offset, records_max)
            if recent is not None:
                return recent
            bases = [segment.base_offset for segment in self._segments]
            segment = self._segments[bisect_right(bases, offset) - 1]
            position, end = segment.position_before(offset), segment.size_bytes
        records, position = self._read_file(segment, offset, position, end)
        with self._lock:
            segment.learn(offset + len(records), position)
        return records

    def _read_file(self, segment: Segment, offset: int, position: int, end: int) -> tuple[list[LogRecord], int]:
        """Return the records from `offset` on, about READ_AHEAD_BYTES of them, and the position behind the last."""
        try:
            fd = os.open(segment.path, os.O_RDONLY)
        except FileNotFoundError:
            self._check_kept(offset)
            raise CorruptedError(f"log segment {segment.path} is missing") from None
        except OSError as error:  # no descriptor left, say
            raise unavailable(error, "the log", segment.path.parent) from error
        records: list[LogRecord] = []
        ahead_bytes = 0
        try:
            for frame in read_frames(fd, position, end, self._seed):
                if frame.record.offset > offset + len(records) or ahead_bytes >= READ_AHEAD_BYTES:
                    break
                position = frame.end
                if frame.record.offset >= offset:
                    records.append(frame.record)
                    ahead_bytes += frame.end - frame.begin
        finally:
            os.close(fd)
        if not records:
            raise damage(str(segment.path), position, offset)
        return records, position

    def _check_kept(self, offset: int) -> None:
        if offset < self.start_offset:
            raise CorruptedError(
                f"{self._directory.name} begins at offset {self.start_offset}, offset {offset} was deleted"
            )

    # ---- opening

    @property
    def _active(self) -> Segment:
        return self._segments[-1]

    def _open_segments(self) -> list[Segment]:
        segments = list_segments(self._directory)
        return segments or [create_segment(self._directory, 0, self._settings.log_id, self._disk)]
