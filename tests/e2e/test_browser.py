"""The released Aim UI must show what the released client logs, in a real browser, without a single complaint.

Every page there is stands in test_pages.py; here are those that show what the client sends. A server is filled by the
demo; each test opens one page as a user would, looks for what must be seen, and ends with: no failing request, no
request to another origin, no console error.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any, Final

import pytest

from matyan.demo import PLANS
from tests.support.browser import WatchedPage, metrics_path, watched
from tests.support.server import MatyanServer

pytestmark = pytest.mark.browser
BASELINE: Final = next(plan for plan in PLANS if plan.name == "lr=0.001")
CURVES: Final = "svg path.Line"


@pytest.fixture(scope="module")
def filled(server: MatyanServer) -> MatyanServer:
    """A tracker with the demo's runs."""
    pytest.importorskip("matyan_client", reason="matyan-client is not installed")
    script = "import sys; from matyan.demo import log_demo; log_demo(sys.argv[1], pace_seconds=0)"
    subprocess.run([sys.executable, "-c", script, server.url], check=True, timeout=120, capture_output=True)
    return server


@pytest.fixture
def browser(chromium: Any, filled: MatyanServer) -> Iterator[WatchedPage]:
    with watched(chromium, filled.url) as page:
        yield page
        assert page.complaints == []


def test_the_runs_table_shows_the_runs_by_name(browser: WatchedPage) -> None:
    browser.open("/runs")

    browser.wait_for_text(BASELINE.name)
    browser.wait_for_text(BASELINE.experiment)
    browser.take_picture("runs")


def test_the_metrics_explorer_draws_a_curve_for_each_run(browser: WatchedPage) -> None:
    browser.open(metrics_path("metric.name == 'loss' and metric.context.subset == 'train'"))

    browser.page.locator(CURVES).first.wait_for(state="attached")
    browser.take_picture("metrics")
    drawn = [path for path in browser.page.locator(CURVES).all() if len(path.get_attribute("d") or "") > 100]
    assert len(drawn) >= len(PLANS) - 1


def test_a_search_typed_by_hand_draws_a_curve(browser: WatchedPage) -> None:
    browser.open(metrics_path("metric.name == 'no such metric'"))
    editor = browser.page.locator(".monaco-editor textarea, textarea").first

    editor.focus()
    browser.page.keyboard.press("Control+A")
    browser.page.keyboard.type("metric.name == 'accuracy'")
    browser.page.get_by_role("button", name="Search").first.click()

    browser.page.locator(CURVES).first.wait_for(state="attached")
    browser.take_picture("metrics-typed")


@pytest.mark.parametrize(
    ("tab", "text"),
    [
        ("run_parameters", "learning_rate"),
        ("logs", f"training {BASELINE.experiment}/{BASELINE.name}"),
        ("messages", "data loaded"),
    ],
)
def test_the_run_page_shows_its_tabs(browser: WatchedPage, tab: str, text: str) -> None:
    browser.open(f"/runs/{BASELINE.run_id}/{tab}")

    browser.wait_for_text(text)
    browser.take_picture(f"run-{tab}")
