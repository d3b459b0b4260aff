"""The body of a request on its way in, and what becomes of it when the answer is an error."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any, Final

from litestar.types import Receive

DISCARD_BYTES_MAX: Final = 256 * 1024 * 1024
DISCARD_SECONDS_MAX: Final = 2.0
"""How much of a refused body is read and thrown away."""


class IncomingBody:
    """An ASGI `receive` that knows whether the body was read to its end."""

    def __init__(self, receive: Receive, headers: Mapping[bytes, bytes]) -> None:
        self._receive = receive
        has_some = headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in headers
        # A client that asks first sends nothing, unless it is asked for it by reading.
        self._is_coming = has_some and b"expect" not in headers

    async def __call__(self) -> Any:
        """Return the next message."""
        message: Any = await self._receive()
        if not message.get("more_body", False):
            self._is_coming = False
        return message

    async def discard(self) -> None:
        """Read what is still coming.

        Hyper, under Granian, closes a connection over unread bytes; then the client may lose the answer to this request
        (RFC 9112, section 9.6), or the next one.
        """
        left = DISCARD_BYTES_MAX
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DISCARD_SECONDS_MAX):
                while self._is_coming and left > 0:
                    left -= len((await self()).get("body", b""))
