"""The path/value stream of search results, read: records -> trees. For our SDK and for tests; needs no numpy.

Source: docs/reference/wire.md, "Binary tree stream". `wire/trees.py` writes it.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from matyan.errors import InvalidArgumentError

Key = str | int

_SENTINEL: Final = 0xFE
_length_at: Final = struct.Struct("<I").unpack_from


class Mark(enum.IntEnum):
    """Values that begin a container; the tags of the wire."""

    LIST = 6
    OBJECT = 7


class Tag(enum.IntEnum):
    """First byte of a leaf's value."""

    NULL = 0
    BOOL = 1
    INT = 2
    FLOAT = 3
    TEXT = 4
    BYTES = 5


def decode_records(data: bytes) -> Iterator[tuple[tuple[Key, ...], Any]]:
    """Yield path and value of every record; containers begin with a `Mark`, arrays are dicts with their bytes.

    Raises:
        InvalidArgumentError: the data is cut off or holds an unknown value.
    """
    at = 0
    while at < len(data):
        path, at = _block(data, at)
        value, at = _block(data, at)
        yield decode_path(path), decode_value(value)


def decode_path(path: bytes) -> tuple[Key, ...]:
    """Return the keys of a path.

    Raises:
        InvalidArgumentError: it does not end where a key ends.
    """
    keys: list[Key] = []
    at = 0
    while at < len(path):
        if path[at] == _SENTINEL:
            end = at + 9
            keys.append(int.from_bytes(path[at + 1 : end], "big", signed=True))
        else:
            end = path.find(_SENTINEL, at)
            keys.append(path[at:end].decode())
        if not at < end < len(path) or path[end] != _SENTINEL:
            raise InvalidArgumentError("a path of the stream is cut off")
        at = end + 1
    return tuple(keys)


def decode_value(value: bytes) -> Any:
    """Return what the value part of a record says; an empty one is null.

    Raises:
        InvalidArgumentError: unknown tag or wrong length.
    """
    if not value:
        return None
    decode = _DECODERS.get(value[0])
    if decode is None:
        raise InvalidArgumentError(f"unknown value tag {value[0]} in the stream")
    try:
        return decode(value[1:])
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise InvalidArgumentError(f"a value of tag {value[0]} has wrong bytes") from error


def fold(records: Iterable[tuple[tuple[Key, ...], Any]]) -> list[tuple[Key, Any]]:
    """Return (top-level key, tree) in order of arrival: neighbours with one key make one tree, as in the web UI.

    Lists come back as lists, dicts as dicts. A record with the empty path is the tree of the whole stream and has no
    key: it is left out.
    """
    found: list[tuple[Key, Any]] = []
    for path, value in records:
        if not path:
            continue
        node = [] if value is Mark.LIST else {} if value is Mark.OBJECT else value
        if not found or found[-1][0] != path[0] or len(path) == 1:
            found.append((path[0], {} if len(path) > 1 else node))
        if len(path) > 1:
            _place(found[-1][1], path[1:], node)
    return found


def _place(tree: Any, path: tuple[Key, ...], node: Any) -> None:
    for key in path[:-1]:
        tree = _child(tree, key)
    if isinstance(tree, dict):
        tree[path[-1]] = node
    else:
        _fill(tree, path[-1], None)
        tree[path[-1]] = node


def _child(tree: Any, key: Key) -> Any:
    if isinstance(tree, dict):
        return tree.setdefault(key, {})
    _fill(tree, key, {})
    return tree[key]


def _fill(items: Any, index: Any, filler: Any) -> None:
    if not isinstance(items, list) or not isinstance(index, int) or index < 0:
        raise InvalidArgumentError("the stream puts a child under a leaf")
    items.extend([None] * (index - len(items)))
    if index == len(items):
        items.append(filler)


def _block(data: bytes, at: int) -> tuple[bytes, int]:
    begin = at + 4
    if begin > len(data):
        raise InvalidArgumentError("the stream is cut off in a length")
    end = begin + _length_at(data, at)[0]
    if end > len(data):
        raise InvalidArgumentError("the stream is cut off in a record")
    return data[begin:end], end


_DECODERS: Final[Mapping[int, Callable[[bytes], Any]]] = {
    Tag.NULL: lambda _: None,
    Tag.BOOL: lambda content: content[0] != 0,
    Tag.INT: lambda content: struct.unpack("<q", content)[0],
    Tag.FLOAT: lambda content: struct.unpack("<d", content)[0],
    Tag.TEXT: lambda content: content.decode(),
    Tag.BYTES: lambda content: content,
    Mark.LIST: lambda _: Mark.LIST,
    Mark.OBJECT: lambda _: Mark.OBJECT,
}
