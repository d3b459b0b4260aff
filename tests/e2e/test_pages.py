"""Every page of the released Aim UI shows the golden dataset, in a real browser, without a single complaint.

One server over the imported dataset; each test opens one page of the table as a user with a link would, waits for what
the dataset says must be there, keeps a picture, and ends with: no failing request, no request to another origin, no
console error.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import pytest

from tests.support.browser import WatchedPage, metrics_path, objects_path, profile, tab
from tests.support.golden_import import import_golden
from tests.support.golden_pages import PAGES, count_sequences
from tests.support.server import MatyanServer, started

pytestmark = pytest.mark.browser
PLAY: Final = ".AudioBox__controllers__player svg"


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MatyanServer]:
    with started(import_golden(tmp_path_factory.mktemp("golden") / "home")) as server:
        yield server


@pytest.fixture(scope="module")
def user(chromium: Any) -> Iterator[Any]:
    """One profile for all tests, which only look: the bundle's files stay in its cache."""
    with profile(chromium) as context:
        yield context


@pytest.fixture
def browser(user: Any, golden: MatyanServer) -> Iterator[WatchedPage]:
    with tab(user, golden.url) as page:
        yield page
        assert page.complaints == []


@pytest.mark.parametrize("name", PAGES)
def test_a_page_shows_the_golden_dataset(browser: WatchedPage, name: str) -> None:
    PAGES[name].check(browser)

    browser.take_picture(f"golden-{name}")
    assert "Matyan" in browser.page.title()


def test_a_recording_is_loaded_when_it_is_played(browser: WatchedPage) -> None:
    browser.open(objects_path("audios", "audios.name == 'speech' and audios.context.subset == 'train'"))

    with browser.page.expect_response("**/runs/audios/get-batch") as answer:
        browser.page.locator(PLAY).first.click()

    browser.wait_for_count(PLAY, count_sequences("audios", "speech"))
    assert b"RIFF" in answer.value.body()


def test_a_query_that_is_no_query_is_marked_and_breaks_nothing(browser: WatchedPage) -> None:
    browser.open(metrics_path("metric.name ==="))

    browser.wait_for_text("Incorrect Query")
    browser.complaints = [each for each in browser.complaints if "400" not in each]
