"""A headless Chromium that notices everything a user would be annoyed by."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

import pytest

CHROMIUM: Final = Path("/usr/bin/chromium")
ARTIFACTS: Final = Path(os.environ.get("MATYAN_ARTIFACTS", Path(__file__).parents[2] / "build-artifacts"))
ARGUMENTS: Final = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--force-color-profile=srgb"]
WAIT_MILLISECONDS: Final = 30_000
_IGNORE_EDITOR_CANCELLATION: Final = """
addEventListener("unhandledrejection", (event) => {
    if (event.reason && event.reason.type === "cancelation") event.preventDefault();
});
"""
"""The UI's query editor rejects a promise of its own whenever it is mounted twice, under any server."""


class WatchedPage:
    """A page of one tracker; `complaints` holds whatever went wrong in it."""

    def __init__(self, page: Any, origin: str) -> None:
        self.page = page
        self.origin = origin
        self.complaints: list[str] = []
        page.set_default_timeout(WAIT_MILLISECONDS)
        page.add_init_script(_IGNORE_EDITOR_CANCELLATION)
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
def open_page(origin: str, *, width: int = 1440, height: int = 900) -> Iterator[WatchedPage]:
    """Yield a fresh page, or skip the test aloud when no browser is here."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is not installed: .ci/run installs it where it may")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        try:
            context = browser.new_context(viewport={"width": width, "height": height}, locale="en-US")
            yield WatchedPage(context.new_page(), origin)
        finally:
            browser.close()


def metrics_path(query: str, **state: Any) -> str:
    """Return the path of the Metrics explorer with a query in it, encoded as the UI encodes its own state."""
    select = {"options": [], "query": "", "advancedMode": True, "advancedQuery": query}
    return "/metrics?" + urlencode({name: encode_state(value) for name, value in {"select": select, **state}.items()})


def encode_state(value: object) -> str:
    """Encode as the Aim UI does: JSON, percent-encoded, base64 with URL-safe characters, behind `O-`."""
    text = quote(json.dumps(value, separators=(",", ":")), safe=";/?:@&=+$,-_.!~*'()#")
    return "O-" + base64.b64encode(text.encode()).decode().rstrip("=").replace("+", "-").replace("/", "_")
