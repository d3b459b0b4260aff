"""A real Apache Kafka for tests: one KRaft node on this machine, its jars from Maven Central, kept in the cache."""

from __future__ import annotations

import atexit
import functools
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import pytest

from matyan.settings import KafkaSettings

VERSION: Final = "4.1.0"
SECONDS: Final = 60.0
"""How long a broker may take to come up on a machine that does other things too."""
USER, PASSWORD = "matyan", "secret-of-the-broker"
_CLUSTER_ID: Final = "bWF0eWFuLXRlc3RzLWthZg"
"""Sixteen bytes in base64, as Kafka wants it."""
_POM: Final = f"""<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>matyan</groupId><artifactId>kafka-for-tests</artifactId><version>1</version>
<dependencies><dependency>
<groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{VERSION}</version>
</dependency></dependencies></project>
"""
_SERVER: Final = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{plain},SASL_PLAINTEXT://127.0.0.1:{sasl},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{plain},SASL_PLAINTEXT://127.0.0.1:{sasl}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
sasl.enabled.mechanisms=PLAIN
listener.name.sasl_plaintext.plain.sasl.jaas.config=\
org.apache.kafka.common.security.plain.PlainLoginModule required user_{user}="{password}";
log.dirs={data}
auto.create.topics.enable=false
default.replication.factor=1
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=500
metadata.max.idle.interval.ms=0
log.initial.task.delay.ms=1000
num.network.threads=2
num.io.threads=4
log.cleaner.enable=false
"""


def jars() -> Path:
    """Return the folder of Kafka's jars, downloading them when the cache has none.

    Raises:
        LookupError: they are not there and cannot be had here; says why.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "matyan-tests" / f"kafka-{VERSION}"
    if shutil.which("java") is None:
        raise LookupError("no java on the PATH")
    if not cache.exists():
        _download(cache)
    return cache


def _download(cache: Path) -> None:
    if (maven := shutil.which("mvn")) is None:
        raise LookupError(f"no mvn on the PATH to fetch Kafka {VERSION} with")
    fresh = cache.with_name(f"{cache.name}.{os.getpid()}")
    fresh.mkdir(parents=True)
    (fresh / "pom.xml").write_text(_POM)
    command = [maven, "-q", "-B", "dependency:copy-dependencies", "-DincludeScope=runtime", "-DoutputDirectory=."]
    try:
        found = subprocess.run(command, cwd=fresh, capture_output=True, text=True, timeout=240, check=False)
    except subprocess.TimeoutExpired as error:
        raise LookupError(f"mvn did not bring Kafka {VERSION} within {error.timeout:.0f} s") from error
    if found.returncode != 0:
        raise LookupError(f"mvn could not bring Kafka {VERSION}: {found.stdout[-500:]}")
    fresh.rename(cache)  # the last step: a folder of that name is whole


def _formatted(jars: Path) -> Path:
    """Return the folder of a node's data that nothing was written to; Kafka makes it once, which takes it 2 s."""
    made = jars.with_name(f"{jars.name}-{_CLUSTER_ID}")
    if not made.exists():
        fresh = made.with_name(f"{made.name}.{os.getpid()}")
        fresh.mkdir()
        properties = str(_write_properties(fresh, plain=1, sasl=2, controller=3))
        command = _java(jars, "kafka.tools.StorageTool", "format", "-t", _CLUSTER_ID, "-c", properties)
        subprocess.run(command, check=True, capture_output=True, timeout=SECONDS)
        with suppress(OSError):  # another session was quicker
            (fresh / "data").rename(made)
        shutil.rmtree(fresh)
    return made


def _write_properties(home: Path, **ports: int) -> Path:
    """Write the settings of a node whose files are in `home`, and return their file."""
    path = home / "server.properties"
    path.write_text(_SERVER.format(data=home / "data", user=USER, password=PASSWORD, **ports))
    return path


def _java(jars: Path, main: str, *arguments: str) -> Sequence[str]:
    options = ["-Xmx512m", "-Xms128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto"]
    return ["java", *options, "-cp", f"{jars}/*", main, *arguments]


class Broker:
    """One Kafka node; it can be killed and started again on the same ports and files."""

    def __init__(self, home: Path, jars: Path) -> None:
        self._home = home
        self._jars = jars
        self._process: subprocess.Popen[bytes] | None = None
        self.port, self.sasl_port, self.controller_port = _free_ports(3)
        home.mkdir(parents=True, exist_ok=True)
        _write_properties(home, plain=self.port, sasl=self.sasl_port, controller=self.controller_port)
        shutil.copytree(_formatted(jars), home / "data")

    @property
    def uri(self) -> str:
        """What matyan calls it."""
        return f"kafka://127.0.0.1:{self.port}"

    @property
    def sasl_uri(self) -> str:
        """The same, by the door that asks for USER and PASSWORD."""
        return f"kafka://127.0.0.1:{self.sasl_port}"

    def start(self) -> None:
        """Start it and wait until it takes connections."""
        command = _java(self._jars, "kafka.Kafka", str(self._home / "server.properties"))
        with (self._home / "broker.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self._home)
        deadline = time.monotonic() + SECONDS
        while not _listens(self.port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"Kafka did not start: {(self._home / 'broker.log').read_text()[-2000:]}")
            time.sleep(0.05)

    def kill(self) -> None:
        """End it as the loss of its power would, short of the disk's."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it, if it runs; its files are for the dustbin."""
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """Make it answer nothing, its connections open."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(SECONDS)
            self._process = None


@contextmanager
def running_broker(home: Path) -> Iterator[Broker]:
    """Run a broker whose files are in `home`.

    Raises:
        LookupError: there is no Kafka to be had here; says why.
    """
    broker = Broker(home, jars())
    broker.start()
    try:
        yield broker
    finally:
        broker.stop()


@functools.cache
def shared_broker() -> Broker:
    """Return the one broker of this test process, started at the first call; skip the test when there is none."""
    home = tempfile.TemporaryDirectory(prefix="matyan-kafka-", ignore_cleanup_errors=True)
    stack = ExitStack()
    stack.enter_context(home)
    try:
        broker = stack.enter_context(running_broker(Path(home.name)))
    except LookupError as error:
        stack.close()
        pytest.skip(f"needs a Kafka broker: {error}")
    atexit.register(stack.close)
    return broker


def fresh_settings(**changes: Any) -> KafkaSettings:
    """Return settings under which the log is a fresh one, in topics of its own."""
    return KafkaSettings(topic_prefix=f"t{secrets.token_hex(6)}.", **changes)


def _listens(port: int) -> bool:
    with closing(socket.socket()) as found:
        return found.connect_ex(("127.0.0.1", port)) == 0


def _free_ports(number: int) -> list[int]:
    """Return ports below the ephemeral ones, which no client's socket takes while the broker is down.

    pyproject.toml tells sockets to brokers by the range.
    """
    found: list[int] = []
    candidate = 20_000 + os.getpid() * 8 % 10_000
    while len(found) < number:
        with closing(socket.socket()) as probe:
            if probe.connect_ex(("127.0.0.1", candidate)) != 0:
                found.append(candidate)
        candidate += 1
    return found
