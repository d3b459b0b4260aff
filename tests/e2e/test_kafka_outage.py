"""While no broker answers, the frontier goes on: no frame is refused, none is lost, none is applied twice.

Writers and a real client send without a pause while the broker is killed or frozen, and the frontier with it; when the
broker is back, everything acknowledged must be found once, in order, by the role that answers readers.
"""

from __future__ import annotations

import operator
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from itertools import chain, repeat
from typing import Final

import matyan_client
import pytest
from websockets.exceptions import InvalidStatus

from tests.support import loopback
from tests.support.counting import NO_CONTEXT, CountingWriter, check_writer
from tests.support.kafka import Broker, shared_broker
from tests.support.rest import Rest, eventually
from tests.support.roles import Installation, installed
from tests.support.s3 import S3Server
from tests.support.writer import RawWriter, create, message

pytestmark = [pytest.mark.kafka, pytest.mark.s3, pytest.mark.slow]

OUTAGE_SECONDS: Final = int(os.environ.get("MATYAN_TEST_OUTAGE_SECONDS", "6"))
"""After 45 s without a reply a client would give up for good; the default is for those who wait for the tests."""
AFTER_SECONDS: Final = 1
WRITERS: Final = 3
PAUSE_SECONDS: Final = 0.02


@pytest.fixture(scope="module")
def roles(tmp_path_factory: pytest.TempPathFactory, s3_server: S3Server) -> Iterator[Installation]:
    environment = {"MATYAN_KAFKA_SESSION_SECONDS": "3", "MATYAN_SPILL_AFTER_SECONDS": str(AFTER_SECONDS)}
    home = tmp_path_factory.mktemp("outage") / "home"
    with installed(home, shared_broker(), s3_server, environment=environment) as running:
        yield running


@pytest.fixture
def broker(roles: Installation) -> Broker:
    return roles.broker


class Training:
    """A run of the real client, tracking until told to stop."""

    def __init__(self, roles: Installation, run: str) -> None:
        self.run = run
        self.steps = 0
        self._is_over = threading.Event()
        serve, frontier = roles["serve"].url, roles["frontier"].url
        self._run = matyan_client.Run(
            repo=serve, frontier_url=frontier, run_hash=run, capture_terminal_logs=False, system_tracking_interval=None
        )
        self._thread = threading.Thread(target=self._train, daemon=True)
        self._thread.start()

    def _train(self) -> None:
        while not self._is_over.wait(0.02):
            self._run.track(self.steps / 3, name="loss", step=self.steps)
            self.steps += 1

    def end(self) -> None:
        self._is_over.set()
        self._thread.join(30)
        self._run.close()

    def check(self, rest: Rest) -> None:
        def points() -> dict[int, float]:
            found = rest.metrics(self.run) if rest.exists(self.run) else {}
            return {step: point.value for step, point in found.get(("loss", NO_CONTEXT), {}).items()}

        assert eventually(points, lambda found: len(found) == self.steps) == {
            step: step / 3 for step in range(self.steps)
        }


def writers_of(roles: Installation, name: str) -> list[CountingWriter]:
    made = [
        CountingWriter(lambda: roles["frontier"].websocket_url, f"{name}-{number}", pause_seconds=PAUSE_SECONDS)
        for number in range(WRITERS)
    ]
    for writer in made:
        writer.write_on()
    return made


def check(roles: Installation, writers: list[CountingWriter]) -> None:
    for writer in writers:
        writer.end()
    with Rest(roles["serve"].url) as rest:
        for writer in writers:
            check_writer(rest, writer)


def sample(roles: Installation, name: str, role: str = "frontier") -> float:
    text = loopback.get(f"{roles[role].url}/metrics", timeout=10).text
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))


def is_direct(roles: Installation) -> bool:
    return sample(roles, "matyan_spill_active") == 0 == sample(roles, "matyan_spill_records")


def grown(writers: list[CountingWriter], before: list[int]) -> list[int]:
    """Return how many frames of each writer were acknowledged since then; newcomers had none."""
    return list(map(operator.sub, [len(writer.acknowledged) for writer in writers], chain(before, repeat(0))))


