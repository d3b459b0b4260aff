"""The connections being served, and how they end when the server stops.

Granian answers pings only while `receive()` is pending, and cannot send a close frame while it is; so a pending
`receive()` is cancelled and the handler gets `websocket.disconnect` from it. It answers what it has read before, and
when it has returned, close 1001 goes out.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any, Final

from litestar.types import ASGIApp, Receive, Scope, Send

from matyan.observe.metrics import Metrics

GOING_AWAY: Final = 1001
_DISCONNECT: Final = {"type": "websocket.disconnect", "code": GOING_AWAY}


class Connections:
    """All requests and WebSockets of the process."""

    def __init__(self, metrics: Metrics | None = None) -> None:
        self._metrics = metrics
        self._sockets: set[_Socket] = set()
        self._requests: set[asyncio.Task[Any]] = set()
        self._changed = asyncio.Event()
        self.draining = False
        """New WebSockets are refused with 503, the one status after which clients come again."""

    async def serve_request(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one HTTP request, known here while it lasts."""
        task = asyncio.current_task()
        assert task is not None
        self._requests.add(task)
        try:
            await app(scope, receive, send)
        finally:
            self._requests.discard(task)
            self._changed.set()

    async def serve_socket(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one WebSocket, known here while it lasts."""
        if self.draining:
            await refuse_handshake(receive, send, status=503, text="the server is stopping, connect again")
            return
        socket = _Socket(receive, send)
        began = time.monotonic()
        self._sockets.add(socket)
        self._observe()
        try:
            await app(scope, socket.receive, send)
            await socket.goodbye()
        finally:
            self._sockets.discard(socket)
            self._changed.set()
            self._observe(time.monotonic() - began)

    async def close_sockets(self, timeout_seconds: float) -> int:
        """Close every WebSocket with 1001 once its handler has answered what it read; return how many did not end."""
        self.draining = True
        for socket in tuple(self._sockets):
            socket.close()
        await self._until_empty(self._sockets, timeout_seconds)
        return len(self._sockets)

    async def finish_requests(self, timeout_seconds: float) -> int:
        """Let running requests end; cut those that outlast the timeout and return how many those were."""
        await self._until_empty(self._requests, timeout_seconds)
        cut = tuple(self._requests)
        for task in cut:
            task.cancel()
        if cut:
            await asyncio.wait(cut, timeout=timeout_seconds)
        return len(cut)

    async def _until_empty(self, waiting: set[Any], timeout_seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                while waiting:
                    self._changed.clear()
                    await self._changed.wait()

    def _observe(self, lasted_seconds: float | None = None) -> None:
        if self._metrics is not None:
            self._metrics.ws_connections.set(len(self._sockets))
            if lasted_seconds is not None:
                self._metrics.ws_connection_seconds.observe(lasted_seconds)


class _Socket:
    """A WebSocket's `receive` that can be ended from our side."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._closing = False
        self._waiting: asyncio.Task[Any] | None = None

    def close(self) -> None:
        self._closing = True
        if self._waiting is not None:
            self._waiting.cancel()

    async def receive(self) -> Any:
        if self._closing:
            return dict(_DISCONNECT)
        task = self._waiting = asyncio.current_task()
        assert task is not None
        try:
            return await self._receive()
        except asyncio.CancelledError:
            if not self._closing or task.uncancel() > 0:
                raise  # somebody else cancelled the handler
            return dict(_DISCONNECT)
        finally:
            self._waiting = None

    async def goodbye(self) -> None:
        """Send the close frame, when it was we who ended the conversation."""
        if self._closing:
            # The client, or the handler itself, may have closed meanwhile.
            with contextlib.suppress(Exception):
                await self._send({"type": "websocket.close", "code": GOING_AWAY, "reason": "the server is stopping"})


async def refuse_handshake(receive: Receive, send: Send, *, status: int, text: str) -> None:
    """Answer a WebSocket handshake with an HTTP status, by the ASGI extension that Granian offers."""
    await receive()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"retry-after", b"1")]
    start: Any = {"type": "websocket.http.response.start", "status": status, "headers": headers}
    body: Any = {"type": "websocket.http.response.body", "body": text.encode()}
    await send(start)
    await send(body)
