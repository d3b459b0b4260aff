"""What is written out in a query: expressions whose value is known without any run. Pure."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from matyan.query.syntax import LITERAL_BITS_MAX


class UnknownValueError(Exception):
    """The value of an expression depends on runs, or it is none that a plan can use."""


class AtLeast(NamedTuple):
    """A moment that is read from the clock when the query is evaluated: then or later."""

    moment: datetime


class Literals:
    """Evaluates literals, and dates that are made of such, at one moment."""

    def __init__(self, now_seconds: float) -> None:
        """Keep the moment: seconds since 1970-01-01 UTC, not later than any evaluation of the query."""
        self._now_seconds = now_seconds

    def value_of(self, node: ast.expr) -> Any:
        """Return None, a bool, number, text, date or duration, or a list, tuple or dict of such. A set is a list.

        Raises:
            UnknownValueError: the expression is none of these.
        """
        reader = self._READERS.get(type(node))
        if reader is None:
            raise UnknownValueError(type(node).__name__)
        try:
            value = reader(self, node)
        except (ArithmeticError, TypeError, ValueError) as error:  # it fails with each run, too
            raise UnknownValueError(repr(error)) from error
        if type(value) is int and value.bit_length() > LITERAL_BITS_MAX:
            raise UnknownValueError("an integer is too large")
        return value

    def _constant(self, node: ast.Constant) -> Any:
        if isinstance(node.value, bytes | complex) or node.value is ...:
            raise UnknownValueError(repr(node.value))
        return node.value

    def _unary(self, node: ast.UnaryOp) -> Any:
        operation = _UNARY.get(type(node.op))
        if operation is None:
            raise UnknownValueError(type(node.op).__name__)
        return operation(self.value_of(node.operand))

    def _binary(self, node: ast.BinOp) -> Any:
        operation = _BINARY.get(type(node.op))
        if operation is None:
            raise UnknownValueError(type(node.op).__name__)
        left, right = self.value_of(node.left), self.value_of(node.right)
        if type(left) is AtLeast and type(right) is timedelta:
            return AtLeast(operation(left.moment, right))
        if type(left) not in _COUNTABLE or type(right) not in _COUNTABLE:
            raise UnknownValueError("not a number or date")
        return operation(left, right)

    def _list(self, node: ast.List | ast.Set) -> list[Any]:
        return [self.value_of(element) for element in node.elts]

    def _tuple(self, node: ast.Tuple) -> tuple[Any, ...]:
        return tuple(self.value_of(element) for element in node.elts)

    def _dict(self, node: ast.Dict) -> dict[Any, Any]:
        if None in node.keys:
            raise UnknownValueError("a dict is unpacked")
        return {
            self.value_of(key): self.value_of(value) for key, value in zip(node.keys, node.values, strict=True) if key
        }

    def _call(self, node: ast.Call) -> Any:
        if isinstance(node.func, ast.Name) and node.func.id in _CONSTRUCTORS:
            positional = [self.value_of(argument) for argument in node.args]
            named = {each.arg: self.value_of(each.value) for each in node.keywords if each.arg is not None}
            if len(named) != len(node.keywords):
                raise UnknownValueError("keywords are unpacked")
            return _CONSTRUCTORS[node.func.id](*positional, **named)
        if not (isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name)):
            raise UnknownValueError("a call")
        if node.args or node.keywords or node.func.value.id != "datetime" or node.func.attr not in _CLOCKS:
            raise UnknownValueError("a call")
        return AtLeast(_CLOCKS[node.func.attr](self._now_seconds))

    _READERS: Final[Mapping[type[ast.expr], Callable[[Literals, Any], Any]]] = {
        ast.Constant: _constant,
        ast.UnaryOp: _unary,
        ast.BinOp: _binary,
        ast.List: _list,
        ast.Set: _list,
        ast.Tuple: _tuple,
        ast.Dict: _dict,
        ast.Call: _call,
    }


def _local_now(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds)  # noqa: DTZ006 - what `datetime.now()` gives to a query


def _utc_now(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None)


_UNARY: Final[Mapping[type[ast.unaryop], Callable[[Any], Any]]] = {ast.USub: operator.neg, ast.UAdd: operator.pos}
_BINARY: Final[Mapping[type[ast.operator], Callable[[Any, Any], Any]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_COUNTABLE: Final = frozenset({bool, int, float, datetime, timedelta})
_CONSTRUCTORS: Final[Mapping[str, Callable[..., object]]] = {"datetime": datetime, "timedelta": timedelta}
_CLOCKS: Final[Mapping[str, Callable[[float], datetime]]] = {
    "now": _local_now,
    "today": _local_now,
    "utcnow": _utc_now,
}
