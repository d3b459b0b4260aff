"""Log records -> what each run gets, in the order of arrival. Pure: reads no store, writes nothing."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Final, NamedTuple, cast

import msgspec

from matyan.engines.log.protocol import LogRecord
from matyan.errors import InvalidArgumentError, MatyanError
from matyan.ids import Project, RunId, make_id
from matyan.sequences.model import CACHED_TEXT_MAX, EMPTY_CONTEXT, Bucket, Points, SequenceKey, canonical_context
from matyan.wire.codec import decode_envelope
from matyan.wire.frames import decode_payload
from matyan.wire.messages import AddTag, Command, Envelope, LogMetric, Moment, Refusal, SetRunProperty

FAULTS_OF_DATA: Final = (MatyanError, OverflowError, ValueError, TypeError, msgspec.MsgspecError)
"""What a command itself brings about, and would again."""
_INTEGER_TYPES: Final = ("int", "uint", "bool")
_NAN: Final = math.nan
_SECONDS_MAX: Final = 1e11
"""Year 5138; what lies beyond is no time in seconds."""


class Piece(NamedTuple):
    """Commands `begin <= index < end` of one record."""

    offset: int
    envelope: Envelope
    commands: Sequence[Command]
    begin: int
    end: int

    @property
    def is_last(self) -> bool:
        """Whether this piece ends its record."""
        return self.end == len(self.commands)

    def place(self, log_id: str) -> tuple[str, int]:
        """Return the log and the offset at which it was sent first: a retry is as old as what it repeats."""
        first = self.envelope.retried
        return (log_id, self.offset) if first is None else (first.log_id, first.offset)


class Spoilt(NamedTuple):
    """Something of a record that can never be applied."""

    offset: int
    item: int
    """Which command of the record; -1 is the record itself, -2 - n what stood at n and could not be read."""
    reason: str
    payload: bytes
    envelope: Envelope
    """Of the record; one of no run when not even that could be read."""


class Event(NamedTuple):
    """A command that is not a point, with what the store needs to know of its way here."""

    command: Command
    writer: str
    received_ms: int
    log_id: str
    offset: int


class PointBuffer:
    """Points of one sequence in order of arrival; a step of None is counted on by the worker."""

    __slots__ = ("dtypes", "epochs", "steps", "times", "values")

    def __init__(self) -> None:
        self.steps: list[int | None] = []
        self.values: list[float] = []
        self.epochs: list[float | None] = []
        self.times: list[int] = []
        self.dtypes: set[str | None] = set()

    def points(self, last_step: int) -> Points:
        """Return the points, steps of None counted on from the greatest step so far."""
        epochs = None
        if self.epochs.count(None) < len(self.epochs):
            epochs = [_NAN if epoch is None else epoch for epoch in self.epochs]
        steps = list(_count_on(self.steps, last_step)) if None in self.steps else cast("list[int]", self.steps)
        return Points(steps, self.values, epochs, self.times)

    @property
    def dtype(self) -> str:
        """`int`, `float`, or `number` when both were tracked."""
        kinds = {"int" if (dtype or "").startswith(_INTEGER_TYPES) else "float" for dtype in self.dtypes}
        return kinds.pop() if len(kinds) == 1 else "number"


class RunGroup:
    """Everything that a slice holds for one run."""

    __slots__ = ("_buffers", "events", "points", "project", "received_ms", "refusals", "run_id")

    def __init__(self, project: Project, run_id: RunId, received_ms: int) -> None:
        self.project = project
        self.run_id = run_id
        self.received_ms = received_ms
        """Arrival of the first record."""
        self.events: list[Event] = []
        self.points: dict[SequenceKey, PointBuffer] = {}
        self.refusals: list[tuple[int, Refusal]] = []
        self._buffers: dict[tuple[str, bytes], PointBuffer] = {}

    def add(self, commands: Iterable[Command], *, writer: str, received_ms: int, log_id: str, offset: int) -> None:
        """Take commands of one record. The hot path of the worker: once per point, a few list appends."""
        buffers, events = self._buffers, self.events
        for command in commands:
            if type(command) is not LogMetric:
                events.append(Event(command, writer, received_ms, log_id, offset))
                continue
            context = bytes(command.context)
            buffer = buffers.get((command.name, context))
            if buffer is None:
                buffer = self._make_buffer(command.name, context)
            buffer.steps.append(command.step)
            buffer.values.append(command.value)
            buffer.epochs.append(command.epoch)
            buffer.dtypes.add(command.dtype)
            moment = command.client_datetime
            # `moment_ms` for the usual case, without the call.
            buffer.times.append(
                round(moment.timestamp() * 1000) if type(moment) is datetime else moment_ms(moment, received_ms)
            )

    def _make_buffer(self, name: str, context: bytes) -> PointBuffer:
        # Two spellings of one context share the buffer, so that order of arrival is kept.
        key = SequenceKey(Bucket.METRIC, name, context_identity(context))
        buffer = self._buffers[name, context] = self.points.setdefault(key, PointBuffer())
        return buffer


def decode_records(records: Iterable[LogRecord]) -> tuple[list[Piece], list[Spoilt]]:
    """Return the commands of each record as one piece, and what could not be read."""
    pieces: list[Piece] = []
    spoilt: list[Spoilt] = []
    for record in records:
        envelope = Envelope(1, "", "", record.timestamp_ms, "", b"")
        commands: list[Command] = []
        bad: list[tuple[int, str]] = []
        try:
            envelope = decode_envelope(record.value)
            commands, bad = decode_payload(envelope.encoding, envelope.payload)
        except (msgspec.MsgspecError, MatyanError, ValueError) as error:
            # Whose it is and its number hold all the same; refusals are told when a retry of the letter is applied.
            envelope = msgspec.structs.replace(envelope, refusals=())
            spoilt.append(Spoilt(record.offset, -1, f"the record cannot be read: {error}", record.value, envelope))
        pieces.append(Piece(record.offset, envelope, commands, 0, len(commands)))
        # What another release of the gateway acknowledged and this one cannot read must not vanish.
        spoilt += [Spoilt(record.offset, -2 - index, reason, record.value, envelope) for index, reason in bad]
    return pieces, spoilt


def group(pieces: Iterable[Piece], log_id: str) -> list[RunGroup]:
    """Return what each run gets, runs and their commands in order of arrival."""
    groups: dict[tuple[str, str], RunGroup] = {}
    for piece in pieces:
        envelope = piece.envelope
        if not envelope.run_id:
            continue
        found = groups.get((envelope.project, envelope.run_id))
        if found is None:
            found = RunGroup(Project(envelope.project), RunId(envelope.run_id), envelope.received_ms)
            groups[envelope.project, envelope.run_id] = found
        if piece.begin == 0:
            found.refusals += [(envelope.received_ms, refusal) for refusal in envelope.refusals]
        sent_in, offset = piece.place(log_id)
        found.add(
            piece.commands[piece.begin : piece.end],
            writer=envelope.writer,
            received_ms=envelope.received_ms,
            log_id=sent_in,
            offset=offset,
        )
    return list(groups.values())


def make_ids(groups: Iterable[RunGroup]) -> dict[str, str]:
    """Return an id for every experiment or tag name that may have to be made: transactions make no ids."""
    names: set[str] = {"default"}
    for found in groups:
        for event in found.events:
            if isinstance(event.command, AddTag):
                names.add(event.command.tag_name)
            elif isinstance(event.command, SetRunProperty) and event.command.experiment is not None:
                names.add(event.command.experiment)
    return {name: make_id() for name in names}


def split(pieces: Sequence[Piece]) -> tuple[Sequence[Piece], Sequence[Piece]] | None:
    """Return two halves of a slice, or None when it holds a single command."""
    if len(pieces) > 1:
        middle = len(pieces) // 2
        return pieces[:middle], pieces[middle:]
    (piece,) = pieces
    if piece.end - piece.begin <= 1:
        return None
    middle = (piece.begin + piece.end) // 2
    return [piece._replace(end=middle)], [piece._replace(begin=middle)]


def context_identity(text: bytes) -> str:
    """Return the canonical form of a context given as JSON text.

    Raises:
        InvalidArgumentError: it is neither an object nor null.
    """
    # Long ones are rare, and would make the cache large.
    return _known_identity(text) if len(text) <= CACHED_TEXT_MAX else _identity(text)


@lru_cache(65_536)
def _known_identity(text: bytes) -> str:
    return _identity(text)


def _identity(text: bytes) -> str:
    if text in (b"null", b"{}", b""):
        return EMPTY_CONTEXT
    context = json.loads(text)
    if context is not None and not isinstance(context, dict):
        raise InvalidArgumentError("a context is an object or null")
    return canonical_context(context)


def moment_ms(moment: Moment, received_ms: int) -> int:
    """Return client time in milliseconds since 1970-01-01 UTC, or time of arrival when the client gave none."""
    if isinstance(moment, datetime):
        return round(moment.timestamp() * 1000)
    if moment is None or not abs(moment) < _SECONDS_MAX:
        return received_ms
    return round(moment * 1000)


def _count_on(steps: Iterable[int | None], last_step: int) -> Iterator[int]:
    for step in steps:
        this = last_step + 1 if step is None else step
        last_step = max(last_step, this)
        yield this
