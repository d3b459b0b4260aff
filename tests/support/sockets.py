"""A WebSocket client in the process: speaks ASGI to an app as Granian does, over two queues."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Final, Self

SECONDS_MAX: Final = 20.0
"""How long a test waits for what must come."""

App = Callable[[Any, Any, Any], Awaitable[None]]


class AsgiSocket:
    """One connection to `app`. Like Granian it sends no close frame while a `receive()` is pending."""

    def __init__(self, app: App, path: str, *, extensions: bool = True) -> None:
        self._app = app
        self._scope = {
            "type": "websocket",
            "path": path,
            "extensions": {"websocket.http.response": {}} if extensions else {},
        }
        self._to_app: asyncio.Queue[Any] = asyncio.Queue()
        self._from_app: asyncio.Queue[Any] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None
        self.is_receiving = False
        """Whether the app waits for the next message, so that pings would be answered."""

    async def open(self) -> dict[str, Any]:
        """Begin the handshake and return the app's first answer to it."""
        self._task = asyncio.ensure_future(self._run())
        self._to_app.put_nowait({"type": "websocket.connect"})
        return await self.next_message()

    async def __aenter__(self) -> Self:
        answer = await self.open()
        assert answer["type"] == "websocket.accept", answer
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.disconnect()
        await self.until_ended()

    def send(self, frame: str | bytes) -> None:
        """Send a frame; the reply is not waited for."""
        name = "text" if isinstance(frame, str) else "bytes"
        self._to_app.put_nowait({"type": "websocket.receive", name: frame})

    def disconnect(self, code: int = 1000) -> None:
        """End the connection from the client's side."""
        self._to_app.put_nowait({"type": "websocket.disconnect", "code": code})

    async def until_ended(self) -> None:
        """Wait for the app to return."""
        assert self._task is not None
        await asyncio.wait_for(asyncio.shield(self._task), SECONDS_MAX)

    async def next_message(self) -> dict[str, Any]:
        """Return what the app sends next."""
        found: dict[str, Any] = await asyncio.wait_for(self._from_app.get(), SECONDS_MAX)
        return found

    async def reply(self) -> dict[str, Any]:
        """Return the next reply, decoded."""
        message = await self.next_message()
        assert message["type"] == "websocket.send", message
        decoded = json.loads(message["text"])
        assert isinstance(decoded, dict)
        return decoded

    async def ask(self, frame: str | bytes) -> dict[str, Any]:
        """Send a frame and return its reply."""
        self.send(frame)
        return await self.reply()

    @property
    def replies_waiting(self) -> int:
        """How many messages the app has sent that nobody has taken."""
        return self._from_app.qsize()

    async def _run(self) -> None:
        await self._app(self._scope, self._receive, self._send)

    async def _receive(self) -> Any:
        assert not self.is_receiving
        self.is_receiving = True
        try:
            return await self._to_app.get()
        finally:
            self.is_receiving = False

    async def _send(self, message: Any) -> None:
        assert message["type"] != "websocket.close" or not self.is_receiving
        self._from_app.put_nowait(message)


async def settle(turns: int = 20) -> None:
    """Let everything that can run without outside help run."""
    for _ in range(turns):
        await asyncio.sleep(0)
