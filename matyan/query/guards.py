"""Guards: the functions that operators, calls, displays and loops of a query are compiled to."""

from __future__ import annotations

import operator
import re
from functools import partial
from itertools import islice
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import TYPE_CHECKING, Any, Final

from matyan.query.sandbox import (
    BITS_PER_UNIT,
    CHARACTERS_PER_UNIT,
    INT_BITS_MAX,
    SIZE_MAX,
    Budget,
    OversizeError,
    Proxy,
    check_hashes,
    plain,
    weigh,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

STEPS_PER_CALL: Final = 4
"""A call takes as long as about four turns of a comprehension."""
TEXT_MAX: Final = SIZE_MAX * CHARACTERS_PER_UNIT
"""Characters of a text that a query makes longer than what it has."""
FORMAT_CHARACTERS_MAX: Final = 1000
"""Of one field's format; that of a date holds whole fields again."""
_NUMBER: Final = re.compile(r"\d+")
_LONG_NUMBER: Final = re.compile(r"\d{4}")
_NESTED_KEY: Final = re.compile(r"%\([^)]*\(")
_WIDE_FIELD: Final = re.compile(r"%(?:\([^)]*\))?[-#0 +]*(?:\*|\d{4}|\d*\.(?:\*|\d{4}))")
"""Every real field begins at some `%`; that a literal `%%2024` looks like one, too, only refuses too much."""
SMALL_MAX: Final = 1 << BITS_PER_UNIT - 1
"""Integers up to here cost no more than floats."""
_SCALARS: Final = frozenset({str, int, float, bool, type(None)})
_FLOAT_PRODUCTS: Final = frozenset({(float, float), (float, int), (int, float)})
"""Kinds of factors whose product is a float, and as large as any."""
_FREE: Final = frozenset({bool, float, complex, type(None)})
_HASHING: Final = frozenset({set, frozenset, dict})
_CONTAINERS: Final = frozenset({list, tuple, set, frozenset, dict, slice, range})
_REPEATABLE: Final = frozenset({str, bytes, list, tuple})
_SUBSCRIPTABLE: Final = frozenset({str, bytes, list, tuple, dict, range})
_CONVERSIONS: Final[Mapping[int, Callable[[object], str]]] = {ord("s"): str, ord("r"): repr, ord("a"): ascii}
_CALLABLE: Final = frozenset({FunctionType, BuiltinFunctionType, MethodType, partial})


def check_format(spec: str) -> None:
    """Refuse the widths and precisions above 999 of an f-string's field, which would make text of any length."""
    if len(spec) > FORMAT_CHARACTERS_MAX or _LONG_NUMBER.search(spec):
        raise OversizeError("a width or precision is too large")


class Guards:
    """Guards that spend from one budget."""

    def __init__(self, budget: Budget, constructors: Mapping[type, Callable[..., object]]) -> None:
        """Bind to a budget.

        Args:
            budget: what the guards spend from.
            constructors: the classes that may be called, and what is called in their place.
        """
        self._spend = budget.spend
        self._constructors = constructors

    def charge(self, value: Any) -> Any:
        """Return a value that was just made, after paying for it."""
        kind = type(value)
        if kind in _FREE:
            return value
        if kind is int:  # what most operators give, so it is weighed here
            if -SMALL_MAX <= value <= SMALL_MAX:
                return value
            bits = value.bit_length()
            if bits > INT_BITS_MAX:
                raise OversizeError(f"an integer has more than {INT_BITS_MAX} bits")
            self._spend(1 + bits // BITS_PER_UNIT)
            return value
        units = weigh(value)
        self._spend(units)
        if units > SIZE_MAX:
            raise OversizeError("a value is too large")
        if kind in _HASHING:
            check_hashes(value)
        return value

    def charge_result(self, value: Any) -> Any:
        """Return what a call gave. Text may be of any length, since methods of stored text return such."""
        kind = type(value)
        if kind is str:
            self._spend(len(value) // CHARACTERS_PER_UNIT)
        elif kind is int or kind in _CONTAINERS:
            self.charge(value)
        return value

    def step(self, *values: object) -> bool:
        """Count the beginning of a lambda's body; `values` are its collected arguments. Always False."""
        self._spend(1)
        for value in values:
            self.charge(value)
        return False

    def iterate(self, iterable: Iterable[object]) -> Iterator[object]:
        """Iterate as a comprehension does, each turn a step."""
        for item in iterable:
            self._spend(1)
            yield item

    def call(self, function: Any, /, *args: object, **kwargs: object) -> object:
        """Call what may be called."""
        self._spend(STEPS_PER_CALL)
        if type(function) is type:
            constructor = self._constructors.get(function)
            if constructor is None:
                raise TypeError(f"{function.__name__} is not for calling")
            return self.charge_result(constructor(*args, **kwargs))
        if type(function) not in _CALLABLE:
            raise TypeError("not callable")
        return self.charge_result(function(*args, **kwargs))

    def get_item(self, value: Any, key: object) -> object:
        """Return `value[key]`."""
        if type(key) in _CONTAINERS:
            self.charge(key)
        if isinstance(value, Proxy):
            return value.get_item(key)
        if type(value) not in _SUBSCRIPTABLE:
            raise TypeError("not subscriptable")
        item = value[key]
        return self.charge_result(item) if type(key) is slice else item

    def binary(self, operation: Callable[[Any, Any], object]) -> Callable[[object, object], object]:
        """Return the guarded form of an operator whose result is about as large as its operands."""

        def guarded(left: object, right: object) -> object:
            if type(left) in _SCALARS and type(right) in _SCALARS:
                return self.charge(operation(left, right))
            return self.charge(operation(plain(left), plain(right)))

        return guarded

    def multiply(self, left: object, right: object) -> object:
        """Return `left * right`."""
        if (type(left), type(right)) in _FLOAT_PRODUCTS:
            return left * right  # type: ignore[operator]  # so they are numbers
        first, second = plain(left), plain(right)
        if isinstance(first, int) and isinstance(second, int):
            if first.bit_length() + second.bit_length() > INT_BITS_MAX + 1:
                raise OversizeError("a product is too large")
        elif isinstance(first, int) or isinstance(second, int):
            count, value = (first, second) if isinstance(first, int) else (second, first)
            if type(value) in _REPEATABLE and _weigh_repeated(value, count) > SIZE_MAX:
                raise OversizeError("a repetition is too large")
        return self.charge(first * second)

    def power(self, base: object, exponent: object, modulus: object = None) -> object:
        """Return `pow(base, exponent, modulus)`."""
        first, second, third = plain(base), plain(exponent), plain(modulus)
        if isinstance(first, int) and isinstance(second, int):
            cost = max(first.bit_length(), 1) * second if third is None else second.bit_length()
            if cost > INT_BITS_MAX:
                raise OversizeError("a power is too large")
        return self.charge(pow(first, second, third))

    def shift_left(self, left: object, right: object) -> object:
        """Return `left << right`."""
        first, second = plain(left), plain(right)
        if isinstance(first, int) and isinstance(second, int) and first.bit_length() + second > INT_BITS_MAX:
            raise OversizeError("a shift is too large")
        return self.charge(first << second)

    def modulo(self, left: object, right: object) -> object:
        """Return `left % right`, the formatting of text included."""
        if type(left) is int and type(right) is int and -SMALL_MAX <= right <= SMALL_MAX:
            return left % right
        first, second = plain(left), plain(right)
        if isinstance(first, str | bytes):
            template = first.decode("latin-1") if isinstance(first, bytes) else first
            if _NESTED_KEY.search(template) or _WIDE_FIELD.search(template):
                raise OversizeError("a width or precision is too large, or is not written out")
            # A mapping's values may be named any number of times; a tuple's are used once.
            times = template.count("%") if type(second) is dict else 1
            if weigh(second) * times > SIZE_MAX or sum(map(int, _NUMBER.findall(template))) > TEXT_MAX:
                raise OversizeError("a formatted text is too large")
        return self.charge(first % second)

    def format(self, value: object, conversion: int, spec: str) -> str:
        """Return one replaced field of an f-string; `conversion` as in `ast.FormattedValue`."""
        check_format(spec)
        shown = self.charge(plain(value))
        if conversion != -1:
            shown = _CONVERSIONS[conversion](shown)
        return str(self.charge(format(shown, spec)))

    def concatenate(self, *parts: str) -> str:
        """Return an f-string's parts as one text."""
        characters = sum(map(len, parts))
        self._spend(characters // CHARACTERS_PER_UNIT)
        if characters > TEXT_MAX:
            raise OversizeError("a text is too large")
        return "".join(parts)

    def spread(self, values: Iterable[object]) -> list[object]:
        """Return the elements that `*values` stands for in a display or call."""
        elements = _take(values)
        self._spend(len(elements))
        return elements

    def make_set(self, elements: list[object]) -> set[object]:
        """Return the set that a display with `*` in it stands for."""
        check_hashes(elements)
        return set(elements)

    def merge(self, *tables: Mapping[Any, object]) -> dict[Any, object]:
        """Return the dict that a display with `**` in it stands for."""
        merged: dict[Any, object] = {}
        for table in tables:
            if type(table) is not dict:
                raise TypeError("not a dict")
            merged |= self.charge(table)
            check_hashes(merged)
        return merged

    def total(self, values: Iterable[object], start: object = 0) -> object:
        """Stand in for `sum`, whose additions would be unguarded."""
        add = self.binary(operator.add)
        result: object = start
        for value in self.iterate(values):
            result = add(result, value)
        return result

    def sort(self, values: Iterable[object], /, *, key: Any = None, reverse: bool = False) -> list[object]:
        """Stand in for `sorted`."""
        elements: list[Any] = self.charge(_take(values))
        elements.sort(key=self._key(key), reverse=reverse)
        return elements

    def extreme(self, choose: Callable[..., object], *values: Any, key: Any = None, **default: object) -> object:
        """Stand in for `min` and `max`."""
        return choose(*values, key=self._key(key), **default)

    def _key(self, key: Any) -> Any:
        """Return a function that calls `key` as a query does; what C calls is guarded, too."""
        return None if key is None else partial(self.call, key)

    def text(self, value: object = "") -> str:
        """Stand in for `str`."""
        return str(self.charge(plain(value)))

    def represent(self, value: object) -> str:
        """Stand in for `repr`."""
        return repr(self.charge(plain(value)))


def _weigh_repeated(value: Any, count: int) -> int:
    if isinstance(value, str | bytes):
        return count * len(value) // CHARACTERS_PER_UNIT
    return count * weigh(value)


def limited(kind: Callable[[Iterable[object]], object], values: Iterable[object] = ()) -> object:
    """Return `kind(values)` for a container class, of at most SIZE_MAX elements."""
    elements = _take(values)
    if kind in _HASHING:
        check_hashes(elements)
    return kind(elements)


def _take(values: Iterable[object]) -> list[object]:
    elements = list(islice(iter(values), SIZE_MAX + 1))
    if len(elements) > SIZE_MAX:
        raise OversizeError(f"more than {SIZE_MAX} elements")
    return elements


def limited_range(*bounds: Any) -> range:
    """Stand in for `range`."""
    made = range(*bounds)
    if made and abs((made[-1] - made[0]) // made.step) >= SIZE_MAX:
        raise OversizeError(f"a range of more than {SIZE_MAX} elements")
    return made


def limited_round(value: Any, digits: Any = None) -> object:
    """Stand in for `round`: with digits far below zero an integer's rounding raises ten to that power."""
    if digits is None:
        return round(value)
    places = operator.index(digits)
    if abs(places) > INT_BITS_MAX:
        raise OversizeError("too many digits")
    return round(value, places)
