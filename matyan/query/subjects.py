"""What a part of a query stands for, where that is indexed: a run's attribute or param, or the sequence's. Pure."""

from __future__ import annotations

import ast
import enum
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from matyan.query.literals import Literals, UnknownValueError
from matyan.query.names import RUN_ATTRIBUTES, context_text
from matyan.query.syntax import RUN
from matyan.runs.index import Field, Kind
from matyan.runs.model import SYSTEM_PARAMS
from matyan.sequences.model import Bucket


class Reads(enum.Enum):
    """What the query sees as the value of a field, and so what that can be compared with."""

    FLAG = enum.auto()
    """True or False."""
    TEXT = enum.auto()
    """A plain text, with its methods; or None."""
    NUMBER = enum.auto()
    MOMENT = enum.auto()
    """A date of the viewer's, which also compares with numbers; or None."""
    PARAM = enum.auto()
    """Anything, without methods."""
    NAMES = enum.auto()
    """A list of texts."""


class Indexed(NamedTuple):
    """A value of the run."""

    field: Field
    reads: Reads


class OfSequence(NamedTuple):
    """A value of the sequence that the query is asked of."""

    word: str
    """`name`, `context`, `last`, `min` or `max`."""


Subject = Indexed | OfSequence

VALUES: Final[Mapping[str, Kind]] = {"last": Kind.LAST, "min": Kind.MINIMUM, "max": Kind.MAXIMUM}
_PARTS: Final = frozenset({"name", "context", *VALUES})
_ATTRIBUTES: Final[Mapping[str, Indexed]] = {
    "archived": Indexed(Field(Kind.ARCHIVED), Reads.FLAG),
    "is_archived": Indexed(Field(Kind.ARCHIVED), Reads.FLAG),
    "active": Indexed(Field(Kind.ACTIVE), Reads.FLAG),
    "name": Indexed(Field(Kind.NAME), Reads.TEXT),
    "hash": Indexed(Field(Kind.HASH), Reads.TEXT),
    "experiment": Indexed(Field(Kind.EXPERIMENT), Reads.TEXT),
    "tags": Indexed(Field(Kind.TAG), Reads.NAMES),
    "creation_time": Indexed(Field(Kind.CREATED), Reads.NUMBER),
    "end_time": Indexed(Field(Kind.ENDED), Reads.NUMBER),
    "duration": Indexed(Field(Kind.DURATION), Reads.NUMBER),
    "created_at": Indexed(Field(Kind.CREATED), Reads.MOMENT),
    "finalized_at": Indexed(Field(Kind.ENDED), Reads.MOMENT),
}
_NODE_METHODS: Final = frozenset({"get", "keys"})
"""Attributes of a param that are no keys of it."""


class Subjects:
    """Finds out what expressions of a query stand for."""

    def __init__(self, variable: str, literals: Literals) -> None:
        """Keep what the names mean: `variable` is the word of the search."""
        self._variable = variable
        self._literals = literals

    def of(self, node: ast.expr) -> Subject | None:
        """Return what `node` stands for, None when that is not indexed."""
        if isinstance(node, ast.Attribute):
            if self._is_sequence(node.value):
                return OfSequence(node.attr) if node.attr in _PARTS else None
            if self._is_run(node.value) and node.attr in RUN_ATTRIBUTES:
                return _ATTRIBUTES.get(node.attr)
            if (found := self._of_metrics(node)) is not None:
                return found
        path = self._path(node)
        if not path or path[0] == SYSTEM_PARAMS:
            return None
        return Indexed(Field(Kind.PARAM, path), Reads.PARAM)

    def _is_sequence(self, node: ast.expr) -> bool:
        return self._variable != RUN and isinstance(node, ast.Name) and node.id == self._variable

    def _is_run(self, node: ast.expr) -> bool:
        if isinstance(node, ast.Attribute):
            return node.attr == RUN and self._is_sequence(node.value)
        return isinstance(node, ast.Name) and node.id == RUN

    def _path(self, node: ast.expr) -> tuple[str, ...] | None:
        """Return the keys that lead to a param, none for the run itself; None for what is no param."""
        if self._is_run(node):
            return ()
        if isinstance(node, ast.Attribute):
            hidden = RUN_ATTRIBUTES if self._is_run(node.value) else _NODE_METHODS
            return None if node.attr in hidden else self._extended(node.value, node.attr)
        if isinstance(node, ast.Subscript):
            return self._extended(node.value, self._literal(node.slice))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get":
            key = self._literal(node.args[0]) if len(node.args) == 1 and not node.keywords else None
            return self._extended(node.func.value, key) if isinstance(key, str) else None
        return None

    def _extended(self, base: ast.expr, key: object) -> tuple[str, ...] | None:
        """Return the path to `base` and on by a key, or by several."""
        keys = key if isinstance(key, tuple) else (key,)
        path = self._path(base)
        if path is None or not keys or not all(isinstance(each, str) for each in keys):
            return None
        return (*path, *keys)

    def _of_metrics(self, node: ast.Attribute) -> Indexed | None:
        """Return what `run.metrics[name, context].last` and its like stand for."""
        kind, item = VALUES.get(node.attr), node.value
        if kind is None or not isinstance(item, ast.Subscript) or not isinstance(item.value, ast.Attribute):
            return None
        if item.value.attr != "metrics" or not self._is_run(item.value.value):
            return None
        try:
            key = sequence_key(self._literals.value_of(item.slice))
        except UnknownValueError:
            return None
        return None if key is None else Indexed(Field(kind, (Bucket.METRIC.word, *key)), Reads.NUMBER)

    def _literal(self, node: ast.expr) -> Any:
        """Return the value of a literal; None for what is none, which is no key either."""
        try:
            return self._literals.value_of(node)
        except UnknownValueError:
            return None


def sequence_key(item: object) -> tuple[str, str] | None:
    """Return the name and the canonical context that `run.metrics[item]` looks for; None when it finds nothing."""
    name, context = item if isinstance(item, tuple) and len(item) == len(("name", "context")) else (item, {})
    if type(name) is not str or type(context) is not dict:
        return None
    try:
        return name, context_text(context)
    except (TypeError, ValueError):  # no JSON, which fails with each run, too
        return None


def sequences_looked_up(nodes: Sequence[ast.AST], literals: Literals) -> frozenset[tuple[str, str]] | None:
    """Return name and canonical context of all that a query can look for in `run.metrics`; None when anything.

    Args:
        nodes: all of the query that have content.
        literals: what reads names and contexts.
    """
    items = {id(node.value): node.slice for node in nodes if isinstance(node, ast.Subscript)}
    found = set()
    for node in nodes:
        if not isinstance(node, ast.Attribute) or node.attr != "metrics":
            continue
        if id(node) not in items:
            return None
        try:
            key = sequence_key(literals.value_of(items[id(node)]))
        except UnknownValueError:
            return None
        found |= {key} if key is not None else set()
    return frozenset(found)
