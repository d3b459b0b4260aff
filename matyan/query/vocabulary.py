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

from matyan.query.guards import TEXT_MAX, Guards, check_format, limited, limited_range, limited_round
from matyan.query.moments import LocalTime
from matyan.query.sandbox import SIZE_MAX, OversizeError, Proxy, plain, weigh

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from matyan.query.sandbox import Budget

COMPARED_CHARACTERS_MAX: Final = 20_000_000
"""Of a method that may compare every character of one text with every character of another."""
DATE_CHARACTERS_MAX: Final = 100
"""Of a date as text, and of its format, which is compiled to a regular expression."""
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
    pieces: list[str] = []
    characters = 0
    for part in parts:
        pieces.append(_shown(part) if isinstance(part, Proxy) else part)
        characters += len(text) + len(pieces[-1])
        _bound(characters)
    return text.join(pieces)


def _shown(part: Proxy) -> str:
    if weigh(part) > SIZE_MAX:
        raise OversizeError("a value is too large")
    return str(plain(part))


def _padded(method: str) -> Callable[..., str]:
    def pad(text: str, width: int, *fill: str) -> str:
        _bound(width)
        made: str = getattr(text, method)(width, *fill)
        return made

    return pad


def _expandtabs(text: str, tabsize: int = 8) -> str:
    _bound(text.count("\t") * tabsize)
    return text.expandtabs(tabsize)


# ---- methods of text that make many values, or take quadratic time


def _split(text: str, sep: str | None = None, maxsplit: int = -1) -> list[str]:
    return _few(text.split(sep, _times(maxsplit)))


def _rsplit(text: str, sep: str | None = None, maxsplit: int = -1) -> list[str]:
    _compare(text, sep)
    return _few(text.rsplit(sep, _times(maxsplit)))


def _splitlines(text: str, keepends: bool = False) -> list[str]:  # noqa: FBT001, FBT002 - the signature is Python's
    _bound(len(text))
    return _few(text.splitlines(keepends))


def _times(maxsplit: int) -> int:
    return min(maxsplit, SIZE_MAX) if maxsplit >= 0 else SIZE_MAX


def _few(parts: list[str]) -> list[str]:
    if len(parts) > SIZE_MAX:
        raise OversizeError(f"more than {SIZE_MAX} parts")
    return parts


def _comparing(method: str) -> Callable[..., object]:
    """Return the method of text for a bounded product of lengths."""

    def bounded(text: str, other: str | None = None, *place: int) -> object:
        _compare(text, other)
        return getattr(text, method)(other, *place)

    return bounded


def _compare(text: str, other: str | None) -> None:
    if other is not None and len(text) * len(other) > COMPARED_CHARACTERS_MAX:
        raise OversizeError(f"texts of {len(text)} and {len(other)} characters")


# ---- methods of sets, which take any iterables


def _limited_others(method: str) -> Callable[..., object]:
    def bounded(value: frozenset[object], *others: Iterable[object]) -> object:
        return getattr(value, method)(*(limited(frozenset, other) for other in others))

    return bounded


def _formatted(moment: Any, spec: str) -> str:
    check_format(spec)
    text: str = moment.strftime(spec)
    return text


# ---- attributes of plain values


def _readers(names: str, **made: Callable[..., object]) -> Mapping[str, Callable[[Any], object]]:
    """Return readers of the named attributes as they are, and of methods made from functions of the value."""
    table: dict[str, Callable[[Any], object]] = {name: attrgetter(name) for name in names.split()}
    table |= {name: partial(partial, function) for name, function in made.items()}
    return table


