"""Uploads on their way in: gathered on the event loop, written in parts, so that none waits in a thread."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from typing import Final

from matyan.engines.blob.protocol import BlobInfo
from matyan.engines.blob.uploads import Upload
from matyan.errors import UnavailableError
from matyan.threads import Pool, upload_pool

PART_BYTES_MIN: Final = 1024 * 1024
"""A thread is taken when so much has come, or the end."""
IDLE_SECONDS_MAX: Final = 60.0
"""An upload that sends nothing for so long is given up."""
UPLOADS_MAX: Final = 128
"""At one time; for one more the slowest is given up. Each holds a file descriptor and up to two parts in memory."""
_NEW_SECONDS: Final = 1.0
"""Before that, the rate of an upload says nothing."""


class Uploads:
    """The uploads under way. Used on the event loop alone."""

    def __init__(self) -> None:
        self._bodies: set[_Body] = set()

    async def receive(self, begin: Callable[[], Upload], pieces: AsyncIterator[bytes]) -> BlobInfo:
        """Store what comes, at the cost of the slowest upload when there are too many.

        Args:
            begin: called in a thread, before anything is received.
            pieces: the body as it comes.

        Raises:
            UnavailableError: nothing came for IDLE_SECONDS_MAX, this was the slowest upload, or the server stops.
            Whatever `begin`, the upload or `pieces` raises; nothing is stored then.
        """
        if len(self._bodies) >= UPLOADS_MAX:
            self._give_up_slowest()
        body = _Body(pieces)
        self._bodies.add(body)
        try:
            return await _store(begin, body)
        finally:
            self._bodies.discard(body)

    def _give_up_slowest(self) -> None:
        slowest = min(self._bodies, key=_Body.bytes_per_second)
        self._bodies.discard(slowest)
        slowest.give_up()


class _Body:
    """The body of one upload."""

    def __init__(self, pieces: AsyncIterator[bytes]) -> None:
        self._pieces = pieces
        self._now = asyncio.get_running_loop().time
        self._began = self._now()
        self._received_bytes = 0
        self._limit: asyncio.Timeout | None = None
        self._is_given_up = False

    def bytes_per_second(self) -> float:
        """Return the average so far; an upload that has just begun counts as fast."""
        seconds = self._now() - self._began
        return self._received_bytes / seconds if seconds >= _NEW_SECONDS else math.inf

    def give_up(self) -> None:
        """End the wait for the next piece with an error."""
        self._is_given_up = True
        if self._limit is not None:
            self._limit.reschedule(self._now())

    async def parts(self) -> AsyncIterator[bytes]:
        """Yield the body in parts of at least PART_BYTES_MIN, the last excepted."""
        gathered = bytearray()
        while (piece := await self._next()) is not None:
            gathered += piece
            if len(gathered) >= PART_BYTES_MIN:
                yield bytes(gathered)
                gathered.clear()
        if gathered:
            yield bytes(gathered)

    async def _next(self) -> bytes | None:
        self._check()
        try:
            async with asyncio.timeout(IDLE_SECONDS_MAX) as self._limit:
                piece = await anext(self._pieces, None)
        except TimeoutError as error:
            self._check()
            raise UnavailableError(f"the upload sent nothing for {IDLE_SECONDS_MAX:g} seconds") from error
        finally:
            self._limit = None
        self._received_bytes += len(piece or b"")
        return piece

    def _check(self) -> None:
        if self._is_given_up:
            raise UnavailableError(f"the upload was the slowest of {UPLOADS_MAX}, and others wait: try again later")


async def _store(begin: Callable[[], Upload], body: _Body) -> BlobInfo:
    pool = upload_pool()
    upload = await pool.run(begin)
    try:
        async for part in body.parts():
            await pool.run(upload.write, part)
        return await pool.run(upload.finish)
    finally:
        _close(pool, upload)


def _close(pool: Pool, upload: Upload) -> None:
    """Close in a thread: when this request is cut off, a write may still be under way in another."""
    try:
        pool.resubmit(upload.close)
    except UnavailableError:  # the pool is closed: no thread is left that it could wait for
        upload.close()
