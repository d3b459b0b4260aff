"""`make screenshots`: takes the README's picture of the Metrics page from the demo's data."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Final

from matyan.demo import PLANS, log_demo
from tests.support.browser import metrics_path, open_page
from tests.support.server import started

IMAGES: Final = Path(__file__).parents[2] / "docs" / "images"
QUERY: Final = "metric.name in ['loss', 'accuracy'] and run.experiment == 'learning-rate'"
GROUPING: Final = {
    "color": ["run.params.hparams.learning_rate"],
    "stroke": ["context.subset"],
    "chart": ["name"],
    "reverseMode": {"color": False, "stroke": False, "chart": False},
    "isApplied": {"color": True, "stroke": True, "chart": True},
    "persistence": {"color": False, "stroke": False},
    "seed": {"color": 10, "stroke": 10},
    "paletteIndex": 0,
}
"""Colour by learning rate, stroke by subset, one chart for each metric; in the UI's own form."""


def main() -> None:
    """Start a tracker, log the demo, open the Metrics explorer and keep what it shows."""
    with tempfile.TemporaryDirectory() as folder, started(Path(folder) / "home") as server:
        log_demo(server.url, pace_seconds=0.02)
        with open_page(server.url) as page:
            page.open(metrics_path(QUERY, grouping=GROUPING))
            page.wait_for_text(PLANS[0].experiment)
            page.page.wait_for_timeout(2000)  # let the chart's animation come to rest
            path = page.take_picture("metrics", IMAGES)
            assert page.complaints == [], page.complaints
    print(path)


if __name__ == "__main__":
    main()
