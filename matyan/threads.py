"""The bounded pools and run_blocking(); nobody else makes threads for calls.

Threads are a resource of the process, so the pools are too: `blocking` for short engine calls, `query` for searches,
which burn the processor for as long as their budget allows and must not stand in the way of the former, `upload` and
`download` for what may be of any size. No call waits in a thread for a client: what is sent comes in slices
(`matyan.http.streaming`), what is received in pieces.

A search that takes long gives its thread back after each slice, and only a quarter of the threads, at least one, are
for such next slices: however many searches run away, one that begins finds a thread, and few of them are in the way of
the event loop (ADR 0024).
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, Final, NamedTuple, ParamSpec, TypeVar

from matyan.errors import UnavailableError

T = TypeVar("T")
P = ParamSpec("P")

BLOCKING_THREADS: Final = 16
QUERY_THREADS: Final = 4
UPLOAD_THREADS: Final = 8
DOWNLOAD_THREADS: Final = 16
WAITING_MAX: Final = 512
"""Calls that may wait for a thread of one pool; beyond it a call is refused at once instead of timing out later."""
TURNS_PER_LATER_PART: Final = 4
"""Of so many calls of a pool, one is the next part of an earlier one, however many new ones wait."""
SWITCH_SECONDS: Final = 0.0005
"""How long a thread keeps the interpreter from the others. With Python's 5 ms, an event loop that wakes waits that long
for each thread that searches. Shorter turns cost nothing that can be measured down to 0.2 ms."""


class Load(NamedTuple):
    """How busy a pool is: what it runs at once, and the calls that run or wait for a thread."""

    threads: int
    calls: int


class _Job(NamedTuple):
    """A call that waits for a thread."""

    future: Future[Any]
    call: Callable[[], Any]

    def run(self) -> None:
        if not self.future.set_running_or_notify_cancel():
            return
        try:
            result = self.call()
        except BaseException as error:  # noqa: BLE001 - belongs to whoever waits for the result
            self.future.set_exception(error)
        else:
            self.future.set_result(result)


class Pool:
    """A thread pool whose queue has an end, and that takes new calls before the next parts of old ones."""

    def __init__(
        self, name: str, *, threads: int, waiting_max: int = WAITING_MAX, later_max: int | None = None
    ) -> None:
        """Make the threads when they are needed.

        Args:
            name: for logs and metrics.
            threads: how many calls run at once.
            waiting_max: how many calls wait, beyond which one is refused.
            later_max: how many of those that run may be next parts of earlier calls; None for all.
        """
        self._name = name
        self._later_max = threads if later_max is None else later_max
        self._later_running = 0
        self._threads = threads
        self._calls_max = threads + waiting_max
        self._calls = 0
        self._takers = 0
        """Threads that run calls or are on their way to; each goes on until none may begin."""
        self._turns = 0
        self._is_closed = False
        self._ended = threading.Condition()
        self._new: deque[_Job] = deque()
        self._later: deque[_Job] = deque()
        """Next parts of calls that have had a thread before."""
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix=f"matyan-{name}")

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run `fn` in a thread of the pool.

        Raises:
            UnavailableError: too many calls wait already, or the pool is closed.
        """
        return self._submit(self._new, self._calls_max, partial(fn, *args, **kwargs))

    def resubmit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run the next part of a call that was let in before: however many wait, it is one of them, but not the first.

        Raises:
            UnavailableError: the pool is closed.
        """
        return self._submit(self._later, None, partial(fn, *args, **kwargs))

    def is_contended(self) -> bool:
        """Return whether somebody waits for a thread, or more threads than may be run next parts of calls."""
        return self._calls > min(self._threads, self._later_max)

    def _submit(self, jobs: deque[_Job], calls_max: int | None, call: Callable[[], T]) -> Future[T]:
        job = _Job(Future(), call)
        with self._ended:
            if calls_max is not None and self._calls >= calls_max:
                raise UnavailableError(f"the {self._name} pool has {self._calls} calls under way, try again later")
            self._call_taker()
            self._calls += 1
            jobs.append(job)
        job.future.add_done_callback(self._forget)
        return job.future

    def _call_taker(self) -> None:
        """Have one more thread look for calls, unless all of them do: they come by everything. The lock is held.

        Raises:
            UnavailableError: the pool is closed, or the process gets no more threads.
        """
        if self._is_closed:
            raise UnavailableError(f"the {self._name} pool is closed")
        if self._takers == self._threads:
            return
        try:
            self._executor.submit(self._take)
        except RuntimeError as error:
            raise UnavailableError(f"the {self._name} pool has no thread: {error}") from error
        self._takers += 1

    def _take(self) -> None:
        """Run calls until none may begin; a next part that may not waits for the end of another one."""
        while True:
            with self._ended:
                self._turns += 1
                jobs = self._next_jobs()
                if not jobs:
                    # Under the lock in which nothing was found: what comes after it calls a thread again.
                    self._takers -= 1
                    return
                job, is_later = jobs.popleft(), jobs is self._later
                self._later_running += is_later
            job.run()
            with self._ended:
                self._later_running -= is_later

    def _next_jobs(self) -> deque[_Job]:
        """Return the queue whose turn it is; an empty one when nothing may begin. The lock is held."""
        may_be_later = self._later and self._later_running < self._later_max
        if may_be_later and (not self._new or self._turns % TURNS_PER_LATER_PART == 0):
            return self._later
        return self._new

    async def run(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `fn` in a thread of the pool and wait for its result without holding the event loop."""
        return await asyncio.wrap_future(self.submit(fn, *args, **kwargs))

    def load(self) -> Load:
        """Return how busy the pool is at this moment."""
        return Load(self._threads, self._calls)

    def close(self, *, timeout_seconds: float | None = None) -> bool:
        """Refuse further calls, drop those that have not begun, wait for the others; say whether all of them ended."""
        with self._ended:
            self._is_closed = True
            dropped = [*self._new, *self._later]
            self._new.clear()
            self._later.clear()
        self._executor.shutdown(wait=False, cancel_futures=True)
        for job in dropped:
            job.future.cancel()
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
    sys.setswitchinterval(SWITCH_SECONDS)
    with _LOCK:
        _Pools.blocking = Pool("blocking", threads=blocking_threads)
        _Pools.query = _make_query_pool(query_threads)
        _Pools.upload = Pool("upload", threads=UPLOAD_THREADS)
        _Pools.download = Pool("download", threads=DOWNLOAD_THREADS)


def _make_query_pool(count: int) -> Pool:
    return Pool("query", threads=count, later_max=max(1, count // 4))


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
            _Pools.query = _make_query_pool(QUERY_THREADS)
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
