"""A gateway learns from the store how far workers in other processes are."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from matyan.engines.kv.embedded import EmbeddedKv, open_embedded_kv
from matyan.engines.log.embedded import open_embedded_log
from matyan.engines.log.protocol import LogEngine, TopicPartition
from matyan.errors import UnavailableError
from matyan.ingestion.backlog import Backlog
from matyan.ingestion.following import BacklogFollower
from matyan.store import offsets
from matyan.store.offsets import START, Applied
from tests.support.kv_faults import FaultRates, FaultyKv

TOPIC = "data"


@pytest.fixture
def kv(tmp_path: Path) -> Iterator[EmbeddedKv]:
    opened = open_embedded_kv(tmp_path / "kv")
    yield opened
    opened.close()


@pytest.fixture
def log(tmp_path: Path) -> Iterator[LogEngine]:
    opened = open_embedded_log(tmp_path / "log", partitions=2)
    yield opened
    opened.close()


def apply_up_to(kv: EmbeddedKv, log: LogEngine, partition: int, offset: int) -> None:
    place = TopicPartition(TOPIC, partition)
    kv.write(lambda tx: offsets.advance(tx, log.log_id, place, expected=START, to=Applied(offset)))


def test_what_workers_have_applied_leaves_the_backlog(kv: EmbeddedKv, log: LogEngine) -> None:
    backlog = Backlog()
    follower = BacklogFollower(backlog, kv=kv, log=log, topic=TOPIC)
    for partition in (0, 1):
        for offset in (0, 1):
            backlog.appended(partition, offset, 10)
    apply_up_to(kv, log, 0, 2)
    apply_up_to(kv, log, 1, 1)

    follower.look()

    assert backlog.size_bytes == 10


def test_what_another_log_has_applied_says_nothing(kv: EmbeddedKv, log: LogEngine, tmp_path: Path) -> None:
    other = open_embedded_log(tmp_path / "other", partitions=2)
    apply_up_to(kv, other, 0, 5)
    other.close()
    backlog = Backlog()
    backlog.appended(0, 0, 10)

    BacklogFollower(backlog, kv=kv, log=log, topic=TOPIC).look()

    assert backlog.size_bytes == 10


def test_it_follows_while_it_runs_and_a_store_that_fails_does_not_end_it(kv: EmbeddedKv, log: LogEngine) -> None:
    failing = FaultyKv(kv, seed=1, rates=FaultRates(unavailable=0.5))
    backlog = Backlog()
    follower = BacklogFollower(backlog, kv=failing, log=log, topic=TOPIC)

    async def follow() -> None:
        applied = asyncio.Event()
        with backlog.watching(applied):
            await follower.start()
            backlog.appended(0, 0, 10)
            apply_up_to(kv, log, 0, 1)
            async with asyncio.timeout(20):
                await applied.wait()
        await follower.stop()
        await follower.ended()

    asyncio.run(follow())

    assert backlog.is_empty


def test_a_store_that_cannot_be_read_is_told_to_the_caller_of_one_look(kv: EmbeddedKv, log: LogEngine) -> None:
    follower = BacklogFollower(
        Backlog(), kv=FaultyKv(kv, seed=1, rates=FaultRates(unavailable=1.0)), log=log, topic=TOPIC
    )

    with pytest.raises(UnavailableError):
        follower.look()