def last_of(writers: list[CountingWriter]) -> list[int]:
    """Return the number of the last frame of each writer that was acknowledged."""
    return [max(writer.acknowledged) for writer in writers]


def kill(broker: Broker) -> None:
    broker.kill()


def freeze(broker: Broker) -> None:
    broker.freeze()


def start(broker: Broker) -> None:
    broker.start()


def thaw(broker: Broker) -> None:
    broker.thaw()


@pytest.mark.parametrize(("leave", "come_back"), [(kill, start), (freeze, thaw)])
def test_writers_and_a_client_do_not_notice_that_the_broker_is_away(
    roles: Installation, broker: Broker, leave: Callable[[Broker], None], come_back: Callable[[Broker], None]
) -> None:
    writers = writers_of(roles, leave.__name__)
    training = Training(roles, f"{leave.__name__}-client")
    eventually(lambda: [*grown(writers, []), training.steps], all, seconds=60)
    leave(broker)
    ends = time.monotonic() + OUTAGE_SECONDS
    try:
        eventually(lambda: sample(roles, "matyan_spill_active"), bool)
        before = [len(writer.acknowledged) for writer in writers]
        writers += writers_of(roles, f"{leave.__name__}-newcomers")
        eventually(lambda: grown(writers, before), lambda found: min(found) > 20, seconds=60)
        time.sleep(max(0, ends - time.monotonic()))
        during = grown(writers, before)
        assert roles["frontier"].is_ready()
        assert sample(roles, "matyan_spill_active") == 1
        assert sample(roles, "matyan_spill_records") > 0
    finally:
        come_back(broker)
    eventually(lambda: is_direct(roles), bool, seconds=60)
    time.sleep(AFTER_SECONDS)
    training.end()

    assert min(during) > 20
    check(roles, writers)
    with Rest(roles["serve"].url) as rest:
        training.check(rest)
    assert sample(roles, "matyan_spill_forwarded_total") > 100


def test_a_frontier_killed_in_an_outage_forwards_what_it_had_kept(roles: Installation, broker: Broker) -> None:
    writers = writers_of(roles, "killed-frontier")
    eventually(lambda: grown(writers, []), all, seconds=60)
    broker.kill()
    try:
        eventually(lambda: sample(roles, "matyan_spill_records"), lambda found: found > 30, seconds=60)
        kept = last_of(writers)
        roles["frontier"].kill()
    finally:
        broker.start()
    roles["frontier"].start()
    eventually(lambda: is_direct(roles), bool, seconds=60)
    goes_on = eventually(lambda: all(map(operator.gt, last_of(writers), kept)), bool, seconds=60)

    check(roles, writers)
    assert goes_on


def test_a_full_spill_is_said_and_costs_nothing_acknowledged(roles: Installation, broker: Broker) -> None:
    frontier = roles.start("frontier-2", environment={"MATYAN_SPILL_BYTES_MAX": "300000"})
    run, acknowledged = "full-spill", 0
    broker.kill()
    try:
        with RawWriter(frontier.websocket_url, run) as writer:
            assert writer.send(create(run))["status"] == "ok"
            for number in range(100):
                text = f"{number} {secrets.token_hex(10_000)}"
                reply = writer.send(message("log_record", run, message=text, level=20, timestamp=1.0))
                if reply["status"] != "ok":
                    break
                acknowledged += 1
            assert "the spill is full" in reply["error"]
            assert "spill.bytes_max" in reply["error"]
            with pytest.raises(InvalidStatus) as refused, RawWriter(frontier.websocket_url, "other"):
                pass
            assert refused.value.response.status_code == 503
            assert not frontier.is_ready()
    finally:
        broker.start()
    eventually(frontier.is_ready, bool, seconds=60)
    with RawWriter(frontier.websocket_url, run) as writer:
        writer.send(message("log_record", run, message="last", level=20, timestamp=1.0))

    with Rest(roles["serve"].url) as rest:
        records = eventually(
            lambda: [record["message"].split()[0] for record in rest.records(run)] if rest.exists(run) else [],
            lambda found: "last" in found,
        )
    assert acknowledged >= 5
    assert records == [*map(str, range(acknowledged)), "last"]
    assert frontier.stop() == 0, frontier.log
