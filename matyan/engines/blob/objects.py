"""The file format of one stored object: a header that says what it is, then its bytes.

All integers are little-endian.

    header  magic 8 | CRC-32 of the content u32 | content bytes u64 | modified f64 | key bytes u32 | type bytes u32
            | key | content type
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from matyan.engines.blob.protocol import BlobInfo
from matyan.engines.disk import Disk, reporting
from matyan.errors import CorruptedError, InvalidArgumentError

CHUNK_BYTES: Final = 256 * 1024
"""The most that a reader is handed at once."""
KEY_BYTES_MAX: Final = 16_384

_MAGIC: Final = b"matyanB1"
_HEADER: Final = struct.Struct("<8sIQdII")


class ObjectHeader(NamedTuple):
    """What stands before an object's bytes."""

    info: BlobInfo
    crc: int
    content_at: int


def encode_key(key: str) -> bytes:
    """Return the key's bytes; lone surrogates, which clients can send, are kept.

    Raises:
        InvalidArgumentError: the key is too long.
    """
    data = key.encode("utf-8", "surrogatepass")
    if len(data) > KEY_BYTES_MAX:
        raise InvalidArgumentError(f"the blob's key has {len(data)} bytes, limit {KEY_BYTES_MAX}")
    return data


class ObjectWriter:
    """Fills an empty file with an object; every call may raise OSError."""

    def __init__(self, disk: Disk, fd: int, key: str, content_type: str) -> None:
        self._disk = disk
        self._fd = fd
        self._key = key
        self._content_type = content_type
        self._names = encode_key(key), content_type.encode("utf-8", "surrogatepass")
        self._content_at = self._position = _HEADER.size + sum(map(len, self._names))
        self._crc = 0

    def write(self, chunk: bytes) -> None:
        """Add to the content."""
        self._disk.write(self._fd, chunk, self._position)
        self._position += len(chunk)
        self._crc = zlib.crc32(chunk, self._crc)

    def finish(self, modified_at_seconds: float) -> BlobInfo:
        """Write the header, make everything durable."""
        size_bytes = self._position - self._content_at
        head = _HEADER.pack(_MAGIC, self._crc, size_bytes, modified_at_seconds, *map(len, self._names))
        self._disk.write(self._fd, head + b"".join(self._names), 0)
        self._disk.sync(self._fd)
        return BlobInfo(self._key, size_bytes, self._content_type, modified_at_seconds)


def read_header(fd: int, path: Path) -> ObjectHeader:
    """Return what an object's file says about it.

    Raises:
        CorruptedError: it is no whole object; `path` is named.
    """
    head = os.pread(fd, _HEADER.size, 0)
    if len(head) == _HEADER.size and head.startswith(_MAGIC):
        _, crc, size_bytes, modified_at_seconds, key_bytes, type_bytes = _HEADER.unpack(head)
        names = os.pread(fd, key_bytes + type_bytes, _HEADER.size) if key_bytes <= KEY_BYTES_MAX else b""
        content_at = _HEADER.size + key_bytes + type_bytes
        if len(names) == key_bytes + type_bytes and os.fstat(fd).st_size == content_at + size_bytes:
            key, content_type = (
                part.decode("utf-8", "surrogatepass") for part in (names[:key_bytes], names[key_bytes:])
            )
            return ObjectHeader(BlobInfo(key, size_bytes, content_type, modified_at_seconds), crc, content_at)
    raise CorruptedError(f"blob file {path} is damaged")


class ObjectChunks(Iterator[bytes]):
    """The content of an object; owns the descriptor and closes it at the end, on `close`, or when forgotten."""

    def __init__(self, fd: int, header: ObjectHeader, path: Path) -> None:
        self._fd = fd
        self._path = path
        self._position = header.content_at
        self._rest_bytes = header.info.size_bytes
        self._crc_expected = header.crc
        self._crc = 0

    def __next__(self) -> bytes:
        """Return the next chunk.

        Raises:
            CorruptedError: after the last chunk, when the content is not what was stored.
        """
        if self._rest_bytes and self._fd >= 0:
            with reporting("the blob store", self._path.parent):
                chunk = os.pread(self._fd, min(CHUNK_BYTES, self._rest_bytes), self._position)
            self._position += len(chunk)
            self._rest_bytes -= len(chunk)
            self._crc = zlib.crc32(chunk, self._crc)
            if chunk:
                return chunk
        self.close()
        if self._rest_bytes or self._crc != self._crc_expected:
            raise CorruptedError(f"blob file {self._path} is damaged")
        raise StopIteration

    def close(self) -> None:
        """Release the file; what was not read is given up."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __del__(self) -> None:
        self.close()
