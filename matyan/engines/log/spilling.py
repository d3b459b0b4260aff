"""SpillingProducer: goes on taking records while the log is away. Decisions in ADR 0020.

    direct    everything goes to the log; what it has not confirmed yet is remembered
    spilling  everything goes to the spill, behind what the log did not confirm; a thread forwards it
    holding   almost all is forwarded: what comes waits in memory for the rest, for a moment, then goes to the log

Order: what the log writes of the appends that were abandoned is, in each partition, their beginning. The spill holds
all of them and all that follows, in order, and is forwarded in order, again and again from a place where everything
before has arrived. So whatever streams of them the log writes into each other, no record appears for the first time
before all those have appeared that were appended before it under its key.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Final

from matyan.clock import Clock, SystemClock
from matyan.engines.log.forwarding import Adoption, Forwarder
from matyan.engines.log.protocol import Appended, LogEntry, LogProducer, TopicPartition
from matyan.engines.log.spill import Spill, SpillRoom
from matyan.errors import MatyanError, UnavailableError
from matyan.observe.metrics import Metrics
from matyan.settings import SpillSettings

logger = logging.getLogger(__name__)

CLOSE_SECONDS: Final = 5.0
"""How long a close goes on forwarding, as long as the log takes what is spilled."""
HOLD_RECORDS_MAX: Final = 500
"""With so few records left to forward, what comes is held back until they are."""
HELD_BYTES_MAX: Final = 16 * 1024 * 1024
LOOK_SECONDS: Final = 0.25
"""How often it is looked for overdue confirmations."""
SYNC_SECONDS: Final = 0.005
"""How long to wait for what is on its way to the disk."""
BACKOFF_SECONDS_MIN: Final = 0.1
BACKOFF_SECONDS_MAX: Final = 1.0


class Mode(Enum):
    """Where an append goes."""

    DIRECT = "direct"
    SPILLING = "spilling"
    HOLDING = "holding"


class _Flight:
    """One append on its way."""

    __slots__ = ("entries", "future", "since_seconds")

    def __init__(self, entries: Sequence[LogEntry], since_seconds: float) -> None:
        self.entries = entries
        self.future: Future[list[Appended]] = Future()
        self.since_seconds = since_seconds

    @property
    def size_bytes(self) -> int:
        return sum(len(key) + len(value) for key, value in self.entries)

    def end(self, error: BaseException | None, appended: list[Appended]) -> None:
        if not self.future.set_running_or_notify_cancel():
            return
        if error is None:
            self.future.set_result(appended)
        else:
            self.future.set_exception(error)


def open_spilling_producer(
    log: LogProducer, *, root: Path, topic: str, settings: SpillSettings, metrics: Metrics, clock: Clock | None = None
) -> SpillingProducer:
    """Open a spill under `root` and start what forwards it.

    Raises:
        UnavailableError: no spill can be opened there.
    """
    room = SpillRoom(root, topic=topic, bytes_max=settings.bytes_max, clock=clock)
    spill = room.open_own()
    if spill.load.records:
        extra = {"records": spill.load.records, "path": str(spill.path)}
        logger.info("records of an earlier outage are forwarded first", extra=extra)
    producer = SpillingProducer(
        log,
        topic=topic,
        spill=spill,
        room=room,
        after_seconds=settings.after_seconds,
        metrics=metrics,
        clock=clock,
    )
    producer.start()
    return producer


class SpillingProducer:
    """A LogProducer of one topic; other topics go to the log as if this were not there.

    Everything is done in `append_many` and `tend`, which a thread calls from `start` on.
    """

    def __init__(
        self,
        log: LogProducer,
        *,
        topic: str,
        spill: Spill,
        room: SpillRoom,
        after_seconds: float,
        metrics: Metrics,
        clock: Clock | None = None,
    ) -> None:
        """Make it; what the spill holds already is forwarded before anything new.

        Args:
            log: where records belong. Closed by whoever opened it.
            topic: of the records.
            spill: a free one of `room`; closed with this.
            room: where other spills are looked for whose process is gone.
            after_seconds: an append that the log has not confirmed by then shows that it is away.
            metrics: tell what waits.
            clock: for time limits.
        """
        self._log = log
        self._topic = topic
        self._spill = spill
        self._after_seconds = after_seconds
        self._clock = clock or SystemClock()
        self._forwarder = Forwarder(log, topic=topic, stall_seconds=after_seconds, metrics=metrics)
        self._adoption = Adoption(room, self._forwarder.forward, self._clock)
        # Entered again by the callbacks of futures that are done at once.
        self._lock = threading.RLock()
        self._mode = Mode.SPILLING if spill.load.records else Mode.DIRECT
        self._flights: dict[_Flight, None] = {}
        """Sent to the log and not confirmed, in the order of appending."""
        self._held: list[_Flight] = []
        self._held_bytes = 0
        self._held_until_seconds = 0.0
        self._has_answered = False
        """Whether the log was there since the turn to the spill."""
        self._pause_seconds = BACKOFF_SECONDS_MIN
        self._is_closed = False
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="log-spill", daemon=True)
        self._metrics = metrics
        metrics.add_sampler(self._sample)

    @property
    def may_repeat(self) -> bool:
        """True: what the log did not confirm may stand there, and is forwarded all the same."""
        return True

    @property
    def is_direct(self) -> bool:
        """Whether everything goes to the log, as far as is known."""
        return self._mode is Mode.DIRECT

    @property
    def is_ready(self) -> bool:
        """Whether writers may be let in: the log is there, or there is room to spare for what it does not take."""
        return self._mode is Mode.DIRECT or self._spill.has_room

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def append_many(self, topic: str, entries: Sequence[LogEntry]) -> Future[list[Appended]]:
        """Queue the entries; see LogProducer. Offsets are None where the spill has taken them.

        Fails with UnavailableError when the log is away and the spill or its disk is full.
        """
        if topic != self._topic:
            return self._log.append_many(topic, entries)
        flight = _Flight(tuple(entries), self._clock.monotonic_seconds())
        with self._lock:
            if self._is_closed:
                flight.end(UnavailableError("the log is closed"), [])
            else:
                self._take(flight)
        return flight.future

    def end_offset(self, partition: TopicPartition) -> int:
        """Return the offset that the next record will get that the log takes; what is spilled gets later ones.

        Raises:
            UnavailableError: the log is away.
        """
        return self._log.end_offset(partition)

    def partition_of(self, topic: str, key: bytes) -> int:
        """Return the partition that records of this key go to."""
        return self._log.partition_of(topic, key)

    def abandon(self) -> None:
        """Do nothing: an append ends when the disk has it."""

    def tend(self) -> float:
        """Do what is due; return after how many seconds to come again."""
        if self._mode is not Mode.DIRECT:
            return self._forward()
        self._watch()
        self._adoption.step()
        return LOOK_SECONDS

    def close(self) -> None:
        """Wait a little for the log, spill what it does not confirm; what is spilled is forwarded at the next start."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join(3 * CLOSE_SECONDS)
        self._wait_for_flights()
        with self._lock:
            self._stop_holding()
            if self._flights:
                self._turn_to_spilling("the process ends")
        self._adoption.close()
        self._spill.close()

    # ---- appending, under the lock

    def _take(self, flight: _Flight) -> None:
        """Let it go where the mode says, at a close as well: what was held until then was accepted."""
        if self._mode is Mode.DIRECT:
            self._send(flight)
        elif self._mode is Mode.SPILLING:
            self._put(flight)
        else:
            self._hold(flight)

    def _send(self, flight: _Flight) -> None:
        self._flights[flight] = None
        self._log.append_many(self._topic, flight.entries).add_done_callback(partial(self._sent, flight))

    def _sent(self, flight: _Flight, sent: Future[list[Appended]]) -> None:
        error = sent.exception()
        with self._lock:
            if flight not in self._flights:
                return  # too late: the spill answers for it
            if isinstance(error, UnavailableError):
                self._turn_to_spilling(error.message)
                return
            del self._flights[flight]
        flight.end(error, [] if error is not None else sent.result())

    def _put(self, flight: _Flight) -> None:
        self._spill.append(flight.entries).add_done_callback(partial(self._kept, flight))

    def _kept(self, flight: _Flight, kept: Future[list[Appended]]) -> None:
        error = kept.exception()
        flight.end(error, [Appended(self.partition_of(self._topic, key), None) for key, _ in flight.entries])

    def _hold(self, flight: _Flight) -> None:
        self._held.append(flight)
        self._held_bytes += flight.size_bytes
        if self._held_bytes > HELD_BYTES_MAX:
            self._stop_holding()

    # ---- changes of mode, under the lock

    def _turn_to_spilling(self, reason: str) -> None:
        flights = list(self._flights)
        self._flights.clear()
        self._mode = Mode.SPILLING
        self._has_answered = False
        logger.warning("the log is away: records go to the spill", extra={"reason": reason, "pending": len(flights)})
        for flight in flights:
            self._put(flight)
        self._log.abandon()
        self._wake.set()

    def _start_holding(self) -> None:
        self._mode = Mode.HOLDING
        self._held_until_seconds = self._clock.monotonic_seconds() + self._after_seconds

    def _stop_holding(self) -> None:
        """Spill what was held; the log has gone again, or what is left takes it too long."""
        if self._mode is Mode.HOLDING:
            self._mode = Mode.SPILLING
            for flight in self._release():
                self._put(flight)

    def _turn_to_direct(self) -> None:
        self._mode = Mode.DIRECT
        logger.info("the log is back: everything spilled is forwarded", extra={"path": str(self._spill.path)})
        for flight in self._release():
            # It was held, which is not the log's fault. The mode may change again under way.
            flight.since_seconds = self._clock.monotonic_seconds()
            self._take(flight)

    def _release(self) -> list[_Flight]:
        held, self._held, self._held_bytes = self._held, [], 0
        return held

    # ---- the thread's side

    def _run(self) -> None:
        while not self._is_closed:
            try:
                pause_seconds = self.tend()
            except Exception:  # whatever it is, what is spilled must go on being forwarded
                logger.exception("tending the spill failed")
                pause_seconds = BACKOFF_SECONDS_MAX
            self._wake.wait(pause_seconds)
            self._wake.clear()
        self._forward_what_can_be()

    def _watch(self) -> None:
        """Turn to the spill when an append waits for too long."""
        with self._lock:
            oldest = next(iter(self._flights), None)
            now = self._clock.monotonic_seconds()
            if oldest is not None and now - oldest.since_seconds > self._after_seconds:
                self._turn_to_spilling(f"an append is not confirmed after {self._after_seconds:g} s")

    def _forward(self) -> float:
        try:
            done = self._forwarder.forward(self._spill)
            if not (done or self._has_answered or self._spill.load.records):
                # The spill could take nothing, so nothing could be forwarded: the log itself is asked.
                self._log.end_offset(TopicPartition(self._topic, 0))
                self._has_answered = True
        except MatyanError as error:
            return self._back_off(error)
        except BaseException:
            with self._lock:
                self._stop_holding()  # nobody knows for how long that would be
            raise
        self._has_answered = self._has_answered or done > 0
        self._pause_seconds = BACKOFF_SECONDS_MIN
        with self._lock:
            self._choose_mode()
        return 0 if done else SYNC_SECONDS

    def _choose_mode(self) -> None:
        left = self._spill.load.records
        if not left and self._has_answered:
            self._turn_to_direct()
        elif self._mode is Mode.HOLDING and self._clock.monotonic_seconds() > self._held_until_seconds:
            self._stop_holding()
        elif self._mode is Mode.SPILLING and left <= HOLD_RECORDS_MAX:
            self._start_holding()

    def _back_off(self, error: MatyanError) -> float:
        with self._lock:
            self._stop_holding()
        logger.debug("spilled records cannot be forwarded yet", extra={"reason": error.message})
        pause_seconds = self._pause_seconds
        self._pause_seconds = min(2 * pause_seconds, BACKOFF_SECONDS_MAX)
        return pause_seconds

    def _forward_what_can_be(self) -> None:
        """At the end: go on while the log takes it, for a moment."""
        deadline = time.monotonic() + CLOSE_SECONDS
        try:
            while self._spill.load.records and time.monotonic() < deadline:
                if not self._forwarder.forward(self._spill):
                    time.sleep(SYNC_SECONDS)
        except MatyanError as error:
            extra = {"records": self._spill.load.records, "path": str(self._spill.path), "reason": error.message}
            logger.warning("what is spilled stays for the next start", extra=extra)

    def _wait_for_flights(self) -> None:
        deadline = time.monotonic() + self._after_seconds
        while self._flights and time.monotonic() < deadline:
            time.sleep(SYNC_SECONDS)

    def _sample(self) -> None:
        load = self._spill.load
        self._metrics.spill_records.set(load.records)
        self._metrics.spill_bytes.set(load.size_bytes)
        self._metrics.spill_active.set(self._mode is not Mode.DIRECT)
