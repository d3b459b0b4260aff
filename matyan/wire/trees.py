"""The path/value stream of search results: trees -> records; array bytes with dtype and shape.

Source: docs/reference/wire.md, "Binary tree stream". A stream is a plain concatenation of what `encode_tree_records`
returns; receivers rely on no boundaries.

Two things that trees may hold and the stream cannot:
    an integer beyond int64 is sent as its decimal text (exact; a double would change digits unnoticed),
    an empty key is sent as `(empty)`, unless a sibling has that name: as the bytes stand, the key would be read as the
    start of an integer key and spoil the rest of the stream.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from matyan.errors import InvalidArgumentError
from matyan.wire.streams import Mark, Tag

EMPTY_KEY: Final = "(empty)"
BLOB_BYTES_MAX: Final = 2**32 - 2
"""As far as the length of a record reaches."""
_INT_MIN: Final = -(2**63)
_INT_MAX: Final = 2**63 - 1
_KEYS_CACHED_MAX: Final = 20_000
_KEY_CHARACTERS_CACHED_MAX: Final = 100

_length: Final = struct.Struct("<I").pack
_int_key: Final = struct.Struct(">q").pack
_int: Final = struct.Struct("<IBq").pack
_float: Final = struct.Struct("<IBd").pack
_head: Final = struct.Struct("<IB").pack
_NUMBER_BYTES: Final = 9
"""Of a number's value: tag and eight bytes."""
_LENGTHS_BYTES: Final = 8
"""Of a record with the empty path: what stands before its value."""


def _record_value(content: bytes) -> bytes:
    return _length(len(content)) + content


_NULL: Final = _record_value(b"\x00")
_TRUE: Final = _record_value(b"\x01\x01")
_FALSE: Final = _record_value(b"\x01\x00")
_LIST: Final = _record_value(b"\x06")
_OBJECT: Final = _record_value(b"\x07")

_NUMPY: Final = _record_value(b"\x04numpy")
_FLOAT64: Final = _record_value(b"\x04float64")
_FLOAT64_BYTES: Final = 8

_key_bytes: Final[dict[str, bytes]] = {}
"""Text key -> its bytes. Keys repeat in every tree; the few thousand of a repository are encoded once."""


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
    # Written out: a search sends one with each run.
    path = b"progress_%d\xfe" % number
    begun = _length(len(path) + len(_INDEXES[0])) + path
    return b"".join(
        (
            _length(len(path)), path, _LIST,
            begun, _INDEXES[0], _int(_NUMBER_BYTES, Tag.INT, checked),
            begun, _INDEXES[1], _int(_NUMBER_BYTES, Tag.INT, total),
        )
    )  # fmt: skip


def stopped(number: int, checked: int, total: int, *, reason: str, message: str) -> bytes:
    """Return the records of the message that ends a stream which is not whole, before its connection is cut.

    To clients that do not know it, it is a progress message: they read two elements of it, or none.

    Args:
        number: as of a progress message.
        checked: how many runs were looked at; the last run sent may lack some of its traces.
        total: how many there are.
        reason: what stopped it, one word of a closed set.
        message: the same for a human.
    """
    return encode_tree_records({f"progress_{number}": (checked, total, reason, message)})


def begin_blob(keys: Iterable[object], size_bytes: int) -> bytes:
    """Return the beginning of a record of bytes; its content follows: `size_bytes`, at most BLOB_BYTES_MAX.

    For content that is better not held in memory.
    """
    path = encode_path(keys)
    return _length(len(path)) + path + _head(size_bytes + 1, Tag.BYTES)


def begin_array(keys: Iterable[object], count: int) -> bytes:
    """Return the beginning of an array of float64; its content follows: `count` numbers, little-endian.

    For arrays that are better sent in parts than copied as a whole.
    """
    return _array_head(encode_path(keys), count)


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
    return encode_tree_records(value)[_LENGTHS_BYTES:]


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


