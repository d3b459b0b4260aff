"""The same product, put together in each way it can be: what a test is true of, it is true of all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Final, NamedTuple, Protocol

import pytest

from tests.support.ingress import ingress
from tests.support.kafka import fresh_settings, shared_broker
from tests.support.roles import installed
from tests.support.s3 import S3Server
from tests.support.server import MatyanServer, started

EMBEDDED: Final = "embedded"


class Deployment(Protocol):
    """What a client sees of any of them."""

    @property
    def url(self) -> str:
        """The origin of UI, REST and uploads."""

    @property
    def websocket_url(self) -> str:
        """The origin for WebSockets."""


class _Address(NamedTuple):
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def websocket_url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"


@contextmanager
def _embedded(home: Path, _: Callable[[], S3Server]) -> Iterator[Deployment]:
    with started(home) as server:
        yield server


@contextmanager
def _mixed(home: Path, s3: Callable[[], S3Server]) -> Iterator[Deployment]:
    """One process, the store in a file, the log in Kafka and files in S3."""
    environment = {
        "MATYAN_LOG_URI": shared_broker().uri,
        "MATYAN_KAFKA_TOPIC_PREFIX": fresh_settings().topic_prefix,
        **s3().environment(home.parent.name.replace("_", "-")),
    }
    with MatyanServer(home, environment=environment) as server:
        yield server


@contextmanager
def _apart(home: Path, s3: Callable[[], S3Server]) -> Iterator[Deployment]:
    """Every role in a process of its own, behind one address."""
    with (
        installed(home, shared_broker(), s3()) as roles,
        ingress(serve_port=roles["serve"].port, frontier_port=roles["frontier"].port) as door,
    ):
        yield _Address(door.port)


_OPEN: Final[Mapping[str, Callable[[Path, Callable[[], S3Server]], AbstractContextManager[Deployment]]]] = {
    EMBEDDED: _embedded,
    "mixed": _mixed,
    "apart": _apart,
}
_SERVICES: Final = (pytest.mark.kafka, pytest.mark.s3)

on_every_deployment: Final = pytest.mark.parametrize(
    "server",
    [EMBEDDED, *(pytest.param(name, marks=_SERVICES) for name in _OPEN if name != EMBEDDED)],
    indirect=True,
    scope="module",
)
"""Mark of a module whose tests hold for each of them."""


def deployed(name: str, home: Path, s3: Callable[[], S3Server]) -> AbstractContextManager[Deployment]:
    """Run a deployment with its data in `home`; `s3` is called where a bucket is needed."""
    return _OPEN[name](home, s3)
