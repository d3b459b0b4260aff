"""MeasuredKv: a key-value engine that tells how long transactions take, how much they write, how often they rerun."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, Generic, TypeVar

from matyan.engines.kv.protocol import KvEngine, KvReader, KvTransaction
from matyan.engines.kv.wrapper import KvWrapper
from matyan.errors import TooLargeError, UnavailableError
from matyan.observe.metrics import Metrics

T = TypeVar("T")
View = TypeVar("View", bound=KvReader)

DONE: Final = "done"
ABORTED: Final = "aborted"
"""The function itself gave up."""
_OUTCOMES: Final[tuple[tuple[type[BaseException], str], ...]] = (
    (UnavailableError, "unavailable"),
    (TooLargeError, "too_large"),
    (BaseException, ABORTED),
)


class MeasuredKv(KvWrapper):
    """A KvEngine around another. It costs some microseconds a transaction and nothing a key."""

    def __init__(self, engine: KvEngine, metrics: Metrics) -> None:
        super().__init__(engine)
        self._reads = _Kind(metrics, "read")
        self._writes = _Kind(metrics, "write")
        self._written_bytes = metrics.kv_transaction_bytes

    def read(self, fn: Callable[[KvReader], T]) -> T:
        """Run `fn` on a snapshot and return its result."""
        with _Watched(fn, self._reads) as watched:
            return self.engine.read(watched)

    def write(self, fn: Callable[[KvTransaction], T], *, durable: bool = True) -> T:
        """Run `fn`, commit, and return its result."""
        written_bytes = 0

        def weighed(tx: KvTransaction) -> T:
            nonlocal written_bytes
            result = fn(tx)
            written_bytes = tx.written_bytes
            return result

        with _Watched(weighed, self._writes) as watched:
            result = self.engine.write(watched, durable=durable)
        self._written_bytes.observe(written_bytes)
        return result


class _Kind:
    """The metrics of reads, or of writes."""

    def __init__(self, metrics: Metrics, kind: str) -> None:
        outcomes = (DONE, *(outcome for _, outcome in _OUTCOMES))
        self._seconds = {outcome: metrics.kv_transaction_seconds.labels(kind, outcome) for outcome in outcomes}
        self._retries = metrics.kv_retries.labels(kind)

    def observe(self, error: BaseException | None, seconds: float, runs: int) -> None:
        outcome = DONE if error is None else next(name for cls, name in _OUTCOMES if isinstance(error, cls))
        self._seconds[outcome].observe(seconds)
        if runs > 1:
            self._retries.inc(runs - 1)


class _Watched(Generic[View, T]):
    """The function of one transaction, counting its runs between entry and exit."""

    __slots__ = ("_began", "_fn", "_kind", "_runs")

    def __init__(self, fn: Callable[[View], T], kind: _Kind) -> None:
        self._fn = fn
        self._kind = kind
        self._runs = 0

    def __call__(self, view: View) -> T:
        self._runs += 1
        return self._fn(view)

    def __enter__(self) -> _Watched[View, T]:
        self._began = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._kind.observe(error, time.perf_counter() - self._began, self._runs)
