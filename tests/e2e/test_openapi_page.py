"""The page of the HTTP interface must work in a real browser that may load nothing but what this server sends.

The page is opened behind a base path, an operation unfolded and tried out; what a strict content security policy
forbids would show up as a complaint of the browser.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import pytest

from tests.support.browser import watched
from tests.support.server import MatyanServer

pytestmark = pytest.mark.browser
BASE_PATH: Final = "/tracker"


@pytest.fixture(scope="module")
def moved(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MatyanServer]:
    """A server behind a base path."""
    home = tmp_path_factory.mktemp("moved") / "home"
    with MatyanServer(home, environment={"MATYAN_HTTP_BASE_PATH": BASE_PATH}) as server:
        yield server


def test_the_page_shows_every_group_and_tries_an_operation_out(chromium: Any, moved: MatyanServer) -> None:
    with watched(chromium, moved.url) as browser:
        browser.open(f"{BASE_PATH}/openapi/")
        browser.wait_for_text("aim runs")
        browser.wait_for_text("matyan experiments")
        page = browser.page
        page.locator("[data-tag='aim projects']").first.click()
        operation = page.locator("#operations-aim_projects-aim_getProject")
        operation.click()
        operation.get_by_role("button", name="Try it out").click()
        operation.get_by_role("button", name="Execute").click()
        operation.locator(".responses-table.live-responses-table").wait_for(state="visible")
        browser.take_picture("openapi")

        answer = operation.locator(".live-responses-table tbody .response-col_status").first.inner_text()

        assert answer.startswith("200")
        assert f"{moved.url}{BASE_PATH}/api/projects" in operation.locator(".request-url").inner_text()
        assert browser.complaints == []
