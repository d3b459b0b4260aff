from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.browser import launched
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


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """One browser for all tests of a module; each test has a profile of its own."""
    with launched() as browser:
        yield browser
