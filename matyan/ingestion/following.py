"""BacklogFollower: what workers in other processes have applied, read from the store."""

from __future__ import annotations

import logging
import threading
from typing import Final

from matyan.engines.kv.protocol import KvEngine, KvReader
from matyan.engines.log.protocol import LogEngine, partitions_of
from matyan.errors import MatyanError
from matyan.ingestion.backlog import Backlog
from matyan.store import offsets
from matyan.workers.lifecycle import ThreadService

logger = logging.getLogger(__name__)

LOOK_SECONDS: Final = 0.05
"""How often the store is asked while something is on its way; one small read for all partitions."""
RETRY_SECONDS: Final = 1.0


class BacklogFollower(ThreadService):
    """Tells a gateway's backlog how far the workers are, by the applied offsets: what is below them is visible.

    While the store cannot be read nothing is told: replies are then held for as long as they may be, and no longer.
    """

    def __init__(self, backlog: Backlog, *, kv: KvEngine, log: LogEngine, topic: str) -> None:
        super().__init__("follow")
        self._backlog = backlog
        self._kv = kv
        self._log_id = log.log_id
        self._partitions = partitions_of(log, topic)

    def run(self, stop: threading.Event) -> None:
        """Follow until told to stop."""
        can_read = True
        while not stop.wait(LOOK_SECONDS if can_read else RETRY_SECONDS):
            if self._backlog.is_empty:
                continue
            try:
                self.look()
                can_read = True
            except MatyanError as error:
                if can_read:
                    logger.warning("how far the workers are cannot be read", extra={"reason": error.message})
                can_read = False

    def look(self) -> None:
        """Read the applied offsets once and pass them on.

        Raises:
            UnavailableError: the store cannot be read now.
        """
        for partition, applied in zip(self._partitions, self._kv.read(self._read), strict=True):
            if applied is not None:
                self._backlog.applied(partition.partition, applied.offset)

    def _read(self, reader: KvReader) -> list[offsets.Applied | None]:
        return offsets.get_many(reader, self._log_id, self._partitions)
