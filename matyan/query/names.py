"""What an expression sees: `run`, and `metric`, `images`, ... for one sequence. Lazy and read-only."""

from __future__ import annotations

import json
from functools import lru_cache
from operator import attrgetter
from typing import TYPE_CHECKING, Any, ClassVar, Final

from matyan.query.moments import local_time
from matyan.query.nodes import ABSENT, MISSING, UNDEFINED, ContextNode, Missing, Node, child_of
from matyan.query.sandbox import Proxy, plain
from matyan.sequences.model import EMPTY_CONTEXT, Bucket, Summary, canonical_context
from matyan.wire.codec import decode_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from matyan.runs.model import Run

_VERSION: Final = 2
"""What Aim says of every metric that its present clients wrote."""
_CONTEXTS_CACHED_MAX: Final = 4096

SequenceIndex = "Mapping[tuple[str, str], Summary]"
"""Summaries by name and canonical context, whatever their kind."""


def index_sequences(summaries: Iterable[Summary]) -> dict[tuple[str, str], Summary]:
    """Return what `run.metrics[...]` looks into; of two kinds under one name and context, the metric counts."""
    ordered = sorted(summaries, key=lambda summary: summary.bucket, reverse=True)
    return {(summary.name, summary.context): summary for summary in ordered}


class RunName(Proxy):
    """The name `run`: fixed attributes first, every other name is a parameter.

    One is made for a search and stands for one run after the other: no value of a query outlives its evaluation.
    """

    __slots__ = (
        "_decode",
        "_known_notes",
        "_known_sequences",
        "_notes",
        "_notes_of",
        "_now_seconds",
        "_offset_minutes",
        "_sequences_of",
        "known_params",
        "run",
        "summaries",
    )

    run: Run
    """The run that the name stands for, and below its sequences."""
    summaries: Iterable[Summary]
    known_params: dict[str, Any] | None
    """What `params` returns, once that was asked for; None before."""
    _known_notes: Sequence[Mapping[str, Any]]
    _known_sequences: Mapping[tuple[str, str], Summary]

    def __init__(
        self,
        *,
        now_seconds: float,
        tz_offset_minutes: int,
        notes: Callable[[Run], Sequence[Mapping[str, Any]]],
        decode: Callable[[bytes], dict[str, Any]] = decode_tree,
    ) -> None:
        """Keep what the attributes are read from; nothing is read before a query asks.

        Args:
            now_seconds: the time of the search, UTC; the same for all its runs.
            tz_offset_minutes: of the viewer, sign as JavaScript's getTimezoneOffset: UTC+2 is -120.
            notes: reads a run's notes as records of `content` and whatever else they have.
            decode: decodes params, at least those that the query reads.
        """
        self._now_seconds = now_seconds
        self._offset_minutes = tz_offset_minutes
        self._notes = notes
        self._decode = decode
        self._notes_of: Run | None = None
        """Whose notes are known."""
        self._sequences_of: Iterable[Summary] | None = None
        """Of which an index is known."""

    def of(self, run: Run, summaries: Iterable[Summary] = ()) -> RunName:
        """Stand for `run`, whose sequences have these summaries, from now on; return itself."""
        self.run = run
        self.summaries = summaries
        self.known_params = None
        return self

    def get_attribute(self, name: str) -> object:
        """Return a fixed attribute or a parameter."""
        reader = self._FIXED.get(name)
        if reader is not None:
            return reader(self)
        found = self.params().get(name, ABSENT)
        return MISSING if found is ABSENT else Node(found)

    def get_item(self, key: object) -> object:
        """Return a parameter, or what stands at a path of keys in the params. Fixed attributes are no items."""
        found: object = self.params()
        for part in key if type(key) is tuple else (key,):
            found = child_of(found, plain(part))
            if found is ABSENT:
                return MISSING
        return Node(found)

    def params(self) -> dict[str, Any]:
        """Return the run's params, at least those that the query reads."""
        known = self.known_params
        if known is None:
            run = self.run
            known = self._decode(run.document.params) if run.raw_system_params is None else run.params
            self.known_params = known
        return known

    def _get(self) -> object:
        # As in Aim, the default is not used: what is missing is MISSING.
        return lambda key, default=None: self.get_item(key)  # noqa: ARG005 - the signature is contract

    def _experiment(self) -> str | None:
        return None if self.run.experiment is None else self.run.experiment.name

    def _duration(self) -> float:
        end = self.run.document.end_time_seconds
        return (self._now_seconds if end is None else end) - self.run.document.created_at_seconds

    def _created_at(self) -> object:
        return local_time(self.run.document.created_at_seconds, self._offset_minutes)

    def _finalized_at(self) -> object:
        end = self.run.document.end_time_seconds
        return None if end is None else local_time(end, self._offset_minutes)

    def _updated_at(self) -> object:
        return local_time(self.run.document.updated_at_seconds, 0)

    def _notes_read(self) -> list[Node]:
        if self._notes_of is not self.run:
            self._known_notes = self._notes(self.run)
            self._notes_of = self.run
        return [Node(dict(note)) for note in self._known_notes]

    def _sequences(self) -> Mapping[tuple[str, str], Summary]:
        if self._sequences_of is not self.summaries:
            self._known_sequences = index_sequences(self.summaries)
            self._sequences_of = self.summaries
        return self._known_sequences

    _STORED: ClassVar[Mapping[str, str]] = {
        "name": "run.name",
        "hash": "run.document.hash",
        "description": "run.document.description",
        "archived": "run.document.archived",
        "is_archived": "run.document.archived",
        "active": "run.document.active",
        "creation_time": "run.document.created_at_seconds",
        "end_time": "run.document.end_time_seconds",
    }
    _FIXED: ClassVar[Mapping[str, Callable[[RunName], object]]] = {
        **{name: attrgetter(path) for name, path in _STORED.items()},
        "experiment": _experiment,
        "tags": lambda self: [tag.name for tag in self.run.tags],
        "created_at": _created_at,
        "finalized_at": _finalized_at,
        "updated_at": _updated_at,
        "duration": _duration,
        "notes": _notes_read,
        "info": lambda _: Opaque(),
        "metrics": lambda self: MetricsName(self._sequences),
        "get": _get,
    }


