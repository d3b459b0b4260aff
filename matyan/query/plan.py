"""Plan: which runs a query may be true of, told in terms of what is indexed. Pure, frozen, printable.

A condition stands for a set of runs that holds at least those that the query selects. So a coarser one is slower, never
wrong, and EVERYTHING is right for whatever is not understood.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

import msgspec

from matyan.runs.index import Field, Kind, Scalar, Span, equal_to, starting_with

DESCRIPTION_CHARACTERS_MAX: Final = 1000
"""A description is for people and for a header; what is longer is cut."""
SPANS_MAX: Final = 1024
"""Of one term; to read more of them is no faster than to ask all runs."""
VALUES_SHOWN_MAX: Final = 5
VALUE_CHARACTERS_MAX: Final = 60


class Everything(msgspec.Struct, frozen=True):
    """All runs."""


class Nothing(msgspec.Struct, frozen=True):
    """No run."""


class Term(msgspec.Struct, frozen=True):
    """Runs whose value in a field may lie in one of the spans."""

    field: Field
    spans: tuple[Span, ...]


class Not(msgspec.Struct, frozen=True):
    """All runs but those whose value certainly lies in one of the term's spans."""

    term: Term


class And(msgspec.Struct, frozen=True):
    """Runs of which every part holds; see `conjunction`."""

    parts: tuple[Condition, ...]


class Or(msgspec.Struct, frozen=True):
    """Runs of which some part holds; see `disjunction`."""

    parts: tuple[Condition, ...]


Condition = Everything | Nothing | Term | Not | And | Or

EVERYTHING: Final = Everything()
NOTHING: Final = Nothing()
TRUE: Final = equal_to(True)
"""What the value lies in of a field that is there or is not."""

MANY_VALUED: Final = frozenset({Kind.TAG})
"""A run has several: two spans without anything in common may hold both."""


class Wanted(msgspec.Struct, frozen=True):
    """What the sequences are called that a query can be true of; None: anything."""

    names: frozenset[str] | None = None
    contexts: frozenset[str] | None = None
    """Canonical ones."""

    def met(self, *others: Wanted) -> Wanted:
        """Return what all of them say together."""
        every = (self, *others)
        return Wanted(_common(each.names for each in every), _common(each.contexts for each in every))

    @staticmethod
    def joined(several: Sequence[Wanted]) -> Wanted:
        """Return what is said where one of several is true."""
        return Wanted(_all(each.names for each in several), _all(each.contexts for each in several))


def _common(sets: Iterable[frozenset[str] | None]) -> frozenset[str] | None:
    known = [each for each in sets if each is not None]
    if len(known) > 1:
        return frozenset.intersection(*known)
    return known[0] if known else None


def _all(sets: Iterable[frozenset[str] | None]) -> frozenset[str] | None:
    union: set[str] = set()
    for each in sets:
        if each is None:
            return None
        union |= each
    return frozenset(union)


ANY_SEQUENCE: Final = Wanted()


class Plan(msgspec.Struct, frozen=True):
    """How the runs are found that a query is then asked of."""

    runs: Condition
    """Only these can match."""
    sequences: Wanted = ANY_SEQUENCE
    """Of a search of sequences: only these can match."""
    looked_up: frozenset[tuple[str, str]] | None = frozenset()
    """Name and canonical context of all that the query reads of `run.metrics`; None: it may be anything."""

    def __str__(self) -> str:
        """Describe in one line of ASCII."""
        text, pieces = "", _pieces(self.runs)
        while len(text) <= DESCRIPTION_CHARACTERS_MAX and (piece := next(pieces, None)) is not None:
            text += piece
        return _cut(text, DESCRIPTION_CHARACTERS_MAX)


# ---- algebra


