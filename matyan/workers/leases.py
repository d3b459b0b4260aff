"""Leases: one at a time may do what a name stands for; over all processes, or over the threads of one."""

from __future__ import annotations

import contextlib
import itertools
import logging
import random
import secrets
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import partial
from typing import Final, Protocol

from matyan.clock import Clock, SystemClock
from matyan.engines.kv.protocol import KvEngine, KvTransaction
from matyan.errors import LeaseLostError, UnavailableError
from matyan.store import leases as records
from matyan.store.leases import Claim

logger = logging.getLogger(__name__)

LEASE_SECONDS: Final = 6.0
"""How long what a dead process held is out of reach. Clocks of machines must agree far better than that."""
RENEWALS_PER_LEASE: Final = 3
_POLL_SECONDS: Final = 0.05
_PROCESS_BYTES: Final = 8


class Lease(Protocol):
    """One holding of a lease, from `acquire` to `release`. Shared by threads."""

    @property
    def name(self) -> str:
        """What it is about."""

    def is_held(self) -> bool:
        """Return whether nobody else can have taken it yet, as far as clocks tell.

        Enough to begin work; what must be right calls `require` in its transaction.
        """

    def require(self, tx: KvTransaction) -> None:
        """Make a transaction depend on the lease: it is committed only if nobody else has taken it until then.

        Raises:
            LeaseLostError: somebody has.
        """


