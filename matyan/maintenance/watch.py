"""Watch: for how long the horizon has been seen to move. Behind a break nobody knows who still holds something back.

While log, store or workers stand still, frontiers keep what they acknowledged on their disks, and clients in their
queues; the horizon jumps to the present before they have sent it. So what is judged by its age gets the whole of it
anew after a break.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Final

import msgspec

from matyan.clock import Clock
from matyan.engines.kv.protocol import KvEngine, KvReader, KvTransaction
from matyan.store import cursors
from matyan.store.records import RecordCodec

logger = logging.getLogger(__name__)

BREAK_SECONDS: Final = 900.0
"""A horizon that moves on after so long has stood still; a restart of the process that watches takes less."""
_NAME: Final = "horizon"


class Stretch(msgspec.Struct, array_like=True, frozen=True):
    """A time, in seconds since 1970, all through which the horizon moved."""

    since_seconds: float
    until_seconds: float
    """The horizon when it was looked at last."""


_codec: Final = RecordCodec(Stretch)


class Watch:
    """Looks at the horizon, for all processes: what it has seen stands in the store and outlives a restart."""

    def __init__(
        self, *, kv: KvEngine, horizon: Callable[[], float], clock: Clock, break_seconds: float = BREAK_SECONDS
    ) -> None:
        """Begin to watch.

        Args:
            kv: the store.
            horizon: returns up to when everything is applied, see `Horizon`.
            clock: tells what lies in the future: a clock that was set back begins anew.
            break_seconds: how far the horizon may move from one look to the next.
        """
        self._kv = kv
        self._horizon = horizon
        self._clock = clock
        self._break_seconds = break_seconds

    def look(self) -> None:
        """Look at the horizon; to be called several times in each `break_seconds`.

        Raises:
            UnavailableError: log or store cannot be asked.
        """
        until = self._horizon()
        if until:
            self._kv.write(partial(self._note, until=until), durable=False)

    def limit(self, age_seconds: float) -> float:
        """Return when something of this age happened, counted back from the horizon; 0 when that was before the watch.

        Raises:
            UnavailableError: the store cannot be asked.
        """
        seen = self._kv.read(_read)
        if seen is None:
            return 0.0
        limit = seen.until_seconds - age_seconds
        return limit if limit >= seen.since_seconds else 0.0

    def _note(self, tx: KvTransaction, *, until: float) -> None:
        before = _read(tx)
        if before is not None and until <= before.until_seconds <= self._clock.now_seconds() + self._break_seconds:
            return  # somebody else has seen more
        since = until
        if before is not None and 0 <= until - before.until_seconds <= self._break_seconds:
            since = before.since_seconds
        elif before is not None:
            logger.warning("nobody saw for a while what is applied; what looks lost is given its whole time anew")
        cursors.put(tx, _NAME, _codec.encode(Stretch(since, until)))


def _read(reader: KvReader) -> Stretch | None:
    value = cursors.get(reader, _NAME)
    return _codec.decode(value) if value else None