def conjunction(parts: Iterable[Condition]) -> Condition:
    """Return the simplest condition that holds where all parts do."""
    met: dict[object, Condition] = {}
    for part in _flat(parts, And):
        if isinstance(part, Nothing):
            return NOTHING
        if isinstance(part, Everything):
            continue
        key = _one_span_key(part)
        known = met.get(key)
        if isinstance(known, Term) and isinstance(part, Term):
            span = meet(known.spans[0], part.spans[0])
            if span is None:
                return NOTHING
            part = Term(part.field, (span,))  # noqa: PLW2901 - what both together say
        met[key] = part
    return _joined(list(met.values()), And, EVERYTHING)


def disjunction(parts: Iterable[Condition]) -> Condition:
    """Return the simplest condition that holds where some part does."""
    spans_of: dict[Condition | Field, dict[Span, None]] = {}
    for part in _flat(parts, Or):
        if isinstance(part, Everything):
            return EVERYTHING
        if isinstance(part, Nothing):
            continue
        if not isinstance(part, Term):
            spans_of[part] = {}
            continue
        spans = spans_of.setdefault(part.field, {})
        spans.update(dict.fromkeys(part.spans))
        if len(spans) > SPANS_MAX:
            return EVERYTHING
    return _joined([_term_or_part(key, spans) for key, spans in spans_of.items()], Or, NOTHING)


def meet(first: Span, second: Span) -> Span | None:
    """Return the span of what lies in both, None when nothing can."""
    if Span() in (first, second):
        return second if first == Span() else first
    if _is_text(first) != _is_text(second):
        return None
    low = _tighter(_Bound(first.low, first.includes_low), _Bound(second.low, second.includes_low), sign=1)
    high = _tighter(_Bound(first.high, first.includes_high), _Bound(second.high, second.includes_high), sign=-1)
    if low.value is not None and high.value is not None:
        order = _compare(low.value, high.value)
        if order > 0 or (order == 0 and not (low.is_included and high.is_included)):
            return None
    return Span(low.value, high.value, low.is_included, high.is_included)


def _flat(parts: Iterable[Condition], kind: type[And | Or]) -> Iterator[Condition]:
    for part in parts:
        if isinstance(part, And | Or) and type(part) is kind:
            yield from part.parts
        else:
            yield part


def _term_or_part(key: Condition | Field, spans: Iterable[Span]) -> Condition:
    return Term(key, tuple(spans)) if isinstance(key, Field) else key


def _joined(parts: list[Condition], kind: type[And | Or], empty: Condition) -> Condition:
    if len(parts) < len(("first", "second")):
        return parts[0] if parts else empty
    return kind(tuple(parts))


def _one_span_key(part: Condition) -> object:
    """Return what the terms share that are met with each other; else the part itself, so that it counts once."""
    is_met = isinstance(part, Term) and len(part.spans) == 1 and part.field.kind not in MANY_VALUED
    return part.field if isinstance(part, Term) and is_met else part


class _Bound(NamedTuple):
    """An end of a span."""

    value: Scalar
    is_included: bool


def _tighter(first: _Bound, second: _Bound, *, sign: int) -> _Bound:
    """Return the lower bound that leaves less (sign 1), or the upper one (sign -1)."""
    if first.value is None or second.value is None:
        return second if first.value is None else first
    order = sign * _compare(first.value, second.value)
    if order == 0:
        return first._replace(is_included=first.is_included and second.is_included)
    return first if order > 0 else second


def _compare(first: Scalar, second: Scalar) -> int:
    """Return -1, 0 or 1. Both are numbers, or both are texts."""
    if isinstance(first, str) and isinstance(second, str):
        return (first > second) - (first < second)
    assert not isinstance(first, str | None)
    assert not isinstance(second, str | None)
    return (first > second) - (first < second)


def _is_text(span: Span) -> bool:
    return isinstance(span.low if span.high is None else span.high, str)


# ---- description


def describe(condition: Condition) -> str:
    """Return the condition as one line of ASCII, in the words of the query language where it has some."""
    return "".join(_pieces(condition))


