"""Fields and spans of values: what can be looked for in the index, and the codes that stand for it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from matyan.store import indexes
from matyan.store.indexes import NONE_CODE, Class, Kind

Scalar = None | bool | int | float | str

_CODE_POINT_MAX: Final = 0x10FFFF


class Field(NamedTuple):
    """What is looked at."""

    kind: Kind
    path: tuple[str, ...] = ()
    """PARAM: the keys, all texts. SEQUENCE, LAST, MINIMUM, MAXIMUM: the word of the bucket and the name for any
    context, or these and the canonical context. SEQUENCE of a bucket alone: names, of any context. Else empty."""


class Span(NamedTuple):
    """The values low..high of one class: numbers (compared as Python does) or texts (by code point).

    Without any bound: every number, text and None. NaN is in no span, as in no order.
    """

    low: Scalar = None
    """None: no bound."""
    high: Scalar = None
    includes_low: bool = True
    includes_high: bool = True


def equal_to(value: bool | float | str) -> Span:  # noqa: FBT001 - the value that is looked for
    """Return the span of one value."""
    return Span(value, value)


def starting_with(text: str) -> Span:
    """Return the span of all texts that begin with `text`."""
    for at in range(len(text) - 1, -1, -1):
        following = ord(text[at]) + 1
        if following <= _CODE_POINT_MAX:
            return Span(text, text[:at] + chr(following), includes_high=False)
    return Span(text or "")


# ---- codes


class Codes(NamedTuple):
    """A half-open range of codes, and the part of it in which every value lies in the span."""

    begin: bytes
    end: bytes
    sure_begin: bytes
    sure_end: bytes


def codes_of(span: Span) -> Codes | None:
    """Return the codes of the values of a span; None when it holds no value."""
    bounds = [bound for bound in (span.low, span.high) if bound is not None]
    if not bounds:
        return Codes(NONE_CODE, bytes((Class.SHAPE,)), NONE_CODE, bytes((Class.SHAPE,)))
    if len({isinstance(bound, str) for bound in bounds}) > 1:
        return None
    own = Class.TEXT if isinstance(bounds[0], str) else Class.NUMBER
    begin = sure_begin = bytes((own,))
    end = sure_end = bytes((own + 1,))
    if span.low is not None:
        code = indexes.code_of(span.low)
        if code is None:
            return None
        begin, sure_begin = code, indexes.after(code)
        if indexes.is_exact(code):
            begin = sure_begin = code if span.includes_low else indexes.after(code)
    if span.high is not None:
        code = indexes.code_of(span.high)
        if code is None:
            return None
        end, sure_end = indexes.after(code), code
        if indexes.is_exact(code):
            end = sure_end = indexes.after(code) if span.includes_high else code
    return Codes(begin, end, sure_begin, sure_end)


def contains(span: Span, value: bool | str) -> bool:  # noqa: FBT001 - a value to be looked for
    """Return whether a value lies in a span."""
    return _is_ordered(span.low, value, span.includes_low) and _is_ordered(value, span.high, span.includes_high)


def _is_ordered(low: Scalar, high: Scalar, or_equal: bool) -> bool:  # noqa: FBT001 - part of a comparison
    """Return whether `low` is less, also where one of them is no bound; texts and numbers have no order."""
    if low is None or high is None:
        return True
    if isinstance(low, str) or isinstance(high, str):
        return isinstance(low, str) and isinstance(high, str) and (low < high or (or_equal and low == high))
    return low < high or (or_equal and low == high)


def any_contains(spans: Sequence[Span], value: bool | str) -> bool:  # noqa: FBT001 - a value to be looked for
    """Return whether a value lies in one of some spans."""
    return any(contains(span, value) for span in spans)
