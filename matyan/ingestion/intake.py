"""From a frame to a durable record: decode and check it, append what was accepted, settle what it is answered."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import cache, partial
from typing import Any, Final, NamedTuple

import msgspec

from matyan.clock import Clock
from matyan.engines.log.protocol import Appended, LogEntry, LogProducer
from matyan.errors import MatyanError, UnavailableError
from matyan.ids import Project, RunId, log_key
from matyan.ingestion.backlog import Backlog
from matyan.ingestion.conversation import Answer
from matyan.ingestion.handover import Decoded, Handover
from matyan.observe.metrics import Metrics
from matyan.threads import run_blocking
from matyan.wire.codec import encode_envelope
from matyan.wire.frames import MSGPACK, DecodedFrame, decode_frame, encode_commands, encode_payload, frame_bytes
from matyan.wire.messages import Command, Envelope, LogMetric, Refusal, Reply
from matyan.wire.tables import PointTable

logger = logging.getLogger(__name__)

REFUSALS_NAMED_MAX: Final = 5
REASON_CHARACTERS_MAX: Final = 300
REPEAT_SECONDS_MAX: Final = 60.0
"""Clients repeat a frame within 45 s; an equal one after that is meant."""
OUTAGE_SECONDS: Final = 5.0
"""For so long after a frame that could not be kept, no new connections are taken; then one may find out."""
ENVELOPE_VERSION: Final = 1
_ONLY_POINTS: Final = [LogMetric.__struct_config__.tag]
_IDENTITY_BYTES_MAX: Final = 64 * 1024
"""A longer frame is remembered by its digest: every connection remembers one."""


class ReadFrame(NamedTuple):
    """A frame, decoded and packed for the log."""

    frame: DecodedFrame
    types: Sequence[tuple[str, int]]
    encoding: str
    payload: bytes
    size_bytes: int
    """Of the frame as it came."""
    identity: bytes
    """Equal for equal frames: the frame itself, or a digest of a large one."""

    @property
    def is_points(self) -> bool:
        """Whether the frame is one of points only, and stands in the log as it came."""
        return self.frame.exact and [kind for kind, _ in self.types] == _ONLY_POINTS


class Appender:
    """Appends records and settles the answers to them. One for all connections of an event loop."""

    def __init__(
        self,
        *,
        producer: LogProducer,
        topic: str,
        backlog: Backlog,
        metrics: Metrics,
        clock: Clock,
        handover: Handover | None = None,
    ) -> None:
        self._producer = producer
        self._topic = topic
        self._backlog = backlog
        # Finding a counter by its labels costs more than counting.
        self._frames = cache(metrics.ws_frames.labels)
        self._messages = cache(metrics.ws_messages.labels)
        self._refused_items = cache(metrics.ingest_refused_items.labels)
        self._settling = _Settling()
        self._outage = _Outage(clock)
        self._numbers: Counter[int] = Counter()
        """Of the records appended so far, by partition."""
        self._handover = handover or Handover()
        self.clock = clock
        self.gateway = secrets.token_hex(8) if producer.may_repeat else ""
        """Identity of this appender; empty where the log needs none."""
        producer.partition_of(topic, b"")  # opens the topic: writing its catalogue is nothing for the event loop

    def has_failed_lately(self) -> bool:
        """Return whether a frame could not be kept a moment ago."""
        return self._outage.is_fresh()

    def partition_of(self, key: bytes) -> int:
        """Return the partition of a run's records."""
        return self._producer.partition_of(self._topic, key)

    def next_number(self, partition: int) -> int:
        """Return the number of the record that is appended next; 0 where the log needs none.

        To be called right before `append`: workers take a gap for a record that was refused.
        """
        if not self.gateway:
            return 0
        self._numbers[partition] += 1
        return self._numbers[partition]

    def append(
        self,
        key: bytes,
        envelope: Envelope,
        settle: Callable[[Future[list[Appended]]], None],
        *,
        read: ReadFrame | None = None,
    ) -> None:
        """Append a record.

        Args:
            key: of the run.
            envelope: the record.
            settle: called on the event loop with the future, done.
            read: what the record was made of, to be handed over to the worker where that is of use.
        """
        value = encode_envelope(envelope)
        if read is not None and read.is_points:
            self._handover.put(value, Decoded(envelope, read.frame.commands, read.size_bytes))
        try:
            future = self._producer.append_many(self._topic, [LogEntry(key, value)])
        except BaseException:
            self._handover.take(value)
            raise
        future.add_done_callback(partial(self._done, value, asyncio.get_running_loop(), settle))

    def _done(
        self,
        value: bytes,
        loop: asyncio.AbstractEventLoop,
        settle: Callable[[Future[list[Appended]]], None],
        future: Future[list[Appended]],
    ) -> None:
        """Take note of an append that has succeeded or failed. Any thread."""
        if future.cancelled() or future.exception() is not None:
            self._handover.take(value)  # no worker will ever ask for it
        self._settling.put(loop, settle, future)

    def settled(self, read: ReadFrame, future: Future[list[Appended]]) -> MatyanError | None:
        """Count a frame whose record is durable, and return None; or return why it is not."""
        error = _failure(future)
        self._outage.observe(error if isinstance(error, UnavailableError) else None)
        if error is not None:
            self.count_error()
            return error
        (appended,) = future.result()
        if appended.offset is not None:
            self._backlog.appended(appended.partition, appended.offset, read.size_bytes)
        self.count(read)
        return None

    def count(self, read: ReadFrame) -> None:
        """Count a frame that is answered, its items by type and its refusals."""
        self._frames("error" if read.frame.refusals else "ok").inc()
        for kind, number in read.types:
            self._messages(kind).inc(number)
        for reason, number in read.frame.refused.items():
            self._refused_items(reason).inc(number)

    def count_error(self) -> None:
        """Count a frame of which nothing is kept."""
        self._frames("error").inc()

    def count_repeated(self) -> None:
        """Count a frame that is answered like the one before."""
        self._frames("repeated").inc()


