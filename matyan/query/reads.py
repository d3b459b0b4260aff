"""Reads: what a query reads of its run, looked up once when it is compiled instead of for every row.

`run.hparams.lr < 0.1` is two guarded lookups, each of which asks anew what stands before the dot, and three objects:
the run's name and a node for each key. Where the tree says that `run` is the run and which keys follow, all this
becomes one call of one function, and none where an attribute is stored as it is told. What a param gives depends on who
sees it: an operator sees the value behind a node only, so where nothing else looks at it no node is made.
`tests/unit/query/test_reads.py` compares both.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from enum import IntEnum
from itertools import pairwise
from typing import Final, NamedTuple

from matyan.query.names import RUN_READERS, RUN_STORED, RunName
from matyan.query.nodes import MISSING, UNDEFINED, Missing, Node, Undefined
from matyan.query.sandbox import Proxy
from matyan.query.syntax import RUN, is_constant

Read = Callable[[RunName], object]
Reads = Mapping[str, Read]
"""By the names under which compiled code calls them; they begin with an underscore, so query text cannot say them."""

METHODS_OF_PARAMS: Final = frozenset({"get", "keys"})
"""Attributes of a parameter that are none of its keys."""
_NUMBERS: Final = frozenset({int, float, bool})
_ORDERS: Final = (ast.Lt, ast.LtE, ast.Gt, ast.GtE)
_MEMBERSHIPS: Final = (ast.In, ast.NotIn)
_IDENTITIES: Final = (ast.Is, ast.IsNot)


class Seen(IntEnum):
    """Who looks at what is read, from the least to the most that must be told of it."""

    BY_VALUE = 0
    """An operator to which a node would only hand its value; what is missing is an object of its own kind."""
    BY_ORDER = 1
    """A sign of order with a number beside it: numbers can be ordered, for others a node says what comes out."""
    BY_ANYTHING = 2


class Place(NamedTuple):
    """Where a param stands."""

    keys: tuple[str, ...]
    looked_up_at_once: int
    """Keys of the first lookup: `run['a', 'b']` has two, `run['a']['b']` and `run.a.b` have one."""

    @property
    def missing(self) -> Proxy:
        """What is read where there is no such param."""
        return MISSING if len(self.keys) == self.looked_up_at_once else UNDEFINED


class Resolved(ast.expr):
    """A part of a query that is safe as it stands: no text is parsed to this."""

    _fields = ("expression",)

    def __init__(self, expression: ast.expr) -> None:
        """Keep what it stands for."""
        super().__init__()
        self.expression = expression


def resolve(body: ast.expr) -> tuple[ast.expr, Reads]:
    """Return an expression, which is changed, with `Resolved` for what it reads of the run, and what these call."""
    if _binds_run(body):
        return body, {}
    resolver = _Resolver()
    return resolver.visit(body), resolver.reads


def _binds_run(body: ast.expr) -> bool:
    """Return whether `run` may mean something else in a part of the expression."""
    return any(
        node.arg == RUN
        if isinstance(node, ast.arg)
        else isinstance(node, ast.Name) and node.id == RUN and not isinstance(node.ctx, ast.Load)
        for node in ast.walk(body)
    )


def place_of(node: ast.AST) -> Place | None:
    """Return the place that an expression names below `run` in so many words, or None."""
    if isinstance(node, ast.Attribute):
        if _is_run(node.value):
            return None if node.attr in RUN_READERS else Place((node.attr,), 1)
        keys: tuple[str, ...] = () if node.attr in METHODS_OF_PARAMS else (node.attr,)
    elif isinstance(node, ast.Subscript):
        keys = written_keys(node.slice)
        if _is_run(node.value):
            return Place(keys, len(keys)) if keys else None
    else:
        return None
    base = place_of(node.value) if keys else None
    return None if base is None else Place((*base.keys, *keys), base.looked_up_at_once)


def _is_run(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id == RUN


def written_keys(item: ast.expr) -> tuple[str, ...]:
    """Return the keys that a subscript names; none where it does not write them out, or has others than texts."""
    parts = item.elts if isinstance(item, ast.Tuple) else [item]
    keys = [part.value for part in parts if isinstance(part, ast.Constant) and isinstance(part.value, str)]
    return tuple(keys) if len(keys) == len(parts) else ()


# ---- resolving


class _Resolver(ast.NodeTransformer):
    """Replaces what is read of the run, and remembers how it is read."""

    def __init__(self) -> None:
        self.reads: dict[str, Read] = {}
        self._names: dict[object, str] = {}

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        """Resolve what anything may look at."""
        return self._resolved(node, Seen.BY_ANYTHING) or self.generic_visit(node)

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        """Resolve what anything may look at."""
        return self._resolved(node, Seen.BY_ANYTHING) or self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        """Resolve what a guarded operator looks at."""
        node.left = self._operand(node.left, Seen.BY_VALUE)
        node.right = self._operand(node.right, Seen.BY_VALUE)
        return node

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        """Resolve what is compared, as its neighbours allow."""
        operands = [node.left, *node.comparators]
        seen = [Seen.BY_VALUE] * len(operands)
        for at, ((left, right), sign) in enumerate(zip(pairwise(operands), node.ops, strict=True)):
            seen[at] = max(seen[at], _seen_before(sign, right))
            seen[at + 1] = max(seen[at + 1], _seen_behind(sign, left))
        node.left, *node.comparators = map(self._operand, operands, seen)
        return node

    def _operand(self, node: ast.expr, seen: Seen) -> ast.expr:
        resolved: ast.expr = self._resolved(node, seen) or self.visit(node)
        return resolved

    def _resolved(self, node: ast.expr, seen: Seen) -> Resolved | None:
        if isinstance(node, ast.Attribute) and _is_run(node.value) and node.attr in RUN_READERS:
            if node.attr in RUN_STORED:
                return _stored(node, RUN_STORED[node.attr])
            return self._call(node, node.attr, RUN_READERS[node.attr])
        place = place_of(node)
        return None if place is None else self._call(node, (place, seen), _reader(place, _NO_NODES[seen]))

    def _call(self, node: ast.expr, what: object, read: Read) -> Resolved:
        """Return the call that reads something: one function for all places of the text that do so alike."""
        name = self._names.setdefault(what, f"_read_{len(self._names)}_")
        self.reads.setdefault(name, read)
        call = ast.Call(func=ast.Name(name, ast.Load()), args=[ast.Name(RUN, ast.Load())], keywords=[])
        return ast.copy_location(Resolved(call), node)


def _stored(node: ast.expr, path: str) -> Resolved:
    """Return what reads an attribute that stands at a path from the run's name on."""
    expression: ast.expr = ast.Name(RUN, ast.Load())
    for name in path.split("."):
        expression = ast.Attribute(expression, name, ast.Load())
    return ast.copy_location(Resolved(expression), node)


