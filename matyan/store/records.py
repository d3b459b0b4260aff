"""Struct <-> value bytes with a version byte; documents in pieces."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, Final, Generic, TypeVar

import msgspec

from matyan.engines.kv.protocol import KvReader, KvTransaction
from matyan.errors import CorruptedError, InvalidArgumentError, TooLargeError
from matyan.limits import PIECE_BYTES_MAX, SCAN_ROWS_MAX
from matyan.store.scans import scan_all

T = TypeVar("T")

VERSION: Final = 1
_PIECES_MAX: Final = 255
_ARRAY: Final = 0xDD
_ARRAY_HEAD: Final = struct.Struct(">BI")
"""How a list of up to 2**32 - 1 values begins in msgpack."""


class RecordCodec(Generic[T]):
    """One Struct type as value bytes: a version byte, then msgpack."""

    def __init__(self, kind: type[T]) -> None:
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(kind)
        self._list_decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(list[kind])  # type: ignore[valid-type]  # known at run time

    def encode(self, record: T) -> bytes:
        """Return the newest form.

        Raises:
            InvalidArgumentError: a text holds a lone surrogate, which only a client can have put there.
        """
        try:
            return b"\x01" + self._encoder.encode(record)
        except UnicodeEncodeError as error:
            raise InvalidArgumentError("a text is not valid unicode") from error

    def decode(self, value: bytes) -> T:
        """Read any form ever written.

        Raises:
            CorruptedError: unknown version, or not this record.
        """
        if value[0] != VERSION:
            raise CorruptedError(f"a record has version {value[0]}, this release reads {VERSION}: update matyan")
        try:
            record: T = self._decoder.decode(memoryview(value)[1:])
        except msgspec.MsgspecError as error:
            raise CorruptedError(f"a record cannot be read: {error}") from error
        return record

    def decode_many(self, values: Sequence[bytes]) -> list[T]:
        """Read many short records as `decode` does, as one list: what a call costs is as much as such a record.

        Raises:
            CorruptedError: as `decode` does.
        """
        if all(value[0] == VERSION for value in values):
            head = _ARRAY_HEAD.pack(_ARRAY, len(values))
            with suppress(msgspec.MsgspecError):
                records: list[T] = self._list_decoder.decode(b"".join([head, *[value[1:] for value in values]]))
                return records
        return [self.decode(value) for value in values]


# A document of up to PIECE_BYTES_MAX is one value: its piece count, then the data. A longer one fills further keys.


def head_key(base: bytes) -> bytes:
    """Return the key of a document's first piece, which tells how many there are."""
    return base + b"\x00"


def put_document(tx: KvTransaction, base: bytes, data: bytes, *, is_new: bool = False) -> None:
    """Store `data` under `base`, in pieces when it is long, replacing what was there.

    Args:
        is_new: the caller knows that nothing was there, which saves a read.

    Raises:
        TooLargeError: more than 255 pieces.
    """
    count = max(1, -(-len(data) // PIECE_BYTES_MAX))
    if count > _PIECES_MAX:
        raise TooLargeError(f"a document has {len(data)} bytes, limit {_PIECES_MAX * PIECE_BYTES_MAX}")
    before = None if is_new else tx.get(head_key(base))
    if before is not None and before[0] > count:
        tx.clear_range(base + bytes([count]), base + b"\xff")
    for piece in range(count):
        part = data[piece * PIECE_BYTES_MAX : (piece + 1) * PIECE_BYTES_MAX]
        tx.put(base + bytes([piece]), bytes([count]) + part if piece == 0 else part)


def get_documents(reader: KvReader, bases: Sequence[bytes]) -> list[bytes | None]:
    """Return the documents stored under `bases`, None where there is none, in two round trips at most."""
    heads = reader.get_many([head_key(base) for base in bases])
    rest = [
        base + bytes([piece]) for base, head in zip(bases, heads, strict=True) if head for piece in range(1, head[0])
    ]
    tails = iter(reader.get_many(rest)) if rest else iter(())
    documents: list[bytes | None] = []
    for head in heads:
        if head is None or head[0] == 1:
            documents.append(head and head[1:])
            continue
        pieces = [head[1:], *(next(tails) for _ in range(1, head[0]))]
        if None in pieces:
            raise CorruptedError("a document lacks a piece")
        documents.append(b"".join(piece for piece in pieces if piece is not None))
    return documents


def read_documents(
    reader: KvReader, begin: bytes, end: bytes, *, rows_max: int = SCAN_ROWS_MAX
) -> Iterator[tuple[bytes, bytes]]:
    """Yield base and data of every document whose base lies in `begin <= base < end`, in key order."""
    base, pieces = b"", [b""]
    for key, value in scan_all(reader, begin, end, rows_max=rows_max):
        if key[-1] == 0:
            if base:
                yield base, b"".join(pieces)
            base, pieces = key[:-1], [value[1:]]
        else:
            pieces.append(value)
    if base:
        yield base, b"".join(pieces)


def clear_document(tx: KvTransaction, base: bytes) -> None:
    """Delete a document and all its pieces."""
    tx.clear_range(base + b"\x00", base + b"\xff")
