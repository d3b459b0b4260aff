"""A store, files, a log, and what works on control events between them; every transaction runs twice."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from matyan.clock import ManualClock
from matyan.engines.blob.filesystem import FilesystemBlobs, open_filesystem_blobs
from matyan.engines.kv.embedded import EmbeddedKv, open_embedded_kv
from matyan.engines.kv.protocol import KvEngine
from matyan.engines.log.embedded import open_embedded_log
from matyan.engines.log.protocol import LogEngine, LogEntry, LogRecord, TopicPartition
from matyan.maintenance.deletion import Deletions
from matyan.maintenance.events import Effects, EventHandler
from matyan.observe.metrics import Metrics
from matyan.runs.changes import RunChanges
from matyan.runs.graves import Graves
from matyan.runs.model import EditMark
from matyan.store import outbox
from matyan.wire.events import ControlEvent, Payload, decode_event, decode_payload
from matyan.wire.topics import CONTROL_EVENTS
from tests.support.kv import RunTwiceKv, read_all
from tests.support.store import make_metric, make_objects, make_run

ONLY = TopicPartition(CONTROL_EVENTS, 0)


class World:
    """A store, files and a log with one partition."""

    def __init__(self, kv: EmbeddedKv, blobs: FilesystemBlobs, log: LogEngine) -> None:
        self.engine = kv
        self.kv: KvEngine = RunTwiceKv(kv)
        self.blobs: Any = blobs
        self.log = log
        self.clock = ManualClock()
        self.metrics = Metrics()
        self.pauses: list[float] = []
        """Waited for before an effect was tried."""

    @property
    def changes(self) -> RunChanges:
        graves = Graves(kv=self.kv, blobs=self.blobs)
        return RunChanges(kv=self.kv, graves=graves, mark_of=lambda *_: EditMark("log", 7), clock=self.clock)

    @property
    def deletions(self) -> Deletions:
        return Deletions(kv=self.kv, graves=Graves(kv=self.kv, blobs=self.blobs), clock=self.clock)

    def handler(self) -> EventHandler:
        """Return a handler that has just been given the partition."""
        effects = Effects(kv=self.kv, deletions=self.deletions)
        handler = EventHandler(
            kv=self.kv, log=self.log, effects=effects, metrics=self.metrics, sleep=self.pauses.append, clock=self.clock
        )
        handler.start_offset(ONLY)
        return handler

    def fill(self, run: str) -> None:
        """Store a run with points, items and a file."""
        number = make_run(self.engine, run, params={"lr": 0.1})
        make_metric(self.engine, number, "loss", list(range(100)))
        make_objects(self.engine, number, "text", "samples", [{"type": "text", "data": "x" * 50}] * 100)
        self.blobs.put(f"default/{run}/model.bin", [b"data"], content_type="x")

    def events(self) -> list[tuple[ControlEvent, Payload | None]]:
        """Return what waits in the outbox, in order."""
        found = self.engine.read(lambda reader: outbox.read(reader, CONTROL_EVENTS, rows_max=1000))
        decoded = [decode_event(one.entry.value) for one in found]
        return [(event, decode_payload(event)) for event in decoded]

    def relayed(self) -> list[LogRecord]:
        """Append what waits and return the whole topic."""
        found = self.engine.read(lambda reader: outbox.read(reader, CONTROL_EVENTS, rows_max=1000))
        return self.append(*(one.entry.value for one in found))

    def append(self, *values: bytes) -> list[LogRecord]:
        self.log.producer().append_many(CONTROL_EVENTS, [LogEntry(b"", value) for value in values]).result(5)
        consumer = self.log.consumer(CONTROL_EVENTS, "test", lambda _: None)
        try:
            return consumer.poll(records_max=1000, timeout_seconds=5)[ONLY]
        finally:
            consumer.close()

    def stored_bytes(self) -> int:
        """Return what store and files hold, but for the outbox: the relay empties that."""
        waiting = self.engine.read(lambda reader: outbox.read(reader, CONTROL_EVENTS, rows_max=1000))
        rows = read_all(self.engine)
        left = sum(len(key) + len(value) for key, value in rows.items() if key not in {one.place for one in waiting})
        files: int = sum(info.size_bytes for info in self.blobs.list(""))
        return left + files

    def count(self, line: str) -> float:
        """Return the value of a metric's line, 0 when there is none."""
        found = [one for one in self.metrics.exposition().decode().splitlines() if one.startswith(line)]
        return float(found[0].rsplit(" ", 1)[1]) if found else 0.0


@contextlib.contextmanager
def opened_world(path: Path) -> Iterator[World]:
    """Open everything below `path`."""
    kv = open_embedded_kv(path / "kv", map_bytes=2**30)
    blobs = open_filesystem_blobs(path / "blobs", keys=[b"s" * 32])
    log = open_embedded_log(path / "log", partitions=1)
    yield World(kv, blobs, log)
    log.close()
    blobs.close()
    kv.close()
