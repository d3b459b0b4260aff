"""What is edited on the screen of the Aim UI stands in the store afterwards, as REST tells."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

import httpx
import pytest

from tests.support.browser import WatchedPage, metrics_path, watched
from tests.support.dataset import GOLDEN
from tests.support.golden_import import import_golden
from tests.support.rest import Rest
from tests.support.server import MatyanServer, started

pytestmark = pytest.mark.browser
RUNS: Final = {run["name"]: run["hash"] for run in json.loads((GOLDEN / "dataset.json").read_text())["runs"]}
NOTE: Final = ".ProseMirror"
QUERY: Final = "metric.name == 'accuracy'"
REPORT: Final = "# Weekly\n\nAll is *well*.\n\n```aim\nruns = repo.filter('run')\n```\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MatyanServer]:
    with started(import_golden(tmp_path_factory.mktemp("golden") / "home")) as server:
        yield server


@pytest.fixture
def browser(chromium: Any, server: MatyanServer) -> Iterator[WatchedPage]:
    with watched(chromium, server.url) as page:
        yield page
        assert page.complaints == []


def press(browser: WatchedPage, name: str) -> None:
    browser.page.get_by_role("button", name=name, exact=True).first.click()


def test_a_run_is_renamed_in_its_settings(browser: WatchedPage, rest: Rest) -> None:
    browser.open(f"/runs/{RUNS['sweep-1']}/settings")
    browser.page.locator(".NameAndDescriptionCard input").fill("the best one")
    with browser.saving("PUT"):
        press(browser, "Save")

    assert rest.info(RUNS["sweep-1"])["props"]["name"] == "the best one"
    browser.open("/runs")
    browser.wait_for_text("the best one")


def test_a_run_is_archived_in_its_settings_and_leaves_the_table(browser: WatchedPage, rest: Rest) -> None:
    browser.open(f"/runs/{RUNS['sweep-2']}/settings")
    with browser.saving("PUT"):
        press(browser, "Archive")

    browser.wait_for_text("Unarchive Run")
    assert rest.info(RUNS["sweep-2"])["props"]["archived"] is True
    browser.open("/runs")
    browser.wait_for_text("sweep-3")
    assert browser.page.get_by_text("sweep-2").count() == 0


def test_a_run_is_deleted_in_its_settings_and_its_page_is_gone(browser: WatchedPage, rest: Rest) -> None:
    browser.open(f"/runs/{RUNS['sweep-4']}/settings")
    press(browser, "Delete")
    with browser.saving("DELETE"):
        browser.page.get_by_role("dialog").get_by_role("button", name="Delete").click()

    browser.page.wait_for_url("**/runs")
    browser.wait_for_text("sweep-3")
    assert browser.page.get_by_text("sweep-4").count() == 0
    with pytest.raises(httpx.HTTPStatusError, match="404"):
        rest.info(RUNS["sweep-4"])


def test_a_tag_is_attached_on_the_overview_of_a_run(browser: WatchedPage, rest: Rest) -> None:
    browser.open(f"/runs/{RUNS['logs-run']}/overview")
    browser.page.locator(".AttachedTagsList button").first.click()
    with browser.saving("POST"):
        browser.page.locator(".SelectTag__tags__item").filter(has_text="unused").click()

    assert [tag["name"] for tag in rest.info(RUNS["logs-run"])["props"]["tags"]] == ["unused"]


def test_a_tag_is_made_on_the_tags_page(browser: WatchedPage, rest: Rest) -> None:
    browser.open("/tags")
    browser.page.locator("button").filter(has_text="Create Tag").click()
    browser.page.locator(".TagForm input").first.fill("to be checked")
    with browser.saving("POST"):
        browser.page.locator(".TagForm button").filter(has_text="Create").click()

    browser.wait_for_text("to be checked")
    assert "to be checked" in [tag["name"] for tag in rest.get("/tags/").json()]


def test_a_note_is_written_in_the_notes_of_a_run(browser: WatchedPage, rest: Rest) -> None:
    browser.open(f"/runs/{RUNS['newest']}/notes")
    browser.page.locator(NOTE).click()
    browser.page.keyboard.type("learning rate looks too high")
    with browser.saving("POST"):
        press(browser, "Save")

    notes = rest.get(f"/runs/{RUNS['newest']}/note/").json()
    assert [note["content"] for note in notes] == ["learning rate looks too high"]


def test_a_bookmark_keeps_the_query_of_an_explorer(browser: WatchedPage, rest: Rest) -> None:
    browser.open(metrics_path(QUERY))
    browser.page.locator(".MetricsBar__item__bookmark").click()
    browser.page.get_by_label("Bookmark Name").fill("accuracies")
    with browser.saving("POST"):
        browser.page.get_by_role("dialog").get_by_role("button", name="Save").click()

    browser.open("/bookmarks")
    browser.wait_for_text("accuracies")
    browser.take_picture("golden-bookmarks-one")
    (bookmark,) = rest.get("/dashboards/").json()
    state = rest.get(f"/apps/{bookmark['app_id']}/").json()["state"]
    assert (bookmark["name"], state["select"]["advancedQuery"]) == ("accuracies", QUERY)


def test_a_report_is_written_and_says_why_its_code_does_not_run(browser: WatchedPage, rest: Rest) -> None:
    browser.open("/reports/new")
    browser.page.wait_for_function("() => window.monaco && monaco.editor.getModels().length === 1")
    # Not by the keyboard: the editor takes back what is typed faster than the page is drawn, under any server.
    browser.page.evaluate("text => monaco.editor.getModels()[0].setValue(text)", REPORT)
    press(browser, "Save")
    browser.page.get_by_role("dialog").locator("#name").fill("weekly")
    with browser.saving("POST"):
        browser.page.get_by_role("dialog").get_by_role("button", name="Save").click()

    (report,) = rest.get("/reports/").json()
    assert (report["name"], report["code"]) == ("weekly", REPORT)
    browser.open(f"/reports/{report['id']}")
    browser.wait_for_text("All is well.")
    browser.wait_for_text("Pyodide comes from the internet")
    browser.take_picture("golden-report")
