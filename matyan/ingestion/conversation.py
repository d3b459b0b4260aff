"""One connection's frames and replies: read always, answer each frame once, in order, when its record is durable.

Two coroutines per connection. The reader keeps the next `receive()` pending at all times, because Granian answers pings
only then, and takes in small frames on the spot, so that what was read is on its way to the disk before anything else
happens. The replier sends what is due. Frames that take long to decode go through a queue of their own, in a thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

from litestar.types import Receive, Send

from matyan.clock import Clock
from matyan.ingestion.backlog import Backlog
from matyan.limits import FRAME_INLINE_BYTES_MAX

logger = logging.getLogger(__name__)

HOLD_SECONDS_MAX: Final = 10.0
"""From arrival; the client repeats a frame that has no reply after 15 s."""
DURABLE_SECONDS_MAX: Final = 40.0
"""From arrival; a client that has no reply after 45 s gives up its run for good."""
FRAMES_AHEAD_MAX: Final = 256
"""Frames read and not answered. A client that sends more without waiting for replies is read more slowly."""
BYTES_AHEAD_MAX: Final = 32 * 1024 * 1024
"""Likewise, of frames that wait to be decoded."""
GOING_AWAY: Final = 1001
_NO_CLOSE_FRAME: Final = (None, 1005, 1006)


class Answer:
    """What a frame will be answered, known when its record is durable; repeats of the frame share it."""

    __slots__ = ("has_failed", "may_wait", "text")

    def __init__(self, text: str | None = None) -> None:
        self.text = text
        self.may_wait = True
        """Whether it is held back while workers are behind; not where they cannot get at the record yet."""
        self.has_failed = False
        """Nothing of the frame was kept: a repeat of it is a new attempt."""


class Intake(Protocol):
    """Takes the frames of one connection, in order."""

    def take(self, text: str) -> Answer:
        """Decode and append a small frame; microseconds."""

    def take_large(self, text: str) -> Awaitable[Answer]:
        """Decode in a thread, then append."""

    def refuse(self, reason: str) -> Answer:
        """Answer a frame that is none."""


class _Due:
    """A reply that is due, in the order of frames."""

    __slots__ = ("answer", "received_seconds")

    def __init__(self, received_seconds: float, answer: Answer | None) -> None:
        self.received_seconds = received_seconds
        self.answer = answer
        """None while the frame waits to be decoded."""


class Conversation:
    """A connection from its acceptance to its end."""

    def __init__(
        self,
        *,
        receive: Receive,
        send: Send,
        backlog: Backlog,
        clock: Clock,
        on_held: Callable[[], None],
        changed: asyncio.Event,
        no_reply: str,
    ) -> None:
        """Make it.

        Args:
            receive: of the connection.
            send: of the connection.
            backlog: holds replies back while it is high.
            clock: for time limits.
            on_held: called once for each reply held back.
            changed: set by whoever gives an `Answer` its text.
            no_reply: what a frame is answered whose record is not durable in time.
        """
        self._receive = receive
        self._send = send
        self._backlog = backlog
        self._clock = clock
        self._on_held = on_held
        self._changed = changed
        self._no_reply = no_reply
        self._due: deque[_Due] = deque()
        self._large: deque[tuple[_Due, str]] = deque()
        self._large_bytes = 0
        self._decoding: asyncio.Task[None] | None = None
        self._room = asyncio.Event()
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_seconds = math.inf
        """When the replier looks at the clock, by the clock."""
        self._ended = False
        self._draining = False
        self.was_cut = False
        """Whether it ended without a close frame."""

    def drain(self) -> None:
        """Answer what has been read, without holding it back, then close with 1001."""
        self._draining = True
        self._changed.set()

    async def run(self, intake: Intake) -> None:
        """Converse until the client or a drain ends it; every frame that was read has been taken in by then."""
        reader = asyncio.create_task(self._read(intake))
        try:
            await self._reply_in_order()
        finally:
            # Granian sends no close frame while a `receive()` is pending.
            reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reader
            if self._decoding is not None:
                await self._decoding
            self._silence()
        if not self._ended:
            await self._say({"type": "websocket.close", "code": GOING_AWAY, "reason": "the server is stopping"})

    # ---- reading

    async def _read(self, intake: Intake) -> None:
        try:
            await self._read_all(intake)
        except Exception:
            logger.exception("reading a connection failed")
        self._ended = True
        self._changed.set()

    async def _read_all(self, intake: Intake) -> None:
        while True:
            message: Any = await self._receive()
            if message["type"] != "websocket.receive":
                self.was_cut = message.get("code") in _NO_CLOSE_FRAME
                return
            self._take(intake, message.get("text"))
            while self._is_full():
                self._room.clear()
                await self._room.wait()

    def _take(self, intake: Intake, text: str | None) -> None:
        now = self._clock.monotonic_seconds()
        if text is not None and (self._decoding is not None or len(text) > FRAME_INLINE_BYTES_MAX):
            due = _Due(now, None)
            self._large.append((due, text))
            self._large_bytes += len(text)
            if self._decoding is None:
                self._decoding = asyncio.create_task(self._take_large(intake))
        else:
            due = _Due(now, intake.take(text) if text is not None else intake.refuse("a frame is text, not bytes"))
        self._due.append(due)
        is_known = due.answer is not None and due.answer.text is not None
        # What is not known yet wakes the replier when it is; a timer may lag behind the clock.
        if is_known or self._alarm_seconds <= now:
            self._changed.set()
        else:
            self._wake_by(now + DURABLE_SECONDS_MAX, now)

    async def _take_large(self, intake: Intake) -> None:
        """Take in large frames, and the small ones that came behind them."""
        try:
            while self._large:
                due, text = self._large[0]
                is_large = len(text) > FRAME_INLINE_BYTES_MAX
                due.answer = await intake.take_large(text) if is_large else intake.take(text)
                self._large.popleft()
                self._large_bytes -= len(text)
                self._changed.set()
                self._room.set()
        finally:
            self._decoding = None

    def _is_full(self) -> bool:
        return len(self._due) >= FRAMES_AHEAD_MAX or self._large_bytes > BYTES_AHEAD_MAX

    # ---- replying

    async def _reply_in_order(self) -> None:
        while True:
            while self._due and not self._ended:
                due = self._due[0]
                text = await self._text_of(due)
                await self._hold(due)
                if not self._ended:
                    await self._say({"type": "websocket.send", "bytes": None, "text": text})
                self._due.popleft()
                self._room.set()
            if self._ended or self._draining:
                return
            await self._wait()

    async def _text_of(self, due: _Due) -> str:
        """Return the reply, as soon as it is known; an error when that takes too long."""
        limit = due.received_seconds + DURABLE_SECONDS_MAX
        while not self._ended:
            answer = due.answer
            if answer is not None and answer.text is not None:
                return answer.text
            if not await self._wait_until(limit):
                logger.error("a frame is not durable in time", extra={"seconds": DURABLE_SECONDS_MAX})
                break
        return self._no_reply

    async def _hold(self, due: _Due) -> None:
        """Wait until the workers have caught up, so that clients do not outrun them."""
        if not self._backlog.is_high() or (due.answer is not None and not due.answer.may_wait):
            return
        self._on_held()
        limit = due.received_seconds + HOLD_SECONDS_MAX
        with self._backlog.watching(self._changed):
            while not (self._backlog.is_low() or self._ended or self._draining):
                if not await self._wait_until(limit):
                    return

    async def _wait_until(self, limit_seconds: float) -> bool:
        """Wait for any change, or for the time; return False, without waiting, when that is over."""
        now = self._clock.monotonic_seconds()
        if now >= limit_seconds:
            return False
        self._wake_by(limit_seconds, now)
        await self._wait()
        return True

    async def _wait(self) -> None:
        """Wait for any change."""
        await self._changed.wait()
        self._changed.clear()

    def _wake_by(self, limit_seconds: float, now: float) -> None:
        """Have the replier look at the clock at that time or before: one timer serves hundreds of frames."""
        if self._alarm_seconds <= limit_seconds:
            return
        self._silence()
        self._alarm_seconds = limit_seconds
        self._alarm = asyncio.get_running_loop().call_later(limit_seconds - now, self._ring)

    def _ring(self) -> None:
        self._silence()
        self._changed.set()

    def _silence(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm, self._alarm_seconds = None, math.inf

    async def _say(self, message: Any) -> None:
        try:
            await self._send(message)
        except Exception as error:  # noqa: BLE001 (servers differ in what they raise when the client has gone)
            # What it sent before may still have to be read: the reader says when the connection is over.
            logger.debug("nobody takes the reply", extra={"reason": str(error)})
