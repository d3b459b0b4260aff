"""Small runs share transactions, and nothing else: what is wrong with one costs no other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from matyan.engines.blob.filesystem import FilesystemBlobs, open_filesystem_blobs
from matyan.engines.kv.embedded import EmbeddedKv, open_embedded_kv
from matyan.engines.kv.protocol import KvTransaction
from matyan.errors import CorruptedError, TooLargeError
from matyan.ids import DEFAULT_PROJECT, RunId
from matyan.limits import VALUE_BYTES_MAX
from matyan.sequences import repository as sequences
from matyan.sequences.model import Bucket, Columns, SequenceKey
from matyan.sequences.repository import SequenceRef, encode_whole
from matyan.transfer.writing import BATCH_BYTES, Batch, RunGoneError, RunWriter
from tests.bench.counted_kv import CountedKv
from tests.support.store import clear_run, make_run

KEY = SequenceKey(Bucket.METRIC, "loss")
STEPS = np.arange(50, dtype=np.int64)
LOSS = encode_whole(KEY, Columns(STEPS, 1 / (1 + STEPS), np.full(50, np.nan), STEPS), dtype="float")


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[EmbeddedKv]:
    kv = open_embedded_kv(tmp_path / "kv")
    yield kv
    kv.close()


@pytest.fixture
def blobs(tmp_path: Path) -> FilesystemBlobs:
    return open_filesystem_blobs(tmp_path / "blobs", keys=[bytes(32)])


class Writers:
    """Writers of three runs that share a batch."""

    def __init__(self, engine: EmbeddedKv, blobs: FilesystemBlobs) -> None:
        self.kv = CountedKv(engine)
        self.batch = Batch(self.kv, DEFAULT_PROJECT)
        self.numbers = {RunId(name): make_run(engine, name) for name in ("first", "second", "third")}
        self.writers = [
            RunWriter(kv=self.kv, blobs=blobs, project=DEFAULT_PROJECT, run_id=run_id, number=number, batch=self.batch)
            for run_id, number in self.numbers.items()
        ]

    def stored(self) -> list[bool]:
        """Tell of each run whether its metric is there."""
        refs = [SequenceRef(number, KEY) for number in self.numbers.values()]
        found = self.kv.read(lambda reader: sequences.get_summaries(reader, DEFAULT_PROJECT, refs))
        return [summary is not None for summary in found]


@pytest.fixture
def world(engine: EmbeddedKv, blobs: FilesystemBlobs) -> Writers:
    return Writers(engine, blobs)


def refuse(_: KvTransaction) -> None:
    raise CorruptedError("it cannot be read")


def test_small_runs_are_written_in_one_transaction(world: Writers) -> None:
    for writer in world.writers:
        writer.put_metric(LOSS)
    before = world.stored()

    world.batch.flush()

    assert before == [False, False, False]
    assert world.stored() == [True, True, True]
    assert world.kv.counts.transactions == 1


def test_a_batch_is_written_when_it_is_full(world: Writers) -> None:
    for writer in world.writers:
        writer.put_metric(LOSS)

    world.writers[0].add(lambda _: None, BATCH_BYTES)

    assert world.stored() == [True, True, True]


def test_a_run_that_is_deleted_meanwhile_gets_nothing_and_costs_no_other(engine: EmbeddedKv, world: Writers) -> None:
    for writer in world.writers:
        writer.put_metric(LOSS)
    clear_run(engine, world.numbers[RunId("second")])

    world.batch.flush()

    assert world.stored() == [True, False, True]
    world.batch.check(world.numbers[RunId("first")])
    with pytest.raises(RunGoneError, match="second"):
        world.writers[1].put_metric(LOSS)


def test_a_change_that_cannot_be_applied_costs_its_own_run_alone(world: Writers) -> None:
    for writer in world.writers:
        writer.put_metric(LOSS)
    world.writers[1].add(lambda tx: tx.put(b"key", bytes(VALUE_BYTES_MAX + 1)), 0)

    world.batch.flush()

    assert world.stored() == [True, False, True]
    with pytest.raises(TooLargeError):
        world.batch.check(world.numbers[RunId("second")])


def test_nothing_more_of_a_run_is_written_after_a_change_that_was_refused(
    world: Writers, blobs: FilesystemBlobs
) -> None:
    first, second, _ = world.writers
    second.add(refuse, 0)
    world.batch.flush()

    with pytest.raises(CorruptedError):
        second.put_metric(LOSS)
    with pytest.raises(CorruptedError):
        second.put_blob("default/second/file", b"content", "text/plain")
    first.put_metric(LOSS)
    world.batch.flush()

    assert world.stored() == [True, False, False]
    assert list(blobs.list("")) == []


def test_the_change_that_makes_a_batch_full_is_not_written_when_one_before_it_is_refused(world: Writers) -> None:
    second = world.writers[1]
    marks = list[bytes]()
    second.add(refuse, 0)

    with pytest.raises(CorruptedError):
        second.add(lambda _: marks.append(b"applied"), BATCH_BYTES + 1)
    world.batch.flush()

    assert marks == []
