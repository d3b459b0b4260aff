"""The roles of config/compose.yaml, each by its own command, environment and health check.

There is no Docker engine, so the engines are those of the tests and ports are free ones; everything else is what the
file says. Each role has to become healthy, keep what is sent to it, and end in time when it is told to.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from matyan.roles.table import APART
from tests.support.compose import filled_compose, make_env
from tests.support.dockerfile import read_dockerfile
from tests.support.kafka import fresh_settings, shared_broker
from tests.support.markdown import ROOT
from tests.support.rest import Rest, eventually
from tests.support.s3 import S3Server
from tests.support.server import MATYAN, free_port
from tests.support.writer import RawWriter, create

pytestmark = [pytest.mark.kafka, pytest.mark.s3]
HEALTHY_SECONDS_MAX: Final = 60.0


class Container:
    """A service of the file, as a process of this machine."""

    def __init__(self, service: Mapping[str, Any], environment: Mapping[str, str], log: Path) -> None:
        self.port = free_port()
        self.seconds_to_stop = float(service["stop_grace_period"].removesuffix("s"))
        self._check = service["healthcheck"]["test"][2:]
        self._environment = {**environment, "MATYAN_HTTP_PORT": str(self.port), "PATH": os.environ["PATH"]}
        self._log = log
        with log.open("wb") as out:
            command = [MATYAN, *service["command"]]
            self._process = subprocess.Popen(command, env=self._environment, stdout=out, stderr=out)

    def wait_until_healthy(self) -> None:
        deadline = time.monotonic() + HEALTHY_SECONDS_MAX
        while not self.is_healthy():
            assert self._process.poll() is None, self._log.read_text()
            assert time.monotonic() < deadline, self._log.read_text()
            time.sleep(0.2)

    def is_healthy(self) -> bool:
        done = subprocess.run([MATYAN, *self._check], env=self._environment, capture_output=True, check=False)
        return done.returncode == 0

    def tell_to_stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)

    def exit_code(self) -> int:
        return self._process.wait(self.seconds_to_stop)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


@pytest.fixture
def containers(tmp_path: Path, s3_server: S3Server) -> Iterator[dict[str, Container]]:
    compose = filled_compose(make_env(tmp_path / ".env"))
    image = read_dockerfile(ROOT / "Dockerfile").final.environment
    here = {
        "MATYAN_HTTP_HOST": "127.0.0.1",
        "MATYAN_KV_URI": f"lmdb://{tmp_path / 'kv'}",
        "MATYAN_LOG_URI": shared_broker().uri,
        "MATYAN_KAFKA_TOPIC_PREFIX": fresh_settings().topic_prefix,
        **s3_server.environment(f"compose-{os.getpid()}"),
        "MATYAN_S3_PUBLIC_ENDPOINT": s3_server.endpoint,
    }
    started: dict[str, Container] = {}
    try:
        for role in APART:
            service = compose["services"][role]
            home = {"MATYAN_HOME": str(tmp_path / role)}
            environment = {**image, **service["environment"], **here, **home}
            started[role] = Container(service, environment, tmp_path / f"{role}.log")
        for container in started.values():
            container.wait_until_healthy()
        yield started
    finally:
        for container in started.values():
            container.kill()


def test_roles_become_healthy_work_together_and_end_when_told(containers: dict[str, Container]) -> None:
    frontier, serve = containers["frontier"], containers["serve"]

    with RawWriter(f"ws://127.0.0.1:{frontier.port}", "composed") as writer:
        assert writer.send(create("composed"))["status"] == "ok"
    with Rest(f"http://127.0.0.1:{serve.port}") as rest:
        assert eventually(lambda: rest.exists("composed"), bool)
    for container in containers.values():
        container.tell_to_stop()

    assert {role: container.exit_code() for role, container in containers.items()} == dict.fromkeys(APART, 0)