def _pieces(condition: Condition) -> Iterator[str]:
    """Yield the description from left to right, as nobody wants to see all of a long one."""
    match condition:
        case Everything():
            yield "everything"
        case Nothing():
            yield "nothing"
        case Term():
            yield _describe_term(condition)
        case Not():
            yield f"not {_describe_term(condition.term)}"
        case And() | Or():
            word = " and " if isinstance(condition, And) else " or "
            for nth, part in enumerate(condition.parts):
                yield word if nth else ""
                yield from _pieces_of_part(part)


def describe_field(field: Field) -> str:
    """Return what a field is called in a query, or nearly so."""
    if field.kind is Kind.PARAM:
        top, *below = field.path
        first = f"[{_value(top)}]" if top in _ATTRIBUTES.values() else _describe_key(top)
        return "".join(["run", first, *map(_describe_key, below)])
    if field.kind in _OF_SEQUENCES:
        bucket, *key = field.path
        if not key:
            return f"{bucket}.name"
        name, *contexts = key
        return f"{bucket}[{', '.join([_value(name), *map(_short, contexts)])}]{_OF_SEQUENCES[field.kind]}"
    return f"run.{_ATTRIBUTES[field.kind]}"


_FLAGS: Final = frozenset({Kind.ACTIVE, Kind.ARCHIVED, Kind.SEQUENCE})
_OF_SEQUENCES: Final[Mapping[Kind, str]] = {
    Kind.SEQUENCE: "",
    Kind.LAST: ".last",
    Kind.MINIMUM: ".min",
    Kind.MAXIMUM: ".max",
}
_ATTRIBUTES: Final[Mapping[Kind, str]] = {
    Kind.HASH: "hash",
    Kind.NAME: "name",
    Kind.CREATED: "creation_time",
    Kind.ENDED: "end_time",
    Kind.DURATION: "duration",
    Kind.EXPERIMENT: "experiment",
    Kind.TAG: "tags",
    Kind.ACTIVE: "active",
    Kind.ARCHIVED: "archived",
}


def _pieces_of_part(part: Condition) -> Iterator[str]:
    is_nested = isinstance(part, And | Or)
    yield "(" if is_nested else ""
    yield from _pieces(part)
    yield ")" if is_nested else ""


def _describe_term(term: Term) -> str:
    subject = describe_field(term.field)
    if term.spans in ((TRUE,), (Span(),)) and term.field.kind in _FLAGS:
        return subject
    values = [span.low for span in term.spans if span.low is not None and span.low == span.high]
    if term.field.kind is Kind.TAG:
        return " or ".join(f"{_value(value)} in {subject}" for value in values)
    if len(values) == len(term.spans) > 1:
        return f"{subject} in ({', '.join(_shown([_value(value) for value in values]))})"
    described = _shown([_describe_span(subject, span) for span in term.spans])
    return f"({' or '.join(described)})" if len(described) > 1 else described[0]


def _shown(texts: list[str]) -> list[str]:
    rest = len(texts) - VALUES_SHOWN_MAX
    return [*texts[:VALUES_SHOWN_MAX], f"{rest} more"] if rest > 0 else texts


def _describe_span(subject: str, span: Span) -> str:
    lower, upper = "<=" if span.includes_low else "<", "<=" if span.includes_high else "<"
    if isinstance(span.low, str) and span == starting_with(span.low):
        return f"{subject}.startswith({_value(span.low)})"
    if span.low is None:
        return f"{subject} {upper} {_value(span.high)}"
    if span.high is None:
        return f"{subject} {lower.replace('<', '>')} {_value(span.low)}"
    if span.low == span.high:
        return f"{subject} == {_value(span.low)}"
    return f"{_value(span.low)} {lower} {subject} {upper} {_value(span.high)}"


def _describe_key(key: str) -> str:
    return f".{_short(key)}" if key.isascii() and key.isidentifier() else f"[{_value(key)}]"


def _value(value: Scalar) -> str:
    return _short(ascii(value))


def _short(text: str) -> str:
    return _cut(text, VALUE_CHARACTERS_MAX)


def _cut(text: str, characters_max: int) -> str:
    return text if len(text) <= characters_max else f"{text[: characters_max - 3]}..."
