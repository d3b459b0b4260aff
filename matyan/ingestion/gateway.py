"""The WebSocket of a run: decode, check, append, answer when durable.

One reply per frame, in order, and nothing unasked for: clients count replies. The next `receive()` is always pending, since
Granian answers pings only then.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from typing import Any, Final
from urllib.parse import unquote

import msgspec
from litestar import asgi
from litestar.handlers import ASGIRouteHandler
from litestar.types import Receive, Scope, Send

from matyan.clock import Clock, SystemClock
from matyan.engines.log.protocol import LogEntry, LogProducer
from matyan.errors import InvalidArgumentError, MatyanError
from matyan.http.connections import refuse_handshake
from matyan.ids import DEFAULT_PROJECT, Project, RunId, check_run_id, log_key
from matyan.ingestion.backlog import Backlog
from matyan.limits import FRAME_INLINE_BYTES_MAX
from matyan.observe.metrics import Metrics
from matyan.threads import run_blocking
from matyan.wire.codec import encode_envelope
from matyan.wire.frames import DecodedFrame, decode_frame, encode_payload
from matyan.wire.messages import Envelope, Refusal, Reply

logger = logging.getLogger(__name__)

ROUTE: Final = "/api/v1/ws/runs"
HOLD_SECONDS_MAX: Final = 10.0
"""How long a reply is held back at most: the client repeats its frame after 15 s."""
FRAMES_AHEAD_MAX: Final = 2
"""Frames read and not answered; existing clients send one at a time."""
REFUSALS_NAMED_MAX: Final = 5
ENVELOPE_VERSION: Final = 1


class Gateway:
    """Takes in the frames of all runs. Lives on the event loop."""

    def __init__(
        self,
        *,
        producer: LogProducer,
        topic: str,
        backlog: Backlog,
        metrics: Metrics,
        clock: Clock | None = None,
        project: Project = DEFAULT_PROJECT,
    ) -> None:
        self._producer = producer
        self._topic = topic
        self._backlog = backlog
        self._metrics = metrics
        self._clock = clock or SystemClock()
        self._project = project
        self._draining = False
        self._log_failing = False

    async def drain(self) -> None:
        """Refuse new connections from now on. Open ones end when the server closes them, what they sent answered."""
        self._draining = True

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection, from handshake to end."""
        try:
            run_id = check_run_id(unquote(scope["path"]).removeprefix(ROUTE).strip("/"))
        except InvalidArgumentError as error:
            await refuse_handshake(receive, send, status=400, text=error.message)
            return
        if reason := self._reason_to_refuse():
            self._metrics.ws_refused_handshakes.labels(reason).inc()
            await refuse_handshake(receive, send, status=503, text=f"{reason}, connect again")
            return
        await receive()
        await send({"type": "websocket.accept", "subprotocol": None, "headers": []})
        await self._converse(_Session(run_id), receive, send)

    def _reason_to_refuse(self) -> str | None:
        if self._draining:
            return "stopping"
        return "overloaded" if self._backlog.is_stuck() else None

    async def _converse(self, session: _Session, receive: Receive, send: Send) -> None:
        frames: asyncio.Queue[Any] = asyncio.Queue(FRAMES_AHEAD_MAX)
        reader = asyncio.create_task(_read(receive, frames))
        try:
            while (frame := await frames.get()) is not None:
                reply = await self._answer(session, frame)
                await send({"type": "websocket.send", "bytes": None, "text": reply})
        finally:
            reader.cancel()

    async def _answer(self, session: _Session, frame: str | bytes) -> str:
        """Return the reply to a frame, once what was accepted of it is durable."""
        if isinstance(frame, bytes):
            return self._refuse("a frame is text, not bytes")
        if frame == session.frame:
            # The client repeats a frame when the reply was late; what it says has been kept already.
            self._metrics.ws_frames.labels("repeated").inc()
            return session.reply
        data = frame.encode("utf-8", "replace")
        try:
            decoded = await self._decode(data)
            await self._append(session, data, decoded)
        except MatyanError as error:
            return self._refuse(error.message)
        session.frame = frame
        session.reply = _reply(decoded.refusals)
        self._count(decoded)
        if self._backlog.is_high():
            self._metrics.ws_frames.labels("held").inc()
            await self._backlog.until_low(HOLD_SECONDS_MAX)
        return session.reply

    async def _decode(self, data: bytes) -> DecodedFrame:
        if len(data) <= FRAME_INLINE_BYTES_MAX:
            return decode_frame(data)
        return await run_blocking(decode_frame, data)

    async def _append(self, session: _Session, data: bytes, frame: DecodedFrame) -> None:
        if not frame.commands and not frame.refusals:
            return
        session.frames += 1
        now_ms = int(self._clock.now_seconds() * 1000)
        if len(data) <= FRAME_INLINE_BYTES_MAX:
            value = self._envelope(session, now_ms, data, frame)
        else:
            value = await run_blocking(self._envelope, session, now_ms, data, frame)
        future = self._producer.append_many(self._topic, [LogEntry(session.key(self._project), value)])
        try:
            (appended,) = await asyncio.wrap_future(future)
        except MatyanError as error:
            if not self._log_failing:
                logger.error("frames cannot be kept", extra={"reason": error.message})
            self._log_failing = True
            raise
        self._log_failing = False
        self._backlog.appended(appended.partition, appended.offset, len(value))

    def _envelope(self, session: _Session, now_ms: int, data: bytes, frame: DecodedFrame) -> bytes:
        encoding, payload = encode_payload(data, frame)
        return encode_envelope(
            Envelope(
                version=ENVELOPE_VERSION,
                project=self._project,
                run_id=session.run_id,
                received_ms=now_ms,
                encoding=encoding,
                payload=payload,
                refusals=tuple(frame.refusals),
                writer=session.writer,
                sequence=session.frames,
            )
        )

    def _refuse(self, message: str) -> str:
        self._metrics.ws_frames.labels("error").inc()
        return _encode(Reply("error", message))

    def _count(self, frame: DecodedFrame) -> None:
        self._metrics.ws_frames.labels("error" if frame.refusals else "ok").inc()
        if frame.refusals:
            self._metrics.ingest_refused_items.labels(InvalidArgumentError.code).inc(len(frame.refusals))


