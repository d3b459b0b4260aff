"""OutboxRelay: what waits in the outbox is appended to the log and then forgotten; by one process at a time."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, wait
from functools import partial
from typing import Final

from matyan.engines.kv.protocol import KvEngine, KvReader
from matyan.engines.log.protocol import REFUSALS, Appended, LogEntry, LogProducer
from matyan.errors import MatyanError, UnavailableError
from matyan.observe.metrics import Metrics
from matyan.store import outbox
from matyan.store.outbox import Waiting
from matyan.workers.backoff import growing_pauses
from matyan.workers.consume import POLL_SECONDS
from matyan.workers.leases import Lease, Leases
from matyan.workers.lifecycle import ThreadService

logger = logging.getLogger(__name__)

LEASE: Final = "relay"
WAITING_SECONDS: Final = 1.0
"""How often a relay without the lease asks for it."""
ENTRIES_MAX: Final = 200
"""Of one topic at a time; each has up to VALUE_BYTES_MAX."""


class OutboxRelay(ThreadService):
    """Appends entries in the order of their commits and clears those that are durable in the log.

    A relay that dies, or loses its lease, between the two leaves entries that are appended again: never none, perhaps
    twice. Every replica may run one; those without the lease wait.

    What the log refuses for good stays in the outbox and holds up nothing: the relay reads on behind it, and whoever
    takes the lease next offers it once more. After the refusal of a batch its entries are appended one by one, since
    any one of them may be to blame.
    """

    def __init__(
        self, *, kv: KvEngine, producer: LogProducer, leases: Leases, topics: Sequence[str], metrics: Metrics
    ) -> None:
        super().__init__("relay")
        self._kv = kv
        self._producer = producer
        self._leases = leases
        self._topics = tuple(topics)
        self._metrics = metrics
        self._lease: Lease | None = None
        self._refused_until: dict[str, bytes] = {}
        """Place of the last entry of a topic that the log refuses; what lies before it is told, or refused as well."""
        self._singly_until: dict[str, bytes] = {}
        """Place of the last entry of a topic that is appended alone."""

    def run(self, stop: threading.Event) -> None:
        """Relay until told to stop."""
        pauses = growing_pauses()
        try:
            while not stop.is_set():
                try:
                    pause_seconds = self._turn(stop)
                except UnavailableError as error:
                    logger.warning("events stay in the outbox", extra={"reason": error.message})
                    self._metrics.worker_retries.labels(self.name, "unavailable").inc()
                    pause_seconds = next(pauses)
                else:
                    pauses = growing_pauses()
                stop.wait(pause_seconds)
        finally:
            self._give_back()

    def _turn(self, stop: threading.Event) -> float:
        """Do what there is to do, if it is ours to do; return the seconds until the next look."""
        if not self._has_lease():
            return WAITING_SECONDS
        return 0.0 if self._relay(stop) else POLL_SECONDS

    def _has_lease(self) -> bool:
        if self._lease is None or not self._lease.is_held():
            self._give_back()
            self._refused_until.clear()
            self._lease = self._leases.acquire(LEASE)
        return self._lease is not None

    def _give_back(self) -> None:
        lease, self._lease = self._lease, None
        if lease is not None:
            self._leases.release(lease)

    def _relay(self, stop: threading.Event) -> bool:
        """Move one batch of every topic; return whether more may wait.

        Raises:
            UnavailableError: the store or the log cannot work now; what the log took of other topics is done with.
        """
        batches = {topic: batch for topic, batch in self._kv.read(self._read).items() if batch}
        if batches:
            self._kv.sync()  # a cause that the power takes with it must not have been told
        appends = {topic: self._append(topic, batch) for topic, batch in batches.items()}
        failure: UnavailableError | None = None
        for topic, future in appends.items():
            try:
                if _is_durable(future, stop):
                    self._clear(topic, batches[topic])
            except REFUSALS as error:
                self._pass_over(topic, batches[topic], error)
            except UnavailableError as error:
                failure = error
        if failure is not None:
            raise failure
        return any(topic in self._singly_until or len(batch) == ENTRIES_MAX for topic, batch in batches.items())

    def _read(self, reader: KvReader) -> Mapping[str, Sequence[Waiting]]:
        return {topic: self._read_topic(reader, topic) for topic in self._topics}

    def _read_topic(self, reader: KvReader, topic: str) -> Sequence[Waiting]:
        rows_max = 1 if topic in self._singly_until else ENTRIES_MAX
        return outbox.read(reader, topic, rows_max=rows_max, after=self._refused_until.get(topic))

    def _clear(self, topic: str, batch: Sequence[Waiting]) -> None:
        self._kv.write(partial(outbox.clear, places=[one.place for one in batch]), durable=False)
        self._settled(topic, batch[-1].place)

    def _pass_over(self, topic: str, batch: Sequence[Waiting], reason: MatyanError) -> None:
        last = batch[-1]
        if len(batch) > 1:
            self._singly_until[topic] = last.place
            return
        self._refused_until[topic] = last.place
        self._settled(topic, last.place)
        self._metrics.worker_retries.labels(self.name, "refused").inc()
        extra = {"topic": topic, "key": last.entry.key.decode(errors="replace"), "reason": reason.message}
        logger.error("the log refuses an entry, which stays in the outbox", extra=extra)

    def _settled(self, topic: str, place: bytes) -> None:
        if place >= self._singly_until.get(topic, place):
            self._singly_until.pop(topic, None)

    def _append(self, topic: str, batch: Sequence[Waiting]) -> Future[list[Appended]]:
        return self._producer.append_many(topic, [LogEntry(one.entry.key, one.entry.value) for one in batch])


def _is_durable(future: Future[list[Appended]], stop: threading.Event) -> bool:
    """Wait for an append; return False when told to stop before its end, which may come yet.

    Raises:
        UnavailableError: the log cannot take it now.
    """
    while not stop.is_set():
        if wait([future], timeout=POLL_SECONDS).done:
            future.result()
            return True
    return False
