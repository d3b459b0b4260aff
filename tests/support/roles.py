"""The four roles as processes of their own: on Kafka, S3 and one store that all of them share."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.support.kafka import Broker
from tests.support.s3 import S3Server
from tests.support.server import MATYAN, MatyanServer
from tests.support.stores import store_environment

ROLES: Final = ("serve", "frontier", "ingest", "control")


class RoleServer(MatyanServer):
    """One role in one process, with health and metrics on `port`."""

    def __init__(self, role: str, home: Path, *, environment: Mapping[str, str], arguments: Sequence[str] = ()) -> None:
        super().__init__(home, environment=environment)
        self.role = role
        self._arguments = tuple(arguments)

    def command(self) -> Sequence[str]:
        """Return the command line."""
        return [str(MATYAN), self.role, "--home", str(self.home), "--port", str(self.port), *self._arguments]


class Installation:
    """All that the roles share, and those of them that run. A process is known by its name: `ingest`, `ingest-2`."""

    def __init__(
        self, home: Path, broker: Broker, s3: S3Server, *, environment: Mapping[str, str] | None = None
    ) -> None:
        self.home = home
        self.broker = broker
        self.bucket = f"apart-{secrets.token_hex(4)}"
        self.servers: dict[str, RoleServer] = {}
        home.mkdir(parents=True, exist_ok=True)
        self.environment = {
            "MATYAN_KV_URI": f"lmdb://{home / 'kv'}",
            **store_environment(home),
            "MATYAN_LOG_URI": broker.uri,
            "MATYAN_KAFKA_TOPIC_PREFIX": f"{self.bucket}.",
            "MATYAN_KAFKA_SESSION_SECONDS": "6",
            "MATYAN_SECRETS_KEYS": "of-the-tests-alone-and-long-enough-for-that",
            "MATYAN_LOGGING_FORMAT": "json",
            **s3.environment(self.bucket),
            **(environment or {}),
        }

    def start(self, name: str, *arguments: str, environment: Mapping[str, str] | None = None) -> RoleServer:
        """Start a process of the role that its name begins with, and wait until it is ready."""
        role = name.partition("-")[0]
        server = RoleServer(
            role, self.home / name, environment=self.environment | dict(environment or {}), arguments=arguments
        )
        self.servers[name] = server
        server.start()
        return server

    def __getitem__(self, name: str) -> RoleServer:
        """Return a process by its name."""
        return self.servers[name]

    def kill(self) -> None:
        """End every process."""
        for server in self.servers.values():
            server.kill()

    def logs(self) -> str:
        """Return what every process wrote, one after another."""
        return "\n".join(f"--- {name}\n{server.log}" for name, server in self.servers.items())


@contextmanager
def installed(
    home: Path,
    broker: Broker,
    s3: S3Server,
    *,
    environment: Mapping[str, str] | None = None,
    before: Callable[[Installation], None] = lambda _: None,
) -> Iterator[Installation]:
    """Yield an installation with one process of each role; their logs are printed when the block fails.

    `before` is called when nothing runs yet.
    """
    installation = Installation(home, broker, s3, environment=environment)
    try:
        before(installation)
        for role in ROLES:
            installation.start(role)
        yield installation
    except BaseException:
        print(installation.logs())
        raise
    finally:
        installation.kill()
