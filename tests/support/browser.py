"""A headless Chromium that notices everything a user would be annoyed by."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

import pytest

CHROMIUM: Final = Path("/usr/bin/chromium")
ARTIFACTS: Final = Path(os.environ.get("MATYAN_ARTIFACTS", Path(__file__).parents[2] / "build-artifacts"))
ARGUMENTS: Final = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--force-color-profile=srgb"]
WAIT_MILLISECONDS: Final = 60_000
"""Enough beside all that a machine of two cores does meanwhile."""
_IGNORE_THE_UIS_OWN: Final = """
addEventListener("unhandledrejection", (event) => {
    const { type, message } = event.reason || {};
    if (type === "cancelation" || String(message).includes("play() request was interrupted")) event.preventDefault();
});
"""
"""Two promises that the UI leaves rejected under any server: its query editor's whenever it is mounted twice, and that
of the placeholder of an audio player, which is started by the click that replaces it."""


class WatchedPage:
    """A page of one tracker; `complaints` holds whatever went wrong in it."""

    def __init__(self, page: Any, origin: str) -> None:
        self.page = page
        self.origin = origin
        self.complaints: list[str] = []
        page.set_default_timeout(WAIT_MILLISECONDS)
        page.add_init_script(_IGNORE_THE_UIS_OWN)
        page.on("request", self._on_request)
        page.on("requestfailed", self._on_failure)
        page.on("response", self._on_response)
        page.on("console", self._on_console)
        page.on("pageerror", lambda error: self.complaints.append(f"uncaught: {error}"))

    def open(self, path: str) -> None:
        """Go to a path of the tracker and wait until nothing is on its way any more."""
        self.page.goto(self.origin + path)
        self.page.wait_for_load_state("networkidle")

    def wait_for_text(self, text: str) -> None:
        """Wait until `text` is to be seen."""
        # Charts carry their names as hidden titles too: the first match need not be the one on the screen.
        self.page.locator("body").get_by_text(text, exact=False).filter(visible=True).first.wait_for(state="visible")

    @contextmanager
    def saving(self, method: str) -> Iterator[None]:
        """Wait, after the block, for the answer to its first request of that method."""
        with self.page.expect_response(lambda response: response.request.method == method):
            yield

    def wait_for_count(self, selector: str, count: int) -> None:
        """Wait until exactly `count` elements match the CSS selector; of images those that could be decoded."""
        is_there = "element => element.tagName !== 'IMG' || element.naturalWidth > 0"
        found = f"[...document.querySelectorAll(selector)].filter({is_there}).length"
        self.page.wait_for_function(f"([selector, count]) => {found} === count", arg=[selector, count])

    def wait_for_value(self, value: str) -> None:
        """Wait until an input field holds `value`."""
        script = "value => [...document.querySelectorAll('input')].some(field => field.value === value)"
        self.page.wait_for_function(script, arg=value)

    def take_picture(self, name: str, folder: Path = ARTIFACTS) -> Path:
        """Save what is on the screen as PNG."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{name}.png"
        self.page.screenshot(path=path)
        return path

    def _on_request(self, request: Any) -> None:
        if not request.url.startswith((self.origin, "data:", "blob:")):
            self.complaints.append(f"request to another origin: {request.url[:200]}")

    def _on_failure(self, request: Any) -> None:
        if "ERR_ABORTED" not in (request.failure or ""):  # the UI itself aborts a search that a new one replaces
            self.complaints.append(f"failed: {request.url[:200]} {request.failure}")

    def _on_response(self, response: Any) -> None:
        if response.status >= 400:
            self.complaints.append(f"{response.status}: {response.url[:200]}")

    def _on_console(self, message: Any) -> None:
        if message.type == "error":
            self.complaints.append(f"console: {message.text[:500]}")


@contextmanager
def launched() -> Iterator[Any]:
    """Yield a browser, or skip the test aloud when none is here.

    While it lives, its thread has a running event loop: no test that calls `asyncio.run` may share its scope.
    """
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is not installed: .ci/run installs it where it may")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def profile(browser: Any, *, width: int = 1440, height: int = 900) -> Iterator[Any]:
    """Yield the profile of a user who has never been here: no storage, no cached files."""
    context = browser.new_context(viewport={"width": width, "height": height}, locale="en-US", timezone_id="UTC")
    try:
        yield context
    finally:
        context.close()


@contextmanager
def tab(context: Any, origin: str) -> Iterator[WatchedPage]:
    """Yield a page in a profile."""
    page = context.new_page()
    try:
        yield WatchedPage(page, origin)
    finally:
        page.close()


@contextmanager
def watched(browser: Any, origin: str) -> Iterator[WatchedPage]:
    """Yield a page in a profile of its own."""
    with profile(browser) as context, tab(context, origin) as page:
        yield page


@contextmanager
def open_page(origin: str) -> Iterator[WatchedPage]:
    """Yield a page in a browser of its own."""
    with launched() as browser, watched(browser, origin) as page:
        yield page


def metrics_path(query: str, **state: Any) -> str:
    """Return the path of the Metrics explorer with a query in it."""
    return explorer_path("metrics", query, **state)


def explorer_path(page: str, query: str, *, options: Sequence[str] = (), **state: Any) -> str:
    """Return the path of the explorer of metrics, params, scatters or images; `options` are params chosen in it."""
    chosen = [{"label": name, "key": name, "group": "Params", "type": "params", "color": "#18AB6D"} for name in options]
    select = {"options": chosen, "query": query, "advancedMode": True, "advancedQuery": query}
    return _path(page, {"select": select, **state})


def objects_path(page: str, query: str) -> str:
    """Return the path of the explorer of figures, text or audios, which keep their state in another form."""
    form = {"simpleInput": "", "advancedInput": query, "advancedModeOn": True, "isInitial": True}
    return _path(page, {"query": {"form": form, "ranges": {"isApplyButtonDisabled": True}}})


def _path(page: str, state: Mapping[str, Any]) -> str:
    return f"/{page}?" + urlencode({name: encode_state(value) for name, value in state.items()})


def encode_state(value: object) -> str:
    """Encode as the Aim UI does: JSON, percent-encoded, base64 with URL-safe characters, behind `O-`."""
    text = quote(json.dumps(value, separators=(",", ":")), safe=";/?:@&=+$,-_.!~*'()#")
    return "O-" + base64.b64encode(text.encode()).decode().rstrip("=").replace("+", "-").replace("/", "_")