def _seen_before(sign: ast.cmpop, right: ast.expr) -> Seen:
    """Return how a comparison looks at what stands before its sign."""
    if isinstance(sign, _MEMBERSHIPS):
        # A tuple finds what it holds by identity, too, and then NaN equals itself; none can be written out.
        is_written = isinstance(right, ast.Tuple | ast.List | ast.Set) and is_constant(right)
        return Seen.BY_VALUE if is_written else Seen.BY_ANYTHING
    return _seen_beside(sign, right)


def _seen_behind(sign: ast.cmpop, left: ast.expr) -> Seen:
    """Return how a comparison looks at what stands behind its sign."""
    return Seen.BY_VALUE if isinstance(sign, _MEMBERSHIPS) else _seen_beside(sign, left)


def _seen_beside(sign: ast.cmpop, other: ast.expr) -> Seen:
    if isinstance(sign, _ORDERS):
        return Seen.BY_ORDER if _is_number(other) else Seen.BY_ANYTHING
    return Seen.BY_ANYTHING if isinstance(sign, _IDENTITIES) else Seen.BY_VALUE


def _is_number(node: ast.expr) -> bool:
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        node = node.operand
    return isinstance(node, ast.Constant) and type(node.value) in _NUMBERS


# ---- reading


_MISSING_KINDS: Final = frozenset({Missing, Undefined})
_NO_NODES: Final[Mapping[Seen, frozenset[type]]] = {
    Seen.BY_VALUE: _MISSING_KINDS | {str, int, float, bool, type(None), list, dict},
    Seen.BY_ORDER: _MISSING_KINDS | _NUMBERS,
    Seen.BY_ANYTHING: _MISSING_KINDS,
}
"""Kinds of values that need no node."""


def _reader(place: Place, no_nodes: frozenset[type]) -> Read:
    """Return what reads a param, in the way of a function that a scan calls for every run."""
    missing = place.missing
    first, *others = place.keys

    def read(name: RunName) -> object:
        found = (name.known_params or name.params()).get(first, missing)
        return found if type(found) in no_nodes else Node(found)

    def read_below(name: RunName) -> object:
        found = (name.known_params or name.params()).get(first)
        for key in others:
            if type(found) is not dict or key not in found:
                return missing
            found = found[key]
        return found if type(found) in no_nodes else Node(found)

    return read_below if others else read
