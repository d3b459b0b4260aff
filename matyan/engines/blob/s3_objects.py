"""What stands with an object in the bucket, and its content as it goes out and comes back.

The engine's own uploads carry, as metadata of the object:

    x-amz-meta-matyan-modified   seconds since 1970, with more digits than Last-Modified has
    x-amz-meta-matyan-crc32      CRC-32 of the content, eight hexadecimal digits; only when it was sent in one piece
    x-amz-meta-matyan-type       the content type, percent-encoded; only when no header can hold it

Files that clients upload to presigned addresses carry none: they are dated by Last-Modified, and their length is all
that a reader can check.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import quote, unquote

from urllib3.exceptions import HTTPError, ProtocolError
from urllib3.response import BaseHTTPResponse

from matyan.engines.blob.objects import CHUNK_BYTES
from matyan.engines.blob.protocol import BlobInfo
from matyan.engines.blob.s3_errors import reporting
from matyan.errors import CorruptedError, InvalidArgumentError, TooLargeError, UnavailableError

PART_BYTES: Final = 8 * 1024 * 1024
"""Longer content goes in parts of this size, of which one is held in memory; S3 wants 5 MiB at least."""
PARTS_MAX: Final = 10_000
CONTENT_TYPE_BYTES_MAX: Final = 1024
"""Of the 2 kB that S3 gives to metadata."""

_MODIFIED: Final = "x-amz-meta-matyan-modified"
_CRC: Final = "x-amz-meta-matyan-crc32"
_TYPE: Final = "x-amz-meta-matyan-type"
_UNTYPED: Final = "application/octet-stream"
_READ_ATTEMPTS: Final = 3
_DRAINED_BYTES_MAX: Final = 64 * 1024
"""Reading so much to its end is cheaper than another connection."""


def header_type(content_type: str) -> str:
    """Return the Content-Type header of an object: its type where a header can hold it."""
    is_plain = content_type.isascii() and content_type.isprintable() and content_type == content_type.strip()
    return content_type if is_plain and content_type else _UNTYPED


def metadata_of(
    content_type: str, modified_at_seconds: float, crc: int | None
) -> dict[str, str | list[str] | tuple[str]]:
    """Return the headers that an upload takes besides Content-Type.

    Raises:
        InvalidArgumentError: the content type is too long.
    """
    headers: dict[str, str | list[str] | tuple[str]] = {_MODIFIED: repr(modified_at_seconds)}
    if crc is not None:
        headers[_CRC] = f"{crc:08x}"
    quoted = quote(content_type, safe="", errors="surrogatepass")
    if len(quoted) > CONTENT_TYPE_BYTES_MAX:
        raise InvalidArgumentError(f"the content type has {len(quoted)} bytes, limit {CONTENT_TYPE_BYTES_MAX}")
    if header_type(content_type) != content_type:
        headers[_TYPE] = quoted
    return headers


def info_of(key: str, headers: Mapping[str, str]) -> BlobInfo:
    """Return what the headers of an answer say about an object."""
    quoted = headers.get(_TYPE)
    content_type = headers.get("content-type", "") if quoted is None else unquote(quoted, errors="surrogatepass")
    return BlobInfo(key, int(headers["content-length"]), content_type, _modified_at_seconds(headers))


def crc_of(headers: Mapping[str, str]) -> int | None:
    """Return the checksum of an object's content, or None when it has none."""
    try:
        return int(headers[_CRC], 16)
    except (KeyError, ValueError):
        return None


def _modified_at_seconds(headers: Mapping[str, str]) -> float:
    try:
        return float(headers[_MODIFIED])
    except (KeyError, ValueError):  # a client's upload, or changed by other hands
        return parsedate_to_datetime(headers["last-modified"]).timestamp()


class ContentReader:
    """The chunks of an upload as the file that the SDK reads; keeps what the sender raised."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._buffer = bytearray()
        self.size_bytes = 0
        self.error: Exception | None = None

    def is_within(self, limit_bytes: int) -> bool:
        """Return whether no more than this is left; looks so far ahead and takes nothing."""
        self._fill(limit_bytes + 1)
        return len(self._buffer) <= limit_bytes

    def read(self, size: int) -> bytes:
        """Return the next bytes, fewer only at the end.

        Raises:
            TooLargeError: S3 has no more parts. And what the sender raises.
        """
        try:
            self._fill(size)
        except Exception as error:  # the sender's, of any kind
            self.error = error
            raise
        taken = bytes(memoryview(self._buffer)[:size])
        del self._buffer[:size]
        return taken

    def _fill(self, size: int) -> None:
        while len(self._buffer) < size and (chunk := next(self._chunks, None)) is not None:
            self._buffer += chunk
            self.size_bytes += len(chunk)
            if self.size_bytes > PART_BYTES * PARTS_MAX:
                raise TooLargeError(f"the blob has more than {PART_BYTES * PARTS_MAX} bytes, the most that S3 takes so")


class S3Chunks(Iterator[bytes]):
    """The content of an object; owns a connection and gives it back at the end, on `close`, or when forgotten."""

    def __init__(self, response: BaseHTTPResponse, *, again: Callable[[int], BaseHTTPResponse], where: str) -> None:
        """Take over an answer whose body was not read.

        Args:
            response: the answer.
            again: asks anew for the same content from a position on.
            where: names the store in errors.
        """
        self._response: BaseHTTPResponse | None = response
        self._again = again
        self._where = where
        self._position = 0
        self._rest_bytes = int(response.headers["content-length"])
        self._crc_expected = crc_of(response.headers)
        self._crc = 0

    def __next__(self) -> bytes:
        """Return the next chunk.

        Raises:
            UnavailableError: the connection broke and the rest cannot be had.
            CorruptedError: after the last chunk, when the content is not what was stored.
        """
        if self._rest_bytes:
            with reporting(self._where):
                chunk = self._read()
            self._position += len(chunk)
            self._rest_bytes -= len(chunk)
            self._crc = zlib.crc32(chunk, self._crc)
            return chunk
        self.close()
        if self._crc_expected is not None and self._crc != self._crc_expected:
            raise CorruptedError(f"a blob in {self._where} is damaged")
        raise StopIteration

    def close(self) -> None:
        """Release the connection; what was not read is given up."""
        response, self._response = self._response, None
        if response is None:
            return
        if self._rest_bytes <= _DRAINED_BYTES_MAX:
            response.drain_conn()
        response.close()
        response.release_conn()

    def __del__(self) -> None:
        if hasattr(self, "_response"):  # not when the answer had no length
            self.close()

    def _read(self) -> bytes:
        """Read on; when the connection breaks, go on over another from where it broke."""
        for _ in range(_READ_ATTEMPTS - 1):
            try:
                return self._read_once()
            except HTTPError:
                self._resume()
        return self._read_once()

    def _read_once(self) -> bytes:
        if self._response is None:
            raise UnavailableError("the blob was closed before it was read")
        chunk: bytes = self._response.read(min(CHUNK_BYTES, self._rest_bytes), decode_content=False)
        if not chunk:
            raise ProtocolError("the content ended early")
        return chunk

    def _resume(self) -> None:
        assert self._response is not None
        self._response.close()
        self._response.release_conn()
        self._response = self._again(self._position)
