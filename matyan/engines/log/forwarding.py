"""From a spill to the log: records in order, each until the log has it or refuses it for good."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Final

from matyan.clock import Clock
from matyan.engines.log.protocol import REFUSALS, Appended, LogEntry, LogProducer, LogRecord
from matyan.engines.log.spill import Spill, SpillRoom
from matyan.errors import MatyanError, UnavailableError
from matyan.observe.metrics import Metrics

logger = logging.getLogger(__name__)

ADOPT_SECONDS: Final = 60.0
"""How often spills are looked for whose process is gone, and how long it must be."""


class Forwarder:
    """Sends what lies in spills. Belongs to one thread."""

    def __init__(self, log: LogProducer, *, topic: str, stall_seconds: float, metrics: Metrics) -> None:
        """Make it; a log that confirms nothing for `stall_seconds` is taken to be away."""
        self._log = log
        self._topic = topic
        self._stall_seconds = stall_seconds
        self._metrics = metrics

    def forward(self, spill: Spill) -> int:
        """Send the next records and wait until they are settled; return how many are done with, 0 if there are none.

        Raises:
            MatyanError: the log does not take them now, or the spill cannot be read. What is not done with comes again,
                whatever is raised.
        """
        try:
            return self._forward(spill)
        except BaseException:
            # Or what was read and is not done with would be passed over by the next records' cursor.
            spill.rewind()
            raise

    def _forward(self, spill: Spill) -> int:
        records = spill.read()
        done, error = self._settle(spill, records, self._send(records))
        spill.forwarded(records[:done])
        if error is not None:
            raise error
        return done

    def _send(self, records: Sequence[LogRecord]) -> Sequence[Future[list[Appended]]]:
        """Hand records to the log; stop at the first that it refuses, since none may overtake that one."""
        sent: list[Future[list[Appended]]] = []
        for record in records:
            sent.append(self._log.append_many(self._topic, [LogEntry(record.key, record.value)]))
            if _is_unavailable(sent[-1]) or _is_unavailable(sent[0]):
                break
        return sent

    def _settle(
        self, spill: Spill, records: Sequence[LogRecord], sent: Sequence[Future[list[Appended]]]
    ) -> tuple[int, BaseException | None]:
        """Return how many records, from the first on, are done with, and why the next one is not."""
        for place, future in enumerate(sent):
            error = self._outcome(future)
            if isinstance(error, REFUSALS):
                error = self._set_aside(spill, records[place], error)
            elif error is None:
                self._metrics.spill_forwarded.inc()
            if error is not None:
                return place, error
        return len(sent), None

    def _outcome(self, future: Future[list[Appended]]) -> BaseException | None:
        try:
            return future.exception(self._stall_seconds)
        except TimeoutError:
            # Or the log would try for longer, and write younger records while older ones have failed.
            self._log.abandon()
            return UnavailableError(f"the log confirms nothing for {self._stall_seconds:g} s")

    def _set_aside(self, spill: Spill, record: LogRecord, reason: MatyanError) -> MatyanError | None:
        try:
            path = spill.set_aside(record, reason.message)
        except UnavailableError as error:
            return error
        self._metrics.spill_set_aside.inc()
        extra = {"path": str(path), "reason": reason.message, "bytes": len(record.value)}
        logger.error("the log refuses a spilled record, which is set aside", extra=extra)
        return None


class Adoption:
    """Forwards what processes left behind that are gone. Belongs to the forwarder's thread."""

    def __init__(self, room: SpillRoom, forward: Callable[[Spill], int], clock: Clock) -> None:
        self._room = room
        self._forward = forward
        self._clock = clock
        self._spill: Spill | None = None
        self._due_seconds = clock.monotonic_seconds()

    def step(self) -> None:
        """Forward a little of a spill that nobody has open, if there is one; look for one now and then."""
        if self._spill is None and self._clock.monotonic_seconds() < self._due_seconds:
            return
        try:
            self._go_on()
        except MatyanError as error:
            logger.warning("what another process left is not forwarded yet", extra={"reason": error.message})
            self._give_up()
        except BaseException:
            self._give_up()
            raise

    def close(self) -> None:
        """Let go of the spill at hand; what is left of it stays."""
        spill, self._spill = self._spill, None
        if spill is not None:
            spill.close()

    def _go_on(self) -> None:
        self._spill = self._spill or self._room.open_leftover(idle_seconds=ADOPT_SECONDS)
        if self._spill is None:
            self._wait()
        elif not self._forward(self._spill) and not self._spill.load.records:
            logger.info("what another process left is forwarded", extra={"path": str(self._spill.path)})
            self.close()

    def _give_up(self) -> None:
        """Leave it for a while; it is opened anew then, where its cursor stands."""
        self._wait()
        self.close()

    def _wait(self) -> None:
        self._due_seconds = self._clock.monotonic_seconds() + ADOPT_SECONDS


def _is_unavailable(future: Future[list[Appended]]) -> bool:
    return future.done() and isinstance(future.exception(), UnavailableError)
