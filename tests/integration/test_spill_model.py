"""Any history of a gateway, its spill, its log and its worker applies each acknowledged record once, in order.

The goal is the promise of ADR 0020. Hypothesis makes the history: outages of every kind, confirmations that come late
or never, requests that the broker writes after they were given up, kills of the gateway, crashes of the worker. The log
and the spill are embedded logs, the worker is the real one; the oracle is the list of what was acknowledged.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from matyan.clock import ManualClock
from matyan.engines.blob.filesystem import open_filesystem_blobs
from matyan.engines.kv.embedded import open_embedded_kv
from matyan.engines.log.embedded import open_embedded_log
from matyan.engines.log.protocol import Appended, LogEntry, LogRecord, TopicPartition
from matyan.engines.log.spill import SpillRoom
from matyan.engines.log.spilling import SpillingProducer
from matyan.ids import DEFAULT_PROJECT, RunId, log_key
from matyan.ingestion.apply import Applier
from matyan.observe.metrics import Metrics
from matyan.runs import repository as runs
from matyan.sequences import items
from matyan.sequences.model import Bucket, SequenceKey
from matyan.wire import frames
from matyan.wire.codec import encode_envelope
from matyan.wire.messages import Envelope, LogRecordMessage
from tests.support.logs import SECONDS, read_all
from tests.support.wayward import WaywardProducer

TOPIC = "data"
PARTITIONS = [TopicPartition(TOPIC, 0), TopicPartition(TOPIC, 1)]
RUNS = [RunId("a"), RunId("b"), RunId("c")]
AFTER = 3.0
RECORDS = SequenceKey(Bucket.LOG_RECORDS, "log_records")


class Gateway:
    """One life of a gateway: its producer, and the numbers that it gives."""

    def __init__(self, name: str, spills: Path, far: WaywardProducer, clock: ManualClock) -> None:
        self.name = name
        self.spills = spills
        self.far = far
        room = SpillRoom(spills, topic=TOPIC, bytes_max=10_000_000, clock=clock)
        self.producer = SpillingProducer(
            far,
            topic=TOPIC,
            spill=room.open_own(),
            room=room,
            after_seconds=AFTER,
            metrics=Metrics(),
            clock=clock,
        )
        self.numbers: dict[int, int] = {}
        self.pending: list[tuple[RunId, int, Future[list[Appended]]]] = []

    def append(self, run: RunId, text: int) -> None:
        key = log_key(DEFAULT_PROJECT, run)
        partition = self.producer.partition_of(TOPIC, key)
        number = self.numbers[partition] = self.numbers.get(partition, 0) + 1
        payload = frames.encode_commands([LogRecordMessage(str(text), 20, 1.0)])
        envelope = Envelope(1, "default", run, 1, frames.MSGPACK, payload, gateway=self.name, number=number)
        future = self.producer.append_many(TOPIC, [LogEntry(key, encode_envelope(envelope))])
        self.pending.append((run, text, future))

    def wait_for_disk(self) -> None:
        """Wait for what the spill has been given; what the log has been given may never be confirmed."""
        _until(lambda: self.producer.is_direct or all(future.done() for _, _, future in self.pending))

    def take_acknowledged(self) -> list[tuple[RunId, int]]:
        """Return what was acknowledged since the last call, in the order of appending."""
        done = [(run, text) for run, text, future in self.pending if future.done() and future.exception() is None]
        self.pending = [one for one in self.pending if not one[2].done()]
        return done


class History(RuleBasedStateMachine):
    """Everything that may happen."""

    @initialize()
    def start(self) -> None:
        self.home = tempfile.TemporaryDirectory()
        path = Path(self.home.name)
        self.log = open_embedded_log(path / "log", partitions=2)
        self.kv = open_embedded_kv(path / "kv", map_bytes=2**28)
        self.blobs = open_filesystem_blobs(path / "blobs", keys=[b"s" * 32])
        self.clock = ManualClock()
        self.texts = 0
        self.acknowledged: list[tuple[RunId, int]] = []
        self.lives: list[Gateway] = []
        self.live(path / "spill-of-0")
        self.restart_worker()

    def live(self, spills: Path) -> None:
        far = WaywardProducer(self.log.producer())
        self.lives.append(Gateway(f"g{len(self.lives)}", spills, far, self.clock))

    @property
    def gateway(self) -> Gateway:
        return self.lives[-1]

    @rule(run=st.sampled_from(RUNS), count=st.integers(1, 4))
    def append(self, run: RunId, count: int) -> None:
        for _ in range(count):
            self.texts += 1
            self.gateway.append(run, self.texts)

    @rule()
    def hang(self) -> None:
        self.gateway.far.hang()

    @rule()
    def go_down(self) -> None:
        self.gateway.far.go_down()

    @rule()
    def come_back(self) -> None:
        self.gateway.far.come_back()

    @rule(seconds=st.sampled_from([0.5, AFTER + 0.5]))
    def let_time_pass(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @precondition(lambda self: self.gateway.far.state != "hung")
    @rule()
    def tend(self) -> None:
        self.gateway.wait_for_disk()
        self.gateway.producer.tend()

    @precondition(lambda self: self.gateway.far.state == "hung" and self.gateway.producer.is_direct)
    @rule()
    def tend_while_it_hangs(self) -> None:
        self.gateway.producer.tend()

    @rule(count=st.integers(1, 5), life=st.integers(0, 5))
    def write_what_was_given_up(self, count: int, life: int) -> None:
        self.lives[life % len(self.lives)].far.drip(count)

    @rule()
    def lose_what_was_given_up(self) -> None:
        self.gateway.far.lose_limbo()

    @rule(is_kill=st.booleans())
    def end_the_gateway(self, is_kill: bool) -> None:
        before = self.gateway
        before.wait_for_disk()
        spills = before.spills
        if is_kill:
            # What a killed process leaves is what stands in the files; the rest of it acts on a copy, in vain.
            self.acknowledged += before.take_acknowledged()
            spills = spills.with_name(f"spill-of-{len(self.lives)}")
            shutil.copytree(before.spills, spills)
        before.far.go_down()
        before.producer.close()
        if not is_kill:
            self.acknowledged += before.take_acknowledged()
        self.live(spills)

    @rule(records_max=st.integers(1, 20), dies=st.booleans())
    def work(self, records_max: int, dies: bool) -> None:
        for partition in PARTITIONS:
            begin = self.applier.start_offset(partition) or 0
            self.offer(partition, read_all(self.log, partition, begin=begin)[:records_max])
        if dies:
            self.restart_worker()

    def restart_worker(self) -> None:
        self.applier = Applier(kv=self.kv, log_id=self.log.log_id, blobs=self.blobs)

    def offer(self, partition: TopicPartition, records: list[LogRecord]) -> None:
        if records:
            self.applier.handle(partition, records)

    def teardown(self) -> None:
        if not hasattr(self, "lives"):
            return
        gateway = self.gateway
        gateway.far.come_back()
        deadline = time.monotonic() + SECONDS
        while not gateway.producer.is_direct:
            gateway.producer.tend()
            assert time.monotonic() < deadline
        for life in self.lives:
            life.far.drip(life.far.limbo)
        gateway.wait_for_disk()
        _until(lambda: all(future.done() for _, _, future in gateway.pending))
        self.acknowledged += gateway.take_acknowledged()
        self.work(10_000, dies=False)
        try:
            for run in RUNS:
                self.check(run)
        finally:
            gateway.producer.close()
            self.kv.close()
            self.log.close()
            self.blobs.close()
            self.home.cleanup()

    def check(self, run: RunId) -> None:
        applied = self.applied(run)
        expected = [text for name, text in self.acknowledged if name == run]
        kept = set(expected)
        assert len(applied) == len(set(applied)), "a record was applied twice"
        assert [text for text in applied if text in kept] == expected, "acknowledged records are lost or out of order"

    def applied(self, run: RunId) -> list[int]:
        """Return what was applied to a run, in the order of application: the store numbers it so."""
        (number,) = self.kv.read(lambda reader: runs.get_numbers(reader, DEFAULT_PROJECT, [run]))
        if number is None:
            return []
        found = self.kv.read(lambda reader: dict(items.read_range(reader, DEFAULT_PROJECT, number, RECORDS)))
        return [int(found[step].value["message"]) for step in sorted(found)]


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.0005)


History.TestCase.settings = settings(max_examples=30, stateful_step_count=40, deadline=None)
TestHistory = History.TestCase
