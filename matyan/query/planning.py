"""From a checked query to its plan. Pure.

A row is selected when the whole expression comes out true without an error. So every part is asked: which runs can have
a row of which it comes out true (or false, below a `not`)? An answer that names too many runs is right, too. What is
said of the sequence (`metric.last < 1`) becomes a term when the conjunction around it tells the sequence's name.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from typing import Any, Final

import msgspec

from matyan.query.literals import Literals, UnknownValueError
from matyan.query.plan import (
    ANY_SEQUENCE,
    EVERYTHING,
    NOTHING,
    TRUE,
    Condition,
    Not,
    Plan,
    Term,
    Wanted,
    conjunction,
    disjunction,
)
from matyan.query.spans import Bounds, bounds_of, prefixes
from matyan.query.subjects import VALUES, Indexed, OfSequence, Reads, Subject, Subjects, sequences_looked_up
from matyan.query.syntax import RUN
from matyan.runs.index import Field, Kind, Span
from matyan.sequences.model import EMPTY_CONTEXT, PUBLIC_BUCKETS, Bucket, canonical_context

FIELDS_MAX: Final = 64
"""Names and contexts of sequences that one part of a query is looked up under."""
LOOKED_UP_MAX: Final = 2048
"""Spans of all the terms of a plan that are about the sequence: what is said of it counts once for each name."""


def make_plan(tree: ast.Expression, *, variable: str, tz_offset_minutes: int = 0, now_seconds: float) -> Plan:
    """Return the plan of a checked query.

    Args:
        tree: the query, its default filter included.
        variable: the word of the search, `run` or that of a bucket.
        tz_offset_minutes: of the viewer, as JavaScript's getTimezoneOffset.
        now_seconds: a moment before the query is evaluated, by the same clock; seconds since 1970-01-01 UTC.
    """
    literals = Literals(now_seconds)
    nodes = _nodes(tree)
    looked_up = sequences_looked_up(nodes, literals)
    if (_MEANINGS | {variable}) & _bound_names(nodes):
        return Plan(EVERYTHING, ANY_SEQUENCE, looked_up)
    part = _Reader(variable, literals, tz_offset_minutes).read(tree.body, truth=True)
    runs = _Resolver(variable).resolve(part, ANY_SEQUENCE)
    if variable in _RARE and part.wanted.names is None:
        runs = conjunction([runs, Term(Field(Kind.SEQUENCE, (variable,)), (Span(),))])
    return Plan(runs, part.wanted, looked_up)


_RARE: Final = frozenset(bucket.word for bucket in PUBLIC_BUCKETS) - {Bucket.METRIC.word}
"""Sequences that most runs have none of, so that it pays to look up which do."""
_MEANINGS: Final = frozenset({RUN, "datetime", "timedelta", "bool"})
"""Names that are taken for what they usually mean."""


def _nodes(tree: ast.Expression) -> Sequence[ast.AST]:
    """Return all nodes that have content; `ast.walk` goes through every operator and `Load`, too."""
    nodes: list[ast.AST] = [tree]
    for node in nodes:
        nodes += [child for child in ast.iter_child_nodes(node) if child._fields]
    return nodes


def _bound_names(nodes: Iterable[ast.AST]) -> set[str]:
    """Return the names that `:=` gives another meaning; what a lambda or a comprehension binds is never looked into."""
    return {node.target.id for node in nodes if isinstance(node, ast.NamedExpr)}


# ---- parts: a query without `not`, before the names of sequences are known


class OfRun(msgspec.Struct, frozen=True):
    """Something said of the run."""

    condition: Condition
    wanted: Wanted = ANY_SEQUENCE


class OfItsSequence(msgspec.Struct, frozen=True):
    """Something said of the sequence."""

    kind: Kind
    spans: tuple[Span, ...]
    wanted: Wanted = ANY_SEQUENCE


class Every(msgspec.Struct, frozen=True):
    """All of these come out true, of the same row."""

    parts: tuple[Part, ...]
    wanted: Wanted


class Some(msgspec.Struct, frozen=True):
    """One of these comes out true."""

    parts: tuple[Part, ...]
    wanted: Wanted


Part = OfRun | OfItsSequence | Every | Some

_UNKNOWN: Final = OfRun(EVERYTHING)
_NEVER: Final = OfRun(NOTHING, Wanted(frozenset(), frozenset()))


def _every(parts: Iterable[Part]) -> Part:
    found = _flat(parts, Every)
    return Every(found, ANY_SEQUENCE.met(*(part.wanted for part in found)))


def _some(parts: Iterable[Part]) -> Part:
    found = _flat(parts, Some)
    return Some(found, Wanted.joined([part.wanted for part in found]))


def _flat(parts: Iterable[Part], kind: type[Every | Some]) -> tuple[Part, ...]:
    """Return parts without a level that says nothing: otherwise each level of a query goes through all below it."""
    inner = ((part.parts if isinstance(part, Every | Some) and type(part) is kind else (part,)) for part in parts)
    return tuple(chain.from_iterable(inner))


# ---- reading


class _Reader:
    """Reads expressions as parts: what they say of the rows of which they come out true, or false."""

    def __init__(self, variable: str, literals: Literals, tz_offset_minutes: int) -> None:
        self._word = variable
        self._subjects = Subjects(variable, literals)
        self._literals = literals
        self._offset = tz_offset_minutes

    def read(self, node: ast.expr, *, truth: bool) -> Part:
        reader = self._READERS.get(type(node))
        return _UNKNOWN if reader is None else reader(self, node, truth)

    def _operation(self, node: ast.BoolOp, truth: bool) -> Part:  # noqa: FBT001 - one reader per node, called by a table
        parts = (self.read(value, truth=truth) for value in node.values)
        return _every(parts) if isinstance(node.op, ast.And) == truth else _some(parts)

    def _not(self, node: ast.UnaryOp, truth: bool) -> Part:  # noqa: FBT001 - as above
        return self.read(node.operand, truth=not truth) if isinstance(node.op, ast.Not) else _UNKNOWN

    def _choice(self, node: ast.IfExp, truth: bool) -> Part:  # noqa: FBT001 - as above
        # What the test says is left out: read twice at each level, it would grow beyond all bounds.
        return _some([self.read(node.body, truth=truth), self.read(node.orelse, truth=truth)])

    def _named(self, node: ast.NamedExpr, truth: bool) -> Part:  # noqa: FBT001 - as above
        return self.read(node.value, truth=truth)

    def _constant(self, node: ast.Constant, truth: bool) -> Part:  # noqa: FBT001 - as above
        return _UNKNOWN if bool(node.value) == truth else _NEVER

    def _display(self, node: ast.Tuple | ast.List | ast.Set, truth: bool) -> Part:  # noqa: FBT001 - as above
        # The web UI sends `()` for nothing.
        return _NEVER if truth and not node.elts else _UNKNOWN

    def _bare(self, node: ast.expr, truth: bool) -> Part:  # noqa: FBT001 - as above
        subject = self._subjects.of(node)
        if isinstance(subject, OfSequence):
            is_empty = subject.word == "context" and not truth
            return _called(contexts=[EMPTY_CONTEXT]) if is_empty else _UNKNOWN
        if subject is None or subject.reads is not Reads.FLAG:
            return _UNKNOWN
        return _flag(subject.field, {truth})

    def _call(self, node: ast.Call, truth: bool) -> Part:  # noqa: FBT001 - as above
        if len(node.args) != 1 or node.keywords:
            return _UNKNOWN
        if isinstance(node.func, ast.Name) and node.func.id == "bool":
            return self.read(node.args[0], truth=truth)
        if isinstance(node.func, ast.Attribute) and node.func.attr == "startswith":
            return self._starts(node.func.value, node.args[0], truth=truth)
        return _UNKNOWN

    def _starts(self, text: ast.expr, beginning: ast.expr, *, truth: bool) -> Part:
        try:
            bounds = prefixes(self._literals.value_of(beginning))
        except UnknownValueError:
            return _UNKNOWN
        match self._subjects.of(text):
            case Indexed(field, Reads.TEXT):
                return _of_run(field, bounds, truth=truth)
            case OfSequence("name") if truth:
                return _of_run(Field(Kind.SEQUENCE, (self._word,)), bounds, truth=truth)
        return _UNKNOWN

    def _comparison(self, node: ast.Compare, truth: bool) -> Part:  # noqa: FBT001 - as above
        sides = zip([node.left, *node.comparators], node.ops, node.comparators, strict=False)
        parts = (self._compare(left, type(operation), right, truth=truth) for left, operation, right in sides)
        return _every(parts) if truth else _some(parts)

    def _compare(self, left: ast.expr, operation: type[ast.cmpop], right: ast.expr, *, truth: bool) -> Part:
        if operation in _OPPOSITE:
            operation, truth = _OPPOSITE[operation], not truth
        try:
            if (subject := self._subjects.of(left)) is not None:
                return self._compare_with(subject, operation, self._literals.value_of(right), truth=truth)
            if (subject := self._subjects.of(right)) is not None:
                return self._compare_reversed(self._literals.value_of(left), operation, subject, truth=truth)
        except UnknownValueError:
            pass
        return _UNKNOWN

    def _compare_reversed(self, value: Any, operation: type[ast.cmpop], subject: Subject, *, truth: bool) -> Part:
        if operation in _SWAPPED:
            return self._compare_with(subject, _SWAPPED[operation], value, truth=truth)
        if operation is ast.In and isinstance(subject, Indexed) and subject.reads is Reads.NAMES:
            return _of_run(subject.field, bounds_of(ast.Eq, value, Reads.TEXT), truth=truth)
        return _UNKNOWN

    def _compare_with(self, subject: Subject, operation: type[ast.cmpop], value: Any, *, truth: bool) -> Part:
        if isinstance(subject, OfSequence):
            return _compare_sequence(subject.word, operation, value) if truth else _UNKNOWN
        if subject.reads is Reads.FLAG:
            return _flag(subject.field, _flags_of(operation, value, truth=truth))
        return _of_run(subject.field, bounds_of(operation, value, subject.reads, self._offset), truth=truth)

    _READERS: Final[Mapping[type[ast.expr], Callable[[_Reader, Any, bool], Part]]] = {
        ast.BoolOp: _operation,
        ast.UnaryOp: _not,
        ast.IfExp: _choice,
        ast.NamedExpr: _named,
        ast.Constant: _constant,
        ast.Tuple: _display,
        ast.List: _display,
        ast.Set: _display,
        ast.Attribute: _bare,
        ast.Call: _call,
        ast.Compare: _comparison,
    }


_OPPOSITE: Final[Mapping[type[ast.cmpop], type[ast.cmpop]]] = {
    ast.NotEq: ast.Eq,
    ast.NotIn: ast.In,
    ast.IsNot: ast.Is,
}
_SWAPPED: Final[Mapping[type[ast.cmpop], type[ast.cmpop]]] = {
    ast.Eq: ast.Eq,
    ast.Lt: ast.Gt,
    ast.LtE: ast.GtE,
    ast.Gt: ast.Lt,
    ast.GtE: ast.LtE,
}
_FLAG_OPERATIONS: Final[Mapping[type[ast.cmpop], Callable[[Any, Any], object]]] = {
    ast.Eq: operator.eq,
    ast.Is: operator.is_,
    ast.In: lambda flag, values: flag in values,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}


def _flags_of(operation: type[ast.cmpop], value: Any, *, truth: bool) -> set[bool]:
    """Return for which of False and True the comparison comes out as `truth`, instead of failing."""
    found = set()
    for flag in (False, True):
        with suppress(TypeError):
            found |= {flag} if bool(_FLAG_OPERATIONS[operation](flag, value)) == truth else set()
    return found


def _flag(field: Field, flags: set[bool]) -> Part:
    """Return that a flag is one of these."""
    term = Term(field, (TRUE,))
    choices: Mapping[tuple[bool, bool], Part] = {
        (False, False): _NEVER,
        (False, True): OfRun(term),
        (True, False): OfRun(Not(term)),
        (True, True): _UNKNOWN,
    }
    return choices[False in flags, True in flags]


def _of_run(field: Field, bounds: Bounds | None, *, truth: bool) -> Part:
    """Return that a value of the run lies in the bounds, or (not `truth`) that it does not."""
    if bounds is None:
        return _UNKNOWN
    if truth:
        return OfRun(Term(field, bounds.may)) if bounds.may else _NEVER
    return OfRun(Not(Term(field, bounds.sure))) if bounds.sure else _UNKNOWN


def _compare_sequence(word: str, operation: type[ast.cmpop], value: Any) -> Part:
    """Return that a value of the sequence compares like this."""
    if word == "name":
        names = value if operation is ast.In else [value]
        is_known = operation in (ast.Eq, ast.In) and type(names) in (list, tuple)
        return _called(names=names) if is_known and all(isinstance(name, str) for name in names) else _UNKNOWN
    if word == "context":
        is_known = operation is ast.Eq and type(value) is dict and _is_one_context(value)
        return _called(contexts=[canonical_context(value)]) if is_known else _UNKNOWN
    bounds = bounds_of(operation, value, Reads.NUMBER)
    if bounds is None:
        return _UNKNOWN
    return OfItsSequence(VALUES[word], bounds.may) if bounds.may else _NEVER


def _called(*, names: Sequence[str] | None = None, contexts: Sequence[str] | None = None) -> Part:
    """Return that the sequence is called one of these."""
    wanted = Wanted(*(None if each is None else frozenset(each) for each in (names, contexts)))
    return OfItsSequence(Kind.SEQUENCE, (TRUE,), wanted)


def _is_one_context(value: Any) -> bool:
    """Return whether all that equals `value` has one canonical form: 1, 1.0 and True are equal and differ in it."""
    if type(value) is dict:
        return all(isinstance(key, str) for key in value) and all(map(_is_one_context, value.values()))
    return all(map(_is_one_context, value)) if type(value) is list else value is None or isinstance(value, str)


# ---- names of sequences


class _Resolver:
    """Makes the condition of a part inside of conjunctions that tell what the sequence is called."""

    def __init__(self, word: str) -> None:
        self._word = word
        self._left = LOOKED_UP_MAX

    def resolve(self, part: Part, around: Wanted) -> Condition:
        match part:
            case OfRun():
                return part.condition
            case Some():
                return disjunction(self.resolve(each, around) for each in part.parts)
            case Every():
                inner = around.met(part.wanted)
                return conjunction(self.resolve(each, inner) for each in part.parts)
            case OfItsSequence():
                return self._look_up(part, around.met(part.wanted))

    def _look_up(self, part: OfItsSequence, wanted: Wanted) -> Condition:
        names, contexts = wanted.names, wanted.contexts
        has_field = part.kind is Kind.SEQUENCE or self._word == Bucket.METRIC.word
        if names is None or not has_field:
            return EVERYTHING
        count = len(names) * len(contexts or "*")
        if count > FIELDS_MAX or count * len(part.spans) > self._left:
            return EVERYTHING
        self._left -= count * len(part.spans)
        rests: list[tuple[str, ...]] = [()] if contexts is None else [(context,) for context in sorted(contexts)]
        paths = [(self._word, name, *rest) for name in sorted(names) for rest in rests]
        return disjunction(Term(Field(part.kind, path), part.spans) for path in paths)
