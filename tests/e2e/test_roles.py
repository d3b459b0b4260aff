"""Roles apart, several of each, lose nothing and repeat nothing while they stop, die, stand still and come back.

Writers send numbered frames to the frontier and connect again whenever they are cut off; meanwhile roles are stopped,
killed or frozen. Afterwards every acknowledged frame must be found once, in order, by the role that answers readers.
"""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.e2e.test_recordings import differences
from tests.support.aim_repository import golden_aim_repository
from tests.support.counting import CountingWriter, check_writer
from tests.support.kafka import shared_broker
from tests.support.replay import Replay, load
from tests.support.rest import Rest, eventually
from tests.support.roles import Installation, installed
from tests.support.s3 import S3Server
from tests.support.server import matyan
from tests.support.writer import RawWriter, create, message, metric

pytestmark = [pytest.mark.kafka, pytest.mark.s3, pytest.mark.slow]

WRITERS: Final = 4
PAUSE_SECONDS: Final = 0.02
SESSION_SECONDS: Final = 3
"""How long a worker may be silent before its partitions go to others."""


@pytest.fixture(scope="module")
def roles(tmp_path_factory: pytest.TempPathFactory, s3_server: S3Server) -> Iterator[Installation]:
    environment = {"MATYAN_KAFKA_SESSION_SECONDS": str(SESSION_SECONDS)}
    home = tmp_path_factory.mktemp("roles") / "home"
    with installed(home, shared_broker(), s3_server, environment=environment) as running:
        yield running


@contextmanager
def written(roles: Installation, name: str, frontiers: Sequence[str] = ("frontier",)) -> Iterator[None]:
    """Have writers write while the block runs, then check what is stored."""
    writers = [
        CountingWriter(
            lambda at=at: roles[frontiers[at % len(frontiers)]].websocket_url,  # type: ignore[misc]
            f"{name}-{at}",
            pause_seconds=PAUSE_SECONDS,
        )
        for at in range(WRITERS)
    ]
    for writer in writers:
        writer.write_on()
    yield
    for writer in writers:
        writer.end()
    with Rest(roles["serve"].url) as rest:
        for writer in writers:
            check_writer(rest, writer)


def stop(roles: Installation, name: str) -> None:
    assert roles[name].stop() == 0, roles[name].log


def kill(roles: Installation, name: str) -> None:
    roles[name].kill()


@pytest.mark.parametrize("names", [("frontier",), ("ingest",), ("serve", "control")])
def test_roles_that_end_and_come_back_cost_nothing(roles: Installation, names: Sequence[str]) -> None:
    with written(roles, f"ended-{names[0]}"):
        for end, name in itertools.product((stop, kill), names):
            time.sleep(0.5)
            end(roles, name)
            roles[name].start()


def test_workers_that_come_and_go_lose_and_repeat_nothing(roles: Installation) -> None:
    with written(roles, "rebalance"):
        time.sleep(0.5)
        second = roles.start("ingest-2")
        time.sleep(1)
        third = roles.start("ingest-3")
        time.sleep(1)
        assert second.stop() == 0
        time.sleep(0.5)
        third.kill()
        time.sleep(SESSION_SECONDS + 1)


def test_a_worker_that_stood_still_applies_nothing_stale_when_it_wakes(roles: Installation) -> None:
    second = roles.start("ingest-2")
    with written(roles, "zombie"):
        time.sleep(1)
        os.kill(second.pid, signal.SIGSTOP)
        time.sleep(SESSION_SECONDS + 2)  # its partitions are others' by now
        os.kill(second.pid, signal.SIGCONT)
        time.sleep(2)
    assert second.is_running()
    assert second.stop() == 0, second.log


def test_two_frontiers_take_runs_side_by_side(roles: Installation) -> None:
    roles.start("frontier-2")
    with written(roles, "frontiers", ("frontier", "frontier-2")):
        time.sleep(1)
        roles["frontier-2"].kill()
        roles["frontier-2"].start()
        time.sleep(0.5)
    stop(roles, "frontier-2")


def test_records_of_a_deleted_run_stay_dead_whichever_worker_reads_them(roles: Installation) -> None:
    run = "dead-across-roles"
    with RawWriter(roles["frontier"].websocket_url, run) as writer, Rest(roles["serve"].url) as rest:
        writer.send(create(run), metric(run, "loss", 0.5, 0))
        eventually(lambda: rest.exists(run), bool)
        stop(roles, "ingest")
        writer.send(metric(run, "loss", 0.25, 1))
        rest.send("DELETE", f"/runs/{run}/")
        writer.send(create(run), metric(run, "loss", 0.125, 2), message("set_run_property", run, name="ghost"))
        roles["ingest"].start()

        # A run that is written behind it shows that the worker has read all of that.
        with RawWriter(roles["frontier"].websocket_url, run) as again:
            again.send(metric(run, "loss", 0.1, 3))
        follow = "follows-the-dead"
        with RawWriter(roles["frontier"].websocket_url, follow) as other:
            other.send(create(follow), metric(follow, "loss", 1.0, 0))
        eventually(lambda: rest.exists(follow), bool)
        time.sleep(0.5)

        assert not rest.exists(run)
        assert run not in rest.runs("run.archived in (True, False)")


def test_serve_answers_as_recorded(s3_server: S3Server, tmp_path: Path) -> None:
    source = golden_aim_repository(tmp_path / "source")

    def import_golden(roles: Installation) -> None:
        matyan("import", "aim", str(source), "--home", str(tmp_path / "home"), environment=roles.environment)

    with (
        installed(tmp_path / "home", shared_broker(), s3_server, before=import_golden) as roles,
        Replay(roles["serve"].url, base="/api") as replay,
    ):
        # Reads first: they are of what the edits change.
        assert differences(replay, load("read")) == {}
        assert differences(replay, load("write")) == {}
