"""The bounded pools and run_blocking(); nobody else makes threads for calls.

Threads are a resource of the process, so the pools are too: `blocking` for short engine calls, `query` for searches,
which burn the processor for as long as their budget allows and must not stand in the way of the former, `upload` and
`download` for what may be of any size. No call waits in a thread for a client: what is sent comes in slices
(`matyan.http.streaming`), what is received in pieces.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, NamedTuple, ParamSpec, TypeVar

from matyan.errors import UnavailableError

T = TypeVar("T")
P = ParamSpec("P")

BLOCKING_THREADS: Final = 16
QUERY_THREADS: Final = 4
UPLOAD_THREADS: Final = 8
DOWNLOAD_THREADS: Final = 16
WAITING_MAX: Final = 512
"""Calls that may wait for a thread of one pool; beyond it a call is refused at once instead of timing out later."""


class Load(NamedTuple):
    """How busy a pool is: what it runs at once, and the calls that run or wait for a thread."""

    threads: int
    calls: int


class Pool:
    """A thread pool whose queue has an end."""

    def __init__(self, name: str, *, threads: int, waiting_max: int = WAITING_MAX) -> None:
        self._name = name
        self._threads = threads
        self._calls_max = threads + waiting_max
        self._calls = 0
        self._ended = threading.Condition()
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix=f"matyan-{name}")

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run `fn` in a thread of the pool.

        Raises:
            UnavailableError: too many calls wait already, or the pool is closed.
        """
        return self._submit(self._calls_max, fn, *args, **kwargs)

    def resubmit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run the next part of a call that was let in before: however many wait, it is one of them.

        Raises:
            UnavailableError: the pool is closed.
        """
        return self._submit(None, fn, *args, **kwargs)

    def _submit(self, calls_max: int | None, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        with self._ended:
            if calls_max is not None and self._calls >= calls_max:
                raise UnavailableError(f"the {self._name} pool has {self._calls} calls under way, try again later")
            self._calls += 1
        try:
            future = self._executor.submit(fn, *args, **kwargs)
        except RuntimeError as error:
            self._forget()
            raise UnavailableError(f"the {self._name} pool is closed") from error
        future.add_done_callback(self._forget)
        return future

    async def run(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `fn` in a thread of the pool and wait for its result without holding the event loop."""
        return await asyncio.wrap_future(self.submit(fn, *args, **kwargs))

    def load(self) -> Load:
        """Return how busy the pool is at this moment."""
        return Load(self._threads, self._calls)

    def close(self, *, timeout_seconds: float | None = None) -> bool:
        """Refuse further calls, drop those that have not begun, wait for the others; say whether all of them ended."""
        self._executor.shutdown(wait=False, cancel_futures=True)
        with self._ended:
            return self._ended.wait_for(lambda: self._calls == 0, timeout_seconds)

    def _forget(self, _: object = None) -> None:
        with self._ended:
            self._calls -= 1
            self._ended.notify_all()


class _Pools:
    """The pools of this process; made once, at first use or by `configure`."""

    blocking: Pool | None = None
    query: Pool | None = None
    upload: Pool | None = None
    download: Pool | None = None


_LOCK = threading.Lock()


def configure(*, blocking_threads: int = BLOCKING_THREADS, query_threads: int = QUERY_THREADS) -> None:
    """Make fresh pools of these sizes, closing older ones. The runner calls this before anything starts."""
    close()
    with _LOCK:
        _Pools.blocking = Pool("blocking", threads=blocking_threads)
        _Pools.query = Pool("query", threads=query_threads)
        _Pools.upload = Pool("upload", threads=UPLOAD_THREADS)
        _Pools.download = Pool("download", threads=DOWNLOAD_THREADS)


def close(*, timeout_seconds: float | None = None) -> bool:
    """Close the pools and say whether every call ended in time; the next use makes new pools of the default sizes."""
    with _LOCK:
        pools = (_Pools.blocking, _Pools.query, _Pools.upload, _Pools.download)
        _Pools.blocking = _Pools.query = _Pools.upload = _Pools.download = None
    return all([pool.close(timeout_seconds=timeout_seconds) for pool in pools if pool is not None])  # noqa: C419 - every one is closed, whatever the first says


def loads() -> Mapping[str, Load]:
    """Return how busy every pool is that has been made, by name."""
    with _LOCK:
        pools = {
            "blocking": _Pools.blocking,
            "query": _Pools.query,
            "upload": _Pools.upload,
            "download": _Pools.download,
        }
    return {name: pool.load() for name, pool in pools.items() if pool is not None}


def blocking_pool() -> Pool:
    """Return the pool for calls that wait on an engine for a moment."""
    with _LOCK:
        if _Pools.blocking is None:
            _Pools.blocking = Pool("blocking", threads=BLOCKING_THREADS)
        return _Pools.blocking


def query_pool() -> Pool:
    """Return the pool for searches and everything else that runs for long."""
    with _LOCK:
        if _Pools.query is None:
            _Pools.query = Pool("query", threads=QUERY_THREADS)
        return _Pools.query


def upload_pool() -> Pool:
    """Return the pool for calls that store the pieces of what a client sends."""
    with _LOCK:
        if _Pools.upload is None:
            _Pools.upload = Pool("upload", threads=UPLOAD_THREADS)
        return _Pools.upload


def download_pool() -> Pool:
    """Return the pool for files, media and logs, which are sent as fast as their clients take them."""
    with _LOCK:
        if _Pools.download is None:
            _Pools.download = Pool("download", threads=DOWNLOAD_THREADS)
        return _Pools.download


async def run_blocking(fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a short blocking call (an engine, a service method) off the event loop and return its result.

    Raises:
        UnavailableError: too many calls wait already.
    """
    return await blocking_pool().run(fn, *args, **kwargs)
