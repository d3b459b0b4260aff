"""The names that every query sees, and the attributes of plain values that it may read.

Two whitelists of plain functions: query text never holds a module, and an attribute that is not listed is None, as for
a value that does not have it (query-language.md, section 3).
"""

from __future__ import annotations

import builtins
import math
import random
import string
from datetime import UTC, date, datetime, timedelta
from datetime import time as day_time
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

from RestrictedPython.Utilities import reorder, same_type, test

from matyan.query.guards import Guards, limited, limited_range, limited_round
from matyan.query.moments import LocalTime
from matyan.query.sandbox import CHARACTERS_PER_UNIT, SIZE_MAX, OversizeError, Proxy, plain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from matyan.query.sandbox import Budget

TEXT_MAX: Final = SIZE_MAX * CHARACTERS_PER_UNIT
"""Characters of a text that a method makes longer than its operands."""
FACTORIAL_MAX: Final = 170
"""The last one that a double holds."""


class Namespace(Proxy):
    """A module's stand-in: a table of plain functions and constants."""

    __slots__ = ("_members",)

    def __init__(self, members: Mapping[str, object]) -> None:
        self._members = members

    def get_attribute(self, name: str) -> object:
        """Return the member, or None."""
        return self._members.get(name)


# ---- methods of text that make more than they are given


def _bound(characters: int) -> None:
    if characters > TEXT_MAX:
        raise OversizeError(f"a text of {characters} characters")


def _replace(text: str, old: str, new: str, count: int = -1) -> str:
    _bound((text.count(old) + 1) * len(new))
    return text.replace(old, new, count)


def _join(text: str, parts: Iterable[str]) -> str:
    pieces = [str(plain(part)) if isinstance(part, Proxy) else part for part in parts]
    _bound(len(pieces) * len(text) + sum(map(len, pieces)))
    return text.join(pieces)


def _padded(method: str) -> Callable[..., str]:
    def pad(text: str, width: int, *fill: str) -> str:
        _bound(width)
        made: str = getattr(text, method)(width, *fill)
        return made

    return pad


def _expandtabs(text: str, tabsize: int = 8) -> str:
    _bound(text.count("\t") * tabsize)
    return text.expandtabs(tabsize)


# ---- attributes of plain values


def _readers(names: str, **made: Callable[..., object]) -> Mapping[str, Callable[[Any], object]]:
    """Return readers of the named attributes as they are, and of methods made from functions of the value."""
    table: dict[str, Callable[[Any], object]] = {name: attrgetter(name) for name in names.split()}
    table |= {name: partial(partial, function) for name, function in made.items()}
    return table


_NUMBER: Final = "real imag conjugate"
_INTEGER: Final = f"{_NUMBER} numerator denominator bit_length bit_count as_integer_ratio"
_TIME: Final = "hour minute second microsecond isoformat"
_DATE: Final = "year month day weekday isoweekday isoformat toordinal ctime strftime replace"
_DATETIME: Final = _readers(
    f"{_DATE} {_TIME} date time timestamp", isocalendar=lambda moment: tuple(moment.isocalendar())
)
_SET: Final = "union intersection difference symmetric_difference issubset issuperset isdisjoint copy"
_ATTRIBUTES: Final[Mapping[type, Mapping[str, Callable[[Any], object]]]] = {
    str: _readers(
        "capitalize casefold count endswith find index isalnum isalpha isascii isdecimal isdigit isidentifier islower "
        "isnumeric isprintable isspace istitle isupper lower lstrip partition removeprefix removesuffix rfind rindex "
        "rpartition rsplit rstrip split splitlines startswith strip swapcase title upper",
        replace=_replace,
        join=_join,
        center=_padded("center"),
        ljust=_padded("ljust"),
        rjust=_padded("rjust"),
        zfill=_padded("zfill"),
        expandtabs=_expandtabs,
    ),
    bool: _readers(_INTEGER),
    int: _readers(_INTEGER),
    float: _readers(f"{_NUMBER} is_integer as_integer_ratio hex"),
    complex: _readers(_NUMBER),
    list: _readers("count index copy"),
    tuple: _readers("count index"),
    range: _readers("count index start stop step"),
    slice: _readers("start stop step"),
    set: _readers(_SET),
    frozenset: _readers(_SET),
    dict: _readers("get copy", keys=list, values=lambda table: list(table.values()), items=lambda t: list(t.items())),
    datetime: _DATETIME,
    LocalTime: _DATETIME,
    date: _readers(_DATE, isocalendar=lambda day: tuple(day.isocalendar())),
    day_time: _readers(f"{_TIME} replace strftime"),
    timedelta: _readers("days seconds microseconds total_seconds"),
}


