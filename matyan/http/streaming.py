"""Iterator -> chunked response through a bounded buffer.

The iterator is synchronous and runs on the query pool; its bytes are gathered into batches, so that a thousand small
trees cost a few writes, and none waits longer than LINGER_SECONDS. Streams are not compressed (ADR 0007).

Work begins when the response is sent, not when it is made: from then on the connection is watched, so a client that
leaves before the first byte ends its search as one that leaves in the middle does.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from litestar import Response
from litestar.types import ASGIApp, Receive, Scope, Send

from matyan.threads import Pool, query_pool

logger = logging.getLogger(__name__)

BATCH_BYTES: Final = 64 * 1024
BUFFER_BYTES_MAX: Final = 1024 * 1024
"""The iterator waits when so much lies unsent."""
LINGER_SECONDS: Final = 0.05
STREAM_TYPE: Final = "application/octet-stream"

MakeIterator = Callable[[], Iterator[bytes]]


def stream(
    make: MakeIterator,
    *,
    pool: Pool | None = None,
    content_type: str = STREAM_TYPE,
    headers: Mapping[str, str] | None = None,
) -> StreamResponse:
    """Return the response that runs `make()` and its iterator on the query pool and sends what it yields.

    An error before the first byte is an ordinary error answer. After it the only signal left is an aborted body. When
    the client goes away, or the server stops, the iterator is closed in its own thread at its next yield: a long search
    without results yields `b""` now and then to notice it. One that still waits for a thread is dropped.
    """
    return StreamResponse(make, pool, content_type, headers or {})


class StreamResponse(Response[None]):
    """A response whose body is made while it is sent.

    Sending it raises, as long as nothing is sent, whatever `make` or the iterator raises, and UnavailableError when too
    many searches wait already.
    """

    def __init__(self, make: MakeIterator, pool: Pool | None, content_type: str, headers: Mapping[str, str]) -> None:
        super().__init__(None, media_type=content_type, headers=headers)
        self._make = make
        self._pool = pool
        self._extra = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]

    def to_asgi_response(self, *_: Any, **__: Any) -> ASGIApp:  # type: ignore[override]  # any ASGI app will do
        """Return the ASGI app that sends the body."""
        headers = [(b"content-type", str(self.media_type).encode()), *self._extra]
        return _Sender(self._make, self._pool or query_pool(), headers)


class _Flow:
    """The buffer between the iterator's thread and the event loop."""

    def __init__(self, make: MakeIterator) -> None:
        self._make = make
        self._loop = asyncio.get_running_loop()
        self._has_some = asyncio.Event()
        self._has_batch = asyncio.Event()
        self._changed = threading.Condition()
        # Below: guarded by `_changed`.
        self._chunks: list[bytes] = []
        self._size = 0
        self._stopped = False
        self._done = False
        self._error: BaseException | None = None

    # ---- in the thread

    def produce(self) -> None:
        """Drain the iterator into the buffer; close it when told to stop."""
        error: BaseException | None = None
        try:
            if not self._put(b""):
                return  # the client left before there was a thread for it
            iterator = self._make()
            with contextlib.closing(iterator) if hasattr(iterator, "close") else contextlib.nullcontext():  # type: ignore[type-var]  # Iterator does not declare the close() that generators have
                for chunk in iterator:
                    if not self._put(chunk):
                        return
        except BaseException as caught:  # noqa: BLE001 - carried to the event loop, where it is raised or logged
            error = caught
        finally:
            self._end(error)

    def _put(self, chunk: bytes) -> bool:
        """Add to the buffer, waiting for room; return False when nobody wants more."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or self._size < BUFFER_BYTES_MAX)
            if self._stopped:
                return False
            if not chunk:
                return True
            was_empty = not self._chunks
            self._chunks.append(chunk)
            before, self._size = self._size, self._size + len(chunk)
            is_batch = before < BATCH_BYTES <= self._size
        if was_empty:
            self._call(self._has_some.set)
        if is_batch:
            self._call(self._has_batch.set)
        return True

    def _end(self, error: BaseException | None) -> None:
        with self._changed:
            self._done, self._error = True, error
        self._call(self._has_some.set)
        self._call(self._has_batch.set)

    def _call(self, fn: Callable[[], None]) -> None:
        # A loop that closed meanwhile has no reader left.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(fn)

    # ---- on the event loop

    async def first(self) -> None:
        """Wait for the first bytes or the end; raise the error when it came before any byte."""
        await self._has_some.wait()
        with self._changed:
            if self._error is not None and not self._chunks:
                raise self._error

    async def batch(self) -> tuple[bytes, bool]:
        """Return the next bytes and whether more may come. A full batch, the end or the linger ends the wait.

        Raises:
            Whatever the iterator raised after the first byte.
        """
        await self._has_some.wait()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER_SECONDS):
                await self._has_batch.wait()
        with self._changed:
            body = b"".join(self._chunks)
            self._chunks.clear()
            self._size = 0
            done, error = self._done, self._error
            self._changed.notify_all()
            if not done:
                self._has_some.clear()
                self._has_batch.clear()
        if error is not None and not body:
            raise error
        return body, not done or error is not None

    def stop(self) -> None:
        """Tell the thread to close the iterator."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()


class _Sender:
    """Sends what an iterator yields as a chunked body and watches for the client's leaving."""

    def __init__(self, make: MakeIterator, pool: Pool, headers: list[tuple[bytes, bytes]]) -> None:
        self._make = make
        self._pool = pool
        self._headers = headers

    async def __call__(self, _: Scope, receive: Receive, send: Send) -> None:
        """Send until the end, the client's leaving or the server's stop."""
        flow = _Flow(self._make)
        work = self._pool.submit(flow.produce)
        watcher = asyncio.ensure_future(_left(receive))
        sender = asyncio.ensure_future(self._send(flow, send))
        try:
            await asyncio.wait({watcher, sender}, return_when=asyncio.FIRST_COMPLETED)
            if sender.done():
                sender.result()
            else:
                logger.debug("client left a stream")
        finally:
            flow.stop()
            work.cancel()
            for task in (watcher, sender):
                task.cancel()
            await asyncio.gather(watcher, sender, return_exceptions=True)

    async def _send(self, flow: _Flow, send: Send) -> None:
        await flow.first()
        await send({"type": "http.response.start", "status": 200, "headers": self._headers})
        more = True
        while more:
            body, more = await flow.batch()
            if body or not more:
                await send({"type": "http.response.body", "body": body, "more_body": more})


async def _left(receive: Receive) -> None:
    """Return when the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
