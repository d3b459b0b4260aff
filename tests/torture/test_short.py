"""The short form of the fault suite: `make torture` runs longer, with more writers and any seed."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Final

import pytest

from tests.support import kafka
from tests.torture.runner import Plan, Report, describe, keep_evidence, schedule_of, torture

pytest.importorskip("matyan_client", reason="matyan-client is not installed")

SEED: Final = 20261121
EMBEDDED: Final = Plan(
    SEED, seconds=20.0, deployment="embedded", writers=4, clients=3, life_seconds=8.0, acknowledged_min=100
)
APART: Final = Plan(
    SEED, seconds=25.0, deployment="apart", writers=6, clients=4, life_seconds=12.0, acknowledged_min=300
)
ITEMS_PER_FRAME: Final = 3
"""At the least, on the average: points, texts, lines, params. Those of deleted runs are not counted."""


def tortured(plan: Plan, folder: Path) -> Report:
    report = torture(plan, folder)
    print(describe(report))
    if not report.is_good:
        print(f"logs and journals are in {keep_evidence(folder, plan.seed)}")
    return report


@pytest.mark.slow
@pytest.mark.timeout(600)  # the suite has limits of its own, and keeps evidence
def test_one_process_keeps_what_it_acknowledged_exactly_once(tmp_path: Path) -> None:
    report = tortured(EMBEDDED, tmp_path)

    assert report.is_good, describe(report)
    assert report.tally.acknowledged >= EMBEDDED.acknowledged_min
    assert report.tally.items > EMBEDDED.acknowledged_min * ITEMS_PER_FRAME


@pytest.mark.slow
@pytest.mark.timeout(600)  # the suite has limits of its own, and keeps evidence
@pytest.mark.kafka
@pytest.mark.s3
@pytest.mark.parametrize("deployment", ["apart", pytest.param("foundationdb", marks=pytest.mark.fdb)])
def test_roles_apart_keep_what_they_acknowledged_exactly_once(tmp_path: Path, deployment: str) -> None:
    try:
        kafka.jars()
    except LookupError as error:
        pytest.skip(f"needs a Kafka broker: {error}")

    report = tortured(dataclasses.replace(APART, deployment=deployment), tmp_path)

    assert report.is_good, describe(report)
    assert report.tally.acknowledged >= APART.acknowledged_min
    assert report.tally.items > APART.acknowledged_min * ITEMS_PER_FRAME


def test_a_seed_says_what_happens() -> None:
    first, second = (schedule_of(APART) for _ in range(2))

    other = schedule_of(dataclasses.replace(APART, seed=APART.seed + 1))
    assert first == second != other
    assert all(fault.at + fault.seconds <= APART.seconds for fault in first)
    assert len(first) > 10