class Intake:
    """Takes the frames of one connection, in order."""

    def __init__(self, appender: Appender, project: Project, run_id: RunId, on_change: Callable[[], None]) -> None:
        self._appender = appender
        self._project = project
        self._run_id = run_id
        self._key = log_key(project, run_id)
        self._partition = appender.partition_of(self._key)
        self._on_change = on_change
        self._writer = secrets.token_hex(8)
        self._frames = 0
        self._last = b""
        """Identity of the frame before."""
        self._last_seconds = 0.0
        self._last_answer: Answer | None = None
        self._told_seconds = appender.clock.monotonic_seconds()
        """When the log was told of this client last."""

    def keep_alive(self, after_seconds: float) -> None:
        """Tell the log that the client is still there, unless it was told of it less than `after_seconds` ago."""
        if self._appender.clock.monotonic_seconds() - self._told_seconds >= after_seconds:
            self._appender.append(self._key, self._envelope(_NOTHING), _heed_nothing)

    def take(self, text: str) -> Answer:
        """Decode and append a small frame."""
        try:
            return self._accept(read_frame(text))
        except MatyanError as error:
            return self.refuse(error.message)
        except Exception as error:  # noqa: BLE001 (a fault of ours must cost this frame only, not the connection)
            return self._fail(error)

    async def take_large(self, text: str) -> Answer:
        """Decode a large frame in a thread, then append it."""
        try:
            return self._accept(await run_blocking(read_frame, text))
        except MatyanError as error:
            return self.refuse(error.message)
        except Exception as error:  # noqa: BLE001 (a fault of ours must cost this frame only, not the connection)
            return self._fail(error)

    def refuse(self, reason: str) -> Answer:
        """Answer a frame of which nothing is kept; it is no longer the frame before."""
        self._appender.count_error()
        self._last_answer = None
        return Answer(error_text(reason))

    def _fail(self, error: Exception) -> Answer:
        logger.error("a frame could not be taken", exc_info=error, extra={"run": self._run_id})
        return self.refuse("internal error")

    def _accept(self, read: ReadFrame) -> Answer:
        before, now = self._last_answer, self._appender.clock.monotonic_seconds()
        is_repeat = read.identity == self._last and now - self._last_seconds < REPEAT_SECONDS_MAX
        if before is not None and not before.has_failed and is_repeat:
            # The client repeats a frame whose reply was late; it is kept already, or on its way.
            self._appender.count_repeated()
            return before
        self._last, self._last_seconds = read.identity, now
        if not read.frame.commands and not read.frame.refusals:
            self._appender.count(read)
            answer = Answer(_OK)
        else:
            answer = Answer()
            self._appender.append(
                self._key,
                self._envelope(read),
                partial(self._settle, answer, read),
                read=read,
            )
        self._last_answer = answer
        return answer

    def _settle(self, answer: Answer, read: ReadFrame, future: Future[list[Appended]]) -> None:
        error = self._appender.settled(read, future)
        answer.has_failed = error is not None
        answer.may_wait = error is not None or future.result()[0].offset is not None
        answer.text = _reply_text(read.frame.refusals) if error is None else error_text(error.message)
        self._on_change()

    def _envelope(self, read: ReadFrame) -> Envelope:
        self._frames += 1
        self._told_seconds = self._appender.clock.monotonic_seconds()
        return Envelope(
            version=ENVELOPE_VERSION,
            project=self._project,
            run_id=self._run_id,
            received_ms=int(self._appender.clock.now_seconds() * 1000),
            encoding=read.encoding,
            payload=read.payload,
            refusals=tuple(read.frame.refusals),
            writer=self._writer,
            sequence=self._frames,
            gateway=self._appender.gateway,
            number=self._appender.next_number(self._partition),
        )


