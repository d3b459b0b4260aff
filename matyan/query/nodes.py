"""Nodes: the lazy, read-only stand-ins for parameters and contexts, with the semantics of the query language.

What is missing has three forms (query-language.md, section 5): MISSING equals None; UNDEFINED equals nothing at all;
a missing key of a context ends the evaluation.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from matyan.query.sandbox import Proxy, plain

if TYPE_CHECKING:
    from collections.abc import Iterator

ABSENT: Final = object()


def child_of(value: Any, key: object) -> object:
    """Return `value[key]` of a JSON-like tree, or ABSENT. A list is indexed from 0 up, and only text is no container.

    Raises:
        TypeError: the key is a slice or not hashable.
    """
    kind = type(value)
    if kind is dict:
        return value.get(key, ABSENT)
    if type(key) is slice:
        raise TypeError("a parameter has no slices")
    if kind is list and type(key) is int and 0 <= key < len(value):
        return value[key]
    return ABSENT


class Node(Proxy):
    """A parameter or a part of one. Operators and functions see the value; attributes and items are its keys."""

    __slots__ = ("_value",)

    def __init__(self, value: Any) -> None:
        self._value = value

    def get_attribute(self, name: str) -> object:
        """Return the part under a key, or one of the two methods that hide keys of their name."""
        if name == "get":
            return self._get
        if name == "keys":
            return self._keys
        return self._child(name)

    def get_item(self, key: object) -> object:
        """Return the part under a key, or under a path of keys."""
        if type(key) is not tuple:
            return self._child(plain(key))
        node: object = self
        for part in key:
            node = node.get_item(part) if isinstance(node, Proxy) else UNDEFINED
        return node

    def plain(self) -> object:
        """Return the value."""
        return self._value

    def contents(self) -> object:
        """Return the value."""
        return self._value

    def _child(self, key: object) -> object:
        found = child_of(self._value, key)
        return UNDEFINED if found is ABSENT else Node(found)

    def _get(self, key: object, default: object = None) -> object:
        found = child_of(self._value, plain(key))
        return default if found is ABSENT else Node(found)

    def _keys(self) -> Iterator[object]:
        # An iterator, as in Aim: true even when there are no keys.
        return iter(self._value if type(self._value) is dict else ())

    @property  # type: ignore[misc]  # object's has a setter; this one only serves isinstance() in queries
    def __class__(self) -> type:
        return type(self._value)

    def __eq__(self, other: object) -> bool:
        return bool(self._value == other)

    def __ne__(self, other: object) -> bool:
        return bool(self._value != other)

    # What cannot be ordered is not an error, as in Aim: the comparison is false.

    def __lt__(self, other: Any) -> bool:
        try:
            return bool(self._value < other)
        except TypeError:
            return False

    def __le__(self, other: Any) -> bool:
        try:
            return bool(self._value <= other)
        except TypeError:
            return False

    def __gt__(self, other: Any) -> bool:
        try:
            return bool(self._value > other)
        except TypeError:
            return False

    def __ge__(self, other: Any) -> bool:
        try:
            return bool(self._value >= other)
        except TypeError:
            return False

    def __hash__(self) -> int:
        return hash(self._value)

    def __bool__(self) -> bool:
        return bool(self._value)

    def __len__(self) -> int:
        return len(self._value)

    def __iter__(self) -> Iterator[object]:
        return iter(self._value)

    def __contains__(self, item: object) -> bool:
        return item in self._value

    def __str__(self) -> str:
        return str(self._value)

    def __repr__(self) -> str:
        return repr(self._value)

    def __neg__(self) -> object:
        return -self._value

    def __pos__(self) -> object:
        return +self._value

    def __invert__(self) -> object:
        return ~self._value

    def __abs__(self) -> object:
        return abs(self._value)

    def __int__(self) -> int:
        return int(self._value)

    def __float__(self) -> float:
        return float(self._value)

    def __complex__(self) -> complex:
        return complex(self._value)

    def __index__(self) -> int:
        if not isinstance(self._value, int):
            raise TypeError("not an integer")
        return self._value

    def __round__(self) -> object:
        # Without a number of digits, as in Aim (golden query 163).
        return round(self._value)

    def __floor__(self) -> object:
        return math.floor(self._value)

    def __ceil__(self) -> object:
        return math.ceil(self._value)

    def __trunc__(self) -> object:
        return math.trunc(self._value)

    def __divmod__(self, other: Any) -> object:
        return divmod(self._value, other)

    def __rdivmod__(self, other: Any) -> object:
        return divmod(other, self._value)


class Missing(Node):
    """What a run or sequence does not have at all: equals None, holds nothing, and is false."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(None)

    def __iter__(self) -> Iterator[object]:
        return iter(())

    def __contains__(self, item: object) -> bool:
        return False


class Undefined(Proxy):
    """What is below an existing, scalar or missing node: equals nothing, not even None, and is false."""

    __slots__ = ()

    def get_attribute(self, name: str) -> object:
        """Return the same: below nothing is nothing. The methods of a node exist here, too."""
        return MISSING.get_attribute(name)

    def get_item(self, key: object) -> object:
        """Return the same."""
        return MISSING.get_item(key)

    def __eq__(self, other: object) -> bool:
        return False

    def __ne__(self, other: object) -> bool:
        return True

    def __lt__(self, other: object) -> bool:
        return False

    __le__ = __gt__ = __ge__ = __lt__

    def __hash__(self) -> int:
        return id(self)

    def __bool__(self) -> bool:
        return False


MISSING: Final = Missing()
UNDEFINED: Final = Undefined()


class ContextNode(Node):
    """The context of a sequence or a part of it: every name is a key, and a missing one ends the evaluation."""

    __slots__ = ()

    def get_attribute(self, name: str) -> object:
        """Return the part under a key."""
        return self._child(name)

    def _child(self, key: object) -> object:
        found = child_of(self._value, key)
        if found is ABSENT:
            raise KeyError(key)
        return ContextNode(found)
