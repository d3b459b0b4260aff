from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.browser import launched
from tests.support.deployments import EMBEDDED, Deployment, deployed
from tests.support.rest import Rest


@pytest.fixture(scope="module")
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """One installation for all tests of a module, `matyan up` unless it says more; each test uses runs of its own."""
    name = getattr(request, "param", EMBEDDED)
    home = tmp_path_factory.mktemp("tracker") / "home"
    with deployed(name, home, lambda: request.getfixturevalue("s3_server")) as running:
        yield running


@pytest.fixture
def rest(server: Deployment) -> Iterator[Rest]:
    with Rest(server.url) as reader:
        yield reader


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """One browser for all tests of a module; each test has a profile of its own."""
    with launched() as browser:
        yield browser
