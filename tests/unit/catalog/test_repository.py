"""Which runs belong to experiments and tags, many of them too."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from matyan.catalog import repository as catalog
from matyan.catalog.model import RunPlace
from matyan.catalog.repository import RunsOf
from matyan.engines.kv.embedded import open_embedded_kv
from matyan.engines.kv.protocol import KvEngine, KvTransaction
from matyan.ids import DEFAULT_PROJECT, RunNumber
from matyan.limits import SCAN_ROWS_MAX


@pytest.fixture
def kv(tmp_path: Path) -> Iterator[KvEngine]:
    engine = open_embedded_kv(tmp_path / "kv")
    yield engine
    engine.close()


def link(kv: KvEngine, entity_id: str, runs: int) -> None:
    """Tie runs to an experiment, run n created at microsecond n."""

    def write(tx: KvTransaction) -> None:
        for number in range(1, runs + 1):
            catalog.experiments.link(tx, DEFAULT_PROJECT, entity_id, RunPlace(number, RunNumber(number)))

    kv.write(write, durable=False)


@pytest.mark.parametrize("runs", [1, SCAN_ROWS_MAX - 1, SCAN_ROWS_MAX, SCAN_ROWS_MAX + 1])
def test_runs_of_several_are_counted_and_the_newest_is_told(kv: KvEngine, runs: int) -> None:
    link(kv, "a", runs)
    link(kv, "b", 2)

    found = kv.read(lambda reader: catalog.experiments.look_at_runs(reader, DEFAULT_PROJECT, ["b", "a", "none"]))

    assert found == [
        RunsOf(2, RunPlace(2, RunNumber(2))),
        RunsOf(runs, RunPlace(runs, RunNumber(runs))),
        RunsOf(0, None),
    ]
