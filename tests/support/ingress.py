"""One address for the roles apart, as an ingress gives them: paths of the frontier go there, all others to serve."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Final

FRONTIER_PATHS: Final = ("/api/v1/ws/", "/api/v1/rest/artifacts/", "/api/v1/uploads/")
_PIECE_BYTES: Final = 64 * 1024
_END: Final = b"\r\n\r\n"


class Ingress:
    """Passes each request on by its path. A connection carries one request, or one WebSocket."""

    def __init__(self, *, serve_port: int, frontier_port: int) -> None:
        self._serve_port = serve_port
        self._frontier_port = frontier_port
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._pass, args=(client,), daemon=True).start()

    def _pass(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            head, rest = _read_head(client)
            path = head.split(b" ", 2)[1].decode()
            port = self._frontier_port if path.startswith(FRONTIER_PATHS) else self._serve_port
            with socket.create_connection(("127.0.0.1", port)) as server:
                server.sendall(_for_one_request(head) + rest)
                threading.Thread(target=_pump, args=(client, server), daemon=True).start()
                _pump(server, client)


def _read_head(client: socket.socket) -> tuple[bytes, bytes]:
    """Return the head of a request, its last empty line included, and what came behind it."""
    data = b""
    while _END not in data:
        piece = client.recv(_PIECE_BYTES)
        if not piece:
            raise ConnectionResetError
        data += piece
    head, _, rest = data.partition(_END)
    return head + _END, rest


def _for_one_request(head: bytes) -> bytes:
    lines = head.removesuffix(_END).split(b"\r\n")
    if any(line.lower().startswith(b"upgrade:") for line in lines):
        return head
    kept = [line for line in lines if not line.lower().startswith(b"connection:")]
    return b"\r\n".join([*kept, b"Connection: close"]) + _END


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(_PIECE_BYTES):
            target.sendall(piece)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def ingress(*, serve_port: int, frontier_port: int) -> Iterator[Ingress]:
    """Run an ingress until the end of the block."""
    running = Ingress(serve_port=serve_port, frontier_port=frontier_port)
    try:
        yield running
    finally:
        running.close()
