"""Segment files as a whole: making one, and finding after a crash what of the last one was durable."""

from __future__ import annotations

import logging
import os
import re
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from matyan.engines.disk import Disk
from matyan.engines.log.protocol import LogRecord
from matyan.engines.log.segments import (
    SEGMENT_HEADER_BYTES,
    crc_seed,
    damage,
    encode_segment_header,
    find_later_group,
    is_segment_header,
    read_frames,
)
from matyan.errors import CorruptedError

logger = logging.getLogger(__name__)

_INDEX_EVERY_BYTES: Final = 256 * 1024
_RECORDS_A_BATCH: Final = 256
_FILE_NAME: Final = re.compile(r"[0-9]{20}\.log")


class Segment:
    """A segment file: where it lies, how much of it is durable, and a sparse index into it."""

    def __init__(self, base_offset: int, path: Path, size_bytes: int) -> None:
        self.base_offset = base_offset
        self.path = path
        self.size_bytes = size_bytes
        self.since_ms = 0
        """When its first record was appended; 0 when it has none."""
        self._offsets = [base_offset]
        self._positions = [SEGMENT_HEADER_BYTES]

    def note(self, record: LogRecord) -> None:
        """Take note of a record that begins at the present end."""
        self.since_ms = self.since_ms or record.timestamp_ms
        if self.size_bytes - self._positions[-1] >= _INDEX_EVERY_BYTES:
            self.learn(record.offset, self.size_bytes)

    def learn(self, offset: int, position: int) -> None:
        """Remember where a record begins, so that whoever reads on finds it without reading what lies before."""
        if offset > self._offsets[-1]:
            self._offsets.append(offset)
            self._positions.append(position)

    def position_before(self, offset: int) -> int:
        """Return the position of a record that is at or not far before `offset`."""
        return self._positions[bisect_right(self._offsets, offset) - 1]


def list_segments(directory: Path) -> list[Segment]:
    """Return the segments of a partition, the oldest first; other files are left alone."""
    paths = sorted(path for path in directory.iterdir() if _FILE_NAME.fullmatch(path.name))
    return [Segment(int(path.stem), path, path.stat().st_size) for path in paths]


def create_segment(directory: Path, base_offset: int, log_id: bytes, disk: Disk) -> Segment:
    """Make an empty segment, durably. What an earlier, failed attempt left is overwritten.

    Raises:
        OSError: an empty or torn file may stay behind; nobody reads it.
    """
    path = directory / f"{base_offset:020d}.log"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        disk.write(fd, encode_segment_header(log_id, base_offset), 0)
        disk.sync(fd)
    finally:
        os.close(fd)
    disk.sync_directory(directory)
    return Segment(base_offset, path, SEGMENT_HEADER_BYTES)


def recover_segment(segment: Segment, log_id: bytes, disk: Disk) -> Iterator[list[LogRecord]]:
    """Yield what the last segment of a partition holds, in batches; cut its torn tail; set its size.

    At the end everything that was yielded is durable, also what a killed process wrote and did not sync.

    Raises:
        CorruptedError: a record that was durable once is damaged, or the file belongs to another log.
    """
    fd = os.open(segment.path, os.O_RDWR)
    try:
        file_bytes = os.fstat(fd).st_size
        header = os.pread(fd, SEGMENT_HEADER_BYTES, 0)
        is_whole = is_segment_header(header)
        if is_whole and header != encode_segment_header(log_id, segment.base_offset):
            raise CorruptedError(f"log segment {segment.path} belongs to another log or place")
        segment.size_bytes = SEGMENT_HEADER_BYTES if is_whole else 0
        next_offset = segment.base_offset
        if is_whole:
            for records in _read_batches(fd, segment, file_bytes, crc_seed(log_id)):
                next_offset += len(records)
                yield records
        if segment.size_bytes < file_bytes:
            _cut(fd, segment, next_offset, crc_seed(log_id), disk)
        if not is_whole:  # a crash while the segment was made
            disk.write(fd, encode_segment_header(log_id, segment.base_offset), 0)
            segment.size_bytes = SEGMENT_HEADER_BYTES
        disk.sync(fd)
    finally:
        os.close(fd)


def _read_batches(fd: int, segment: Segment, file_bytes: int, seed: int) -> Iterator[list[LogRecord]]:
    next_offset = segment.base_offset
    records: list[LogRecord] = []
    for frame in read_frames(fd, SEGMENT_HEADER_BYTES, file_bytes, seed):
        if frame.record.offset != next_offset:
            break
        segment.note(frame.record)
        segment.size_bytes = frame.end
        next_offset += 1
        records.append(frame.record)
        if len(records) == _RECORDS_A_BATCH:
            yield records
            records = []
    yield records


def _cut(fd: int, segment: Segment, next_offset: int, seed: int, disk: Disk) -> None:
    position = segment.size_bytes
    # A segment's header is durable before its first group is written, so any record at all proves a damaged header.
    last_in_doubt = next_offset if position else next_offset - 1
    if find_later_group(fd, position, last_in_doubt, seed) is not None:
        raise damage(str(segment.path), position, next_offset)
    gone = os.fstat(fd).st_size - position
    logger.warning("torn tail of the log cut", extra={"path": str(segment.path), "position": position, "bytes": gone})
    disk.truncate(fd, position)
