"""The log's file format: a segment header, then records that each prove themselves. Decisions in ADR 0004.

All integers are little-endian.

    segment  magic 8 | log id 16 | base offset u64 | CRC-32 of these u32
    record   magic 4 | CRC-32 u32 | body bytes u32 | place in group u32 | offset u64 | time ms i64
             | key bytes u32 | key | value

The body is key + value. The record's CRC covers everything after itself and starts from the log's own random seed
instead of 0, so that no bytes a client sends, and no block of a deleted log, can pass for a record of this log.

A group is what one sync made durable. Its records count from 0, and a group is written only after the one before was
synced: so whoever finds a whole record of a later group knows that everything before that group was durable once.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from typing import Final, NamedTuple

from matyan.engines.log.protocol import LogRecord
from matyan.errors import CorruptedError
from matyan.limits import RECORD_BYTES_MAX

SEGMENT_MAGIC: Final = b"matyanL1"
RECORD_MAGIC: Final = b"\xd7mR\x01"
BLOCK_BYTES: Final = 1024 * 1024
"""How much is read from a file at once, unless one record is larger."""

_SEGMENT: Final = struct.Struct("<8s16sQ")
_CRC: Final = struct.Struct("<I")
_RECORD: Final = struct.Struct("<4sI")
_COVERED: Final = struct.Struct("<IIQqI")

SEGMENT_HEADER_BYTES: Final = _SEGMENT.size + _CRC.size
RECORD_HEADER_BYTES: Final = _RECORD.size + _COVERED.size


class Frame(NamedTuple):
    """A record as it stands in a segment."""

    record: LogRecord
    group_begin: int
    """Offset of the first record of its group."""
    begin: int
    """Position of its first byte in the file."""
    end: int


def encode_segment_header(log_id: bytes, base_offset: int) -> bytes:
    """Return the first bytes of a segment; `log_id` has 16 bytes."""
    head = _SEGMENT.pack(SEGMENT_MAGIC, log_id, base_offset)
    return head + _CRC.pack(zlib.crc32(head))


def is_segment_header(data: bytes) -> bool:
    """Return whether these bytes are a whole header of any log."""
    return (
        len(data) == SEGMENT_HEADER_BYTES
        and data.startswith(SEGMENT_MAGIC)
        and _CRC.unpack_from(data, _SEGMENT.size)[0] == zlib.crc32(data[: _SEGMENT.size])
    )


def crc_seed(log_id: bytes) -> int:
    """Return where the CRCs of this log's records start."""
    return zlib.crc32(log_id)


def encode_record(record: LogRecord, place_in_group: int, seed: int) -> tuple[bytes, bytes, bytes]:
    """Return header, key and value, to be written one after the other."""
    offset, timestamp_ms, key, value = record
    covered = _COVERED.pack(len(key) + len(value), place_in_group, offset, timestamp_ms, len(key))
    crc = zlib.crc32(value, zlib.crc32(key, zlib.crc32(covered, seed)))
    return _RECORD.pack(RECORD_MAGIC, crc) + covered, key, value


def record_bytes(block: bytes, at: int) -> int:
    """Return how long the record that begins at `at` says it is, or 0 when its header is cut off or none."""
    if len(block) - at < RECORD_HEADER_BYTES or not block.startswith(RECORD_MAGIC, at):
        return 0
    body_bytes: int = _CRC.unpack_from(block, at + _RECORD.size)[0]
    return RECORD_HEADER_BYTES + body_bytes if body_bytes <= RECORD_BYTES_MAX else 0


def decode_frame(block: bytes, at: int, position: int, seed: int) -> Frame | None:
    """Return the record at `block[at:]`, or None when it is not whole and valid; in the file it lies at `position`."""
    size = record_bytes(block, at)
    if not size or size > len(block) - at:
        return None
    crc = _RECORD.unpack_from(block, at)[1]
    if zlib.crc32(memoryview(block)[at + _RECORD.size : at + size], seed) != crc:
        return None
    body_bytes, place, offset, timestamp_ms, key_bytes = _COVERED.unpack_from(block, at + _RECORD.size)
    if key_bytes > body_bytes or place > offset:
        return None
    key_at = at + RECORD_HEADER_BYTES
    value_at = key_at + key_bytes
    record = LogRecord(offset, timestamp_ms, block[key_at:value_at], block[value_at : at + size])
    return Frame(record, offset - place, position, position + size)


def read_frames(fd: int, position: int, end: int, seed: int) -> Iterator[Frame]:
    """Yield the whole, valid records of `position <= byte < end`; stop at the first that is not."""
    block, block_begin = b"", position
    while position < end:
        at = position - block_begin
        frame = decode_frame(block, at, position, seed)
        if frame is not None:
            yield frame
            position = frame.end
            continue
        wanted = min(end - position, max(BLOCK_BYTES, record_bytes(block, at)))
        if len(block) - at >= wanted:
            return
        block, block_begin = _read(fd, position, wanted), position
        if len(block) < wanted:
            end = position + len(block)


def find_later_group(fd: int, position: int, offset: int, seed: int) -> Frame | None:
    """Look behind damage for a record that proves the damaged one was durable.

    Args:
        fd: a segment.
        position: where the damage begins.
        offset: of the record that should stand there.
        seed: of the log's CRCs.

    Returns:
        A whole record of a group that began after `offset`, or None: then what is damaged was never acknowledged.
    """
    rest = _read(fd, position, max(0, os.fstat(fd).st_size - position))
    at = rest.find(RECORD_MAGIC)
    while at >= 0:
        frame = decode_frame(rest, at, position + at, seed)
        if frame is not None and frame.group_begin > offset:
            return frame
        at = rest.find(RECORD_MAGIC, at + 1)
    return None


def damage(where: str, position: int, offset: int) -> CorruptedError:
    """Make the error for a record that was durable once and is not whole."""
    return CorruptedError(f"log segment {where} is damaged at byte {position}: offset {offset} is not readable")


def _read(fd: int, position: int, size_bytes: int) -> bytes:
    """Return `size_bytes`, fewer only at the file's end."""
    data = os.pread(fd, size_bytes, position)
    while len(data) < size_bytes:
        more = os.pread(fd, size_bytes - len(data), position + len(data))
        if not more:
            break
        data += more
    return data
