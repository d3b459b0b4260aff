"""FaultyKv: any key-value engine under FoundationDB's rules and errors, drawn from a seed.

It keeps the promise of the port, so what fails on it is a caller that asks for more: one whose write functions are not
idempotent, that reads what it stamps, holds a snapshot for long, or does not survive an `UnavailableError`. The fault
suite runs whole processes on it: tests/support/faulty_role.py.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from matyan.engines.kv.protocol import KeyRange, KvEngine, KvReader, KvTransaction, Pair
from matyan.engines.kv.wrapper import KvWrapper
from matyan.errors import TooLargeError, TooSlowError, UnavailableError
from matyan.limits import TRANSACTION_BYTES_MAX, TRANSACTION_SECONDS_MAX

T = TypeVar("T")
V = TypeVar("V", bound="FaultyReader")

ATTEMPTS_MAX: Final = 20
DEADLINE_SECONDS: Final = 30.0
INJECTED_MAX: Final = 5
"""After so many injected errors one call is left alone, so that rates never make the retries run out."""
_READS_MAX: Final = 3
"""A transaction that is to become too old does so after at most so many reads, or at its commit."""
_STAMP_BYTES: Final = 10
_MUTATION_BYTES: Final = 44
_CONFLICT_BYTES: Final = 24
_PREFIX_BYTES: Final = 7
"""What FoundationDB 7.3 counts for each mutation, each range read or written, and each key's prefix `matyan/`."""


class Fault(StrEnum):
    """What is injected, with FoundationDB's number."""

    TOO_OLD = "too_old"
    """1007 after some reads of a read or write function, or at a commit."""
    CONFLICT = "conflict"
    """1020: the write function has run, nothing is applied, it runs again."""
    UNKNOWN_LOST = "unknown_lost"
    """1021, and nothing was applied."""
    UNKNOWN_APPLIED = "unknown_applied"
    """1021, and everything was applied: the write function runs again on what it wrote."""
    TOO_LARGE = "too_large"
    """2101: FoundationDB counts more than we do."""
    UNAVAILABLE = "unavailable"
    """The retries of a call ran out."""
    UNAVAILABLE_APPLIED = "unavailable_applied"
    """They ran out after a commit whose answer was lost."""
    OUTLIVED = "outlived"
    """1007, not injected: the function did take longer than a transaction may."""


