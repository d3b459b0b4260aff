"""Iterator -> chunked response through a bounded buffer.

The iterator is synchronous and runs on a pool; its bytes are gathered into batches, so that a thousand small trees
cost a few writes, and none waits longer than LINGER_SECONDS. Streams are not compressed (ADR 0007). A client that does
not read holds memory for a while, within bounds, and no thread.

Work begins when the response is sent, not when it is made: from then on the connection is watched, so a client that
leaves before the first byte ends its search as one that leaves in the middle does.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Final

from litestar import Response
from litestar.types import ASGIApp, Receive, Scope, Send

from matyan.errors import UnavailableError
from matyan.threads import Pool, query_pool

logger = logging.getLogger(__name__)

BATCH_BYTES: Final = 512 * 1024
"""What wakes the event loop before the linger is over. It takes the interpreter from the thread that makes the chunks,
and each time that costs both of them about as much as making twenty kilobytes."""
BUFFER_BYTES_MAX: Final = 1024 * 1024
"""The iterator gives its thread back when so much lies unsent."""
PIECE_BYTES_MAX: Final = 256 * 1024
LINGER_SECONDS: Final = 0.05
SLICE_SECONDS: Final = 0.01
"""Processor time after which an iterator gives its thread back and queues up again, if it yields so often."""
SLICE_WAITING_SECONDS: Final = 0.5
"""Time after which it does so, too: most of it was spent waiting, for an engine or the interpreter."""
STALLED_SECONDS: Final = 60.0
"""A client that takes no piece for so long is given up, which frees what its stream holds."""
PARKED_MAX: Final = 128
"""Streams whose buffers are full; beyond it the one whose client has taken nothing for longest is given up."""
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

    The iterator runs in one thread at a time, but not always in the same: while the client is behind, it has none. So
    it must hold nothing across a yield that belongs to a thread (a lock, a transaction).

    An error before the first byte is an ordinary error answer. After it the only signal left is an aborted body. When
    the client goes away or takes nothing for STALLED_SECONDS, or the server stops, the iterator is closed in a thread
    of the pool at its next yield: a long search without results yields `b""` now and then to notice it, and for others
    to have their turn. One that still
    waits for its first thread is dropped.
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


class _Parking:
    """The flows whose clients are behind with reading; the one that has waited longest comes first.

    They hold no thread, but memory: where there are too many, that one is cut.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._flows: dict[_Flow, None] = {}

    def enter(self, flow: _Flow) -> None:
        with self._lock:
            self._flows[flow] = None
            longest = next(iter(self._flows)) if len(self._flows) > PARKED_MAX else None
            if longest is not None:
                del self._flows[longest]
        if longest is not None:
            longest.cut()

    def leave(self, flow: _Flow) -> None:
        with self._lock:
            self._flows.pop(flow, None)

    def __len__(self) -> int:
        return len(self._flows)


_parking: Final = _Parking()


def parked_streams() -> int:
    """Return how many streams stand still until their clients take more."""
    return len(_parking)


class _Turn:
    """How long a slice has had its thread, which it belongs to."""

    def __init__(self) -> None:
        self._end_seconds = time.monotonic() + SLICE_WAITING_SECONDS
        self._processor_end_seconds = time.thread_time() + SLICE_SECONDS

    def is_over(self) -> bool:
        """Return whether others shall have a turn."""
        return time.thread_time() > self._processor_end_seconds or time.monotonic() > self._end_seconds


