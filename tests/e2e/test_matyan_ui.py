"""The released Matyan UI, served below a base path, shows the golden dataset without a single complaint.

Its pages are those of the Aim UI in other colours; what differs is where it looks for the API.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import pytest

from tests.support.browser import WatchedPage, metrics_path, profile, tab
from tests.support.golden_import import import_golden
from tests.support.golden_pages import PAGES, RUNS, run_path
from tests.support.matyan_ui import unpacked_wheel
from tests.support.rest import Rest
from tests.support.server import MatyanServer

pytestmark = pytest.mark.browser
BASE_PATH: Final = "/tracker"
CHECKED: Final = ("home", "runs", "metrics", "images-one", "figures", "run-overview", "run-metrics", "run-images")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MatyanServer]:
    settings = {"UI": "matyan", "UI_PATH": str(unpacked_wheel()), "BASE_PATH": BASE_PATH}
    environment = {f"MATYAN_HTTP_{name}": value for name, value in settings.items()}
    home = import_golden(tmp_path_factory.mktemp("golden") / "home")
    with MatyanServer(home, environment=environment) as server:
        yield server


@pytest.fixture(scope="module")
def user(chromium: Any) -> Iterator[Any]:
    with profile(chromium) as context:
        yield context


@pytest.fixture
def browser(user: Any, server: MatyanServer) -> Iterator[WatchedPage]:
    with tab(user, server.url + BASE_PATH) as page:
        yield page
        assert page.complaints == []


@pytest.mark.parametrize("name", CHECKED)
def test_a_page_shows_the_golden_dataset(browser: WatchedPage, name: str) -> None:
    PAGES[name].check(browser)

    browser.take_picture(f"matyan-{name}")
    assert "Matyan" in browser.page.title()


def is_live_update(response: Any) -> bool:
    return "report_progress=False" in response.url


def test_the_live_update_asks_the_same_server(browser: WatchedPage) -> None:
    browser.open(metrics_path("metric.name == 'loss'"))
    # A worker of the page asks, which only the profile hears of.
    with browser.page.context.expect_event("response", is_live_update) as answer:
        browser.page.locator(".LiveUpdateSettings button").click()

    assert answer.value.url.startswith(f"{browser.origin}/api/v1/rest/runs/search/metric?")
    assert answer.value.status == 200


def test_a_run_is_finished_in_its_settings(browser: WatchedPage, server: MatyanServer) -> None:
    browser.open(run_path("active-one", "settings"))
    with browser.saving("PUT"):
        browser.page.get_by_role("button", name="Stop").click()

    with Rest(server.url + BASE_PATH) as rest:
        assert rest.info(RUNS["active-one"]["hash"])["props"]["active"] is False