class Leases(ABC):
    """Where leases come from."""

    @abstractmethod
    def acquire(self, name: str) -> Lease | None:
        """Take a lease if nobody holds it, no other thread of this process either; it lasts until it is released.

        Raises:
            UnavailableError: the store cannot be reached.
        """

    @abstractmethod
    def release(self, lease: Lease, *, forget: bool = False) -> None:
        """Give a lease back, in vain if it was lost. `forget` is for names that nobody may ever ask for again."""

    @abstractmethod
    def close(self) -> None:
        """End what keeps leases from expiring."""

    @contextlib.contextmanager
    def holding(self, name: str, *, wait_seconds: float, forget: bool = False) -> Iterator[Lease]:
        """Hold a lease for as long as the block lasts; `forget` as in `release`.

        Raises:
            LeaseLostError: others hold it for longer than `wait_seconds`.
            UnavailableError: the store cannot be reached.
        """
        lease = self._wait(name, wait_seconds)
        try:
            yield lease
        finally:
            self.release(lease, forget=forget)

    def _wait(self, name: str, seconds_max: float) -> Lease:
        ends = time.monotonic() + seconds_max
        while (lease := self.acquire(name)) is None:
            if time.monotonic() >= ends:
                raise LeaseLostError(f"the lease {name!r} is held by another for longer than {seconds_max:g} s")
            time.sleep(_POLL_SECONDS * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, not a secret
        return lease


# ---- one process: it ends, and so do its leases


class ProcessLeases(Leases):
    """Leases among the threads of the only process there is; nothing is stored, nothing expires."""

    def __init__(self) -> None:
        self._held: dict[str, _ProcessLease] = {}
        self._lock = threading.Lock()

    def acquire(self, name: str) -> Lease | None:
        """Take a lease if no thread holds it."""
        with self._lock:
            if name in self._held:
                return None
            lease = self._held[name] = _ProcessLease(name)
            return lease

    def release(self, lease: Lease, *, forget: bool = False) -> None:
        """Give a lease back."""
        del forget  # nothing is kept
        with self._lock:
            del self._held[lease.name]

    def close(self) -> None:
        """Nothing has to end."""


class _ProcessLease:
    """A Lease that nobody else can take before it is released."""

    def __init__(self, name: str) -> None:
        self.name = name

    def is_held(self) -> bool:
        return True

    def require(self, tx: KvTransaction) -> None:
        """Nothing to ask of the store."""


# ---- several processes


class StoreLeases(Leases):
    """Leases over all processes that share a store. One thread renews what this process holds."""

    def __init__(self, *, kv: KvEngine, clock: Clock | None = None, seconds: float = LEASE_SECONDS) -> None:
        """Begin with nothing; `seconds` is how long a lease lasts that is not renewed."""
        self._kv = kv
        self._clock = clock or SystemClock()
        self._seconds = seconds
        self._process = secrets.token_hex(_PROCESS_BYTES)
        self._turns = itertools.count(1)
        self._held: dict[Claim, _StoreLease] = {}
        self._lock = threading.Lock()
        """Held while `_held` or `_thread` changes."""
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def acquire(self, name: str) -> Lease | None:
        """Take a lease if nobody holds it. See `Leases`."""
        claim = Claim(name=name, process=self._process, turn=next(self._turns))
        now = self._clock.now_seconds()
        take = partial(records.acquire, claim=claim, now_seconds=now, seconds=self._seconds)
        # Not durable: what the power takes, it takes together with all that was written under the lease.
        number = self._kv.write(take, durable=False)
        if number is None:
            return None
        lease = _StoreLease(claim, number, clock=self._clock, seconds=self._seconds, taken_at_seconds=now)
        with self._lock:
            self._held[claim] = lease
            self._start_renewing()
        return lease

    def release(self, lease: Lease, *, forget: bool = False) -> None:
        """Give a lease back; while the store cannot be reached it is left to expire."""
        assert isinstance(lease, _StoreLease), "given back to whom it came from"
        with self._lock:
            self._held.pop(lease.claim, None)
        lease.lose()
        try:
            self._kv.write(partial(records.release, claim=lease.claim, forget=forget), durable=False)
        except UnavailableError as error:
            logger.info("a lease is left to expire", extra={"lease": lease.name, "reason": error.message})

    def close(self) -> None:
        """End the renewals. What is still held expires."""
        self._closing.set()
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.join()

    def renew_all(self) -> None:
        """Extend everything held, in one transaction; what others have taken meanwhile is given up.

        Raises:
            UnavailableError: the store cannot be reached; nothing is given up yet.
        """
        with self._lock:
            held = list(self._held.values())
        if not held:
            return
        now = self._clock.now_seconds()
        claims = [lease.claim for lease in held]
        extend = partial(records.renew, claims=claims, now_seconds=now, seconds=self._seconds)
        for lease, is_ours in zip(held, self._kv.write(extend, durable=False), strict=True):
            if is_ours:
                lease.keep(now)
            else:
                self._give_up(lease)

    def _give_up(self, lease: _StoreLease) -> None:
        lease.lose()
        with self._lock:
            was_held = self._held.pop(lease.claim, None) is not None
        if was_held:  # else it was released while it was renewed
            logger.warning("a lease was taken by another process", extra={"lease": lease.name})

    def _start_renewing(self) -> None:
        if self._thread is None and not self._closing.is_set():
            self._thread = threading.Thread(target=self._renew_until_closed, name="matyan-leases", daemon=True)
            self._thread.start()

    def _renew_until_closed(self) -> None:
        while not self._closing.wait(self._seconds / RENEWALS_PER_LEASE):
            try:
                self.renew_all()
            except Exception as error:  # noqa: BLE001 - a lease that is not renewed expires, which is what it is for
                logger.warning("leases cannot be renewed", extra={"reason": str(error)})


class _StoreLease:
    """A Lease that lasts as long as the store says so."""

    def __init__(self, claim: Claim, number: int, *, clock: Clock, seconds: float, taken_at_seconds: float) -> None:
        self.claim = claim
        self.number = number
        self._clock = clock
        self._seconds = seconds
        self._kept_at_seconds = taken_at_seconds
        self._is_lost = False

    @property
    def name(self) -> str:
        return self.claim.name

    def is_held(self) -> bool:
        return not self._is_lost and 0 <= self._clock.now_seconds() - self._kept_at_seconds < self._seconds

    def require(self, tx: KvTransaction) -> None:
        records.require(tx, self.claim)

    def keep(self, now_seconds: float) -> None:
        """Note that the store extended it at this moment."""
        self._kept_at_seconds = now_seconds

    def lose(self) -> None:
        """Note that it is over."""
        self._is_lost = True
