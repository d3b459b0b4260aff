"""A slice that the store cannot take in the time of one transaction is cut, never offered again and again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from matyan.engines.blob.filesystem import open_filesystem_blobs
from matyan.engines.kv.embedded import open_embedded_kv
from matyan.engines.kv.protocol import KvReader, KvTransaction
from matyan.errors import OffsetMovedError, TooLargeError, TooSlowError
from matyan.sequences.model import Bucket, SequenceKey
from matyan.store import deadletters, offsets
from matyan.wire.messages import LogRecordMessage
from tests.support.applier import PARTITION, Bench, metric

T = TypeVar("T")
RECORDS = SequenceKey(Bucket.LOG_RECORDS, "log_records")


class SlowKv:
    """A store too slow for transactions that write more than so many bytes."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self.bytes_max = 2**30
        self.is_crowded = False
        """Whether what is too much is refused for its size the first time."""
        self.refused = 0

    def read(self, fn: Callable[[KvReader], T]) -> T:
        return self._engine.read(fn)  # type: ignore[no-any-return]

    def write(self, fn: Callable[[KvTransaction], T], *, durable: bool = True) -> T:
        def run(tx: KvTransaction) -> T:
            result = fn(tx)
            if tx.written_bytes > self.bytes_max:
                self.refused += 1
                raise TooLargeError if self.is_crowded and self.refused == 1 else TooSlowError
            return result

        return self._engine.write(run, durable=durable)  # type: ignore[no-any-return]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    engine = open_embedded_kv(tmp_path / "kv", map_bytes=2**28)
    blobs = open_filesystem_blobs(tmp_path / "blobs", keys=[b"s" * 32])
    yield Bench(SlowKv(engine), blobs)  # type: ignore[arg-type] # what an applier asks of an engine
    engine.close()
    blobs.close()


def slow(bench: Bench) -> SlowKv:
    assert isinstance(bench.kv, SlowKv)
    return bench.kv


def say(text: str) -> LogRecordMessage:
    return LogRecordMessage(text, 20, 1.0)


@pytest.mark.parametrize("is_crowded", [False, True])
def test_a_slice_that_takes_too_long_is_cut_until_its_parts_do_not(bench: Bench, is_crowded: bool) -> None:
    slow(bench).bytes_max, slow(bench).is_crowded = 4_000, is_crowded
    records = [bench.record(*[say(f"{record}.{item}") for item in range(20)]) for record in range(8)]
    outcome = bench.applier.handle(PARTITION, records)

    assert slow(bench).refused > 1
    assert [item.value["message"] for item in bench.items(RECORDS).values()] == [
        f"{record}.{item}" for record in range(8) for item in range(20)
    ]
    assert (outcome.records, outcome.commands, outcome.dead_letters) == (8, 160, 0)
    assert bench.kv.read(lambda reader: offsets.get(reader, "log", PARTITION)) == offsets.Applied(8)


def test_a_single_command_that_takes_too_long_comes_again_and_is_no_dead_letter(bench: Bench) -> None:
    records = [bench.record(metric(0, 1.0)), bench.record(say("x" * 5_000))]
    slow(bench).bytes_max = 4_000
    with pytest.raises(TooSlowError):
        bench.applier.handle(PARTITION, records)
    assert bench.kv.read(deadletters.read) == []
    assert bench.kv.read(lambda reader: offsets.get(reader, "log", PARTITION)) == offsets.Applied(1)
    slow(bench).bytes_max = 2**30
    bench.applier.handle(PARTITION, records)

    assert bench.points("loss").steps.tolist() == [0]
    assert len(bench.items(RECORDS)) == 1


def test_a_fresh_partition_takes_no_records_behind_a_gap(bench: Bench) -> None:
    bench.record(metric(0, 1.0))
    with pytest.raises(OffsetMovedError) as moved:
        bench.applier.handle(PARTITION, [bench.record(metric(1, 1.0))])

    assert moved.value.applied_offset == 0
