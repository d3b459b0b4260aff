"""Spill: records on this machine's disk that wait for their log, in order, with a durable cursor behind them.

log.json, lock, <topic>-0/  an embedded log of one topic with one partition
cursor.json                 the offset of the first record that is not forwarded yet
aside/                      records that the log refuses for good, each in a file; each process offers them once more
"""

from __future__ import annotations

import functools
import itertools
import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from matyan.clock import Clock
from matyan.engines.disk import Disk, make_directory, replace_file, reporting
from matyan.engines.log.embedded import open_embedded_log
from matyan.engines.log.protocol import Appended, LogConsumer, LogEngine, LogEntry, LogRecord, TopicPartition
from matyan.engines.log.segments import RECORD_HEADER_BYTES
from matyan.errors import ConflictError, CorruptedError, MatyanError, UnavailableError

logger = logging.getLogger(__name__)

SEGMENT_BYTES: Final = 8 * 1024 * 1024
"""What is forwarded is deleted in files of about this size."""
QUEUE_BYTES_MAX: Final = 160 * 1024 * 1024
"""Takes at once all that a log may have had on its way, as counted by its own queue, and what comes meanwhile."""
READ_RECORDS_MAX: Final = 1000
"""Records forwarded at a time; the cursor moves behind all of them at once."""
ROOM_PART: Final = 16
"""The last part of the room, one so-manieth, is for whoever was let in before it was reached."""
_CURSOR: Final = "cursor.json"
_ASIDE: Final = "aside"


class Load(NamedTuple):
    """What waits in a spill."""

    records: int
    size_bytes: int


class Refused(msgspec.Struct, frozen=True, array_like=True):
    """A record that the log refuses for good. New fields go last, with a default."""

    key: bytes
    value: bytes
    reason: str


class _Cursor(msgspec.Struct, frozen=True):
    next_offset: int
    log_id: str
    """Of the log that the offset is in: offsets of another one mean nothing here."""


