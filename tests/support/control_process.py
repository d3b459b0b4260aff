"""A process that competes for leases, relays or frees on a shared embedded store, for tests that stop or kill it.

control_process.py PATH count TIMES     take the lease TIMES times; under it read a counter, wait a little, and write it
                                        back in another transaction that requires the lease; print each result
control_process.py PATH hold            take the lease, print "held"; then for every line on stdin write under it and
                                        print "written" or "lost"
control_process.py PATH relay           relay what waits; between append and clear print "appended" and stop for ever
control_process.py PATH free COMMITS    free what is due; after so many commits (of leases, too) print "freeing" and
                                        stop for ever
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final, TypeVar, cast

from matyan.clock import SystemClock
from matyan.engines.blob.filesystem import open_filesystem_blobs
from matyan.engines.kv.embedded import EmbeddedKv, open_embedded_kv
from matyan.engines.kv.protocol import KvEngine, KvTransaction
from matyan.engines.log.embedded import open_embedded_log
from matyan.engines.log.protocol import Appended, LogEntry, LogProducer
from matyan.errors import LeaseLostError
from matyan.ids import DEFAULT_PROJECT
from matyan.maintenance.deletion import Deletions
from matyan.observe.metrics import Metrics
from matyan.runs.graves import Graves
from matyan.wire.topics import OUTBOX_TOPICS
from matyan.workers.leases import Leases, StoreLeases
from matyan.workers.relay import OutboxRelay

T = TypeVar("T")

LEASE: Final = "counter"
COUNTER: Final = b"counter"
LEASE_SECONDS: Final = 2.0
BLOB_KEYS: Final = [b"s" * 32]


def read_counter(kv: KvEngine) -> int:
    """Return how many writes under the lease have been counted."""
    return int(kv.read(lambda reader: reader.get(COUNTER)) or b"0")


def make_leases(kv: KvEngine) -> StoreLeases:
    return StoreLeases(kv=kv, seconds=LEASE_SECONDS)


def _stop_for_ever(word: str) -> None:
    print(word, flush=True)
    threading.Event().wait()


def _count(leases: Leases, kv: EmbeddedKv, times: int) -> None:
    for _ in range(times):
        with leases.holding(LEASE, wait_seconds=60.0) as lease:
            found = read_counter(kv)
            time.sleep(0.005)  # whoever else were inside would read the same

            def write(tx: KvTransaction, found: int = found, require: Callable[..., None] = lease.require) -> None:
                require(tx)
                tx.put(COUNTER, str(found + 1).encode())

            kv.write(write, durable=False)
            print(found + 1, flush=True)


def _hold(leases: Leases, kv: EmbeddedKv) -> None:
    lease = leases.acquire(LEASE)
    assert lease is not None

    def write(tx: KvTransaction) -> None:
        lease.require(tx)
        tx.put(COUNTER, b"1000")

    print("held", flush=True)
    for _ in sys.stdin:
        try:
            kv.write(write)
            print("written", flush=True)
        except LeaseLostError:
            print("lost", flush=True)


class _ProducerThatStops:
    """A producer whose process stops when the log has everything."""

    def __init__(self, producer: LogProducer) -> None:
        self._producer = producer

    def append_many(self, topic: str, entries: Sequence[LogEntry]) -> Future[list[Appended]]:
        self._producer.append_many(topic, entries).result()
        _stop_for_ever("appended")
        raise AssertionError


class _KvThatStops:
    """A store whose process stops after so many commits."""

    def __init__(self, kv: EmbeddedKv, commits: int) -> None:
        self._kv = kv
        self._commits_left = commits

    def __getattr__(self, name: str) -> Any:
        return getattr(self._kv, name)

    def write(self, fn: Callable[[KvTransaction], T], *, durable: bool = True) -> T:
        result = self._kv.write(fn, durable=durable)
        self._commits_left -= 1
        if not self._commits_left:
            _stop_for_ever("freeing")
        return result


def _relay(leases: Leases, kv: EmbeddedKv, path: Path) -> None:
    log = open_embedded_log(path / "log", partitions=1)
    producer = cast("LogProducer", _ProducerThatStops(log.producer()))
    relay = OutboxRelay(kv=kv, producer=producer, leases=leases, topics=OUTBOX_TOPICS, metrics=Metrics())
    relay.run(threading.Event())


def _free(kv: EmbeddedKv, path: Path, commits: int) -> None:
    blobs = open_filesystem_blobs(path / "blobs", keys=BLOB_KEYS)
    stopping = cast("KvEngine", _KvThatStops(kv, commits))
    graves = Graves(kv=stopping, blobs=blobs, leases=make_leases(stopping))
    deletions = Deletions(kv=stopping, graves=graves, clock=SystemClock())
    deletions.free_due(DEFAULT_PROJECT, seconds_max=60)


def main() -> None:
    path, command, *arguments = sys.argv[1:]
    kv = open_embedded_kv(Path(path) / "kv")
    leases = make_leases(kv)
    match command:
        case "count":
            _count(leases, kv, int(arguments[0]))
        case "hold":
            _hold(leases, kv)
        case "relay":
            _relay(leases, kv, Path(path))
        case "free":
            _free(kv, Path(path), int(arguments[0]))
    leases.close()
    kv.close()


if __name__ == "__main__":
    main()
