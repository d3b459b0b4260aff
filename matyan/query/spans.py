"""Comparisons with a literal as spans of values. Pure."""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from matyan.query.literals import AtLeast
from matyan.query.moments import SECONDS_PER_MINUTE
from matyan.query.plan import SPANS_MAX
from matyan.query.subjects import Reads
from matyan.runs.index import Span, equal_to, starting_with

CLOCK_SECONDS: Final = 2 * 3600.0
"""How far back the clock that a query reads may be set during a search: its zone may begin or end summer time."""
_ROUNDING_SECONDS: Final = 2e-6
"""Dates have microseconds, stored times more: how far a date may be from the time it shows."""


class Bounds(NamedTuple):
    """Where the values lie of which a comparison comes out true."""

    may: tuple[Span, ...]
    """All of them, perhaps with others. Without any span there is none."""
    sure: tuple[Span, ...]
    """Only such, perhaps not all."""


def bounds_of(operation: type[ast.cmpop], value: Any, reads: Reads, tz_offset_minutes: int = 0) -> Bounds | None:
    """Return the bounds of what is compared with the value of a literal; None where nothing can be said.

    Args:
        operation: `==`, `in`, or one that orders.
        value: the right side.
        reads: what stands on the left.
        tz_offset_minutes: of the viewer, as JavaScript's getTimezoneOffset.
    """
    if operation is not ast.In:
        return _READERS[reads](operation, value, tz_offset_minutes) if operation in _SPANS else None
    if (type(value) is not list and type(value) is not tuple) or len(value) > SPANS_MAX:
        return None
    found = [_READERS[reads](ast.Eq, each, tz_offset_minutes) for each in value]
    known = [each for each in found if each is not None]
    if len(known) < len(found):
        return None
    # A date that equals a number is not found in a set of numbers: its hash is that of a date.
    sure = [] if reads is Reads.MOMENT else [span for each in known for span in each.sure]
    return Bounds(tuple(span for each in known for span in each.may), tuple(sure))


def prefixes(value: Any) -> Bounds | None:
    """Return the bounds of `.startswith(value)`."""
    texts = value if type(value) is tuple else (value,)
    if len(texts) > SPANS_MAX or not all(isinstance(text, str) and text for text in texts):
        return None
    spans = tuple(map(starting_with, texts))
    return Bounds(spans, spans)


_SPANS: Final[Mapping[type[ast.cmpop], Callable[[Any], Span]]] = {
    ast.Eq: equal_to,
    ast.Lt: lambda value: Span(high=value, includes_high=False),
    ast.LtE: lambda value: Span(high=value),
    ast.Gt: lambda value: Span(low=value, includes_low=False),
    ast.GtE: lambda value: Span(low=value),
}


def _exact(operation: type[ast.cmpop], value: Any) -> Bounds:
    spans = (_SPANS[operation](value),)
    return Bounds(spans, spans)


def _nothing(_operation: type[ast.cmpop], _value: Any, _offset: int) -> Bounds | None:
    return None


def _text(operation: type[ast.cmpop], value: Any, _offset: int) -> Bounds | None:
    return _exact(operation, value) if isinstance(value, str) else None


def _number(operation: type[ast.cmpop], value: Any, _offset: int) -> Bounds | None:
    is_number = isinstance(value, bool | int) or (isinstance(value, float) and not math.isnan(value))
    return _exact(operation, value) if is_number else None


def _param(operation: type[ast.cmpop], value: Any, offset: int) -> Bounds | None:
    return _text(operation, value, offset) or _number(operation, value, offset)


def _moment(operation: type[ast.cmpop], value: Any, offset: int) -> Bounds | None:
    if type(value) is AtLeast:
        if operation is not ast.Gt and operation is not ast.GtE:
            return None
        return Bounds((Span(low=_utc_seconds(value.moment, offset) - CLOCK_SECONDS),), ())
    if type(value) is not datetime:
        return None if isinstance(value, bool) else _number(operation, value, offset)
    seconds = _utc_seconds(value, offset)
    slack = _ROUNDING_SECONDS + 2 * math.ulp(seconds)
    if operation is ast.Eq:
        return Bounds((Span(seconds - slack, seconds + slack),), ())
    outer, inner = (-slack, slack) if operation in (ast.Gt, ast.GtE) else (slack, -slack)
    return Bounds((_SPANS[operation](seconds + outer),), (_SPANS[operation](seconds + inner),))


def _utc_seconds(local: datetime, offset_minutes: int) -> float:
    return (local.replace(tzinfo=UTC) - _EPOCH).total_seconds() + offset_minutes * SECONDS_PER_MINUTE


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_READERS: Final[Mapping[Reads, Callable[[type[ast.cmpop], Any, int], Bounds | None]]] = {
    Reads.FLAG: _nothing,
    Reads.NAMES: _nothing,
    Reads.TEXT: _text,
    Reads.NUMBER: _number,
    Reads.MOMENT: _moment,
    Reads.PARAM: _param,
}
