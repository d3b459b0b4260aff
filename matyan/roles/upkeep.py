"""Work on stored data that a command does to its end: engines for it, and one pass of every job."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from matyan.errors import UnavailableError
from matyan.ids import DEFAULT_PROJECT
from matyan.roles.context import DATA_TOPIC, Context, graves_of, make_context, run_changes_of
from matyan.roles.engines import build_blob, build_kv, build_log
from matyan.roles.home import locked_home, writing_home
from matyan.settings import Settings

CATCH_UP_SECONDS: Final = 30.0
"""How long the workers are waited for: what they have not applied could be about what looks lost."""
_POLL_SECONDS: Final = 0.1
_EMBEDDED_KV: Final = "lmdb://"
_EMBEDDED_LOG: Final = "file+log://"


class Age(NamedTuple):
    """How old something has to be."""

    seconds: float
    is_chosen: bool
    """Whether somebody chose it for this pass, who knows that nobody holds anything back; else the watch decides."""


class Limits(NamedTuple):
    """Ages, in seconds where nothing else is said, from which something is taken for dead."""

    orphans: Age
    dead_files: float
    tombstones: Age
    silence: float | None
    """None: no run is taken for silent, since one pass cannot listen."""


@contextlib.contextmanager
def opened(settings: Settings, *, with_log: bool = False) -> Iterator[Context]:
    """Open store and files, and the log, for as long as the block lasts. Others may use them meanwhile.

    Raises:
        ConfigurationError: an engine cannot be opened, the store is being compacted, or the log is wanted and lies in
            files, which a running server keeps to itself.
    """
    context = make_context(settings)
    with contextlib.ExitStack() as stack:
        if settings.kv_uri.startswith(_EMBEDDED_KV):
            stack.enter_context(writing_home(settings.home))
        if with_log and settings.log_uri.startswith(_EMBEDDED_LOG):
            stack.enter_context(locked_home(settings.home))
        for build in (build_kv, build_blob, *([build_log] if with_log else [])):
            close = build(context).close
            if close is not None:
                stack.callback(close)
        yield context


def sweep_once(context: Context, limits: Limits) -> Iterator[tuple[str, int]]:
    """Yield what each job did, one after another, each to its end.

    Raises:
        UnavailableError: an engine cannot work, or the workers are too far behind.
    """
    from matyan.entities.deletion import EntityDeletions  # noqa: PLC0415 - a command pays for its own work
    from matyan.maintenance.deletion import Deletions  # noqa: PLC0415
    from matyan.maintenance.horizon import Horizon  # noqa: PLC0415
    from matyan.maintenance.letters import count, trim_notices  # noqa: PLC0415
    from matyan.maintenance.orphans import Graces, Orphans  # noqa: PLC0415
    from matyan.maintenance.retention import trim_applied  # noqa: PLC0415
    from matyan.maintenance.silence import mark_silent_before  # noqa: PLC0415
    from matyan.maintenance.tombstones import TombstoneExpiry  # noqa: PLC0415
    from matyan.maintenance.watch import Watch  # noqa: PLC0415

    kv, graves = context.kv, graves_of(context)
    horizon = Horizon(kv=kv, log=context.log, topic=DATA_TOPIC, clock=context.clock)
    _catch_up(horizon.measure)
    watch = Watch(kv=kv, horizon=horizon.measure, clock=context.clock)
    watch.look()

    def limit_of(age: Age) -> Callable[[float], float]:
        return (lambda seconds: horizon.measure() - seconds) if age.is_chosen else watch.limit

    yield (
        "deleted runs freed",
        Deletions(kv=kv, graves=graves, clock=context.clock).free_due(DEFAULT_PROJECT, seconds_max=math.inf),
    )
    EntityDeletions(kv=kv, run_changes=run_changes_of(context)).finish_all(seconds_max=None)
    if limits.silence is not None:
        before = horizon.measure() - limits.silence
        yield "silent runs marked crashed", mark_silent_before(kv, DEFAULT_PROJECT, before)
    orphans = Orphans(
        kv=kv,
        blobs=context.blobs,
        graves=graves,
        limit=limit_of(limits.orphans),
        clock=context.clock,
        graces=Graces(unknown_seconds=limits.orphans.seconds, dead_seconds=limits.dead_files),
    )
    orphans.begin_anew(DEFAULT_PROJECT)
    yield "files without a run deleted", orphans.sweep_runs(DEFAULT_PROJECT, seconds_max=math.inf).deleted
    yield "contents of dead letters without a letter deleted", orphans.sweep_letters(seconds_max=math.inf).deleted
    expiry = TombstoneExpiry(kv=kv, limit=limit_of(limits.tombstones), keep_seconds=limits.tombstones.seconds)
    yield "tombstones removed", sum(expiry.expire(DEFAULT_PROJECT, seconds_max=math.inf) for _ in range(2))
    yield "bytes of the log freed", trim_applied(kv, context.log, DATA_TOPIC) + trim_notices(context.log)
    yield "dead letters waiting", count(kv)


def _catch_up(measure: Callable[[], float]) -> None:
    ends = time.monotonic() + CATCH_UP_SECONDS
    while not measure():
        if time.monotonic() >= ends:
            raise UnavailableError(
                f"the workers did not apply in {CATCH_UP_SECONDS:g} s what the log holds; until they have, nothing can "
                "be told to be lost: run `matyan up`, or the role ingest, and try again"
            )
        time.sleep(_POLL_SECONDS)
