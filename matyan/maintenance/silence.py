"""Runs whose writer went silent are marked crashed: a job that looks at active runs only.

A run is heard of by its data, and by its gateway, which tells the log of clients that are connected and say nothing.
The next sign of life, of either kind, sets the run going again in the transaction that brings it. See ADR 0019.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Final, NamedTuple

import msgspec

from matyan.clock import Clock
from matyan.engines.kv.protocol import KvEngine, KvReader, KvTransaction
from matyan.ids import Project, RunId, RunNumber
from matyan.runs import repository as runs
from matyan.runs import signs
from matyan.store import keyspace

logger = logging.getLogger(__name__)

_RUNS_PER_READ: Final = 1000


class _Watched(NamedTuple):
    sign_ms: int
    since_seconds: float
    """From when on the sign has been seen to stay the same."""


class Silence:
    """Finds runs that have fallen silent while it watched them; what came before it began to watch does not count."""

    def __init__(self, *, kv: KvEngine, horizon: Callable[[], float], clock: Clock, silent_seconds: float) -> None:
        """Begin to watch.

        Args:
            kv: the store.
            horizon: returns up to when everything is applied, see `Horizon`.
            clock: for how long runs are watched.
            silent_seconds: how long a run may be silent.
        """
        self._kv = kv
        self._horizon = horizon
        self._clock = clock
        self._silent_seconds = silent_seconds
        self._watched: dict[RunNumber, _Watched] = {}

    def mark_silent(self, project: Project) -> int:
        """Mark runs that have been silent for too long; return how many.

        After an outage of log or store everybody has that time anew.
        """
        watched, self._watched = self._watched, {}
        now, until = self._clock.now_seconds(), self._horizon()
        marked = 0
        seen: dict[RunNumber, _Watched] = {}
        for number, sign_ms in _signs(self._kv, project):
            before = watched.get(number)
            since = before.since_seconds if before is not None and before.sign_ms == sign_ms else now
            seen[number] = _Watched(sign_ms, since)
            if until - max(since, sign_ms / 1000) >= self._silent_seconds:
                marked += self._kv.write(partial(mark_crashed, project=project, number=number, sign_ms=sign_ms))
        self._watched = seen
        if marked:
            logger.info("silent runs marked crashed", extra={"runs": marked})
        return marked


def mark_silent_before(kv: KvEngine, project: Project, seconds: float) -> int:
    """Mark runs that were not heard of after a moment (since 1970), without listening; return how many."""
    silent = ((number, sign_ms) for number, sign_ms in _signs(kv, project) if sign_ms / 1000 <= seconds)
    return sum(
        kv.write(partial(mark_crashed, project=project, number=number, sign_ms=sign_ms)) for number, sign_ms in silent
    )


def _signs(kv: KvEngine, project: Project) -> Iterator[tuple[RunNumber, int]]:
    after: RunNumber | None = None
    while found := kv.read(partial(_read_signs, project=project, after=after)):
        yield from found
        after = found[-1][0]


def _read_signs(reader: KvReader, *, project: Project, after: RunNumber | None) -> Sequence[tuple[RunNumber, int]]:
    numbers = runs.list_active(reader, project, after=after, rows_max=_RUNS_PER_READ)
    return list(zip(numbers, signs.read(reader, project, numbers), strict=True))


def mark_crashed(tx: KvTransaction, *, project: Project, number: RunNumber, sign_ms: int) -> bool:
    """End a run at its last sign of life; return whether it was done.

    Nothing is done for a run that was heard of since, has ended, or was set going by a person.
    """
    if tx.get(keyspace.active_run(project, number)) is None or signs.read(tx, project, [number]) != [sign_ms]:
        return False
    (document,) = runs.read_documents(tx, project, [number])
    if document is None or "active" in document.edits:
        return False
    ended = sign_ms / 1000 if sign_ms else document.updated_at_seconds
    ended = max(ended, document.created_at_seconds)
    crashed = msgspec.structs.replace(document, active=False, crashed=True, end_time_seconds=ended)
    runs.put(tx, project, number, crashed)
    signs.put_crashed(tx, project, RunId(document.hash))
    return True
