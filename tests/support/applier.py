"""A worker's applier over real embedded engines, fed with records made of commands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from matyan.engines.blob.protocol import BlobEngine
from matyan.engines.kv.protocol import KvEngine
from matyan.engines.log.protocol import LogRecord, TopicPartition
from matyan.ids import DEFAULT_PROJECT, RunId
from matyan.ingestion.apply import Applier
from matyan.runs import repository as runs
from matyan.runs.model import EditMark, Run
from matyan.sequences import items
from matyan.sequences import repository as sequences
from matyan.sequences.model import Bucket, Columns, Item, SequenceKey, Summary
from matyan.wire import frames
from matyan.wire.codec import encode_envelope
from matyan.wire.messages import Command, Envelope, LogMetric, Refusal

PARTITION: Final = TopicPartition("data-ingestion", 0)
RUN: Final = RunId("a1")


class Bench:
    """An applier over real embedded engines, fed with records made of commands."""

    def __init__(self, kv: KvEngine, blobs: BlobEngine) -> None:
        self.kv = kv
        self.blobs = blobs
        self.log: list[LogRecord] = []
        self.applier = self.restart()

    def restart(self) -> Applier:
        applier = Applier(kv=self.kv, log_id="log", blobs=self.blobs)
        applier.start_offset(PARTITION)
        self.applier = applier
        return applier

    def record(
        self, *commands: Command, run: str = RUN, writer: str = "w", refusals: Sequence[Refusal] = ()
    ) -> LogRecord:
        envelope = Envelope(
            1,
            "default",
            run,
            1_000_000 + len(self.log),
            frames.MSGPACK,
            frames.encode_commands(list(commands)),
            tuple(refusals),
            writer,
        )
        found = LogRecord(len(self.log), 1_000_000, b"default/" + run.encode(), encode_envelope(envelope))
        self.log.append(found)
        return found

    def apply(self, *commands: Command, **options: Any) -> None:
        self.applier.handle(PARTITION, [self.record(*commands, **options)])

    def mark(self, *_: object) -> EditMark:
        """Return where the log ends."""
        return EditMark("log", len(self.log))

    def find(self, run_id: str = RUN) -> Run | None:
        return self.kv.read(lambda reader: runs.find(reader, DEFAULT_PROJECT, RunId(run_id), system_params=True))

    def run(self, run_id: str = RUN) -> Run:
        found = self.find(run_id)
        assert found is not None
        return found

    def summaries(self, bucket: Bucket = Bucket.METRIC) -> list[Summary]:
        run = self.run()
        return self.kv.read(lambda reader: sequences.list_summaries(reader, DEFAULT_PROJECT, [run.number], bucket))[0]

    def points(self, name: str, context: str = "{}") -> Columns:
        run = self.run()
        (summary,) = [one for one in self.summaries() if (one.name, one.context) == (name, context)]
        return self.kv.read(lambda reader: sequences.read_all(reader, DEFAULT_PROJECT, run.number, summary))

    def items(self, key: SequenceKey) -> dict[int, Item]:
        run = self.run()
        return self.kv.read(lambda reader: dict(items.read_range(reader, DEFAULT_PROJECT, run.number, key)))


def metric(step: int | None, value: float, name: str = "loss", **options: Any) -> LogMetric:
    return LogMetric(name, value, step, dtype="float", **options)
