"""A TCP connection that can be cut for a while, between processes and what they need."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Final

PIECE_BYTES: Final = 64 * 1024


class Valve:
    """Passes bytes on to a port of this machine while it is open; shut, it ends every connection."""

    def __init__(self, target_port: int) -> None:
        self._target = ("127.0.0.1", target_port)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._lock = threading.Lock()
        self._is_open = True
        self._sockets: set[socket.socket] = set()
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def shut(self) -> None:
        """End every connection, and each new one at once, until `open`."""
        with self._lock:
            self._is_open = False
            for found in self._sockets:
                with contextlib.suppress(OSError):
                    found.shutdown(socket.SHUT_RDWR)

    def open(self) -> None:
        """Let bytes pass again."""
        with self._lock:
            self._is_open = True

    def close(self) -> None:
        """End it for good."""
        self.shut()
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                try:
                    self._join(client)
                except OSError:
                    client.close()

    def _join(self, client: socket.socket) -> None:
        with self._lock:
            if not self._is_open:
                raise ConnectionRefusedError
            server = socket.create_connection(self._target)
            self._sockets |= {client, server}
        for source, sink in ((client, server), (server, client)):
            threading.Thread(target=self._pass, args=(source, sink), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(PIECE_BYTES):
                sink.sendall(piece)
        for found in (source, sink):
            with contextlib.suppress(OSError):
                found.shutdown(socket.SHUT_RDWR)
        with self._lock:
            # Both directions come here: the second one closes.
            if source in self._sockets:
                self._sockets -= {source, sink}
                return
        source.close()
        sink.close()
