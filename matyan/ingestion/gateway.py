"""The WebSocket of a run: its handshake, and the end of all connections when the server stops.

What becomes of a frame stands in `intake.py`, how frames and replies follow each other in `conversation.py`.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Final

from litestar import asgi
from litestar.enums import ScopeType
from litestar.exceptions import NotFoundException
from litestar.handlers import ASGIRouteHandler
from litestar.types import Receive, Scope, Send

from matyan.clock import Clock, SystemClock
from matyan.engines.log.protocol import LogProducer
from matyan.errors import InvalidArgumentError
from matyan.http.connections import refuse_handshake
from matyan.ids import DEFAULT_PROJECT, Project, RunId, check_run_id
from matyan.ingestion.backlog import Backlog
from matyan.ingestion.conversation import Conversation
from matyan.ingestion.handover import Handover
from matyan.ingestion.intake import Appender, Intake, error_text
from matyan.limits import FRAME_BYTES_MAX
from matyan.observe.metrics import Metrics

logger = logging.getLogger(__name__)

ROUTE: Final = "/api/v1/ws/runs"
DRAIN_SECONDS_MAX: Final = 2.5


class Gateway:
    """Takes in the frames of all runs. Lives on one event loop."""

    def __init__(
        self,
        *,
        producer: LogProducer,
        topic: str,
        backlog: Backlog,
        metrics: Metrics,
        clock: Clock | None = None,
        project: Project = DEFAULT_PROJECT,
        is_ready: Callable[[], bool] = lambda: True,
        is_log_away: Callable[[], bool] = lambda: False,
        keep_alive_seconds: float = 0.0,
        handover: Handover | None = None,
    ) -> None:
        """Make it.

        Args:
            producer: takes the records.
            topic: of the records.
            backlog: what workers have not applied yet; holds replies back.
            metrics: count frames, items and connections.
            clock: for times of arrival and limits.
            project: of all runs.
            is_ready: whether new connections may come.
            is_log_away: whether records are kept elsewhere for now, so that workers are not to blame for a backlog.
            keep_alive_seconds: how often the log is told of a client that is connected and says nothing; 0 is never.
            handover: spares a worker of this process the decoding of frames.
        """
        self._backlog = backlog
        self._metrics = metrics
        self._clock = clock or SystemClock()
        self._project = project
        self._appender = Appender(
            producer=producer, topic=topic, backlog=backlog, metrics=metrics, clock=self._clock, handover=handover
        )
        self._is_ready = is_ready
        self._is_log_away = is_log_away
        self._keep_alive_seconds = keep_alive_seconds
        self._conversations: set[Conversation] = set()
        self._all_ended = asyncio.Event()
        self._draining = False

    async def drain(self, seconds: float = DRAIN_SECONDS_MAX) -> None:
        """Refuse new connections; answer what open ones have sent, close them with 1001, wait for that."""
        self._draining = True
        for conversation in tuple(self._conversations):
            conversation.drain()
        try:
            async with asyncio.timeout(seconds):
                while self._conversations:
                    self._all_ended.clear()
                    await self._all_ended.wait()
        except TimeoutError:
            logger.warning("connections are not answered in time", extra={"connections": len(self._conversations)})

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection, from handshake to end."""
        try:
            run_id = _run_id_of(scope["path"])
        except InvalidArgumentError as error:
            await _refuse_handshake(400, error.message, scope, receive, send)
            return
        if reason := self._reason_to_refuse():
            self._metrics.ws_refused_handshakes.labels(reason).inc()
            await _refuse_handshake(503, f"the server is {reason}, connect again", scope, receive, send)
            return
        await receive()
        await send({"type": "websocket.accept", "subprotocol": None, "headers": []})
        changed = asyncio.Event()
        conversation = Conversation(
            receive=receive,
            send=send,
            backlog=self._backlog,
            clock=self._clock,
            on_held=self._metrics.ws_frames.labels("held").inc,
            changed=changed,
            no_reply=error_text("the log did not confirm the frame in time; it may or may not be kept"),
        )
        self._conversations.add(conversation)
        if self._draining:
            conversation.drain()
        intake = Intake(self._appender, self._project, run_id, changed.set)
        signs = asyncio.create_task(self._keep_alive(intake))
        try:
            await conversation.run(intake)
        finally:
            signs.cancel()
            self._conversations.discard(conversation)
            self._all_ended.set()
        if conversation.was_cut:
            # Granian ends a connection over a frame above FRAME_BYTES_MAX in the same way (ADR 0005).
            self._metrics.ws_cut_connections.inc()
            logger.warning(
                "connection cut: the client died, or sent a frame over the limit",
                extra={"run": run_id, "limit_bytes": FRAME_BYTES_MAX},
            )

    async def _keep_alive(self, intake: Intake) -> None:
        """Tell the log now and then that the client is there; not of all clients at once."""
        every = self._keep_alive_seconds
        while every:
            await asyncio.sleep(every * random.uniform(0.9, 1.0))  # noqa: S311 - jitter, not a secret
            intake.keep_alive(every / 2)

    def _reason_to_refuse(self) -> str | None:
        if self._draining:
            return "stopping"
        if not self._is_ready():
            return "not ready"
        if self._appender.has_failed_lately():
            return "unable to keep frames"
        return "overloaded" if self._backlog.is_stuck() and not self._is_log_away() else None


async def _refuse_handshake(status: int, text: str, scope: Scope, receive: Receive, send: Send) -> None:
    """Refuse with a status, of which clients take 503 for "try again"; servers that cannot do that say 403."""
    if "websocket.http.response" in (scope.get("extensions") or {}):
        await refuse_handshake(receive, send, status=status, text=text)
        return
    await receive()
    await send({"type": "websocket.close", "code": 1013, "reason": text})


def _run_id_of(path: str) -> RunId:
    """Return the run id of a path, which may be the whole one or what a mount leaves of it: `/<run id>/`.

    Raises:
        InvalidArgumentError: it is no run id.
    """
    _, marker, rest = path.partition(f"{ROUTE}/")
    if not marker:
        rest = path.removeprefix("/").removesuffix("/") if path.startswith("/") else ""
    return check_run_id(rest)


def make_route(gateway: Gateway) -> ASGIRouteHandler:
    """Return the handler of `/api/v1/ws/runs/{run_id}`."""

    async def run_socket(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == ScopeType.HTTP:
            raise NotFoundException(detail="Not Found")
        await gateway.serve(scope, receive, send)

    return asgi(ROUTE, is_mount=True, copy_scope=False)(run_socket)
