"""gzip for JSON answers of some size, when the client asks; streams pass as they are (ADR 0007)."""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from typing import Any, Final

from litestar.types import Send

from matyan.threads import run_blocking

BODY_BYTES_MIN: Final = 500
LEVEL: Final = 1
_INLINE_BYTES_MAX: Final = 32 * 1024
"""More than this takes over half a millisecond, too long for the event loop."""


def accepts_gzip(headers: Mapping[bytes, bytes]) -> bool:
    """Say whether the client takes gzip."""
    return b"gzip" in headers.get(b"accept-encoding", b"").lower()


class GzipJson:
    """An ASGI `send` that compresses JSON bodies sent in one piece."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._held: Any = None

    async def __call__(self, message: Any) -> None:
        """Hold the head of a JSON answer back until its body is known; pass everything else on."""
        if message["type"] == "http.response.start" and _is_plain_json(message["headers"]):
            self._held = message
            return
        if self._held is not None:
            head, self._held = self._held, None
            body = message.get("body", b"")
            if not message.get("more_body", False) and len(body) >= BODY_BYTES_MIN:
                head, message = await _compressed(head, message)
            await self._send(head)
        await self._send(message)


def _is_plain_json(headers: list[tuple[bytes, bytes]]) -> bool:
    found = {name.lower(): value for name, value in headers}
    return found.get(b"content-type", b"").startswith(b"application/json") and b"content-encoding" not in found


async def _compressed(head: Any, message: Any) -> tuple[Any, Any]:
    body: bytes = message["body"]
    if len(body) <= _INLINE_BYTES_MAX:
        packed = gzip.compress(body, LEVEL)
    else:
        packed = await run_blocking(gzip.compress, body, LEVEL)
    headers = [(name, value) for name, value in head["headers"] if name.lower() != b"content-length"]
    headers += [
        (b"content-encoding", b"gzip"),
        (b"content-length", str(len(packed)).encode()),
        (b"vary", b"Accept-Encoding"),
    ]
    return {**head, "headers": headers}, {**message, "body": packed}
