"""One app for many tests: Litestar takes a third of a second to put the routes together, and the services change."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from litestar import Litestar
from litestar.testing import TestClient


class StandIn:
    """What an app was given as a service: it passes everything on to that of the test that runs."""

    def __init__(self) -> None:
        self._service: object = None

    def stand_for(self, service: object) -> None:
        """From now on."""
        self._service = service

    @property  # type: ignore[misc]  # Litestar checks what handlers are given, with isinstance
    def __class__(self) -> type:
        return type(self._service)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._service, name)


class StandingApp:
    """An app that is made at its first use, and serves one set of services after another."""

    def __init__(self, names: Iterable[str], make: Callable[[Mapping[str, object]], Litestar]) -> None:
        self._services = {name: StandIn() for name in names}
        self._make = make
        self._app: Litestar | None = None

    @contextmanager
    def serving(self, services: Mapping[str, object]) -> Iterator[TestClient[Litestar]]:
        """Yield a client, in this process, of the app with these services."""
        if self._app is None:
            self._app = self._make(self._services)
        for name, stand_in in self._services.items():
            stand_in.stand_for(services[name])
        with TestClient(self._app, base_url="http://127.0.0.1:53800") as client:
            yield client
