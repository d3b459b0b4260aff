"""The worker's pipeline in one thread: a real log, an applier that follows it, and what may happen to both."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from matyan.clock import ManualClock
from matyan.engines.blob.filesystem import FilesystemBlobs, open_filesystem_blobs
from matyan.engines.kv.embedded import open_embedded_kv
from matyan.engines.kv.protocol import KvEngine
from matyan.engines.log.embedded import open_embedded_log
from matyan.engines.log.protocol import LogEngine, LogEntry, TopicPartition
from matyan.errors import OffsetMovedError, UnavailableError
from matyan.ids import DEFAULT_PROJECT, RunId, log_key
from matyan.ingestion.apply import Applier
from matyan.runs import repository as runs
from matyan.runs.changes import RunChanges
from matyan.runs.graves import Graves
from matyan.runs.model import EditMark, Run
from matyan.store import offsets
from matyan.wire import frames
from matyan.wire.codec import encode_envelope
from matyan.wire.messages import Command, Envelope
from tests.support.kv import RunTwiceKv
from tests.support.kv_faults import MODERATE, FaultRates, FaultyKv

TOPIC: Final = "data-ingestion"
RUN: Final = RunId("a1")
KINDS: Final = ("embedded", "embedded-twice", "faulty")
ROUGH: Final = "rough"
"""What `pipeline` may stand on. ROUGH loses answers to commits, so a call may return less than what it did."""
_UNKNOWN: Final = FaultRates(too_old=0.1, conflict=0.1, unknown_lost=0.1, unknown_applied=0.2)


class Pipeline:
    """A log, a store, files, and a worker between them that works when it is told to."""

    def __init__(self, kv: KvEngine, blobs: FilesystemBlobs, log: LogEngine, clock: ManualClock) -> None:
        self.kv = kv
        self.blobs = blobs
        self.log = log
        self.clock = clock
        self.graves = Graves(kv=kv, blobs=blobs)
        self.changes = RunChanges(kv=kv, graves=self.graves, mark_of=self._mark, clock=clock)
        self.applier = Applier(kv=kv, log_id=log.log_id, blobs=blobs, clock=clock)
        self._consumer = log.consumer(TOPIC, "ingest", self.applier.start_offset)

    def append(self, *commands: Command, run: str = RUN) -> None:
        """Append one record of a run, received now, as the gateway does."""
        envelope = Envelope(
            version=1,
            project=DEFAULT_PROJECT,
            run_id=run,
            received_ms=self.now_ms,
            encoding=frames.MSGPACK,
            payload=frames.encode_commands(list(commands)),
            writer="w",
        )
        self.append_value(encode_envelope(envelope), run=run)

    def append_value(self, value: bytes, *, run: str = RUN) -> None:
        """Append bytes, whatever they are."""
        entry = LogEntry(log_key(DEFAULT_PROJECT, RunId(run)), value)
        self.log.producer().append_many(TOPIC, [entry]).result(10)

    def work(self) -> None:
        """Apply everything that the log holds."""
        while slices := self._consumer.poll(records_max=100, timeout_seconds=0.05):
            for partition, records in slices.items():
                try:
                    self.applier.handle(partition, records)
                except OffsetMovedError as error:
                    self._consumer.seek(partition, error.applied_offset)
                except UnavailableError:
                    self._consumer.seek(partition, records[0].offset)

    def apply(self, *commands: Command, run: str = RUN) -> None:
        """Append a record and apply it."""
        self.append(*commands, run=run)
        self.work()

    def find(self, run: str = RUN) -> Run | None:
        """Return a run, or None."""
        return self.kv.read(lambda reader: runs.find(reader, DEFAULT_PROJECT, RunId(run)))

    def run(self, run: str = RUN) -> Run:
        """Return a run that is there."""
        found = self.find(run)
        assert found is not None
        return found

    @property
    def now_ms(self) -> int:
        """The time of the clock."""
        return int(self.clock.now_seconds() * 1000)

    def applied(self) -> int:
        """Return the applied offset of the only partition."""
        found = self.kv.read(lambda reader: offsets.get(reader, self.log.log_id, TopicPartition(TOPIC, 0)))
        return 0 if found is None else found.offset

    def close(self) -> None:
        """Leave the log."""
        self._consumer.close()

    def _mark(self, *_: object) -> EditMark:
        return EditMark(self.log.log_id, self.log.producer().end_offset(TopicPartition(TOPIC, 0)))


@contextmanager
def pipeline(kind: str, path: Path, *, seed: int = 7) -> Iterator[Pipeline]:
    """Open a pipeline in a directory; see KINDS."""
    with ExitStack() as stack:
        engine: KvEngine = open_embedded_kv(path / "kv", map_bytes=2**32)
        stack.callback(engine.close)
        clock = ManualClock()
        blobs = open_filesystem_blobs(path / "blobs", keys=[b"s" * 32], clock=clock)
        stack.callback(blobs.close)
        log = open_embedded_log(path / "log", partitions=1)
        stack.callback(log.close)
        wrap: Callable[[], KvEngine] = {
            "embedded": lambda: engine,
            "embedded-twice": lambda: RunTwiceKv(engine),
            "faulty": lambda: FaultyKv(engine, seed=seed, rates=MODERATE),
            ROUGH: lambda: FaultyKv(engine, seed=seed, rates=_UNKNOWN),
        }[kind]
        made = Pipeline(wrap(), blobs, log, clock)
        stack.callback(made.close)
        yield made
