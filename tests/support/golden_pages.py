"""What every page of the web UIs must show of the golden dataset."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from tests.support.browser import WatchedPage, explorer_path, metrics_path, objects_path
from tests.support.dataset import GOLDEN

DATASET: Final = json.loads((GOLDEN / "dataset.json").read_text())
RUNS: Final = {run["name"]: run for run in DATASET["runs"]}
LISTED: Final = [run for run in DATASET["runs"] if not run["archived"]]
VISION: Final = next(each for each in DATASET["experiments"] if each["name"] == "vision")
VISION_RUNS: Final = tuple(run["name"] for run in LISTED if run["experiment"] == "vision")
TAGS: Final = tuple(tag["name"] for tag in DATASET["tags"] if not tag["archived"])

CURVES: Final = "svg path.Line"
DOTS: Final = "svg circle.Circle"
IMAGES: Final = "img[src^='data:image']"
PLOTS: Final = ".js-plotly-plot .trace"
HISTOGRAMS: Final = "svg.highcharts-root"


class Page(NamedTuple):
    """A page, and what must be seen on it: texts, and how many elements match a CSS selector."""

    name: str
    path: str
    texts: tuple[str, ...] = ()
    drawn: Mapping[str, int] = MappingProxyType({})
    value: str = ""
    """What an input field holds."""

    def check(self, browser: WatchedPage) -> None:
        """Open the page and wait until everything is to be seen."""
        browser.open(self.path)
        for text in self.texts:
            browser.wait_for_text(text)
        for selector, count in self.drawn.items():
            browser.wait_for_count(selector, count)
        if self.value:
            browser.wait_for_value(self.value)


def count_sequences(kind: str, name: str) -> int:
    """Return how many sequences of that name the runs have that are not archived."""
    sequences = [sequence for run in LISTED for sequence in run.get("sequences", ())]
    return sum((sequence["type"], sequence["name"]) == (kind, name) for sequence in sequences)


def run_path(run: str, tab: str) -> str:
    """Return the path of a tab of the run page."""
    return f"/runs/{RUNS[run]['hash']}/{tab}"


VISION_QUERY: Final = "run.experiment == 'vision'"
FIGURE: Final = "fig 3 \N{EN DASH} é"
PARAMS: Final = ("hparams.lr", "hparams.batch_size")

EXPLORERS: Final = (
    Page("home", "/", ("Total runs: 24", "vision", "prod", "active-one", "Tracked sequences")),
    Page("runs", "/runs", (*VISION_RUNS, "odd names / ünïcode", VISION["description"], "prod-eu")),
    Page("metrics", metrics_path("metric.name == 'loss'"), drawn={CURVES: count_sequences("metric", "loss")}),
    Page("params", explorer_path("params", VISION_QUERY, options=PARAMS), (*VISION_RUNS, *PARAMS), {CURVES: 9}),
    Page("scatters", explorer_path("scatters", VISION_QUERY, options=PARAMS), VISION_RUNS, {DOTS: 9}),
    Page("images", explorer_path("images", "images.name == 'samples'"), ("images-run", "images-long", "c0")),
    Page("images-one", explorer_path("images", "images.name == 'jpeg'"), ("images-run", "détail"), {IMAGES: 1}),
    Page("figures", objects_path("figures", "figures.name == 'curve'"), ("figures-run", FIGURE), {PLOTS: 2}),
    Page("text", objects_path("text", "texts.name == 'prompts'"), ("texts-run", "Satz 0: grüße")),
    Page("audios", objects_path("audios", "audios.name == 'speech'"), ("audios-run", "clip 0/0", "clip 2/0")),
    Page("tags", "/tags", (*TAGS, "production candidates")),
    Page("bookmarks", "/bookmarks", ("No Bookmarks Yet",)),
    Page("reports", "/reports", ("Create New Report",)),
    Page("experiment-overview", f"/experiments/{VISION['id']}/overview", ("Total runs: 10", VISION["description"])),
    Page("experiment-runs", f"/experiments/{VISION['id']}/runs", VISION_RUNS),
    Page("experiment-notes", f"/experiments/{VISION['id']}/notes", ("with two lines",)),
    Page("experiment-settings", f"/experiments/{VISION['id']}/settings", ("Delete Experiment",), value="vision"),
)
RUN_TABS: Final = (
    Page("run-overview", run_path("artifacts-run", "overview"), ("model.bin", "dir/sub/config é.yaml", "hparams.lr")),
    Page("run-params", run_path("sweep-0", "run_parameters"), ("resnet", "cifar")),
    Page("run-notes", run_path("sweep-0", "notes"), ("run note two",)),
    Page("run-logs", run_path("logs-run", "logs"), ("epoch 449: ok",)),
    Page("run-messages", run_path("many-records", "messages"), ("record 259",)),
    Page("run-metrics", run_path("sweep-0", "metrics"), ("accuracy", "loss"), {CURVES: 4}),
    Page("run-system", run_path("active-one", "system"), ("CPU (%)",), {CURVES: 1}),
    Page(
        "run-distributions",
        run_path("distributions-run", "distributions"),
        ("gradients", "weights", "Step 0"),
        {HISTOGRAMS: 2},
    ),
    Page("run-images", run_path("images-run", "images"), ("grid", "jpeg", "samples"), {IMAGES: 19}),
    Page("run-audios", run_path("audios-run", "audios"), ("speech", "bogus")),
    Page("run-texts", run_path("texts-run", "texts"), ("prompts", "edge")),
    Page("run-figures", run_path("figures-run", "figures"), ("curve", FIGURE), {PLOTS: 1}),
    Page("run-settings", run_path("sweep-0", "settings"), ("Archive Run", "Delete Run"), value="sweep-0"),
)
PAGES: Final[Mapping[str, Page]] = {page.name: page for page in (*EXPLORERS, *RUN_TABS)}
