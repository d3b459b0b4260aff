"""An independent decoder of the binary tree stream, written from the contract alone.

It shares no code with `matyan.wire.trees`, so that both cannot be wrong in the same way, and it refuses what the web UI
would choke on.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, Final, cast

Key = str | int
_SENTINEL: Final = 0xFE
_LIST: Final = object()
_OBJECT: Final = object()


class CorruptedStreamError(Exception):
    """The web UI would refuse this stream."""


def records(data: bytes) -> Iterator[tuple[tuple[Key, ...], Any]]:
    """Yield (path, value) of every record; list and object marks come as private markers."""
    position = 0
    while position < len(data):
        path, position = _block(data, position)
        value, position = _block(data, position)
        yield _path(path), _value(value)


def trees(data: bytes) -> list[tuple[Key, Any]]:
    """Return (top-level key, tree) in order of arrival, as the web UI delivers them."""
    found: list[tuple[Key, Any]] = []
    for path, value in records(data):
        if not path:
            raise CorruptedStreamError("a record has the empty path")
        node = [] if value is _LIST else {} if value is _OBJECT else value
        if not found or found[-1][0] != path[0]:
            found.append((path[0], None if len(path) == 1 else {}))
            if len(path) == 1:
                found[-1] = (path[0], node)
                continue
        if len(path) == 1:
            raise CorruptedStreamError(f"{path} comes twice in a row")
        _place(found[-1][1], path[1:], node)
    return found


def runs(data: bytes) -> dict[str, Any]:
    """Return run id -> tree of a search answer, progress messages left out.

    Raises:
        CorruptedStreamError: a run comes twice.
    """
    found: dict[str, Any] = {}
    for key, tree in trees(data):
        name = cast("str", key)
        if name.startswith("progress"):
            continue
        if name in found:
            raise CorruptedStreamError(f"run {name} comes twice")
        found[name] = tree
    return found


def progress(data: bytes) -> list[list[int]]:
    """Return the [checked, total] pairs of a search answer in order."""
    return [tree for key, tree in trees(data) if isinstance(key, str) and key.startswith("progress_")]


def numbers(array: dict[str, Any] | None) -> list[float]:
    """Return the doubles of an encoded array; a null one is empty."""
    if array is None:
        return []
    assert array["type"] == "numpy"
    assert array["dtype"] == "float64"
    blob = array["blob"]
    values = list(struct.unpack(f"<{len(blob) // 8}d", blob))
    assert array["shape"] == len(values)
    return values


def _block(data: bytes, position: int) -> tuple[bytes, int]:
    if position + 4 > len(data):
        raise CorruptedStreamError("the stream ends inside a length")
    (size,) = struct.unpack_from("<I", data, position)
    end = position + 4 + size
    if end > len(data):
        raise CorruptedStreamError("the stream ends inside a record")
    return data[position + 4 : end], end


def _path(data: bytes) -> tuple[Key, ...]:
    keys: list[Key] = []
    position = 0
    while position < len(data):
        if data[position] == _SENTINEL:
            keys.append(struct.unpack_from(">q", data, position + 1)[0])
            position += 9
        else:
            end = data.index(_SENTINEL, position)
            keys.append(data[position:end].decode())
            position = end
        if data[position : position + 1] != bytes([_SENTINEL]):
            raise CorruptedStreamError("a key does not end in a sentinel")
        position += 1
    return tuple(keys)


def _value(data: bytes) -> Any:
    tag, content = data[0], data[1:]
    if tag == 1:
        return content != b"\x00"
    if tag in (2, 3):
        return struct.unpack("<q" if tag == 2 else "<d", content)[0]
    plain = {0: None, 4: content, 5: content, 6: _LIST, 7: _OBJECT}
    if tag not in plain:
        raise CorruptedStreamError(f"unknown type tag {tag}")
    return content.decode() if tag == 4 else plain[tag]


def _place(root: Any, path: tuple[Key, ...], node: Any) -> None:
    for key in path[:-1]:
        root = _child(root, key)
    key = path[-1]
    if isinstance(root, list):
        if key != len(root):
            raise CorruptedStreamError(f"list element {key} comes when {len(root)} is due")
        root.append(node)
    elif key in root:
        raise CorruptedStreamError(f"{path} comes twice")
    else:
        root[key] = node


def _child(parent: Any, key: Key) -> Any:
    """Step into a child; a dict needs no mark of its own, a list does."""
    if isinstance(parent, list):
        if key == len(parent):
            parent.append({})
        return parent[cast("int", key)]
    return parent.setdefault(key, {})
