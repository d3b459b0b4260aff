"""A slice costs a few round trips to the store, however many runs it is about."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from matyan.engines.blob.filesystem import open_filesystem_blobs
from matyan.engines.kv.embedded import open_embedded_kv
from matyan.engines.kv.protocol import KeyRange
from matyan.ids import DEFAULT_PROJECT, RunId
from matyan.runs import signs
from matyan.wire.messages import (
    AddTag,
    Command,
    CreateRun,
    FinishRun,
    LogCustomObject,
    LogHparams,
    LogRecordMessage,
    LogTerminalLine,
    RemoveTag,
    SetRunProperty,
)
from tests.support.applier import PARTITION, Bench, metric
from tests.support.kv_faults import FaultRates, FaultyKv, FaultyReader

ROUND_TRIPS_MAX = 12


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    engine = open_embedded_kv(tmp_path / "kv", map_bytes=2**28)
    blobs = open_filesystem_blobs(tmp_path / "blobs", keys=[b"s" * 32])
    yield Bench(FaultyKv(engine, seed=1, rates=FaultRates()), blobs)
    engine.close()
    blobs.close()


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What the store is asked for, as the number of keys or ranges of each round trip."""
    found: list[int] = []
    real = FaultyReader._before_read

    def before_read(self: FaultyReader, ranges: Sequence[KeyRange]) -> None:
        found.append(len(ranges))
        real(self, ranges)

    monkeypatch.setattr(FaultyReader, "_before_read", before_read)
    return found


def opening(number: int) -> list[Command]:
    return [
        CreateRun(),
        SetRunProperty(experiment=f"e{number % 3}"),
        LogHparams({"lr": number}),
        LogHparams({"__system_params": {"executable": "python"}}),
        AddTag(f"t{number % 2}"),
        metric(0, 0.5),
        metric(0, 0.5, "acc"),
        LogRecordMessage("m", 20, 1.0),
        LogTerminalLine("l", 0),
        LogCustomObject("text", {"type": "text", "data": "x"}, 0),
    ]


def training(number: int) -> list[Command]:
    return [metric(1, number), metric(1, number, "acc")]


def going_on(number: int) -> list[Command]:
    return [*opening(number), RemoveTag(f"t{number % 2}"), LogTerminalLine("l", 1), FinishRun()]


def handle(bench: Bench, make: Callable[[int], Sequence[Command]], runs: int) -> None:
    bench.applier.handle(PARTITION, [bench.record(*make(number), run=f"r{number}") for number in range(runs)])


@pytest.mark.parametrize("runs", [3, 100])
def test_new_runs_cost_round_trips_of_the_slice_not_of_the_run(bench: Bench, reads: list[int], runs: int) -> None:
    handle(bench, opening, runs)

    assert len(reads) <= ROUND_TRIPS_MAX
    assert bench.run("r2").params["lr"] == 2


def test_points_of_known_runs_cost_round_trips_of_the_slice_not_of_the_run(bench: Bench, reads: list[int]) -> None:
    handle(bench, opening, 100)
    reads.clear()
    handle(bench, training, 100)

    assert len(reads) <= ROUND_TRIPS_MAX
    assert sum(reads) < 100 * 9


def test_edits_of_known_runs_cost_round_trips_of_the_slice_but_for_items_written_again(
    bench: Bench, reads: list[int]
) -> None:
    handle(bench, opening, 100)
    bench.kv.write(lambda tx: signs.put_crashed(tx, DEFAULT_PROJECT, RunId("r1")))
    reads.clear()
    handle(bench, going_on, 100)

    again = 100  # the object of step 0
    assert len(reads) <= ROUND_TRIPS_MAX + again
    assert [tag.name for tag in bench.run("r1").tags] == []
    assert not bench.run("r1").document.active


def test_signs_of_life_of_unknown_runs_take_no_number(bench: Bench) -> None:
    records = [
        bench.record(run="unknown"),
        bench.record(metric(0, 1.0), run="a"),
        bench.record(metric(0, 1.0), run="b"),
    ]
    bench.applier.handle(PARTITION, records)

    assert bench.find("unknown") is None
    assert (bench.run("a").number, bench.run("b").number) == (1, 2)
