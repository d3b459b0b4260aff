"""Tombstones are removed when nothing can bring their run back: a job with bounded, resumable steps.

A tombstone is kept while any of this holds: it is young, counted from the run's deletion, from its clearing and from
the last record that a client sent for it; something of the run is left to free; a dead letter of the run could be tried
again. Ages end at the horizon, and begin anew after a break: what the workers have not seen yet, or what a frontier
still holds, may be a record of the run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Final

from matyan.engines.kv.protocol import KvEngine, KvTransaction
from matyan.ids import Project, RunId
from matyan.maintenance.letters import read_claims
from matyan.runs import tombstones
from matyan.runs.tombstones import Due, Tombstone
from matyan.store import cursors

_PAGE_ROWS: Final = 200

Found = tuple[RunId, Tombstone]


class TombstoneExpiry:
    """Removes what is known of deleted runs when it has served."""

    def __init__(self, *, kv: KvEngine, limit: Callable[[float], float], keep_seconds: float) -> None:
        """Put the store to use.

        Args:
            kv: the store.
            limit: returns when something of an age in seconds happened at the latest, see `Watch`.
            keep_seconds: how long a tombstone is kept at least.
        """
        self._kv = kv
        self._limit = limit
        self._keep_seconds = keep_seconds

    def expire(self, project: Project, *, seconds_max: float) -> int:
        """Look at tombstones for about `seconds_max` seconds, from where the last call ended; return how many went.

        None goes while a dead letter names no run.

        Raises:
            UnavailableError: an engine cannot work now.
        """
        ends, removed = time.monotonic() + seconds_max, 0
        touched_before = self._limit(self._keep_seconds)
        claims = read_claims(self._kv)
        if claims.is_anybody:
            return 0
        needed = {*self._scheduled(project), *claims.run_ids}
        cursor = f"tombstones/{project}"
        after = self._kv.read(partial(cursors.get, name=cursor)).decode()
        while True:
            page = self._kv.read(
                partial(
                    tombstones.list_all, project=project, after=RunId(after) if after else None, rows_max=_PAGE_ROWS
                )
            )
            after = page[-1][0] if page else ""
            # What comes to hold from now on changes the tombstone, and it stays.
            expired = [
                (run_id, stone)
                for run_id, stone in page
                if stone.touched_at_seconds < touched_before and run_id not in needed
            ]
            step = partial(_remove, project=project, expired=expired, cursor=cursor, after=after)
            removed += self._kv.write(step, durable=False)
            if not page or time.monotonic() >= ends:
                return removed

    def _scheduled(self, project: Project) -> Collection[RunId]:
        runs: set[RunId] = set()
        after: Due | None = None
        while page := self._kv.read(
            partial(tombstones.list_scheduled, project=project, after=after, rows_max=_PAGE_ROWS)
        ):
            runs |= {due.deletion.run_id for due in page}
            after = page[-1]
        return runs


def _remove(tx: KvTransaction, *, project: Project, expired: Sequence[Found], cursor: str, after: str) -> int:
    removed = sum(tombstones.clear_if_same(tx, project, run_id, seen) for run_id, seen in expired)
    cursors.put(tx, cursor, after.encode())
    return removed
