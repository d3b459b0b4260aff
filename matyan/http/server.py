"""Granian as a Service; the only import of granian.

It runs inside our event loop (`granian.server.embed`), so engines live and die outside of it, and the drain is ours:
Granian's own stop drops what is in flight. Facts it rests on (measured, Granian 2.8.7) stand in ADR 0007.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.server.embed import Server as GranianServer
from litestar.types import ASGIApp

from matyan.errors import ConfigurationError
from matyan.http.connections import Connections
from matyan.http.health import Health
from matyan.observe.logs import quiet_libraries
from matyan.workers.lifecycle import State

logger = logging.getLogger(__name__)

Drain = Callable[[], Awaitable[None]]

BACKLOG: Final = 1024
BACKPRESSURE: Final = 4096
"""Connections served at once; further ones wait in the backlog."""
READY_SECONDS_MAX: Final = 5.0
DRAIN_SECONDS_MAX: Final = 3.0
"""How long each step of the drain may take: the whole stop stays well under the 10 s that init systems grant."""


def _is_news(record: logging.LogRecord) -> bool:
    # It warns of being embedded at every start: that is known, and tested (ADR 0007).
    return "Embedded server is experimental" not in record.getMessage()


class HttpServer:
    """Serves one ASGI app on several ports; opens last, closes first."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        host: str,
        ports: Sequence[int],
        connections: Connections,
        health: Health,
        drains: Sequence[Drain] = (),
        drain_seconds: float = DRAIN_SECONDS_MAX,
    ) -> None:
        self._app = app
        self._host = host
        self._ports = tuple(ports)
        self._connections = connections
        self._health = health
        self._drains = tuple(drains)
        self._drain_seconds = drain_seconds
        self._state = State.NEW
        self._servers: list[GranianServer] = []
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def name(self) -> str:
        """What logs and metrics call it."""
        return "http"

    @property
    def state(self) -> State:
        """Where it stands."""
        return self._state

    @property
    def ports(self) -> tuple[int, ...]:
        """The ports listened on; a port 0 is replaced by the one taken when the server has started."""
        return self._ports

    async def start(self) -> None:
        """Listen on every port.

        Raises:
            ConfigurationError: a port is taken or may not be used; the message says which and what to do.
        """
        self._state = State.STARTING
        self._ports = probe_ports(self._host, self._ports)
        for port in self._ports:
            server = GranianServer(
                self._app,
                address=self._host,
                port=port,
                interface=Interfaces.ASGINL,
                http=HTTPModes.http1,
                http1_settings=HTTP1Settings(keep_alive=True),
                websockets=True,
                backlog=BACKLOG,
                backpressure=BACKPRESSURE,
                log_enabled=False,
            )
            self._servers.append(server)
            self._tasks.append(asyncio.create_task(server.serve(), name=f"granian-{port}"))
        # Granian without its own logging sets its logger above every level: its warnings would vanish.
        quiet_libraries()
        logging.getLogger("_granian").addFilter(_is_news)
        await self._until_listening()
        self._state = State.RUNNING
        logger.info("listening", extra={"host": self._host, "ports": self._ports})

    async def ended(self) -> None:
        """Return when every port is closed; raise when one closed though nobody told it to."""
        await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        if self._state is State.RUNNING:
            self._state = State.FAILED
            for task in self._tasks:
                if task.done():
                    task.result()
            raise RuntimeError("the HTTP server ended though nobody told it to")
        await asyncio.wait(self._tasks)

    async def stop(self) -> None:
        """Drain and stop: readiness 503, drains, WebSockets closed with 1001, no new connections, requests finished."""
        self._health.draining = True
        if self._state is State.RUNNING:
            self._state = State.STOPPING
            await self._drain()
        for server in self._servers:
            server.stop()  # type: ignore[no-untyped-call]  # granian types its arguments, not its results
        cut = await self._connections.finish_requests(self._drain_seconds)
        if cut:
            logger.warning("cut requests that did not end", extra={"requests": cut})
        await self._join()
        if self._state is not State.FAILED:
            self._state = State.STOPPED

    async def _drain(self) -> None:
        self._connections.draining = True
        for drain in self._drains:
            try:
                async with asyncio.timeout(self._drain_seconds):
                    await drain()
            except TimeoutError:
                logger.warning("drain takes too long", extra={"seconds": self._drain_seconds})
        left = await self._connections.close_sockets(self._drain_seconds)
        if left:
            logger.warning("WebSocket handlers do not end", extra={"sockets": left})

    async def _join(self) -> None:
        """Wait for Granian, then cancel what it still waits for: idle keep-alive connections, cut responses."""
        if not self._tasks:
            return
        _, pending = await asyncio.wait(self._tasks, timeout=self._drain_seconds)
        for task in pending:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _until_listening(self) -> None:
        """Return when every port takes connections; raise what Granian raised instead."""
        async with asyncio.timeout(READY_SECONDS_MAX):
            for port, task in zip(self._ports, self._tasks, strict=True):
                while not await _connects(self._host, port):
                    if task.done():
                        task.result()
                        raise ConfigurationError(f"cannot listen on port {port}")
                    await asyncio.sleep(0.01)


def probe_ports(host: str, ports: Sequence[int]) -> tuple[int, ...]:
    """Bind every port for a moment, exclusively, and return them; 0 becomes a free port.

    Granian binds with SO_REUSEPORT, so a second server would silently share the port, and get every other request.

    Raises:
        ConfigurationError: a port is taken, or may not be bound.
    """
    with contextlib.ExitStack() as stack:
        # All are held until the last is bound: else two ports 0 could become the same.
        return tuple(stack.enter_context(_probe(host, port)).getsockname()[1] for port in ports)


def _probe(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise ConfigurationError(f"host {host!r} cannot be resolved: {error.strerror}") from error
    probe = socket.socket(family, kind, protocol)
    # A connection of an earlier server that still lingers is no reason to refuse; a listener is.
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        probe.bind(address)
    except OSError as error:
        probe.close()
        raise ConfigurationError(_port_message(host, port, error)) from error
    return probe


def _port_message(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"port {port} on {host} is in use by another program; stop that one, or choose another port "
            f"with --port (setting http.port, http.extra_ports)"
        )
    if error.errno == errno.EACCES:
        return f"port {port} needs more rights than this user has; choose one above 1023 with --port"
    return f"cannot listen on {host} port {port}: {error.strerror}"


async def _connects(host: str, port: int) -> bool:
    target = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared with, not bound to
    try:
        _, writer = await asyncio.open_connection(target, port)
    except OSError:
        return False
    writer.close()
    return True