class _Session:
    """What is known of one connection."""

    __slots__ = ("_key", "frame", "frames", "reply", "run_id", "writer")

    def __init__(self, run_id: RunId) -> None:
        self.run_id = run_id
        self.writer = secrets.token_hex(8)
        self.frames = 0
        self.frame: str | None = None
        """The frame accepted last."""
        self.reply = ""
        self._key: bytes | None = None

    def key(self, project: Project) -> bytes:
        """Return the log key of the run."""
        if self._key is None:
            self._key = log_key(project, self.run_id)
        return self._key


async def _read(receive: Receive, frames: asyncio.Queue[Any]) -> None:
    """Pass on every frame, and None when the connection has ended."""
    while True:
        message: Any = await receive()
        if message["type"] != "websocket.receive":
            await frames.put(None)
            return
        text = message.get("text")
        await frames.put(message.get("bytes") if text is None else text)


def _reply(refusals: list[Refusal]) -> str:
    if not refusals:
        return _OK
    named = "; ".join(
        f"item {refusal.index} ({refusal.type}): {refusal.reason}" for refusal in refusals[:REFUSALS_NAMED_MAX]
    )
    more = len(refusals) - REFUSALS_NAMED_MAX
    return _encode(Reply("error", f"not stored: {named}" + (f"; and {more} more" if more > 0 else "")))


def _encode(reply: Reply) -> str:
    return msgspec.json.encode(reply).decode()


_OK: Final = _encode(Reply("ok", None))


def make_route(gateway: Gateway) -> ASGIRouteHandler:
    """Return the handler of `/api/v1/ws/runs/{run_id}`."""

    async def run_socket(scope: Scope, receive: Receive, send: Send) -> None:
        await gateway.serve(scope, receive, send)

    return asgi(ROUTE, is_mount=True, copy_scope=False)(run_socket)
