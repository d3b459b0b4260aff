"""Dead letters seen by an operator: read, tried again, dropped, counted.

What a letter holds depends on its index (`DeadLetter`): one command as a payload of its own, or a whole log record of
which something could not be read.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from typing import Final, NamedTuple

import msgspec

from matyan.engines.blob.protocol import BlobEngine
from matyan.engines.kv.protocol import KvEngine, KvTransaction
from matyan.engines.log.protocol import REFUSALS, LogEngine, LogEntry, LogProducer, partitions_of
from matyan.errors import InvalidArgumentError, MatyanError, UnavailableError
from matyan.ids import Project, RunId, log_key
from matyan.observe.metrics import Metrics
from matyan.runs import tombstones
from matyan.store import deadletters
from matyan.store.deadletters import Asked, DeadLetter
from matyan.wire import frames
from matyan.wire.codec import decode_envelope, encode_envelope
from matyan.wire.messages import Command, Envelope, Origin
from matyan.wire.topics import DEAD_LETTERS

logger = logging.getLogger(__name__)

APPEND_SECONDS_MAX: Final = 5.0
"""Other jobs wait meanwhile. What the log takes after that is a repeat when it is sent again, and left out."""
NOTICES_KEPT: Final = 100_000
"""Records of `data-ingestion-dead` that are kept, of each partition."""
_PAGE_ROWS: Final = 200
"""Of up to 10 kB each."""
_ENVELOPE_VERSION: Final = 1
_WHOLE_RECORD: Final = -1


class Claims(NamedTuple):
    """Whom letters are about: what they hold may be stored one day."""

    run_ids: Collection[RunId]
    is_anybody: bool
    """Whether a letter names no run, so that it may be about any."""

    def has(self, run_id: RunId) -> bool:
        """Return whether a letter may be about a run."""
        return self.is_anybody or run_id in self.run_ids


class Content(NamedTuple):
    """What a letter holds, as far as this release can read it."""

    commands: Sequence[Command]
    raw: bytes
    """All of it, or what is left: the excerpt."""
    fault: str
    """Why there is no more; empty when all could be read."""


def read_all(kv: KvEngine) -> Iterator[DeadLetter]:
    """Yield every letter, oldest first of each partition; a page per transaction."""
    after: Origin | None = None
    while page := kv.read(partial(deadletters.read_page, after=after, rows_max=_PAGE_ROWS)):
        yield from page
        after = page[-1].origin


def read_claims(kv: KvEngine) -> Claims:
    """Return whom the letters there are, asked to be tried again or not, are about."""
    run_ids = {RunId(letter.run_id) for letter in read_all(kv)}
    return Claims(run_ids, is_anybody=RunId("") in run_ids)


def count(kv: KvEngine) -> int:
    """Return how many letters there are."""
    return sum(1 for _ in read_all(kv))


def find(kv: KvEngine, ids: Sequence[str]) -> list[DeadLetter]:
    """Return the letters of these ids, in the order given.

    Raises:
        InvalidArgumentError: some are no letters (any more); the message names them.
    """
    wanted = dict.fromkeys(ids)
    found = {letter.id: letter for letter in read_all(kv) if letter.id in wanted}
    if missing := [one for one in wanted if one not in found]:
        raise InvalidArgumentError(
            f"no dead letter {', '.join(missing)}; `matyan deadletters list` names those there are"
        )
    return [found[one] for one in wanted]


def read_content(letter: DeadLetter, blobs: BlobEngine) -> Content:
    """Return what a letter holds."""
    raw = letter.excerpt if letter.blob_key is None else blobs.get(letter.blob_key)
    if raw is None:
        return Content([], letter.excerpt, f"all of it lay in blob {letter.blob_key}, which is gone")
    try:
        return Content(_commands_of(letter, raw), raw, "")
    except (msgspec.MsgspecError, MatyanError, ValueError) as error:
        return Content([], raw, f"this release cannot read it: {error}")


def drop(kv: KvEngine, blobs: BlobEngine, letters: Sequence[DeadLetter]) -> None:
    """Delete letters for good, each with its blob.

    The letter goes first: a process that dies in between leaves a blob, which the sweep finds, never half a letter.
    """
    for letter in letters:
        kv.write(partial(deadletters.clear, origin=letter.origin))
        if letter.blob_key is not None:
            blobs.delete(letter.blob_key)


def ask_all(kv: KvEngine, origins: Sequence[Origin], now_ms: int) -> None:
    """Ask for letters to be tried again; those that are gone are left out."""
    for begin in range(0, len(origins), _PAGE_ROWS):
        kv.write(partial(_ask, origins=origins[begin : begin + _PAGE_ROWS], now_ms=now_ms))


def trim_notices(log: LogEngine) -> int:
    """Delete the oldest of what other systems are told of letters; the letters stay. Return the bytes, if known."""
    producer, freed = log.producer(), 0
    for partition in partitions_of(log, DEAD_LETTERS):
        before = producer.end_offset(partition) - NOTICES_KEPT
        if before > log.start_offset(partition):
            freed += log.trim(partition, before)
    return freed


class LetterRetries:
    """Appends what somebody wants to be tried again to the log it came from; a job that runs often."""

    def __init__(self, *, kv: KvEngine, blobs: BlobEngine, producer: LogProducer, topic: str) -> None:
        self._kv = kv
        self._blobs = blobs
        self._producer = producer
        self._topic = topic

    def send_asked(self) -> int:
        """Append the letters asked for; return how many. What cannot be appended now comes with the next call.

        A process that dies between append and note appends again: the worker applies the first and leaves out the rest.

        Raises:
            UnavailableError: an engine cannot work now.
        """
        after: Origin | None = None
        sent = 0
        while asked := self._kv.read(partial(deadletters.read_asked, after=after, rows_max=_PAGE_ROWS)):
            sent += sum(self._send(one) for one in asked if not one.retry.is_sent)
            after = asked[-1].origin
        return sent

    def _send(self, asked: Asked) -> bool:
        try:
            self._append(self._record(asked))
        except REFUSALS as error:
            self._kv.write(partial(deadletters.note_fault, origin=asked.origin, fault=error.message))
            return False
        self._kv.write(partial(deadletters.note_sent, origin=asked.origin))
        return True

    def _append(self, record: LogEntry) -> None:
        """Return when the log has it.

        Raises:
            TooLargeError, InvalidArgumentError: the log refuses it for good.
            UnavailableError: the log cannot take it now.
        """
        future = self._producer.append_many(self._topic, [record])
        try:
            future.result(APPEND_SECONDS_MAX)
        except TimeoutError as error:
            raise UnavailableError(f"the log did not take a record within {APPEND_SECONDS_MAX:g} s") from error

    def _record(self, asked: Asked) -> LogEntry:
        """Return the record that a letter becomes.

        Raises:
            InvalidArgumentError: it cannot be one.
        """
        letter = asked.letter
        if letter is None:
            raise InvalidArgumentError("it is gone")
        content = read_content(letter, self._blobs)
        if content.fault:
            raise InvalidArgumentError(content.fault)
        envelope = _envelope_of(letter, content)
        project, run_id = Project(envelope.project), RunId(envelope.run_id)
        stone = self._kv.read(lambda reader: tombstones.get(reader, project, run_id))
        if stone is not None and stone.buries(letter.log_id, letter.offset):
            raise InvalidArgumentError(f"run {run_id} has been deleted since")
        return LogEntry(log_key(project, run_id), encode_envelope(envelope))


class LetterReport:
    """Counts letters for the metric, and says in the log when there are new ones; a job for every minute."""

    def __init__(self, *, kv: KvEngine, metrics: Metrics) -> None:
        self._kv = kv
        self._metrics = metrics
        self._told: set[int] = set()
        """A hash of each letter and when it was refused."""

    def run(self) -> int:
        """Count; return how many are new since the last call."""
        found = {hash((letter.origin, letter.refused_ms)) for letter in read_all(self._kv)}
        fresh = len(found - self._told)
        self._told = found
        self._metrics.dead_letters.set(len(found))
        if fresh:
            logger.warning(
                "items could not be stored; see `matyan deadletters list`", extra={"new": fresh, "all": len(found)}
            )
        return fresh


def _ask(tx: KvTransaction, *, origins: Sequence[Origin], now_ms: int) -> None:
    for origin in origins:
        deadletters.ask(tx, origin, now_ms)


def _commands_of(letter: DeadLetter, raw: bytes) -> Sequence[Command]:
    """Return the commands of a letter's content. Raises what decoding raises, and ValueError."""
    if letter.index > _WHOLE_RECORD:
        commands, bad = frames.decode_payload(frames.MSGPACK, raw)
        if bad:
            raise ValueError(bad[0][1])
        return commands
    envelope = decode_envelope(raw)
    commands, bad = frames.decode_payload(envelope.encoding, envelope.payload)
    if letter.index == _WHOLE_RECORD:
        return commands
    place = -2 - letter.index
    reasons = dict(bad)
    if place in reasons:
        raise ValueError(reasons[place])
    return [commands[place - sum(index < place for index in reasons)]]


def _envelope_of(letter: DeadLetter, content: Content) -> Envelope:
    """Return what is appended for a letter.

    Raises:
        InvalidArgumentError: nobody knows whose it is.
    """
    if letter.index == _WHOLE_RECORD:
        found = msgspec.structs.replace(decode_envelope(content.raw), retried=letter.origin)
    else:
        found = Envelope(
            version=_ENVELOPE_VERSION,
            project=letter.project,
            run_id=letter.run_id,
            received_ms=letter.received_ms,
            encoding=frames.MSGPACK,
            payload=frames.encode_commands(list(content.commands)),
            writer=letter.writer,
            retried=letter.origin,
        )
    if not found.run_id:
        raise InvalidArgumentError("it names no run")
    return found
