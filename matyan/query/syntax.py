"""From text to a checked syntax tree: preparation, CPython's own syntax check, and our whitelist."""

from __future__ import annotations

import ast
import re
import threading
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from RestrictedPython.transformer import INSPECT_ATTRIBUTES

from matyan.errors import InvalidArgumentError, QuerySyntaxError
from matyan.query.sandbox import COLLIDING_MAX, HASH_BITS

if TYPE_CHECKING:
    from collections.abc import Iterator

FILENAME: Final = "<query>"
TEXT_CHARACTERS_MAX: Final = 65_536
NODES_MAX: Final = 6_000
DEPTH_MAX: Final = 100
TOKENS_MAX: Final = 14_000
"""About; the parser, which nothing interrupts, shall not see more."""
DEPTHS_MAX: Final = 100_000
"""The depths of all parts together: what it costs to compile them."""
_EXTRA_PARTS: Final = dict.fromkeys(
    (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp, ast.JoinedStr, ast.FormattedValue, ast.arg), 8
)
"""Kinds of which each costs the compiler as much as so many ordinary parts more (0.03 to 0.2 ms)."""
LITERAL_BITS_MAX: Final = 1024
RUN: Final = "run"

_ARCHIVED_ATTRIBUTE: Final = "run.archived"
_DEFAULT: Final = "run.archived == False"

_NODES: Final = frozenset(
    {
        *(ast.Expression, ast.Constant, ast.Name, ast.Tuple, ast.List, ast.Set, ast.Dict, ast.Starred),
        *(ast.BoolOp, ast.BinOp, ast.UnaryOp, ast.Compare, ast.IfExp, ast.NamedExpr),
        *(ast.Attribute, ast.Subscript, ast.Slice, ast.Call, ast.keyword),
        *(ast.Lambda, ast.arguments, ast.arg, ast.comprehension),
        *(ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp, ast.JoinedStr, ast.FormattedValue),
    }
)
"""Besides operators and contexts, which have no content. What a newer Python adds is refused until somebody looks."""
_CONTENTLESS: Final = (ast.operator, ast.unaryop, ast.boolop, ast.cmpop, ast.expr_context)
_SURE: Final = frozenset(
    {
        *(ast.Expression, ast.Constant, ast.Name, ast.List, ast.Attribute, ast.Subscript, ast.Slice),
        *(ast.BoolOp, ast.BinOp, ast.UnaryOp, ast.Compare, ast.IfExp),
    }
)
"""What the compiler has nothing to object to, once it is parsed."""
_CONSTANTS: Final = frozenset({str, bytes, int, float, complex, bool, type(None), type(...)})
_FORBIDDEN_CALLS: Final = frozenset({"eval", "exec"})

_TOKEN: Final = re.compile(r"\w+|[^\w\s]")

_compile_lock: Final = threading.Lock()


@contextmanager
def without_warnings() -> Iterator[None]:
    """Compile without Python's advice on the text (`x is 1`), which would end up in the server's log or raise.

    The filters are the process's: one thread at a time, and only for our texts, since others may warn meanwhile.
    """
    with _compile_lock, warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=FILENAME)
        yield


def prepare(text: str, *, variable: str) -> str:
    """Return the text that is parsed: stripped, without `select ... if`, in parentheses; or an empty one.

    Raises:
        QuerySyntaxError: a `select` without `if`.
    """
    stripped = text.strip()
    if variable == RUN and stripped.lower().startswith("select"):
        parts = re.split("if", stripped, maxsplit=1, flags=re.IGNORECASE)
        if len(parts) == 1:
            # The recorded answer; no character of the text is to blame.
            raise QuerySyntaxError("select without if", statement="", line=0, offset=0, end_offset=0)
        stripped = parts[1].strip()
    return f"({stripped})" if stripped else ""


def parse(prepared: str) -> ast.Expression:
    """Return the tree of a prepared text with the default filter; of one that was checked, this raises nothing."""
    return _with_default(_parse_expression(prepared), prepared) if prepared else _parse_expression(_DEFAULT)


def _with_default(tree: ast.Expression, prepared: str) -> ast.Expression:
    if _ARCHIVED_ATTRIBUTE not in prepared:
        # Joined as trees, not as text: positions in the user's part stay the user's.
        default = _parse_expression(_DEFAULT)
        tree.body = ast.copy_location(ast.BoolOp(op=ast.And(), values=[default.body, tree.body]), tree.body)
    return tree


