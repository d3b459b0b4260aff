"""Log records -> what each run gets, in the order of arrival. Pure: reads no store, writes nothing."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Final, NamedTuple, cast

import msgspec

from matyan.engines.log.protocol import LogRecord
from matyan.errors import InvalidArgumentError, MatyanError
from matyan.ids import Project, RunId, make_id
from matyan.ingestion.handover import Handover
from matyan.sequences.model import CACHED_TEXT_MAX, EMPTY_CONTEXT, Bucket, Points, SequenceKey, canonical_context
from matyan.wire.codec import decode_envelope
from matyan.wire.frames import decode_payload
from matyan.wire.messages import AddTag, Command, Envelope, LogMetric, Refusal, SetRunProperty
from matyan.wire.moments import moment_ms
from matyan.wire.tables import PointTable, tabulate

FAULTS_OF_DATA: Final = (MatyanError, OverflowError, ValueError, TypeError, msgspec.MsgspecError)
"""What a command itself brings about, and would again."""
_INTEGER_TYPES: Final = ("int", "uint", "bool")
_NAN: Final = math.nan


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

    @property
    def own_commands(self) -> Sequence[Command]:
        """The commands of this piece; of a whole record just as they came."""
        return self.commands if self.begin == 0 and self.is_last else self.commands[self.begin : self.end]

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
        missing = self.epochs.count(None)
        epochs: list[float] | None = None
        if missing == 0:
            epochs = cast("list[float]", self.epochs)
        elif missing < len(self.epochs):
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

    def add(self, commands: Sequence[Command], *, writer: str, received_ms: int, log_id: str, offset: int) -> None:
        """Take commands of one record."""
        table = commands if isinstance(commands, PointTable) else tabulate(commands)
        if table is not None and self._add_table(table, received_ms):
            return
        for command in commands:
            if type(command) is LogMetric:
                self._add_point(command, received_ms)
            else:
                self.events.append(Event(command, writer, received_ms, log_id, offset))

    def _add_table(self, table: PointTable, received_ms: int) -> bool:
        """Take points by column, the hot path of the worker; return False where that would change their order."""
        buffers = [self._buffer(point) for point in table.heads]
        width = len(buffers)
        if len(set(map(id, buffers))) < width:  # two spellings of one context: their points alternate
            return False
        times, dtypes = table.times(received_ms), set(table.dtypes)
        for place, buffer in enumerate(buffers):
            buffer.steps += table.steps[place::width]
            buffer.values += table.values[place::width]
            buffer.epochs += table.epochs[place::width]
            buffer.dtypes.update(dtypes if len(dtypes) == 1 else table.dtypes[place::width])
            buffer.times += times[place::width]
        return True

    def _add_point(self, point: LogMetric, received_ms: int) -> None:
        buffer = self._buffer(point)
        buffer.steps.append(point.step)
        buffer.values.append(point.value)
        buffer.epochs.append(point.epoch)
        buffer.dtypes.add(point.dtype)
        buffer.times.append(moment_ms(point.client_datetime, received_ms))

    def _buffer(self, point: LogMetric) -> PointBuffer:
        context = bytes(point.context)
        return self._buffers.get((point.name, context)) or self._make_buffer(point.name, context)

    def _make_buffer(self, name: str, context: bytes) -> PointBuffer:
        # Two spellings of one context share the buffer, so that order of arrival is kept.
        key = SequenceKey(Bucket.METRIC, name, context_identity(context))
        buffer = self._buffers[name, context] = self.points.setdefault(key, PointBuffer())
        return buffer


def decode_records(records: Iterable[LogRecord], handover: Handover) -> tuple[list[Piece], list[Spoilt]]:
    """Return the commands of each record as one piece, and what could not be read.

    Args:
        records: of one partition.
        handover: may know what some of them say, and knows nothing else.
    """
    pieces: list[Piece] = []
    spoilt: list[Spoilt] = []
    for record in records:
        known = handover.take(record.value)
        if known is not None:
            pieces.append(Piece(record.offset, known.envelope, known.commands, 0, len(known.commands)))
            continue
        envelope = Envelope(1, "", "", record.timestamp_ms, "", b"")
        commands: Sequence[Command] = []
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
            piece.own_commands,
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


def _count_on(steps: Iterable[int | None], last_step: int) -> Iterator[int]:
    for step in steps:
        this = last_step + 1 if step is None else step
        last_step = max(last_step, this)
        yield this