class Spill:
    """A queue on disk. Any thread may append; reading and forwarding belong to one."""

    def __init__(
        self, path: Path, *, topic: str, bytes_max: int, clock: Clock | None = None, disk: Disk | None = None
    ) -> None:
        """Open the spill in a directory, making it when there is none.

        Raises:
            ConflictError: a process has it open.
            CorruptedError: something that was durable is damaged.
            UnavailableError: the disk is full or fails.
        """
        self.path = path
        self._disk = disk or Disk()
        self._partition = TopicPartition(topic, 0)
        self._bytes_max = bytes_max
        self._lock = threading.Lock()
        self._consumer: LogConsumer | None = None
        self._log: LogEngine = open_embedded_log(
            path,
            partitions={topic: 1},
            segment_bytes=SEGMENT_BYTES,
            queue_bytes_max=QUEUE_BYTES_MAX,
            clock=clock,
            disk=self._disk,
        )
        try:
            end = self._log.producer().end_offset(self._partition)
            self._next_offset = self._begin(end)
            self._records = end - self._next_offset
            self._bytes = self._bytes_on_disk() if self._records else 0
        except BaseException:
            self._log.close()
            raise

    @property
    def load(self) -> Load:
        """What was appended, durable or about to be, and is not forwarded."""
        with self._lock:
            return Load(self._records, self._bytes)

    @property
    def has_room(self) -> bool:
        """Whether writers may still be let in; those that are in may go on for a while after that."""
        return self._bytes < self._bytes_max - self._bytes_max // ROOM_PART

    def append(self, entries: Sequence[LogEntry]) -> Future[list[Appended]]:
        """Keep the entries; the future is done when they are on disk, its offsets are the spill's own.

        It fails with UnavailableError when the spill or its disk is full.
        """
        added = Load(len(entries), sum(map(_size_of, entries)))
        with self._lock:
            if self._bytes + added.size_bytes > self._bytes_max:
                return _failed(self._is_full())
            self._count(added)
        future = self._log.producer().append_many(self._partition.topic, entries)
        future.add_done_callback(functools.partial(self._appended, added))
        return future

    def read(self) -> list[LogRecord]:
        """Return the next records that are on disk, behind those returned before.

        Raises:
            CorruptedError: a file is damaged.
            UnavailableError: it cannot be read now, or the spill is closed.
        """
        if self._consumer is None:
            self._consumer = self._log.consumer(self._partition.topic, "forward", lambda _: self._next_offset)
        found = self._consumer.poll(records_max=READ_RECORDS_MAX, timeout_seconds=0)
        return found.get(self._partition, [])

    def rewind(self) -> None:
        """Read the first record that is not forwarded next."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            consumer.close()

    def forwarded(self, records: Sequence[LogRecord]) -> None:
        """Move the cursor behind records, which are the next ones, durably, and free their disk space.

        Raises:
            UnavailableError: the disk fails; the records may be forwarded again.
        """
        if not records:
            return
        self._next_offset = records[-1].offset + 1
        with self._lock:
            self._count(Load(-len(records), -sum(map(_size_of, records))))
        # First what needs no room, for a disk that is full: the rest writes new files. `_begin` minds a late cursor.
        self._log.trim(self._partition, records[-1].offset)
        with reporting("the spill", self.path):
            replace_file(self._disk, self.path / _CURSOR, msgspec.json.encode(self._cursor()))
        self._log.trim(self._partition, self._next_offset)

    def set_aside(self, record: LogRecord, reason: str) -> Path:
        """Keep a record that the log refuses for good in a file of its own, durably; return the file.

        Raises:
            UnavailableError: the disk fails.
        """
        place = self.path / _ASIDE / f"{self._log.log_id}-{record.offset:020d}"
        with reporting("the spill", self.path):
            make_directory(self._disk, place.parent)
            replace_file(self._disk, place, msgspec.msgpack.encode(Refused(record.key, record.value, reason)))
        return place

    def offer_again(self) -> None:
        """Put what was set aside behind the rest: the log's limits may have been raised.

        Raises:
            UnavailableError: the disk fails.
        """
        for place in sorted((self.path / _ASIDE).glob("*")):
            try:
                refused = msgspec.msgpack.decode(place.read_bytes(), type=Refused)
            except (OSError, msgspec.MsgspecError) as error:
                extra = {"path": str(place), "reason": str(error)}
                logger.error("a record set aside cannot be read", extra=extra)  # noqa: TRY400 - no fault of the code
                continue
            try:
                self.append([LogEntry(refused.key, refused.value)]).result()
            except MatyanError as error:
                logger.warning("what was set aside stays there", extra={"reason": error.message})
                return
            with reporting("the spill", self.path):
                place.unlink()
                self._disk.sync_directory(place.parent)

    def close(self) -> None:
        """Make durable what is queued; what is not forwarded stays."""
        self.rewind()
        self._log.close()

    def _begin(self, end: int) -> int:
        """Return where forwarding goes on. A cursor lost, damaged or of another log costs repeats, and no record."""
        start = self._log.start_offset(self._partition)
        cursor = self._read_cursor()
        if cursor is None or cursor.log_id != self._log.log_id:
            return start
        return min(max(start, cursor.next_offset), end)

    def _cursor(self) -> _Cursor:
        return _Cursor(self._next_offset, self._log.log_id)

    def _read_cursor(self) -> _Cursor | None:
        path = self.path / _CURSOR
        try:
            with reporting("the spill", self.path):
                return msgspec.json.decode(path.read_bytes(), type=_Cursor) if path.exists() else None
        except msgspec.MsgspecError as error:
            logger.warning("cursor cannot be read; all that is left is forwarded", extra={"path": str(path)})
            logger.debug("cursor cannot be read", exc_info=error)
            return None

    def _bytes_on_disk(self) -> int:
        """Return the size of the files, of which the first may have been forwarded in part."""
        directory = self.path / f"{self._partition.topic}-0"
        with reporting("the spill", self.path):
            return sum(path.stat().st_size for path in directory.iterdir())

    def _appended(self, added: Load, future: Future[list[Appended]]) -> None:
        if future.cancelled() or future.exception() is not None:
            with self._lock:
                self._count(Load(-added.records, -added.size_bytes))

    def _count(self, change: Load) -> None:
        self._records += change.records
        # Empty is exact; what it held at its opening was an upper bound.
        self._bytes = max(0, self._bytes + change.size_bytes) if self._records else 0

    def _is_full(self) -> UnavailableError:
        return UnavailableError(
            f"the brokers do not answer and the spill is full: {self._bytes} of {self._bytes_max} bytes "
            f"(spill.bytes_max) wait in {self.path}; try again later"
        )


class SpillRoom:
    """A directory of spills: one for each process that works at once, `spill-0`, `spill-1` and so on.

    A spill that a process has open is locked, by the kernel, until that process ends in whatever way.
    """

    def __init__(
        self, root: Path, *, topic: str, bytes_max: int, clock: Clock | None = None, disk: Disk | None = None
    ) -> None:
        """Make the directory when there is none.

        Raises:
            UnavailableError: that fails.
        """
        self._root = root
        self._offered: set[Path] = set()
        """Spills whose refused records this process has offered again: at every look they would be refused again."""
        self._disk = disk or Disk()
        self._open = functools.partial(Spill, topic=topic, bytes_max=bytes_max, clock=clock, disk=disk)
        with reporting("the spill", root):
            make_directory(self._disk, root)

    def open_own(self) -> Spill:
        """Open a spill that nobody has open, one that holds records if there is any; see `open_leftover`.

        Raises:
            UnavailableError: the disk is full or fails.
        """
        numbered = (self._try(self._root / f"spill-{number}") for number in itertools.count())
        return self.open_leftover() or next(found for found in numbered if found is not None)

    def open_leftover(self, *, idle_seconds: float = 0.0) -> Spill | None:
        """Open a spill that holds records and that nobody has open: its process died, or was moved away.

        One that was in use less than `idle_seconds` ago is left to its own process, which may be starting again.
        Records of each that were set aside count, once: see `Spill.offer_again`.

        Raises:
            UnavailableError: the disk is full or fails.
        """
        for path in sorted(self._root.glob("spill-*")):
            spill = self._try(path) if _seconds_since_use(path) >= idle_seconds else None
            if spill is not None and spill.load.records:
                return spill
            if spill is not None:
                spill.close()
        return None

    def _try(self, path: Path) -> Spill | None:
        """Open a spill, if it is free and whole, and offer once what was set aside there."""
        try:
            return self._offering(self._open(path))
        except CorruptedError as error:
            # Nobody's start may hang on it. What it holds stays for whoever reads this.
            extra = {"path": str(path), "reason": error.message}
            logger.error("a spill is damaged and left alone", extra=extra)  # noqa: TRY400 - no fault of the code
        except ConflictError:
            logger.debug("a spill is in use", extra={"path": str(path)})
        return None

    def _offering(self, spill: Spill) -> Spill:
        if spill.path in self._offered:
            return spill
        try:
            spill.offer_again()
        except BaseException:
            spill.close()
            raise
        self._offered.add(spill.path)
        return spill


def _seconds_since_use(path: Path) -> float:
    """Return how long ago something was appended or forwarded, by the times of the files."""
    files = [path / _CURSOR, *path.glob("*/*.log")]
    return time.time() - max((file.stat().st_mtime for file in files if file.exists()), default=0.0)


def _size_of(entry: LogEntry | LogRecord) -> int:
    return RECORD_HEADER_BYTES + len(entry.key) + len(entry.value)


def _failed(error: MatyanError) -> Future[list[Appended]]:
    future: Future[list[Appended]] = Future()
    future.set_exception(error)
    return future
