from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.rest import Rest
from tests.support.server import MatyanServer, started


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MatyanServer]:
    """One `matyan up` for all tests of a module; each test uses runs of its own."""
    with started(tmp_path_factory.mktemp("tracker") / "home") as running:
        yield running


@pytest.fixture
def rest(server: MatyanServer) -> Iterator[Rest]:
    with Rest(server.url) as reader:
        yield reader
