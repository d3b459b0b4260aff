"""`make screenshots`: takes the README's picture of the Metrics page from the demo's data."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Final

from matyan.demo import PLANS, log_demo
from tests.support.browser import metrics_path, open_page
from tests.support.server import started

IMAGES: Final = Path(__file__).parents[2] / "docs" / "images"
QUERY: Final = "metric.name in ['loss', 'accuracy'] and run.experiment != 'regularisation'"


def main() -> None:
    """Start a tracker, log the demo, open the Metrics explorer and keep what it shows."""
    with tempfile.TemporaryDirectory() as folder, started(Path(folder) / "home") as server:
        log_demo(server.url, pace_seconds=0)
        with open_page(server.url) as page:
            page.open(metrics_path(QUERY))
            page.wait_for_text(PLANS[0].name)
            page.page.wait_for_timeout(2000)  # let the chart's animation come to rest
            path = page.take_picture("metrics", IMAGES)
    print(path)


if __name__ == "__main__":
    main()
