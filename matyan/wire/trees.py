"""The path/value stream of search results: trees -> records and back; array bytes with dtype and shape.

Source: docs/reference/wire.md, "Binary tree stream". A stream is a plain concatenation of what `encode_tree_records`
returns; receivers rely on no boundaries.

Two things that trees may hold and the stream cannot:
    an integer beyond int64 is sent as its decimal text (exact; a double would change digits unnoticed),
    an empty key is sent as `(empty)`, unless a sibling has that name: as the bytes stand, the key would be read as the
    start of an integer key and spoil the rest of the stream.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np

from matyan.errors import InvalidArgumentError

Key = str | int

EMPTY_KEY: Final = "(empty)"
_SENTINEL: Final = 0xFE
_INT_MIN: Final = -(2**63)
_INT_MAX: Final = 2**63 - 1
_KEYS_CACHED_MAX: Final = 20_000
_KEY_CHARACTERS_CACHED_MAX: Final = 100

_length: Final = struct.Struct("<I").pack
_length_at: Final = struct.Struct("<I").unpack_from
_int_key: Final = struct.Struct(">q").pack
_int: Final = struct.Struct("<IBq").pack
_float: Final = struct.Struct("<IBd").pack
_text_head: Final = struct.Struct("<IB").pack
_NUMBER_BYTES: Final = 9
"""Of a number's value: tag and eight bytes."""


class Mark(enum.IntEnum):
    """Values that begin a container; the tags of the wire."""

    LIST = 6
    OBJECT = 7


class _Tag(enum.IntEnum):
    NULL = 0
    BOOL = 1
    INT = 2
    FLOAT = 3
    TEXT = 4
    BYTES = 5


def _record_value(content: bytes) -> bytes:
    return _length(len(content)) + content


_NULL: Final = _record_value(b"\x00")
_TRUE: Final = _record_value(b"\x01\x01")
_FALSE: Final = _record_value(b"\x01\x00")
_LIST: Final = _record_value(b"\x06")
_OBJECT: Final = _record_value(b"\x07")

# Section 5 of the contract: an array is these four records in this order.
_ARRAY_TYPE: Final = b"type\xfe"
_ARRAY_SHAPE: Final = b"shape\xfe"
_ARRAY_DTYPE: Final = b"dtype\xfe"
_ARRAY_BLOB: Final = b"blob\xfe"
_NUMPY: Final = _record_value(b"\x04numpy")
_FLOAT64: Final = _record_value(b"\x04float64")

_key_bytes: Final[dict[str, bytes]] = {}
"""Text key -> its bytes. Keys repeat in every tree; the few thousand of a repository are encoded once."""
_lengths: Final = tuple(_length(size) for size in range(512))
"""Of paths; longer ones are packed when they occur."""


# ---- encoding


def encode_tree_records(tree: object) -> bytes:
    """Return the records of one tree.

    Args:
        tree: None, bool, int, float, str, bytes, list, tuple, dict with keys of str and int, and one-dimensional numpy
            arrays of numbers, sent as float64 (an array of objects as null).

    Raises:
        InvalidArgumentError: the tree holds something else.
    """
    out: list[bytes] = []
    _write(tree, b"", out.append)
    return b"".join(out)


def progress(number: int, checked: int, total: int) -> bytes:
    """Return the records of a progress message: `checked` of `total` runs looked at.

    No two consecutive messages may have the same `number`.
    """
    return encode_tree_records({f"progress_{number}": (checked, total)})


def encode_path(keys: Iterable[object]) -> bytes:
    """Return the bytes of a path.

    Raises:
        InvalidArgumentError: a key is neither text nor an integer of 64 bit, or is empty.
    """
    return b"".join(map(_encode_key, keys))


def encode_value(value: object) -> bytes:
    """Return the value part of a leaf's record, without its length.

    Raises:
        InvalidArgumentError: not a leaf, or an integer beyond 64 bit.
    """
    if isinstance(value, Mark):
        return bytes((value,))
    if isinstance(value, int) and not _INT_MIN <= value <= _INT_MAX:
        raise InvalidArgumentError(f"the integer {value} does not fit into 64 bit")
    if isinstance(value, dict | list | tuple | np.ndarray):
        raise InvalidArgumentError(f"{type(value).__name__} is no leaf")
    return encode_tree_records(value)[len(_length(0)) * 2 :]


def _encode_key(key: object) -> bytes:
    if isinstance(key, str):
        if not key:
            raise InvalidArgumentError("an empty key cannot stand in a path")
        return key.encode("utf-8", "replace") + b"\xfe"
    if isinstance(key, int | np.integer):
        if not _INT_MIN <= key <= _INT_MAX:
            raise InvalidArgumentError(f"the key {key} does not fit into 64 bit")
        return b"\xfe" + _int_key(key) + b"\xfe"
    raise InvalidArgumentError(f"a key is text or an integer, not {type(key).__name__}")


def _key_of(key: object, siblings: Mapping[Any, object]) -> bytes | None:
    """Encode a key that is not cached; None for an empty one that must be left out."""
    if isinstance(key, str):
        if not key:
            return None if EMPTY_KEY in siblings else _encode_key(EMPTY_KEY)
        found = _encode_key(key)
        if len(key) <= _KEY_CHARACTERS_CACHED_MAX:
            if len(_key_bytes) >= _KEYS_CACHED_MAX:
                _key_bytes.clear()
            _key_bytes[key] = found
        return found
    return _encode_key(key)


Append = Callable[[bytes], None]


def _write(value: object, path: bytes, append: Append) -> None:
    """Append the records of what stands at `path`. Types in order of frequency: this runs once per container and leaf."""
    kind = type(value)
    size = len(path)
    if kind is dict:
        _write_dict(value, path, append)  # type: ignore[arg-type]  # `kind` says so, mypy does not follow it
        return
    if kind is np.ndarray:
        _write_array(value, path, append)  # type: ignore[arg-type]  # likewise
        return
    append(_lengths[size] if size < 512 else _length(size))  # noqa: PLR2004 (the length of the table)
    append(path)
    writer = _LEAVES.get(kind)
    if writer is not None:
        append(writer(value))
        return
    if kind is list or kind is tuple:
        append(_LIST)
        _write_list(value, path, append)  # type: ignore[arg-type]  # likewise
        return
    _write_other(value, path, append)