_NUMBER: Final = "real imag conjugate"
_INTEGER: Final = f"{_NUMBER} numerator denominator bit_length bit_count as_integer_ratio"
_TIME: Final = "hour minute second microsecond isoformat"
_DATE: Final = "year month day weekday isoweekday isoformat toordinal ctime replace"
_DATETIME: Final = _readers(
    f"{_DATE} {_TIME} date time timestamp",
    strftime=_formatted,
    isocalendar=lambda moment: tuple(moment.isocalendar()),
)
_SET: Final = _readers(
    "copy",
    union=_limited_others("union"),
    intersection=_limited_others("intersection"),
    difference=_limited_others("difference"),
    symmetric_difference=_limited_others("symmetric_difference"),
    issubset=_limited_others("issubset"),
    issuperset=_limited_others("issuperset"),
    isdisjoint=_limited_others("isdisjoint"),
)
_ATTRIBUTES: Final[Mapping[type, Mapping[str, Callable[[Any], object]]]] = {
    str: _readers(
        "capitalize casefold count endswith find index isalnum isalpha isascii isdecimal isdigit isidentifier islower "
        "isnumeric isprintable isspace istitle isupper lower partition removeprefix removesuffix startswith swapcase "
        "title upper",
        lstrip=_comparing("lstrip"),
        rstrip=_comparing("rstrip"),
        strip=_comparing("strip"),
        rfind=_comparing("rfind"),
        rindex=_comparing("rindex"),
        rpartition=_comparing("rpartition"),
        split=_split,
        rsplit=_rsplit,
        splitlines=_splitlines,
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
    set: _SET,
    frozenset: _SET,
    dict: _readers("get copy", keys=list, values=lambda table: list(table.values()), items=lambda t: list(t.items())),
    datetime: _DATETIME,
    LocalTime: _DATETIME,
    date: _readers(_DATE, strftime=_formatted, isocalendar=lambda day: tuple(day.isocalendar())),
    day_time: _readers(f"{_TIME} replace", strftime=_formatted),
    timedelta: _readers("days seconds microseconds total_seconds"),
}


def _utc_now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)


def _from_utc(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None)


def _parse_date(text: str, spec: str) -> datetime:
    if max(len(text), len(spec)) > DATE_CHARACTERS_MAX:
        raise OversizeError(f"a date of more than {DATE_CHARACTERS_MAX} characters")
    # Naive unless the format has a zone, as Python does it.
    return datetime.strptime(text, spec)  # noqa: DTZ007 - so


_CLASS_ATTRIBUTES: Final[Mapping[type, Mapping[str, object]]] = {
    datetime: {
        "now": datetime.now,
        "today": datetime.today,
        "utcnow": _utc_now,
        "fromtimestamp": datetime.fromtimestamp,
        "utcfromtimestamp": _from_utc,
        "fromisoformat": datetime.fromisoformat,
        "strptime": _parse_date,
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


def _beta(alpha: Any, beta: Any) -> float:
    if not (math.isfinite(alpha) and math.isfinite(beta)):
        raise ValueError("no such distribution")  # and a loop without end
    return _generator.betavariate(alpha, beta)


def _reorder(values: Any, wanted: Any = None, without: Any = ()) -> object:
    limits: Callable[[Any], Any] = partial(limited, list)
    return reorder(limits(values), None if wanted is None else limits(wanted), limits(without))


_MATH: Final = (
    "acos acosh asin asinh atan atan2 atanh cbrt ceil copysign cos cosh degrees dist e erf erfc exp exp2 expm1 fabs "
    "floor fmod frexp fsum gamma gcd hypot inf isclose isfinite isinf isnan isqrt ldexp lgamma log log10 log1p log2 "
    "modf nan nextafter pi pow radians remainder sin sinh sqrt tan tanh tau trunc ulp"
)
_STRING: Final = (
    "ascii_letters ascii_lowercase ascii_uppercase digits hexdigits octdigits printable punctuation whitespace"
)
_RANDOM: Final = "random uniform triangular randint randrange choice gauss normalvariate expovariate"
_PLAIN_BUILTINS: Final = (
    "abs all any bool callable chr complex divmod float frozenset hash hex id int isinstance issubclass len list oct "
    "ord range set slice str tuple"
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
_generator: Final = random.Random()  # noqa: S311 - nothing secret is drawn from it
_RANDOM_NAMESPACE: Final = Namespace(_members(_generator, _RANDOM) | {"betavariate": _beta})
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
    "reorder": _reorder,
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
    return {
        **_CONSTANT_NAMES,
        "max": partial(guards.extreme, max),
        "min": partial(guards.extreme, min),
        "pow": guards.power,
        "repr": guards.represent,
        "sorted": guards.sort,
        "sum": guards.total,
    }
