"""Examiner: runs one query text and says what is wrong with how it went."""

from __future__ import annotations

import builtins
import datetime as dt
import os
import random
import resource
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from functools import partial
from types import BuiltinFunctionType, FunctionType, GeneratorType, MethodType
from typing import Any, Final

from matyan.errors import InvalidArgumentError
from matyan.query.executor import reads_sequences
from matyan.query.language import Query, compile_query
from matyan.query.moments import LocalTime
from matyan.query.planning import make_plan
from matyan.query.projection import paths_read
from matyan.query.sandbox import Budget, Proxy, QueryBudgetError
from matyan.query.syntax import FILENAME
from matyan.query.vocabulary import make_guards, make_names

SECONDS_MAX: Final = 0.5
"""Of processor time: five times what is promised, for machines that are slow or busy."""
GROWTH_BYTES_MAX: Final = 50_000_000
_KILOBYTE: Final = 1024
_CANARY_VARIABLE: Final = "MATYAN_FUZZ_CANARY"
CANARY: Final = "canary-7f3a9c"
"""A secret of the process that no result may show."""

_PLAIN: Final = frozenset(
    {
        *(type(None), bool, int, float, complex, str, bytes, type(...), range, slice),
        *(dt.datetime, LocalTime, dt.date, dt.time, dt.timedelta),
    }
)
_HOLDERS: Final = frozenset({list, tuple, set, frozenset, dict})
_ITERATORS: Final = frozenset({type(iter(())), type(iter([])), type(iter({}))})
_MODULES: Final = frozenset({"matyan.query.guards", "matyan.query.vocabulary", "matyan.query.names"})
"""Where functions come from that a query may hold, besides its own."""


class FlawError(AssertionError):
    """A query did what none may do."""


class Examiner:
    """Evaluates texts on rows and watches what becomes of the process."""

    def __init__(self, rows: Mapping[str, Mapping[str, object]], *, is_alone: bool = False) -> None:
        """Keep the rows.

        Args:
            rows: by the variable of a search, what its names stand for.
            is_alone: whether nothing else runs in this process, so that the peak of its memory is that of the texts,
                of all together.
        """
        self._is_alone = is_alone
        self._rows = rows
        names = make_names(make_guards(Budget()))
        self._classes = {value for value in names.values() if isinstance(value, type)}
        os.environ[_CANARY_VARIABLE] = CANARY
        self._before = self._world()
        self._peak_bytes = _peak_bytes()

    def examine(self, text: str, *, variable: str = "run") -> str:
        """Return how a query ended: refused, stopped, failed, or the name of its result's type.

        Raises:
            FlawError: it took too long or too much, ended with a foreign exception, or returned what no query may see.
        """
        began = time.thread_time()
        try:
            ended = self._run(text, variable)
        except InvalidArgumentError as error:
            ended = "stopped" if isinstance(error, QueryBudgetError) else "refused"
        except Exception as error:
            raise FlawError(f"{error!r} from {text[:2000]!r}") from error
        seconds, growth = time.thread_time() - began, _peak_bytes() - self._peak_bytes
        if seconds > SECONDS_MAX:
            raise FlawError(f"{seconds:.2f} s of processor time for {text[:2000]!r}")
        if self._is_alone and growth > GROWTH_BYTES_MAX:
            self._peak_bytes += growth
            raise FlawError(f"{growth} bytes, the last of them for {text[:2000]!r}")
        return ended

    def check_world(self) -> None:
        """Look whether the texts so far left everything else alone.

        Raises:
            FlawError: they did not.
        """
        now = self._world()
        changed = [name for name, state in now.items() if state != self._before[name]]
        if changed:
            raise FlawError(f"changed: {', '.join(changed)}")

    def _run(self, text: str, variable: str) -> str:
        row = self._rows[variable]
        query = compile_query(text, variable=variable, budget=Budget(seconds=10))
        self._plan(query)
        query.matches(row)
        for part in query.split:
            if part is not None:
                part.matches(row)
        return self._value(query, row, text)

    def _plan(self, query: Query) -> None:
        """Do with the tree of a query what is done besides evaluating it."""
        plan = make_plan(query.tree, variable=query.variable, tz_offset_minutes=0, now_seconds=1_717_700_000.0)
        assert str(plan).isprintable()
        paths_read(query.tree, query.variable)
        reads_sequences(query)

    def _value(self, query: Query, row: Mapping[str, object], text: str) -> str:
        """Evaluate once more, for the value, and look at all that it holds."""
        predicate = query._predicate
        query.budget.begin_row()
        try:
            value = predicate._function(*(row[name] for name in predicate._parameters))
        except QueryBudgetError:
            raise
        except Exception:  # noqa: BLE001 - what `matches` takes for False
            return "failed"
        self._check_value(value, text)
        return type(value).__name__

    def _check_value(self, value: object, text: str) -> None:
        for item in _held(value):
            if not self._is_allowed(item):
                raise FlawError(f"a {type(item)} from {text[:2000]!r}")
            if isinstance(item, str) and CANARY in item:
                raise FlawError(f"a secret from {text[:2000]!r}")

    def _is_allowed(self, value: Any) -> bool:
        kind = type(value)
        if kind in _PLAIN or kind in _HOLDERS or kind in _ITERATORS or issubclass(kind, Proxy):
            return True
        if isinstance(value, type):
            return value in self._classes
        if kind is GeneratorType:
            return bool(value.gi_code.co_filename == FILENAME)
        if kind is FunctionType:
            return value.__code__.co_filename == FILENAME or value.__module__ in _MODULES or _is_helper(value)
        return kind in (BuiltinFunctionType, MethodType, partial) and not isinstance(value, type)

    def _world(self) -> dict[str, object]:
        """Return what a query must leave alone."""
        return {
            "builtins": {name: id(value) for name, value in vars(builtins).items()},
            "runs": [repr(getattr(row["run"], "_run", None)) for row in self._rows.values()],
            "limits": (sys.getrecursionlimit(), sys.getswitchinterval(), sys.get_int_max_str_digits()),
            "environment": dict(os.environ),
            "warnings": list(warnings.filters),
            "random": random.getstate(),
        }


def _is_helper(value: FunctionType) -> bool:
    """Return whether this is one of RestrictedPython's helpers of the contract, or the random module's."""
    return value.__module__ in ("RestrictedPython.Utilities", "random")


def _held(value: Any) -> Iterator[object]:
    seen: set[int] = set()
    level = [value]
    while level:
        item = level.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        yield item
        if type(item) is dict:
            level += [*item, *item.values()]
        elif type(item) in _HOLDERS:
            level += item
        elif type(item) is partial:
            level += [item.func, *item.args]


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _KILOBYTE