class _Flow:
    """The buffer between the iterator and the event loop.

    The iterator runs in slices: a slice ends when the buffer is full, and its thread is free for others until the
    client has taken what is there; or when it has had its turn and others wait. So successive slices may run in
    different threads, never two at once.
    """

    def __init__(self, make: MakeIterator, pool: Pool) -> None:
        self._make = make
        self._pool = pool
        self._loop = asyncio.get_running_loop()
        self._has_some = asyncio.Event()
        self._has_batch = asyncio.Event()
        self.stalled = self._loop.create_future()
        """Done when the client is given up."""
        self._patience: asyncio.TimerHandle | None = None
        """Runs while the client is waited for."""
        self._iterator: Iterator[bytes] | None = None
        """Belongs to the slice that runs."""
        self._lock = threading.Lock()
        # Below: guarded by `_lock`.
        self._chunks: list[bytes] = []
        self._size = 0
        self._is_idle = True
        """Whether the event loop waits for anything at all, not for a batch."""
        self._parked = False
        """Whether the iterator stands still, outside of any thread, until there is room."""
        self._stopped = False
        self._done = False
        self._error: BaseException | None = None
        self._first: Future[None] | None = self._begin(pool.submit)

    # ---- in a thread of the pool, one at a time

    def _produce(self) -> None:
        """Run one slice: to the end, or until the buffer is full, others have their turn, or nobody wants more."""
        error: BaseException | None = None
        turn = _Turn()
        try:
            if self._iterator is None and not self._stopped:
                self._iterator = self._make()
            while self._iterator is not None and not self._stopped:
                chunk = next(self._iterator, None)
                if chunk is None:
                    break
                if chunk and self._put(chunk):
                    return
                if self._pool.is_contended() and turn.is_over() and not self._stopped:
                    self._resume()
                    return
        except BaseException as caught:  # noqa: BLE001 - carried to the event loop, where it is raised or logged
            error = caught
        self._end(error)

    def _put(self, chunk: bytes) -> bool:
        """Add to the buffer; return True when it is full, and this slice over: the next may have begun by then."""
        with self._lock:
            was_idle, self._is_idle = self._is_idle, False
            self._chunks.append(chunk)
            before, self._size = self._size, self._size + len(chunk)
            is_batch = before < BATCH_BYTES <= self._size
            parks = self._parked = self._size >= BUFFER_BYTES_MAX and not self._stopped
            if parks:
                _parking.enter(self)
        if was_idle:
            self._call(self._has_some.set)
        if is_batch:
            self._call(self._has_batch.set)
        return parks

    def _end(self, error: BaseException | None) -> None:
        """Close the iterator and tell the event loop how it ended."""
        try:
            if (close := getattr(self._iterator, "close", None)) is not None:
                close()
        except BaseException as caught:  # noqa: BLE001 - as in `_produce`
            error = error or caught
        self._iterator, self._make = None, _nothing  # what they hold, a file perhaps, is free now
        with self._lock:
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
        with self._lock:
            if self._error is not None and not self._chunks:
                raise self._error

    async def batch(self) -> tuple[list[bytes], bool]:
        """Return the next chunks and whether more may come. A full batch, the end or the linger ends the wait.

        Raises:
            Whatever the iterator raised after the first byte.
        """
        await self._linger()
        if self._begins_to_idle():
            await self._has_some.wait()
            await self._linger()
        with self._lock:
            chunks, self._chunks, self._size = self._chunks, [], 0
            done, error = self._done, self._error
            if not done:
                self._has_batch.clear()
            was_parked = self._unpark()
        if was_parked:
            self._resume()
        if error is not None and not chunks:
            raise error
        return chunks, not done or error is not None

    async def _linger(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER_SECONDS):
                await self._has_batch.wait()

    def _begins_to_idle(self) -> bool:
        """Return whether there is nothing to send; the next chunk then wakes the event loop, else only a batch does."""
        with self._lock:
            self._is_idle = not self._chunks and not self._done
            if self._is_idle:
                self._has_some.clear()
            return self._is_idle

    async def deliver(self, send: Send, message: Any) -> None:
        """Send a message; `stalled` is done when the client does not take it in time, or this flow is cut meanwhile."""
        self._patience = self._loop.call_later(STALLED_SECONDS, self._give_up)
        try:
            await send(message)
        finally:
            self._patience.cancel()
            self._patience = None

    def cut(self) -> None:
        """Give the client up, from any thread; nothing happens when it has come back meanwhile."""
        self._call(self._give_up)

    def stop(self) -> None:
        """Close the iterator, in a thread of the pool; forget it when it has not begun."""
        first, self._first = self._first, None  # which refers to this flow: a cycle would keep both for a while
        with self._lock:
            self._stopped = True
            self._chunks.clear()
            was_parked = self._unpark()
        if was_parked:
            self._resume()
        elif first is not None:
            first.cancel()  # in vain when it has begun

    def _give_up(self) -> None:
        if self._patience is not None and not self.stalled.done():
            self.stalled.set_result(None)

    def _unpark(self) -> bool:
        """Return whether there is a next slice to begin; `_lock` is held."""
        was_parked, self._parked = self._parked, False
        if was_parked:
            _parking.leave(self)
        return was_parked

    def _resume(self) -> None:
        try:
            self._begin(self._pool.resubmit)
        except UnavailableError as error:  # the pool is closed
            self._end(error)

    def _begin(self, submit: Callable[[Callable[[], None]], Future[None]]) -> Future[None]:
        begun = submit(self._produce)
        begun.add_done_callback(self._on_slice_end)
        return begun

    def _on_slice_end(self, ended: Future[None]) -> None:
        if ended.cancelled():
            self._end(UnavailableError("the server is stopping"))