def _utc_now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)


def _from_utc(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None)


_CLASS_ATTRIBUTES: Final[Mapping[type, Mapping[str, object]]] = {
    datetime: {
        "now": datetime.now,
        "today": datetime.today,
        "utcnow": _utc_now,
        "fromtimestamp": datetime.fromtimestamp,
        "utcfromtimestamp": _from_utc,
        "fromisoformat": datetime.fromisoformat,
        "strptime": datetime.strptime,
    },
}


def read_attribute(value: Any, name: str) -> object:
    """Return what `value.name` means in a query."""
    if isinstance(value, Proxy):
        return value.get_attribute(name)
    if type(value) is type:
        return _CLASS_ATTRIBUTES.get(value, {}).get(name)
    readers = _ATTRIBUTES.get(type(value))
    reader = None if readers is None else readers.get(name)
    return None if reader is None else reader(value)


# ---- names


def _factorial(value: Any) -> int:
    if value > FACTORIAL_MAX:
        raise OversizeError(f"the factorial of {value}")
    return math.factorial(value)


_MATH: Final = (
    "acos acosh asin asinh atan atan2 atanh cbrt ceil copysign cos cosh degrees dist e erf erfc exp exp2 expm1 fabs "
    "floor fmod frexp fsum gamma gcd hypot inf isclose isfinite isinf isnan isqrt ldexp lgamma log log10 log1p log2 "
    "modf nan nextafter pi pow radians remainder sin sinh sqrt tan tanh tau trunc ulp"
)
_STRING: Final = (
    "ascii_letters ascii_lowercase ascii_uppercase digits hexdigits octdigits printable punctuation whitespace"
)
_RANDOM: Final = "random uniform triangular randint randrange choice gauss normalvariate betavariate expovariate"
_PLAIN_BUILTINS: Final = (
    "abs all any bool callable chr complex divmod float frozenset hash hex id int isinstance issubclass len list max "
    "min oct ord range set slice sorted str tuple"
)


def _exceptions() -> Iterator[tuple[str, object]]:
    """Yield the exception classes by name. A query can name them but not make one: an exception holds any value."""
    for name in dir(builtins):
        member = getattr(builtins, name)
        if isinstance(member, type) and issubclass(member, BaseException) and not name.startswith("_"):
            yield name, member


def _members(module: object, names: str) -> dict[str, object]:
    return {name: getattr(module, name) for name in names.split()}


# A generator of our own: a query shall neither see nor disturb the numbers that others draw.
_RANDOM_NAMESPACE: Final = Namespace(_members(random.Random(), _RANDOM))  # noqa: S311 - nothing secret is drawn from it
RANDOM_NAMES: Final = frozenset({"random", "whrandom"})
_CONSTANT_NAMES: Final[Mapping[str, object]] = {
    **_members(builtins, _PLAIN_BUILTINS),
    **dict(_exceptions()),
    "datetime": datetime,
    "timedelta": timedelta,
    "math": Namespace(_members(math, _MATH) | {"factorial": _factorial}),
    "string": Namespace(_members(string, _STRING)),
    "random": _RANDOM_NAMESPACE,
    "whrandom": _RANDOM_NAMESPACE,
    "round": limited_round,
    "reorder": reorder,
    "same_type": same_type,
    "test": test,
}


def make_guards(budget: Budget) -> Guards:
    """Return guards that know which classes a query may call."""
    constructors: dict[type, Callable[..., object]] = {
        kind: kind for kind in (bool, int, float, complex, slice, datetime, timedelta)
    }
    for kind in (list, tuple, set, frozenset):
        constructors[kind] = partial(limited, kind)
    constructors[range] = limited_range
    guards = Guards(budget, constructors)
    constructors[str] = guards.text
    return guards


def make_names(guards: Guards) -> dict[str, object]:
    """Return all names besides the variables."""
    return {**_CONSTANT_NAMES, "pow": guards.power, "repr": guards.represent, "sum": guards.total}
