"""find: the runs whose value in a field lies in some spans, read from the index and from the lists that serve as one.

A plan of a query is made of these. Entries of a deleted run's sequences may be found for a while: whoever reads the run
finds it gone. Only to be used while `is_complete` says so, in the same transaction.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np

from matyan.catalog import repository as catalog
from matyan.catalog.model import Experiment, Tag
from matyan.engines.kv.protocol import KeyRange, KvReader
from matyan.engines.kv.tuples import pack
from matyan.ids import Project
from matyan.runs.model import SYSTEM_PARAMS
from matyan.runs.rows import (
    NO_NUMBERS,
    Numbers,
    Rows,
    TooManyRowsError,
    ascending,
    entry_numbers,
    entry_range,
    listed_numbers,
)
from matyan.runs.spans import Codes, Field, Scalar, Span, any_contains, codes_of, equal_to, starting_with
from matyan.sequences.model import BUCKET_OF_WORD, Bucket
from matyan.store import indexes, keyspace
from matyan.store.indexes import NONE_CODE, Kind, is_complete
from matyan.store.subspaces import Subspace

__all__ = ["Field", "Kind", "Match", "Numbers", "Scalar", "Span", "equal_to", "find", "is_complete", "starting_with"]

CONTEXTS_MAX: Final = 64
"""Of a metric that is looked for in any context: each is a range of its own."""
_MICROSECONDS: Final = 1_000_000
RANGES_MAX: Final = 2048
"""Of one field, in all contexts together."""
_TEXTS: Final = b"\x02"
"""What a name in a key begins with that is written out; digests come before."""


class Match(NamedTuple):
    """Runs, each once, ascending."""

    numbers: Numbers
    """Every run with a value in one of the spans, perhaps more. A sequence of any context has a value per context."""
    sure: Numbers
    """Of these, runs that certainly have such a value."""


def find(reader: KvReader, project: Project, field: Field, spans: Sequence[Span], *, rows_max: int) -> Match | None:
    """Return the runs with a value in one of the spans.

    For ACTIVE, ARCHIVED and SEQUENCE of a name the value is True, for SEQUENCE of a bucket the name; for EXPERIMENT and
    TAG a name (those of archived tags do not count); for CREATED, ENDED and DURATION seconds. DURATION of a run that
    has not ended, and LAST, MINIMUM and MAXIMUM of one with points that are not settled, may be anything.

    Returns:
        None when there is no index for this, or when more than `rows_max` entries or ranges would have to be read.
    """
    try:
        return _FINDERS[field.kind](Rows(reader, rows_max), project, field, spans)
    except TooManyRowsError:
        return None


def contexts_of(
    reader: KvReader, project: Project, bucket: Bucket, name: str, *, contexts_max: int
) -> frozenset[str] | None:
    """Return the canonical contexts that sequences of this kind and name have in some run.

    Returns:
        None when the index is not complete, when there are more than `contexts_max`, or when an entry has no room for
        one of them.
    """
    if not is_complete(reader, project):
        return None
    fields = _contexts(Rows(reader, contexts_max + 1), project, Field(Kind.SEQUENCE, (bucket.word, name)), contexts_max)
    found = [indexes.read_parts(field, len((Kind.SEQUENCE, bucket)))[0][-1] for field in fields]
    texts = frozenset(text for text in found if isinstance(text, str))
    return texts if len(texts) == len(found) <= contexts_max else None


def _also(match: Match, more: Numbers) -> Match:
    """Return a match with further runs of which nothing is sure."""
    if not more.size:
        return match
    return Match(np.union1d(match.numbers, more), match.sure)


# ---- kinds


class _Found(NamedTuple):
    """What the entries of fields say, and the keys of some other ranges."""

    match: Match
    listed: list[list[bytes]]


def _by_value(rows: Rows, project: Project, fields: Sequence[bytes], spans: Sequence[Span], *lists: KeyRange) -> _Found:
    """Look into the entries of fields, each given as its kind and path, and into other ranges at the same time."""
    if len(fields) * len(spans) > RANGES_MAX:
        raise TooManyRowsError
    codes = [found for found in map(codes_of, spans) if found is not None]
    bases = [(keyspace.index(project) + field, found) for field in fields for found in codes]
    pages = rows.read([*lists, *(KeyRange(base + found.begin, base + found.end) for base, found in bases)])
    all_keys = [[key for key, _ in page] for page in pages]
    numbers, sure = [], []
    for (base, found), keys in zip(bases, all_keys[len(lists) :], strict=True):
        these = entry_numbers(keys)
        begin, end = bisect_left(keys, base + found.sure_begin), bisect_left(keys, base + found.sure_end)
        numbers.append(these)
        sure.append(these[begin:end])
    return _Found(Match(ascending(numbers), ascending(sure)), all_keys[: len(lists)])


def _plain(rows: Rows, project: Project, field: Field, spans: Sequence[Span]) -> Match:
    """NAME, ENDED: one entry a run."""
    return _by_value(rows, project, [indexes.field_of(field.kind)], spans).match


def _duration(rows: Rows, project: Project, _field: Field, spans: Sequence[Span]) -> Match:
    own = indexes.field_of(Kind.DURATION)
    active = keyspace.subspace(project, Subspace.ACTIVE_RUNS)
    match, (endless, running) = _by_value(
        rows, project, [own], spans, entry_range(project, own + NONE_CODE), keyspace.children(active)
    )
    return _also(match, ascending([entry_numbers(endless), listed_numbers(running, len(active))]))


def _param(rows: Rows, project: Project, field: Field, spans: Sequence[Span]) -> Match | None:
    if not field.path or field.path[0] == SYSTEM_PARAMS:
        return None
    own = indexes.field_of(Kind.PARAM, field.path)
    match, (unindexed,) = _by_value(rows, project, [own], spans, entry_range(project, indexes.field_of(Kind.UNINDEXED)))
    return _also(match, entry_numbers(unindexed))


def _sequence(rows: Rows, project: Project, field: Field, spans: Sequence[Span]) -> Match | None:
    if len(field.path) == len(("bucket",)):
        return _sequences_called(rows, project, field, spans)
    if not any_contains(spans, value=True):
        return Match(NO_NUMBERS, NO_NUMBERS)
    (page,) = rows.read([entry_range(project, _sequence_field(field))])
    numbers = ascending([entry_numbers(key for key, _ in page)])
    return Match(numbers, numbers)


def _sequences_called(rows: Rows, project: Project, field: Field, spans: Sequence[Span]) -> Match:
    """SEQUENCE of any name in the spans. A digest stands for a long name, so all of these are among the numbers."""
    own = keyspace.index(project) + bytes((Kind.SEQUENCE, BUCKET_OF_WORD[field.path[0]]))
    ranges = [KeyRange(own, own + _TEXTS)]
    for low, high, includes_low, includes_high in spans:
        begin = own + (_TEXTS if low is None else _text_item(str(low))[:-1] + (b"" if includes_low else b"\x00\xff"))
        end = own + (
            indexes.after(_TEXTS)
            if high is None
            else _text_item(str(high))[:-1] + (b"\x00\xff" if includes_high else b"")
        )
        ranges.append(KeyRange(begin, end))
    found = [entry_numbers(key for key, _ in page) for page in rows.read(ranges)]
    return Match(ascending(found), NO_NUMBERS)


def _summary(rows: Rows, project: Project, field: Field, spans: Sequence[Span]) -> Match | None:
    """LAST, MINIMUM, MAXIMUM."""
    if BUCKET_OF_WORD[field.path[0]] != Bucket.METRIC:
        return None
    own = bytes((field.kind,))
    names = [_sequence_field(field)] if len(field.path) > len(("bucket", "name")) else _contexts(rows, project, field)
    if len(names) > CONTEXTS_MAX:
        return None
    waiting = keyspace.subspace(project, Subspace.UNSETTLED_RUNS)
    fields = [own + name[1:] for name in names]
    match, (keys,) = _by_value(rows, project, fields, spans, keyspace.children(waiting))
    unsettled = listed_numbers(keys, len(waiting))
    return _also(match._replace(sure=np.setdiff1d(match.sure, unsettled, assume_unique=True)), unsettled)


def _sequence_field(field: Field) -> bytes:
    word, name, *context = field.path
    return indexes.sequence_field(Kind.SEQUENCE, BUCKET_OF_WORD[word], name, *context)


def _contexts(rows: Rows, project: Project, field: Field, contexts_max: int = CONTEXTS_MAX) -> list[bytes]:
    """Return the fields of SEQUENCE of each context that the sequence has in some run; one too many at most."""
    prefix = keyspace.index(project)
    begin, end = entry_range(project, _sequence_field(field))
    found: list[bytes] = []
    while len(found) <= contexts_max and (key := rows.seek(KeyRange(begin, end))) is not None:
        _, at = indexes.read_parts(key, len(prefix) + 2)
        found.append(key[len(prefix) : at])
        begin = indexes.after(key[:at])
    return found


def _archived(rows: Rows, project: Project, field: Field, spans: Sequence[Span]) -> Match | None:
    return None if any_contains(spans, value=False) else _plain(rows, project, field, spans)


def _active(rows: Rows, project: Project, _field: Field, spans: Sequence[Span]) -> Match | None:
    if any_contains(spans, value=False):
        return None
    if not any_contains(spans, value=True):
        return Match(NO_NUMBERS, NO_NUMBERS)
    base = keyspace.subspace(project, Subspace.ACTIVE_RUNS)
    (page,) = rows.read([keyspace.children(base)])
    numbers = listed_numbers([key for key, _ in page], len(base))
    return Match(numbers, numbers)


def _hash(rows: Rows, project: Project, _field: Field, spans: Sequence[Span]) -> Match:
    base = keyspace.subspace(project, Subspace.RUN_NUMBERS)
    ranges = [where for span in spans if (where := _text_range(base, span)) is not None]
    found = [value for page in rows.read(ranges) for _, value in page]
    numbers = np.unique(np.frombuffer(b"".join(found), "<u8").astype(np.uint64))
    return Match(numbers, numbers)


def _text_range(base: bytes, span: Span) -> KeyRange | None:
    """Return the range of the keys that end with the texts of a span; they hold no NUL."""
    if not all(bound is None or isinstance(bound, str) for bound in (span.low, span.high)):
        return None
    begin, end = keyspace.children(base)
    if isinstance(span.low, str):
        begin = base + _text_item(span.low) + (b"" if span.includes_low else b"\x00")
    if isinstance(span.high, str):
        end = base + _text_item(span.high) + (b"\x00" if span.includes_high else b"")
    return KeyRange(begin, end)


def _text_item(text: str) -> bytes:
    """Return what `pack` makes of a text, also where that refuses: a bound may be no valid text."""
    return b"\x02" + text.encode("utf-8", "surrogatepass").replace(b"\x00", b"\x00\xff") + b"\x00"


def _created(rows: Rows, project: Project, _field: Field, spans: Sequence[Span]) -> Match:
    base = keyspace.subspace(project, Subspace.RUNS_BY_TIME)
    ranges = [where for span in spans if (where := _time_codes(span)) is not None]
    pages = rows.read([KeyRange(base + where.begin, base + where.end) for where in ranges])
    numbers, sure = [], []
    for where, page in zip(ranges, pages, strict=True):
        keys = [key for key, _ in page]
        these = keyspace.place_number_array(keys, len(base))
        begin, end = bisect_left(keys, base + where.sure_begin), bisect_left(keys, base + where.sure_end)
        numbers.append(these)
        sure.append(these[begin:end])
    return Match(ascending(numbers), ascending(sure))


def _time_codes(span: Span) -> Codes | None:
    """Return what stands for a span of seconds in the order of creation; None when it holds no time.

    Keys tell microseconds, cut off: of a bound's own microsecond nothing is sure.
    """
    begin = sure_begin = b"\x00"
    end = sure_end = b"\xff"
    if span.low is not None:
        code = _time_code(span.low)
        if code is None:
            return None
        begin, sure_begin = code, indexes.after(code)
    if span.high is not None:
        code = _time_code(span.high)
        if code is None:
            return None
        end, sure_end = indexes.after(code), code
    return Codes(begin, end, sure_begin, sure_end)


def _time_code(seconds: float | str) -> bytes | None:
    """Return what stands for a time in keys; None for what is none."""
    if isinstance(seconds, str) or seconds != seconds:  # noqa: PLR0124 - NaN
        return None
    try:
        return pack((int(float(seconds) * _MICROSECONDS),))
    except OverflowError:  # infinite, or as good as that
        return b"\xfe" if seconds > 0 else b"\x01"


def _entity(rows: Rows, project: Project, field: Field, spans: Sequence[Span]) -> Match:
    """EXPERIMENT, TAG: by name to id to runs, so that renaming needs no index."""
    space = Subspace.EXPERIMENT_RUNS if field.kind is Kind.EXPERIMENT else Subspace.TAG_RUNS
    ids = [one.id for one in _named(rows, project, field.kind, spans)]
    bases = [keyspace.entity(project, space, entity_id) for entity_id in ids]
    pages = rows.read([keyspace.children(base) for base in bases])
    found = [
        keyspace.place_number_array([key for key, _ in page], len(base))
        for base, page in zip(bases, pages, strict=True)
    ]
    numbers = ascending(found)
    return Match(numbers, numbers)


def _named(rows: Rows, project: Project, kind: Kind, spans: Sequence[Span]) -> list[Experiment | Tag]:
    """Return the experiments, or the tags that are not archived, whose names lie in the spans."""
    rows.require(len(spans))
    names = [span.low for span in spans if isinstance(span.low, str) and span == equal_to(span.low)]
    if len(names) < len(spans):
        entities = catalog.experiments if kind is Kind.EXPERIMENT else catalog.tags
        listed: Collection[Experiment | Tag] = entities.list(rows.reader, project, entities_max=rows.left + 1)
        rows.charge(len(listed))
    elif kind is Kind.EXPERIMENT:
        listed = catalog.experiments.find_many(rows.reader, project, names).values()
    else:
        listed = catalog.tags.find_many(rows.reader, project, names).values()
    found = [one for one in listed if kind is Kind.EXPERIMENT or not one.archived]
    return [one for one in found if any_contains(spans, one.name)]


_FINDERS: Final[Mapping[Kind, Callable[[Rows, Project, Field, Sequence[Span]], Match | None]]] = {
    Kind.HASH: _hash,
    Kind.NAME: _plain,
    Kind.CREATED: _created,
    Kind.ENDED: _plain,
    Kind.DURATION: _duration,
    Kind.EXPERIMENT: _entity,
    Kind.TAG: _entity,
    Kind.ACTIVE: _active,
    Kind.ARCHIVED: _archived,
    Kind.PARAM: _param,
    Kind.SEQUENCE: _sequence,
    Kind.LAST: _summary,
    Kind.MINIMUM: _summary,
    Kind.MAXIMUM: _summary,
}
