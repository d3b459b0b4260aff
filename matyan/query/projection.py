"""Projection: a query -> the params that it can read -> a decoder of these alone. Pure.

Params are kept encoded: decoded they take five times the memory, and decoding all of them is half of a scan, while a
query looks at one or two. Its tree tells which. A `TypedDict` of just these keys lets msgspec skip the rest, into the
same dicts, less the other keys, that decoding everything gives. What the tree cannot tell, or what has another shape in
some run than the query takes it to have, is decoded whole.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, Final, TypedDict

import msgspec

from matyan.query.names import RUN_ATTRIBUTES
from matyan.query.reads import METHODS_OF_PARAMS, written_keys
from matyan.query.syntax import RUN
from matyan.wire.codec import decode_extension, decode_tree

Path = tuple[str, ...]
DecodeParams = Callable[[bytes], dict[str, Any]]

EVERYTHING: Final[frozenset[Path]] = frozenset({()})
_DECODERS_CACHED_MAX: Final = 128
_READS_ANY_KEY: Final = "get"
"""The fixed attribute of a run that leads to its params."""


def paths_read(tree: ast.AST, variable: str) -> frozenset[Path]:
    """Return the paths into a run's params that a query can read, each with all that is below it.

    Args:
        tree: of the query.
        variable: the word of the search; the run is also this name's attribute `run`.
    """
    finder = _Finder(variable)
    finder.visit(tree)
    return frozenset(finder.found)


@lru_cache(_DECODERS_CACHED_MAX)
def decoder_of(paths: frozenset[Path]) -> DecodeParams:
    """Return what decodes params as far as the paths lead."""
    if () in paths:
        return decode_tree
    known = msgspec.msgpack.Decoder(_shape(paths), ext_hook=decode_extension)

    def decode(data: bytes) -> dict[str, Any]:
        try:
            return known.decode(data)  # type: ignore[no-any-return]  # the type is made at run time
        except msgspec.ValidationError:
            return decode_tree(data)  # type: ignore[no-any-return]  # params are always a dict

    return decode


def _shape(paths: Iterable[Path]) -> Any:
    """Return the type of a tree that has the paths, or some of them."""
    below: dict[str, list[Path]] = {}
    for path in paths:
        if not path:
            return Any
        below.setdefault(path[0], []).append(path[1:])
    return TypedDict("Shape", {key: _shape(rest) for key, rest in below.items()}, total=False)  # type: ignore[operator]  # made at run time


class _Finder(ast.NodeVisitor):
    """Collects paths. Whatever is not understood reads everything."""

    def __init__(self, variable: str) -> None:
        self.found: set[Path] = set()
        self._sequence = variable if variable != RUN else None

    def visit(self, node: ast.AST) -> None:
        """Note what the node reads, or look into its parts."""
        path = self._path(node)
        if path is not None:
            self.found.add(path)
        elif isinstance(node, ast.Name) and node.id == self._sequence:
            self.found |= EVERYTHING
        elif not self._is_no_param(node):
            self.generic_visit(node)

    def _path(self, node: ast.AST) -> Path | None:
        """Return the path that a node stands for, () for the run itself; None when it stands for something else."""
        if self._is_run(node):
            return ()
        if not isinstance(node, ast.Attribute | ast.Subscript):
            return None
        base = self._path(node.value)
        if base is None:
            return None
        if isinstance(node, ast.Attribute):
            return None if node.attr in (METHODS_OF_PARAMS if base else RUN_ATTRIBUTES) else (*base, node.attr)
        keys = written_keys(node.slice)
        return (*base, *keys) if keys else None

    def _is_run(self, node: ast.AST) -> bool:
        if isinstance(node, ast.Attribute):
            return node.attr == RUN and isinstance(node.value, ast.Name) and node.value.id == self._sequence
        return isinstance(node, ast.Name) and node.id == RUN

    def _is_no_param(self, node: ast.AST) -> bool:
        """Return whether a node is an attribute of the run or of the sequence that has a meaning of its own."""
        if not isinstance(node, ast.Attribute):
            return False
        if self._is_run(node.value):
            return node.attr in RUN_ATTRIBUTES and node.attr != _READS_ANY_KEY
        return isinstance(node.value, ast.Name) and node.value.id == self._sequence