class FaultRates(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The probability of each error: of an attempt the first five, of a call (both kinds) the last."""

    too_old: float = 0.0
    conflict: float = 0.0
    unknown_lost: float = 0.0
    unknown_applied: float = 0.0
    too_large: float = 0.0
    unavailable: float = 0.0
    outage_calls: int = 10
    """How many calls fail once one has."""


MODERATE: Final = FaultRates(too_old=0.1, conflict=0.15, unknown_lost=0.05)
"""What no caller can notice who keeps to the port, whether or not its functions are idempotent."""
ROUGH: Final = FaultRates(
    too_old=0.05, conflict=0.1, unknown_lost=0.05, unknown_applied=0.05, unavailable=0.002, outage_calls=5
)
"""For whole processes: everything but 2101, which refuses data."""
_OF_READS: Final = (Fault.TOO_OLD,)
_OF_WRITES: Final = (Fault.TOO_OLD, Fault.CONFLICT, Fault.UNKNOWN_LOST, Fault.UNKNOWN_APPLIED, Fault.TOO_LARGE)


class FaultyKv(KvWrapper):
    """A KvEngine around another one, with FoundationDB's errors and the retry loop that answers them.

    What happens to the n-th call follows from the seed and n alone: one thread meets the same faults in every run.
    """

    def __init__(
        self,
        engine: KvEngine,
        *,
        seed: int,
        rates: FaultRates = MODERATE,
        transaction_seconds: float = TRANSACTION_SECONDS_MAX,
        report: Path | None = None,
    ) -> None:
        """Wrap an engine; each fault appends its kind as a line to the file `report`, which outlives a kill."""
        super().__init__(engine)
        self.seed = seed
        self.rates = rates
        self.faults: Counter[Fault] = Counter()
        self._transaction_seconds = transaction_seconds
        self._report = report
        self._lock = threading.Lock()
        self._calls = 0
        self._outage_end = 0
        """The number of the first call that works again."""

    def __repr__(self) -> str:
        """Say what a failing test needs to be repeated."""
        counts = ", ".join(f"{kind} {count}" for kind, count in sorted(self.faults.items()))
        return f"FaultyKv(seed={self.seed}, calls={self._calls}, faults: {counts or 'none'})"

    # ---- KvEngine

    def read(self, fn: Callable[[KvReader], T]) -> T:
        call = self._begin_call()
        if call.is_outage:
            raise self._failed(Fault.UNAVAILABLE)
        return self._retried(call, _OF_READS, lambda fault: self._read_once(fn, call, fault))

    def write(self, fn: Callable[[KvTransaction], T], *, durable: bool = True) -> T:
        call = self._begin_call()
        if call.is_outage:
            raise self._lost_write(fn, call)
        return self._retried(call, _OF_WRITES, lambda fault: self._write_once(fn, call, fault, durable=durable))

    # ---- the retry loop

    def _retried(self, call: _Call, kinds: Sequence[Fault], attempt: Callable[[Fault | None], T]) -> T:
        deadline = time.monotonic() + DEADLINE_SECONDS
        last: Fault | None = None
        for _ in range(ATTEMPTS_MAX):
            try:
                return attempt(call.draw(self.rates, kinds))
            except _RetryableError as error:
                call.injected += 1
                last = error.fault
                self._record(last)
                if time.monotonic() > deadline:
                    break
        kind = TooSlowError if last is Fault.OUTLIVED else UnavailableError
        raise kind("the store did not take a transaction within the retry budget")

    def _read_once(self, fn: Callable[[KvReader], T], call: _Call, fault: Fault | None) -> T:
        age = self._age_of(call, fault)
        return self.engine.read(lambda reader: _run(fn, FaultyReader(reader, age)))

    def _write_once(self, fn: Callable[[KvTransaction], T], call: _Call, fault: Fault | None, *, durable: bool) -> T:
        age = self._age_of(call, fault)

        def run(tx: KvTransaction) -> T:
            view = FaultyTransaction(tx, age)
            result = _run(fn, view)
            age.check_commit()
            view.check_size()
            if fault in {Fault.CONFLICT, Fault.UNKNOWN_LOST}:
                raise _RetryableError(fault)
            if fault is Fault.TOO_LARGE:
                self._record(fault)
                raise TooLargeError(f"transaction is too large with all that it read, limit {TRANSACTION_BYTES_MAX}")
            return result

        result = self.engine.write(run, durable=durable)
        if fault is Fault.UNKNOWN_APPLIED:
            raise _RetryableError(fault)
        return result

    def _age_of(self, call: _Call, fault: Fault | None) -> _Age:
        return _Age(self._transaction_seconds, call.reads_until_too_old() if fault is Fault.TOO_OLD else None)

    # ---- outages

    def _begin_call(self) -> _Call:
        with self._lock:
            number = self._calls
            self._calls += 1
            call = _Call(self.seed, number)
            if call.chance(self.rates.unavailable):
                self._outage_end = max(self._outage_end, number + self.rates.outage_calls)
            call.is_outage = number < self._outage_end
        return call

    def _lost_write(self, fn: Callable[[KvTransaction], object], call: _Call) -> UnavailableError:
        """Return the error of a write in an outage; now and then the store took the write and its answer is lost."""
        if not call.chance(0.25):
            return self._failed(Fault.UNAVAILABLE)
        self.engine.write(lambda tx: _run(fn, FaultyTransaction(tx, _Age(self._transaction_seconds, None))))
        return self._failed(Fault.UNAVAILABLE_APPLIED)

    def _failed(self, fault: Fault) -> UnavailableError:
        self._record(fault)
        return UnavailableError("the store is out of reach")

    def _record(self, fault: Fault) -> None:
        with self._lock:
            self.faults[fault] += 1
            if self._report is not None:
                with self._report.open("a") as report:
                    report.write(f"{fault}\n")


class _RetryableError(Exception):
    """What the retry loop answers by running the function again; no error of ours, so that no function handles it."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(f"injected: {fault}")
        self.fault = fault


class _Call:
    """The draws of one call."""

    def __init__(self, seed: int, number: int) -> None:
        self._random = random.Random(f"{seed}/{number}")  # its own generator: threads do not mix their draws
        self.injected = 0
        self.is_outage = False

    def chance(self, rate: float) -> bool:
        return self._random.random() < rate

    def draw(self, rates: FaultRates, kinds: Sequence[Fault]) -> Fault | None:
        """Return the fault of the next attempt; at most one, so that each rate is what it says."""
        if self.injected >= INJECTED_MAX:
            return None
        left = self._random.random()
        for kind in kinds:
            left -= getattr(rates, kind)
            if left < 0:
                return kind
        return None

    def reads_until_too_old(self) -> int:
        return self._random.randint(0, _READS_MAX)


class _Age:
    """When one transaction becomes too old: after its five seconds, which the first read begins, or when drawn."""

    def __init__(self, seconds_max: float, reads_left: int | None) -> None:
        self._seconds_max = seconds_max
        self._reads_left = reads_left
        self._deadline: float | None = None
        self._error: _RetryableError | None = None

    def check_read(self) -> None:
        if self._deadline is None:
            self._deadline = time.monotonic() + self._seconds_max
        if self._reads_left == 0:
            self._fail(Fault.TOO_OLD)
        if self._reads_left:
            self._reads_left -= 1
        self.check_time()

    def check_time(self) -> None:
        """Fail when the time is over, and again when it failed before: a function cannot swallow it."""
        if self._error is not None:
            raise self._error
        if self._deadline is not None and time.monotonic() > self._deadline:
            self._fail(Fault.OUTLIVED)

    def check_commit(self) -> None:
        self.check_time()
        if self._reads_left is not None:
            self._fail(Fault.TOO_OLD)

    def _fail(self, fault: Fault) -> None:
        self._error = _RetryableError(fault)
        raise self._error


class FaultyReader:
    """A reader that becomes too old, and that nobody may keep."""

    def __init__(self, reader: KvReader, age: _Age) -> None:
        self._reader = reader
        self._age = age
        self._is_live = True

    def get(self, key: bytes) -> bytes | None:
        self._before_read([KeyRange(key, key + b"\x00")])
        return self._reader.get(key)

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        self._before_read([KeyRange(key, key + b"\x00") for key in keys])
        return self._reader.get_many(keys)

    def scan(self, begin: bytes, end: bytes, *, rows_max: int, reverse: bool = False) -> list[Pair]:
        self._before_read([KeyRange(begin, end)])
        return self._reader.scan(begin, end, rows_max=rows_max, reverse=reverse)

    def scan_many(self, ranges: Sequence[KeyRange], *, rows_max: int) -> list[list[Pair]]:
        self._before_read(ranges)
        return self._reader.scan_many(ranges, rows_max=rows_max)

    def end(self) -> None:
        self._is_live = False

    def check_live(self) -> None:
        if not self._is_live:
            raise RuntimeError("a reader or transaction was used after the function that received it had returned")

    def check_age(self) -> None:
        self._age.check_time()

    def _before_read(self, ranges: Sequence[KeyRange]) -> None:
        del ranges
        self.check_live()
        self._age.check_read()


class FaultyTransaction(FaultyReader):
    """A transaction in which keys that wait for their versionstamp cannot be read."""

    def __init__(self, tx: KvTransaction, age: _Age) -> None:
        super().__init__(tx, age)
        self._tx = tx
        self._unreadable: list[KeyRange] = []
        self._read_ranges: set[KeyRange] = set()
        self._counted_bytes = 0

    @property
    def written_bytes(self) -> int:
        return self._tx.written_bytes

    def put(self, key: bytes, value: bytes) -> None:
        self.check_live()
        self._tx.put(key, value)
        self._count(key, value)

    def clear(self, key: bytes) -> None:
        self.check_live()
        self._tx.clear(key)
        self._count(key, key)

    def clear_range(self, begin: bytes, end: bytes) -> None:
        self.check_live()
        self._tx.clear_range(begin, end)
        self._count(begin, end)

    def add(self, key: bytes, delta: int) -> None:
        self.check_live()
        self._tx.add(key, delta)
        self._count(key, b"")

    def put_versionstamped(self, prefix: bytes, suffix: bytes, value: bytes) -> None:
        self.check_live()
        self._tx.put_versionstamped(prefix, suffix, value)
        self._count(prefix + bytes(_STAMP_BYTES) + suffix, value)
        self._unreadable.append(
            KeyRange(prefix + bytes(_STAMP_BYTES) + suffix, prefix + b"\xff" * _STAMP_BYTES + suffix + b"\x00")
        )

    def check_size(self) -> None:
        """Refuse what FoundationDB would, which counts its bookkeeping and what was read against the same limit."""
        read_bytes = sum(
            _CONFLICT_BYTES + len(begin) + len(end) + 2 * _PREFIX_BYTES for begin, end in self._read_ranges
        )
        if self._counted_bytes + read_bytes > TRANSACTION_BYTES_MAX:
            raise TooLargeError(f"transaction is too large for FoundationDB, limit {TRANSACTION_BYTES_MAX} (2101)")

    def _count(self, key: bytes, operand: bytes) -> None:
        mutation_bytes = _MUTATION_BYTES + _PREFIX_BYTES + len(key) + len(operand)
        self._counted_bytes += mutation_bytes + _CONFLICT_BYTES + 2 * (_PREFIX_BYTES + len(key))

    def _before_read(self, ranges: Sequence[KeyRange]) -> None:
        super()._before_read(ranges)
        self._read_ranges.update(ranges)
        for begin, end in ranges:
            for unreadable in self._unreadable:
                if max(begin, unreadable.begin) < min(end, unreadable.end):
                    raise RuntimeError(
                        f"read of {begin!r} to {end!r} meets a key that this transaction wrote by put_versionstamped "
                        "(FoundationDB's error 1036)"
                    )


def _run(fn: Callable[[V], T], view: V) -> T:
    """Run the function, and end its view with it."""
    try:
        result = fn(view)
        view.check_age()
        return result
    finally:
        view.end()
