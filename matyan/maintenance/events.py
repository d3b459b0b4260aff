"""Control events -> side effects: a table, and the handler that keeps its applied offset like every worker.

A deletion is done whether or not its event comes: what is left to do stands in the store. The event makes it prompt,
and spreads the work over the partitions of the topic.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final

import msgspec

from matyan.clock import Clock, SystemClock
from matyan.engines.kv.protocol import KvEngine, KvTransaction
from matyan.engines.log.protocol import LogEngine, LogRecord, TopicPartition
from matyan.errors import OffsetMovedError, UnavailableError
from matyan.ids import Project, RunId, RunNumber
from matyan.maintenance.deletion import Deletions, FilesUnavailableError
from matyan.observe.metrics import Metrics
from matyan.runs import tombstones
from matyan.runs.tombstones import Due, first_due
from matyan.store import offsets
from matyan.store.offsets import Applied
from matyan.wire.events import (
    ControlEvent,
    ExperimentDeleted,
    Payload,
    RunArchived,
    RunDeleted,
    RunUnarchived,
    TagDeleted,
    decode_event,
    decode_payload,
)

logger = logging.getLogger(__name__)

RECORDS_MAX: Final = 8
"""Of a slice: with EVENT_SECONDS_MAX how long a stop may have to wait."""
EVENT_SECONDS_MAX: Final = 1.0
"""What takes longer is left to the periodic job, so that one large run does not hold up the others."""
RETRY_SECONDS: Final = (0.1, 0.3)
"""The pauses before an effect is tried again; then it is left to the periodic job."""
EVENTS_KEPT: Final = 100_000
"""The newest events of a partition that stay in the log for other systems, when all are handled here."""


class Effects:
    """What control events bring about here."""

    def __init__(self, *, kv: KvEngine, deletions: Deletions) -> None:
        self._kv = kv
        self._deletions = deletions

    def free_run(self, event: RunDeleted) -> bool:
        """Free the keys and files of a deleted run; return whether all of it is done."""
        project = Project(event.project)
        due = self._due(project, event)
        return due is None or self._deletions.free(project, due, seconds_max=EVENT_SECONDS_MAX)

    def nothing(self, event: Payload) -> bool:
        """Leave the event to other systems: the store holds its effect already."""
        logger.info("control event", extra={"event": event.type, "subject": event.subject})
        return True

    def _due(self, project: Project, event: RunDeleted) -> Due | None:
        """Return where the deletion stands; None for a run that was never deleted."""
        run_id = RunId(event.run_id)
        if event.number is not None and event.deleted_at_seconds is not None:
            return first_due(run_id, RunNumber(event.number), event.deleted_at_seconds)
        found = self._kv.read(lambda reader: tombstones.get(reader, project, run_id))
        return None if found is None else first_due(run_id, found.number, found.deleted_at_seconds)


EFFECTS: Final[Mapping[type[Payload], Callable[..., bool]]] = {
    RunDeleted: Effects.free_run,
    RunArchived: Effects.nothing,
    RunUnarchived: Effects.nothing,
    ExperimentDeleted: Effects.nothing,
    TagDeleted: Effects.nothing,
}


class EventHandler:
    """Handles the partitions of `control-events`. Belongs to one worker thread."""

    def __init__(
        self,
        *,
        kv: KvEngine,
        log: LogEngine,
        effects: Effects,
        metrics: Metrics,
        sleep: Callable[[float], None] = time.sleep,
        clock: Clock | None = None,
    ) -> None:
        self._kv = kv
        self._log = log
        self._effects = effects
        self._metrics = metrics
        self._sleep = sleep
        self._clock = clock or SystemClock()
        self._positions: dict[TopicPartition, Applied] = {}
        self._is_away = False
        """Whether an engine let the last effect down: then one event of a slice tries it, and the others are left."""
        self._has_tried = False
        """Whether an event of this slice has tried."""

    def start_offset(self, partition: TopicPartition) -> int:
        """Return where to read a newly assigned partition from: always within what the log holds."""
        applied = self._reload(partition)
        first, end = self._log.start_offset(partition), self._log.producer().end_offset(partition)
        start = Applied(min(max(applied.offset, first), end))
        if start != applied:
            # The store is older than the log, or newer. What is to be done for lost events stands in the store as well.
            logger.warning("control events were lost", extra={"applied": applied.offset, "first": first, "end": end})
            with contextlib.suppress(OffsetMovedError):  # another worker has seen the same
                self._advance(partition, start)
        return self._positions[partition].offset

    def handle(self, partition: TopicPartition, records: Sequence[LogRecord]) -> int:
        """Bring about what the events ask for, then move the applied offset; return how many were fresh.

        An effect comes before the offset, so a death in between repeats it: each is harmless to repeat.

        Raises:
            OffsetMovedError: the records do not continue what is applied, or another worker was faster.
            UnavailableError: the store cannot work now; offer the same records again.
        """
        position = self._positions[partition]
        fresh = [record for record in records if record.offset >= position.offset]
        if not fresh:
            return 0
        if fresh[0].offset > position.offset:
            raise OffsetMovedError(position.offset)
        self._has_tried = False
        for record in fresh:
            self._metrics.control_events_consumed.inc()
            began = self._clock.monotonic_seconds()
            self._act_on(record)
            self._metrics.control_processing_seconds.observe(self._clock.monotonic_seconds() - began)
        self._advance(partition, Applied(fresh[-1].offset + 1))
        return len(fresh)

    def _advance(self, partition: TopicPartition, to: Applied) -> None:
        expected = self._positions[partition]

        def write(tx: KvTransaction) -> None:
            offsets.advance(tx, self._log.log_id, partition, expected=expected, to=to)

        try:
            self._kv.write(write, durable=False)
        except (OffsetMovedError, UnavailableError):
            self._reload(partition)
            raise
        self._positions[partition] = to

    def _reload(self, partition: TopicPartition) -> Applied:
        found = self._kv.read(lambda reader: offsets.get(reader, self._log.log_id, partition)) or offsets.START
        self._positions[partition] = found
        return found

    # ---- one event

    def _act_on(self, record: LogRecord) -> None:
        try:
            event = decode_event(record.value)
            payload = decode_payload(event)
        except msgspec.MsgspecError as error:
            logger.warning("not a control event", extra={"offset": record.offset, "reason": str(error)})
            self._metrics.control_processing_errors.labels("validation").inc()
            return
        if payload is None:
            logger.info("control event of an unknown type", extra={"event": event.type})
            return
        self._bring_about(event, partial(EFFECTS[type(payload)], self._effects, payload))

    def _bring_about(self, event: ControlEvent, effect: Callable[[], bool]) -> None:
        """Try an effect some times; what does not work is left to the periodic job, and counted."""
        if self._is_away and self._has_tried:
            return  # waiting once more for an engine that does not answer would only hold up a stop
        self._has_tried = True
        for pause_seconds in (0.0, *(() if self._is_away else RETRY_SECONDS)):
            self._sleep(pause_seconds)
            try:
                is_done = effect()
            except Exception as error:  # whatever one event brings about, the others are waiting
                logger.warning("a side effect failed", exc_info=error, extra={"event": event.type, "id": event.id})
                self._metrics.control_processing_errors.labels(_kind_of(error)).inc()
                fault = error
            else:
                self._is_away = False
                if is_done:
                    self._metrics.control_events_processed.labels(event.type).inc()
                return
        self._is_away = isinstance(fault, UnavailableError)


def _kind_of(error: Exception) -> str:
    if isinstance(error, FilesUnavailableError):
        return "blob_storage"
    return "fdb" if isinstance(error, UnavailableError) else "unknown"