class _Sender:
    """Sends what an iterator yields as a chunked body and watches for the client's leaving."""

    def __init__(self, make: MakeIterator, pool: Pool, headers: list[tuple[bytes, bytes]]) -> None:
        self._make = make
        self._pool = pool
        self._headers = headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the end, the client's leaving or the server's stop."""
        flow = _Flow(self._make, self._pool)
        watcher = asyncio.ensure_future(_left(receive))
        sender = asyncio.ensure_future(self._send(flow, send))
        try:
            await asyncio.wait({watcher, sender, flow.stalled}, return_when=asyncio.FIRST_COMPLETED)
            if sender.done():
                sender.result()
            elif flow.stalled.done():  # to return without the last message aborts the body
                logger.warning("gave up a stream whose client took nothing", extra={"path": scope.get("path", "")})
            else:
                logger.debug("client left a stream")
        finally:
            flow.stop()
            for task in (watcher, sender):
                task.cancel()
            await asyncio.gather(watcher, sender, return_exceptions=True)

    async def _send(self, flow: _Flow, send: Send) -> None:
        await flow.first()
        await flow.deliver(send, {"type": "http.response.start", "status": 200, "headers": self._headers})
        more = True
        while more:
            chunks, more = await flow.batch()
            for message in _messages(chunks, more=more):
                await flow.deliver(send, message)


def _messages(chunks: Sequence[bytes], *, more: bool) -> Iterator[Any]:
    """Yield a part of a body in pieces, so that a slow client is seen to take something now and then."""
    # One piece ahead and no more: a slow client would keep all of them in memory.
    pieces = _pieces(chunks)
    last = next(pieces, b"")
    for piece in pieces:
        yield {"type": "http.response.body", "body": last, "more_body": True}
        last = piece
    if last or not more:
        yield {"type": "http.response.body", "body": last, "more_body": more}


def _pieces(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the same bytes in pieces of at most PIECE_BYTES_MAX; a large chunk that fits is not copied."""
    gathered: list[bytes] = []
    size = 0
    for part in _cut(chunks):
        if size + len(part) > PIECE_BYTES_MAX:
            yield b"".join(gathered)
            gathered, size = [], 0
        gathered.append(part)
        size += len(part)
    if gathered:
        yield b"".join(gathered)


def _cut(chunks: Iterable[bytes]) -> Iterator[bytes]:
    for chunk in chunks:
        for begin in range(0, len(chunk), PIECE_BYTES_MAX):
            yield chunk[begin : begin + PIECE_BYTES_MAX]


def _nothing() -> Iterator[bytes]:
    return iter(())


async def _left(receive: Receive) -> None:
    """Return when the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
