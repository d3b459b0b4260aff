"""A TCP proxy whose connections break when a test says so."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Final

PIECE_BYTES: Final = 16 * 1024


class BreakingProxy:
    """Passes bytes on between its port and another; `break_after` cuts one connection in the middle of an answer."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._left: int | None = None
        self._on_break: Callable[[], None] | None = None
        self.breaks = 0
        """Connections cut so far."""
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def port(self) -> int:
        """Where it listens."""
        port: int = self._listener.getsockname()[1]
        return port

    def break_after(self, answer_bytes: int, then: Callable[[], None] | None = None) -> None:
        """Cut the next connection that has answered so much, once, and call `then`."""
        self._left, self._on_break = answer_bytes, then

    def close(self) -> None:
        """Take no more connections."""
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
                threading.Thread(target=self._pass_requests, args=(client, server), daemon=True).start()
                threading.Thread(target=self._pass_answers, args=(server, client), daemon=True).start()

    def _pass_requests(self, client: socket.socket, server: socket.socket) -> None:
        with client, server, contextlib.suppress(OSError):
            while piece := client.recv(PIECE_BYTES):
                server.sendall(piece)

    def _pass_answers(self, server: socket.socket, client: socket.socket) -> None:
        with client, server, contextlib.suppress(OSError):
            while piece := server.recv(PIECE_BYTES):
                if self._is_cut(len(piece)):
                    client.shutdown(socket.SHUT_RDWR)
                    return
                client.sendall(piece)

    def _is_cut(self, answer_bytes: int) -> bool:
        if self._left is None:
            return False
        self._left -= answer_bytes
        if self._left > 0:
            return False
        self._left = None
        self.breaks += 1
        if self._on_break is not None:
            self._on_break()
        return True


@contextlib.contextmanager
def breaking_proxy(target: tuple[str, int]) -> Iterator[BreakingProxy]:
    """Run a proxy until the end of the block."""
    proxy = BreakingProxy(target)
    try:
        yield proxy
    finally:
        proxy.close()