def check(prepared: str) -> ast.Expression:
    """Check a prepared text and return what `parse` does.

    Raises:
        QuerySyntaxError: it is no Python expression, by CPython's own account.
        InvalidArgumentError: it is one, but too large, or it uses what queries may not use.
    """
    if len(prepared) > TEXT_CHARACTERS_MAX:
        raise InvalidArgumentError(f"the query has {len(prepared)} characters, limit {TEXT_CHARACTERS_MAX}")
    if not prepared:
        return _parse_expression(_DEFAULT)
    if sum(1 for _ in _TOKEN.finditer(prepared)) > TOKENS_MAX:
        raise InvalidArgumentError(f"the query has more than {TOKENS_MAX} words and signs")
    try:
        tree = _parse_expression(prepared)
        nodes = _nodes(tree)
        # Misplaced await and yield, repeated arguments and the like are found only here.
        if not all(type(node) in _SURE for node in nodes):
            with without_warnings():
                compile(tree, FILENAME, "eval", dont_inherit=True)
    except SyntaxError as error:
        raise QuerySyntaxError(
            error.msg,
            statement=error.text,
            line=error.lineno or 1,
            offset=error.offset or 0,
            end_offset=error.end_offset or 0,
        ) from error
    except (ValueError, RecursionError, MemoryError, OverflowError) as error:
        raise InvalidArgumentError(f"the query cannot be parsed: {str(error) or type(error).__name__}") from error
    for node in nodes:
        _check_node(node)
    return _with_default(tree, prepared)


def is_constant(node: ast.AST) -> bool:
    """Return whether the value of an expression is written out in it."""
    if isinstance(node, ast.Constant):
        return True
    if isinstance(node, ast.UnaryOp):
        return isinstance(node.operand, ast.Constant)
    if isinstance(node, ast.List | ast.Tuple | ast.Set):
        return all(map(is_constant, node.elts))
    if isinstance(node, ast.Dict):
        return all(key is not None and is_constant(key) for key in node.keys) and all(map(is_constant, node.values))
    return False


def _parse_expression(text: str) -> ast.Expression:
    with without_warnings():
        return ast.parse(text, FILENAME, mode="eval")


def _nodes(tree: ast.Expression) -> list[ast.AST]:
    """Return all nodes that have content.

    Raises:
        InvalidArgumentError: they are too many, or nest too deep.
    """
    level: list[ast.AST] = [tree]
    nodes: list[ast.AST] = []
    depths = 0
    for depth in range(DEPTH_MAX):
        nodes += level
        level = [child for node in level for child in _content(node)]
        depths += depth * len(level)
        if len(nodes) + len(level) > NODES_MAX or depths > DEPTHS_MAX:
            raise InvalidArgumentError(f"the query has more than {NODES_MAX} parts, or too many deep ones")
        if not level:
            break
    else:
        raise InvalidArgumentError(f"the query nests deeper than {DEPTH_MAX}")
    if len(nodes) + sum(_EXTRA_PARTS.get(type(node), 0) for node in nodes) > NODES_MAX:
        raise InvalidArgumentError("the query has too many comprehensions, f-strings or parameters of functions")
    if sum(map(_is_colliding, nodes)) > COLLIDING_MAX:
        raise InvalidArgumentError(f"the query has more than {COLLIDING_MAX} tuples, complex or long numbers")
    return nodes


def _content(node: ast.AST) -> Iterator[ast.AST]:
    return (child for child in ast.iter_child_nodes(node) if not isinstance(child, _CONTENTLESS))


def _is_colliding(node: ast.AST) -> bool:
    """Return whether it may be a constant whose hash the author can choose; the compiler keeps constants in a dict."""
    if isinstance(node, ast.Constant):
        return type(node.value) is complex or (type(node.value) is int and node.value.bit_length() > HASH_BITS)
    return isinstance(node, ast.Tuple)


def _check_node(node: ast.AST) -> None:
    if isinstance(node, _CONTENTLESS):
        return
    if type(node) not in _NODES:
        raise _refusal(node, f"{type(node).__name__} is not available in queries")
    for name in _names(node):
        if name.startswith("_") and name != "_":
            raise _refusal(node, f"the name {name!r} starts with an underscore")
    if isinstance(node, ast.Constant):
        _check_constant(node)
    elif isinstance(node, ast.Attribute | ast.Subscript) and not isinstance(node.ctx, ast.Load):
        raise _refusal(node, "only names can be assigned to in queries")
    elif isinstance(node, ast.Attribute) and node.attr in INSPECT_ATTRIBUTES:
        raise _refusal(node, f"the attribute {node.attr!r} is not available in queries")
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _FORBIDDEN_CALLS:
        raise _refusal(node, f"{node.func.id} is not available in queries")
    elif isinstance(node, ast.comprehension) and node.is_async:
        raise InvalidArgumentError("asynchronous comprehensions are not available in queries")


def _check_constant(node: ast.Constant) -> None:
    if type(node.value) not in _CONSTANTS:
        raise _refusal(node, f"a literal of type {type(node.value).__name__} is not available in queries")
    if type(node.value) is int and node.value.bit_length() > LITERAL_BITS_MAX:
        raise _refusal(node, f"a number has more than {LITERAL_BITS_MAX} bits")


def _names(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Name):
        yield node.id
    elif isinstance(node, ast.Attribute):
        yield node.attr
    elif isinstance(node, ast.arg | ast.keyword) and node.arg is not None:
        yield node.arg


def _refusal(node: ast.AST, message: str) -> InvalidArgumentError:
    line, column = getattr(node, "lineno", 1), getattr(node, "col_offset", 0)
    return InvalidArgumentError(f"{message} (line {line}, column {column})")