def _write(value: Any, path: bytes, append: Append) -> None:
    """Append the records of what stands at `path`."""
    kind = type(value)
    leaf = _LEAVES.get(kind)
    if leaf is not None:
        append(_length(len(path)) + path + leaf(value))
    elif kind is dict:
        _write_dict(value, path, append)
    elif kind is list or kind is tuple:
        _write_list(value, path, append)
    elif kind is np.ndarray:
        _write_array(value, path, append)
    elif kind is bytes:
        # Pieces of their own: blobs are large, and joining copies them once more.
        append(_length(len(path)) + path + _head(len(value) + 1, Tag.BYTES))
        append(value)
    else:
        _write(_plain(value), path, append)


def _write_dict(tree: Mapping[Any, Any], path: bytes, append: Append) -> None:
    if not tree:
        append(_length(len(path)) + path + _OBJECT)
    for key, value in tree.items():
        encoded = _key_bytes.get(key) or _key_of(key, tree)
        if encoded is None:
            continue
        child = path + encoded
        leaf = _LEAVES.get(type(value))
        if leaf is not None:
            append(_length(len(child)) + child + leaf(value))
        else:
            _write(value, child, append)


def _write_list(items: Sequence[Any], path: bytes, append: Append) -> None:
    append(_length(len(path)) + path + _LIST)
    for index, value in enumerate(items):
        child = path + (_INDEXES[index] if index < _INDEXES_MADE else _encode_key(index))
        leaf = _LEAVES.get(type(value))
        if leaf is not None:
            append(_length(len(child)) + child + leaf(value))
        else:
            _write(value, child, append)


def _write_array(array: NDArray[Any], path: bytes, append: Append) -> None:
    """Append section 5 of the contract: type, shape, dtype and blob, in this order."""
    if array.dtype.kind not in "fiub":
        append(_length(len(path)) + path + _NULL)
        return
    if array.ndim != 1:
        raise InvalidArgumentError(f"an array has one dimension, not {array.ndim}")
    append(_array_head(path, len(array)))
    append(array.astype("<f8", copy=False).tobytes())


def _array_head(path: bytes, count: int) -> bytes:
    size = len(path)
    return b"".join(
        (
            _length(size + 5), path, b"type\xfe", _NUMPY,
            _length(size + 6), path, b"shape\xfe", _int(_NUMBER_BYTES, Tag.INT, count),
            _length(size + 6), path, b"dtype\xfe", _FLOAT64,
            _length(size + 5), path, b"blob\xfe", _head(count * _FLOAT64_BYTES + 1, Tag.BYTES),
        )
    )  # fmt: skip


def _plain(value: object) -> object:
    """Return what stands for a value of a less common type: subclasses and numpy scalars."""
    for kinds, plain in _PLAIN:
        if isinstance(value, kinds):
            return plain(value)
    raise InvalidArgumentError(f"{type(value).__name__} cannot stand in a tree")


def _leaf_int(value: int) -> bytes:
    try:
        return _int(_NUMBER_BYTES, Tag.INT, value)
    except struct.error:
        return _leaf_text(str(value))


def _leaf_text(value: str) -> bytes:
    data = value.encode("utf-8", "replace")
    return _head(len(data) + 1, Tag.TEXT) + data


_LEAVES: Final[Mapping[type, Callable[[Any], bytes]]] = {
    str: _leaf_text,
    float: lambda value: _float(_NUMBER_BYTES, Tag.FLOAT, value),
    int: _leaf_int,
    bool: lambda value: _TRUE if value else _FALSE,
    type(None): lambda _: _NULL,
}
"""Value records, length included, of the types that most leaves have."""
_PLAIN: Final[Sequence[tuple[tuple[type, ...], Callable[[Any], object]]]] = (
    ((bool, np.bool_), bool),
    ((int, np.integer), int),
    ((float, np.floating), float),
    ((str,), str),
    ((bytes, bytearray, memoryview), bytes),
    ((dict,), dict),
    ((list, tuple), list),
)
"""Subclasses -> the plain type; booleans before integers, whose subclass they are."""
_INDEXES_MADE: Final = 256
_INDEXES: Final = tuple(_encode_key(index) for index in range(_INDEXES_MADE))