RUN_STORED: Final = RunName._STORED  # noqa: SLF001 - this module's own
"""Where, from the name `run` on, those of its attributes stand that are told as they are stored."""
RUN_READERS: Final = RunName._FIXED  # noqa: SLF001 - as above
"""What reads the attributes of `run` with a fixed meaning, by name."""
RUN_ATTRIBUTES: Final = frozenset(RUN_READERS)
"""Every other attribute is a parameter."""


class Opaque(Proxy):
    """Something that is there and has nothing to read."""

    __slots__ = ()

    def get_attribute(self, name: str) -> object:  # noqa: ARG002 - the signature is Proxy's
        """Return None, as for every attribute that a plain value does not have."""
        return None


class MetricsName(Proxy):
    """The name `run.metrics`, a table of sequences."""

    __slots__ = ("_sequences",)

    def __init__(self, sequences: Callable[[], Mapping[tuple[str, str], Summary]]) -> None:
        self._sequences = sequences

    def get_attribute(self, name: str) -> object:
        """Refuse: sequences are items."""
        raise AttributeError(name)

    def get_item(self, key: object) -> object:
        """Return the sequence of a name and the empty context, or of `(name, context)`."""
        name, context = (key[0], key[1]) if type(key) is tuple and len(key) == len(("name", "context")) else (key, {})
        name, context = plain(name), plain(context)
        if type(name) is not str or type(context) is not dict:
            return MISSING
        summary = self._sequences().get((name, context_text(context)))
        return MISSING if summary is None else SequenceRecord(summary)


class SequenceRecord(Missing):
    """What `run.metrics[...]` gives: as in Aim it equals None and is false, whether the sequence exists or not."""

    __slots__ = ("_summary",)

    def __init__(self, summary: Summary) -> None:
        super().__init__()
        self._summary = summary

    def _child(self, key: object) -> object:
        found = _read_summary(self._summary, key)
        return UNDEFINED if found is ABSENT else Node(found)


class SequenceName(Proxy):
    """The name `metric`, `images`, ...: one sequence."""

    __slots__ = ("_run", "_summary")

    def __init__(self, summary: Summary, run: RunName) -> None:
        self._summary = summary
        self._run = run

    def get_attribute(self, name: str) -> object:
        """Return an attribute of the sequence; what it does not have equals None."""
        if name == "name":
            return self._summary.name
        if name == "context":
            return ContextNode(_decode_context(self._summary.context))
        if name == "run":
            return self._run
        if self._summary.bucket != Bucket.METRIC and name in _VALUES_OF_OBJECTS:
            return UNDEFINED
        found = _read_summary(self._summary, name)
        return MISSING if found is ABSENT else Node(found)


_VALUES_OF_OBJECTS: Final = frozenset({"first", "last"})
"""Where Aim has an object's own record, which no comparison can use; it is not None either (golden query 370)."""


def aim_dtype(summary: Summary) -> str:
    """Return the type as queries and clients know it: `float`, `int`, `number`, `aim.image`, `list(aim.image)`, ..."""
    if summary.bucket == Bucket.METRIC:
        return summary.dtype
    kind = summary.dtype.removeprefix("list(").removesuffix(")")
    return f"list(aim.{kind})" if _is_list(summary) else f"aim.{kind}"


def _is_list(summary: Summary) -> bool:
    return summary.dtype.startswith("list(")


def _number(summary: Summary, value: float | None) -> object:
    if value is None:
        return ABSENT
    return int(value) if summary.dtype == "int" and value.is_integer() else value


def _read_summary(summary: Summary, name: object) -> object:
    """Return a value of the sequence's record, or ABSENT."""
    reader = _RECORD.get(name) if isinstance(name, str) else None
    return ABSENT if reader is None else reader(summary)


_RECORD: Final[Mapping[str, Callable[[Summary], object]]] = {
    "last": lambda summary: _number(summary, summary.last),
    "first": lambda summary: _number(summary, summary.first),
    "min": lambda summary: _number(summary, summary.minimum),
    "max": lambda summary: _number(summary, summary.maximum),
    "last_step": lambda summary: summary.last_step,
    "first_step": lambda summary: summary.first_step,
    "dtype": aim_dtype,
    "version": lambda summary: _VERSION if summary.bucket == Bucket.METRIC else ABSENT,
    "record_max_length": lambda summary: summary.record_length_max if _is_list(summary) else ABSENT,
}


@lru_cache(maxsize=_CONTEXTS_CACHED_MAX)
def _decode_context(text: str) -> dict[str, Any]:
    # Queries cannot change a dict, so all sequences of one context may share it.
    decoded: dict[str, Any] = json.loads(text)
    return decoded


def context_text(context: dict[str, Any]) -> str:
    """Return the canonical context that a query means by a dict.

    Raises:
        TypeError, ValueError: it is none that JSON can hold.
    """
    return canonical_context(_without_nodes(context)) if context else EMPTY_CONTEXT


def _without_nodes(value: Any) -> Any:
    """Return JSON-like data with the values of nodes in their place."""
    value = plain(value)
    if type(value) is dict:
        return {plain(key): _without_nodes(item) for key, item in value.items()}
    if type(value) is list or type(value) is tuple:
        return [_without_nodes(item) for item in value]
    return value
