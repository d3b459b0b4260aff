"""The key-value files of an Aim repository: one RocksDB a run, opened so that nothing is written beside it.

Aim's own reader takes locks, moves write-ahead logs into tables, and deletes an index that it finds broken: none of it
is possible on a directory that must stay as it is. Keys and values are encoded like the tree stream of `wire/streams`,
so RocksDB is all that is needed of Aim (ADR 0012). The only module that knows `aimrocks`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from matyan.errors import ConfigurationError, InvalidArgumentError, MatyanError
from matyan.limits import JSON_DEPTH_MAX
from matyan.wire.streams import Key, Mark, decode_path, decode_value
from matyan.wire.trees import encode_path

_BLOBS: Final = b"BLOBS\xfe"
"""Before the key of a value that stands apart; the value at the key itself is empty."""
_OBJECT_TAG: Final = 15
"""First byte of a value that begins an object of a class; the name of the class follows."""
_OPEN_FILES_MAX: Final = 64
_KEYS_MAX: Final = JSON_DEPTH_MAX + 1
"""Of a path: containers nested as deeply as a frame may nest them, under the name of the part of the run they are."""


class AimDataError(MatyanError):
    """Something of a run cannot be read from the source; the rest of the repository can."""

    code = "invalid_argument"


class ClassMark(NamedTuple):
    """Begins an object of a class."""

    name: str
    """As registered: `aim.image`, `aim.text`, ..."""


class AimObject(NamedTuple):
    """An object of a class, as stored."""

    kind: str
    fields: dict[Key, Any]


class Folded(NamedTuple):
    """A tree that was put together, of bounded depth: whoever walks it may recurse."""

    tree: Any
    """None when there was nothing."""
    cut: tuple[tuple[Key, ...], ...] = ()
    """Paths at which something was nested too deeply, and was left out."""


class _Node:
    """A container while its children arrive."""

    __slots__ = ("children", "mark")

    def __init__(self, mark: object = Mark.OBJECT) -> None:
        self.mark = mark
        self.children: dict[Key, Any] = {}


class Chunk:
    """What one run stored in one of the two parts of a repository, `meta` or `seqs`: a sorted map of paths."""

    def __init__(self, path: Path) -> None:
        """Open the directory `path` for reading.

        Raises:
            ConfigurationError: the extra `aim` is not installed.
            AimDataError: it is damaged, or no database.
        """
        rocks = _import_rocks()
        self._path = path
        try:
            options = rocks.Options(create_if_missing=False, max_open_files=_OPEN_FILES_MAX)
            self._db = rocks.DB(str(path), options, read_only=True)
        except Exception as error:
            raise AimDataError(f"cannot open {path}: {_text(error)}") from error

    def records(self, *path: Key) -> Iterator[tuple[bytes, bytes]]:
        """Yield what lies at and under `path`: the rest of the encoded path, the encoded value; in byte order.

        Raises:
            AimDataError: the file is damaged.
        """
        prefix = encode_path(path)
        length = len(prefix)
        try:
            rows = self._db.iteritems()
            rows.seek(prefix)
            for key, value in rows:
                if not key.startswith(prefix):
                    return
                yield key[length:], value or self._db.get(_BLOBS + key) or b""
        except Exception as error:
            raise AimDataError(f"cannot read {self._path}: {_text(error)}") from error

    def tree(self, *path: Key) -> Folded:
        """Return the tree under `path`.

        Raises:
            AimDataError: the file is damaged.
        """
        return fold((decode_path(key), decode(value)) for key, value in self.readable(*path))

    def readable(self, *path: Key) -> Iterator[tuple[bytes, bytes]]:
        """Yield the records under `path` whose paths can be told apart.

        Aim writes an empty text as a key like the beginning of a number: what stands under it is lost in the source.
        """
        for key, value in self.records(*path):
            try:
                decode_path(key)
            except (InvalidArgumentError, UnicodeDecodeError):
                continue
            yield key, value


def decode(value: bytes) -> Any:
    """Return the leaf that a value holds, or the mark that begins a container.

    Raises:
        AimDataError: unknown tag or wrong length.
    """
    if value and value[0] == _OBJECT_TAG:
        return ClassMark(value[1:].decode("utf-8", "replace"))
    try:
        return decode_value(value)
    except InvalidArgumentError as error:
        raise AimDataError(f"a value cannot be read: {error.message}") from error


def fold(records: Iterable[tuple[tuple[Key, ...], Any]]) -> Folded:
    """Return the tree of (path, leaf or mark) pairs, parents before children.

    What stands both as a leaf and as a container is the container: Aim leaves the leaf behind when a value is
    replaced by a tree. What is nested deeper than trees may be here is left out: Aim stores a path whatever its length.
    """
    root: Any = None
    cut: dict[tuple[Key, ...], None] = {}
    for path, value in records:
        node = _Node(value) if isinstance(value, Mark | ClassMark) else value
        if len(path) + isinstance(node, _Node) > _KEYS_MAX:
            cut[path[:_KEYS_MAX]] = None
        elif path:
            root = root if isinstance(root, _Node) else _Node()
            _place(root, path, node)
        else:
            root = node
    return Folded(_finish(root), tuple(cut))


def _place(root: _Node, path: tuple[Key, ...], node: Any) -> None:
    parent = root
    for key in path[:-1]:
        child = parent.children.get(key)
        if not isinstance(child, _Node):
            child = parent.children[key] = _Node()
        parent = child
    parent.children[path[-1]] = node


def _finish(node: Any) -> Any:
    if not isinstance(node, _Node):
        return node
    children = {key: _finish(child) for key, child in node.children.items()}
    if isinstance(node.mark, ClassMark):
        return AimObject(node.mark.name, children)
    if node.mark is Mark.LIST and all(isinstance(key, int) and key >= 0 for key in children):
        # A place that was never filled is None, as in Aim; places far apart would ask for memory without bound.
        size = max(children, default=-1) + 1  # type: ignore[operator] # all keys are integers here
        if size <= 2 * len(children) + 1024:
            return [children.get(index) for index in range(size)]
    return children


def plain(tree: Any) -> Any:
    """Return a tree with objects of classes as dicts of their fields: what Aim shows of an object among params."""
    if isinstance(tree, AimObject):
        return plain(tree.fields)
    if isinstance(tree, dict):
        return {key: plain(value) for key, value in tree.items()}
    return [plain(value) for value in tree] if isinstance(tree, list) else tree


def _import_rocks() -> Any:
    try:
        import aimrocks  # noqa: PLC0415 - an optional library, wanted by this command alone
    except ImportError as error:
        if sys.version_info >= (3, 13):
            version = f"{sys.version_info.major}.{sys.version_info.minor}"
            raise ConfigurationError(
                f"Aim's storage library (aimrocks) has no release for Python {version}: install matyan into a Python "
                "3.11 or 3.12 with pip install 'matyan-tracker[aim]' and import with that one into the same --home"
            ) from error
        raise ConfigurationError(
            "reading an Aim repository needs Aim's storage library: pip install 'matyan-tracker[aim]'"
        ) from error
    return aimrocks


def check_library() -> None:
    """Raise ConfigurationError, which says what to install, when repositories cannot be read."""
    _import_rocks()


def _text(error: Exception) -> str:
    text = error.args[0] if error.args else error
    return text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text) or repr(error)
