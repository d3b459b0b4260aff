"""Raw WebSocket writers in a process of their own: stop and wait on each connection, as matyan-client does.

    python -m tests.bench.writers PORT PREFIX CONNECTIONS FRAMES POINTS_PER_SECOND SECONDS

`POINTS_PER_SECOND` 0 means as fast as replies come. Without `SECONDS` (0) all frames are encoded before the clock
starts; with it they are made on the way, until so much time has passed or each connection has sent `FRAMES` (0: any
number). Prints `ready` when connected, waits for a line on stdin, writes, and prints one JSON object with the seconds
it took and the points that were taken.
"""

from __future__ import annotations

import base64
import json
import os
import selectors
import socket
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from tests.bench.frames import POINTS_PER_FRAME, encoded_frames, endless_frames

_BUFFER_BYTES = 4 * 1024 * 1024


class Connection:
    """One WebSocket with its frames; blocking sends are safe since at most one frame is in flight."""

    def __init__(self, port: int, run: str, frames: Iterable[bytes]) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
        self._frames: Iterator[bytes] = iter(frames)
        self._received = b""
        self.sent = 0
        """Frames, the one that creates the run included."""
        self._shake_hands(port, run)

    def send_next(self) -> bool:
        """Send the next frame; False when there is none."""
        frame = next(self._frames, None)
        if frame is None:
            return False
        self.socket.sendall(frame)
        self.sent += 1
        return True

    def read_reply(self) -> bool:
        """Read what came; True when it completes the reply to the frame in flight."""
        data = self.socket.recv(65536)
        assert data, "the server closed the connection"
        self._received += data
        while len(self._received) >= 2:
            opcode, size = self._received[0] & 0x0F, self._received[1]
            assert size < 126, "replies are short"
            if len(self._received) < 2 + size:
                return False
            payload, self._received = self._received[2 : 2 + size], self._received[2 + size :]
            if opcode == 1:
                assert b'"ok"' in payload, payload
                return True
        return False

    def _shake_hands(self, port: int, run: str) -> None:
        key = base64.b64encode(os.urandom(16)).decode()
        lines = [
            f"GET /api/v1/ws/runs/{run} HTTP/1.1",
            f"Host: 127.0.0.1:{port}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Key: {key}",
            "Sec-WebSocket-Version: 13",
        ]
        self.socket.sendall("\r\n".join([*lines, "", ""]).encode())
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += self.socket.recv(4096)
        assert b" 101 " in answer.split(b"\r\n", 1)[0], answer


def write_all(connections: Sequence[Connection], points_per_second: float) -> float:
    """Send every frame, at most at the given rate over all connections, and return the seconds until the last reply."""
    selector = selectors.DefaultSelector()
    for connection in connections:
        selector.register(connection.socket, selectors.EVENT_READ, connection)
    begin = time.perf_counter()
    idle, busy, sent = list(connections), 0, 0
    while True:
        while idle and _is_due(sent, points_per_second, time.perf_counter() - begin):
            if idle.pop(0 if points_per_second else -1).send_next():
                busy, sent = busy + 1, sent + 1
        if not idle and not busy:
            break
        pause = 0.001 if idle else None
        for key, _ in selector.select(pause):
            if key.data.read_reply():
                busy -= 1
                idle.append(key.data)
    return time.perf_counter() - begin


def _is_due(sent: int, points_per_second: float, elapsed: float) -> bool:
    return not points_per_second or sent * POINTS_PER_FRAME <= elapsed * points_per_second


def main(port: int, prefix: str, count: int, frames: int, points_per_second: float, seconds: float) -> None:
    """Encode, connect, wait for the word, write, report."""
    runs = [f"{prefix}-{number}" for number in range(count)]
    encoded = [_frames(run, frames, seed, seconds) for seed, run in enumerate(runs)]
    connections = [Connection(port, run, own) for run, own in zip(runs, encoded, strict=True)]
    print("ready", flush=True)
    sys.stdin.readline()
    taken = write_all(connections, points_per_second)
    points = sum(connection.sent - 1 for connection in connections) * POINTS_PER_FRAME
    print(json.dumps({"seconds": taken, "points": points}), flush=True)


def _frames(run: str, count: int, seed: int, seconds: float) -> Iterable[bytes]:
    if not seconds:
        return encoded_frames(run, count, seed)
    return _until(seconds, islice(endless_frames(run, seed), count + 1 if count else None))


def _until(seconds: float, frames: Iterable[bytes]) -> Iterator[bytes]:
    """Yield frames until so many seconds have passed since the first was asked for."""
    deadline = time.perf_counter() + seconds
    for frame in frames:
        if time.perf_counter() > deadline:
            return
        yield frame


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5]), float(sys.argv[6]))