class _Settling:
    """Brings done futures from threads of the log to the event loop: one wake-up for all that one sync has settled."""

    def __init__(self) -> None:
        self._done: deque[tuple[Callable[[Any], None], Future[Any]]] = deque()
        self._is_scheduled = False

    def put(self, loop: asyncio.AbstractEventLoop, settle: Callable[[Any], None], future: Future[Any]) -> None:
        """Call `settle(future)` on the loop soon. Any thread."""
        self._done.append((settle, future))
        if not self._is_scheduled:
            self._is_scheduled = True
            try:
                loop.call_soon_threadsafe(self._settle)
            except RuntimeError:  # the loop has been closed: nobody waits for the answer
                self._done.clear()
                self._is_scheduled = False

    def _settle(self) -> None:
        # First lowered, then emptied: what comes in between schedules another call, which finds nothing.
        self._is_scheduled = False
        while self._done:
            settle, future = self._done.popleft()
            settle(future)


class _Outage:
    """Says once that the log fails, and once that it is back."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._frames = 0
        self._last_seconds = 0.0

    def is_fresh(self) -> bool:
        """Return whether a frame could not be kept a moment ago, and none could since."""
        return self._frames > 0 and self._clock.monotonic_seconds() - self._last_seconds < OUTAGE_SECONDS

    def observe(self, error: UnavailableError | None) -> None:
        """Note why a frame could not be kept now, or that the log has answered."""
        if error is None:
            if self._frames:
                logger.info("frames are kept again", extra={"frames_refused": self._frames})
                self._frames = 0
            return
        if not self._frames:
            logger.error("frames cannot be kept", extra={"reason": error.message})
        self._frames += 1
        self._last_seconds = self._clock.monotonic_seconds()


def read_frame(text: str) -> ReadFrame:
    """Decode and pack a frame. Any thread.

    Raises:
        InvalidArgumentError: it is no frame.
    """
    data = frame_bytes(text)
    identity = data if len(data) <= _IDENTITY_BYTES_MAX else hashlib.blake2b(data, digest_size=16).digest()
    frame = decode_frame(data)
    encoding, payload = encode_payload(data, frame)
    return ReadFrame(frame, _types(frame.commands), encoding, payload, len(data), identity)


_NOTHING: Final = ReadFrame(DecodedFrame([], [], exact=False), [], MSGPACK, encode_commands([]), 0, b"")


def _heed_nothing(future: Future[list[Appended]]) -> None:
    """Let a sign of life be lost: the next one comes soon."""
    future.exception()


def _types(commands: Sequence[Command]) -> list[tuple[str, int]]:
    """Return how many commands there are of each type; most frames have one type."""
    if isinstance(commands, PointTable):
        return [(_tag(LogMetric), len(commands))]
    kinds = set(map(type, commands))
    counts = {kinds.pop(): len(commands)} if len(kinds) == 1 else Counter(map(type, commands))
    return [(_tag(kind), number) for kind, number in counts.items()]


def _tag(kind: type[Command]) -> str:
    return str(kind.__struct_config__.tag)


def _failure(future: Future[Any]) -> MatyanError | None:
    """Return why a future has failed, or None."""
    if future.cancelled():
        return UnavailableError("the log is closing")
    error = future.exception()
    if error is None or isinstance(error, MatyanError):
        return error
    logger.error("the log failed in an unknown way", exc_info=error)
    return UnavailableError("the log failed")


def _reply_text(refusals: Sequence[Refusal]) -> str:
    if not refusals:
        return _OK
    named = "; ".join(
        f"item {refusal.index} ({refusal.type or 'no type'}): {refusal.reason[:REASON_CHARACTERS_MAX]}"
        for refusal in refusals[:REFUSALS_NAMED_MAX]
    )
    more = len(refusals) - REFUSALS_NAMED_MAX
    return error_text(f"not stored: {named}" + (f"; and {more} more" if more > 0 else ""))


def error_text(message: str) -> str:
    """Return the reply that says so."""
    return msgspec.json.encode(Reply("error", message)).decode()


_OK: Final = msgspec.json.encode(Reply("ok", None)).decode()
