"""Dashboard, alerts and scrape configuration ask for what the table of metrics has, and for nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from matyan.configuration import load
from matyan.observe.metrics import METRICS, Kind, Metric, Metrics, add_process_metrics
from matyan.roles.table import APART
from tests.support.markdown import ROOT, headings
from tests.support.promql import asked, named_in_text

CONFIG: Final = ROOT / "config"
TARGET_LABELS: Final = frozenset({"job", "instance", "role"})
"""Which Prometheus adds to every series: see config/prometheus.yml."""
ROWS: Final = ["Frontier", "Ingest", "Store and queries", "Control", "Deployment health"]
SUFFIXES: Final[Mapping[Kind, tuple[str, ...]]] = {
    Kind.COUNTER: ("",),
    Kind.GAUGE: ("",),
    Kind.HISTOGRAM: ("_bucket", "_sum", "_count"),
}


class Query(NamedTuple):
    """An expression and the text that its result is shown with."""

    place: str
    expression: str
    texts: tuple[str, ...]


def series() -> dict[str, Metric]:
    """Return every series of the table, and its row."""
    return {f"{row.name}{suffix}": row for row in METRICS.values() for suffix in SUFFIXES[row.kind]}


def process_series() -> set[str]:
    """Return the series that tell of a process."""
    metrics = Metrics()
    add_process_metrics(metrics)
    families = text_string_to_metric_families(metrics.exposition().decode())
    return {sample.name for family in families for sample in family.samples if not sample.name.startswith("matyan_")}


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((CONFIG / "grafana" / "matyan.json").read_text())
    return found


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((CONFIG / "alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def dashboard_queries() -> Iterator[Query]:
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", ()):
            yield Query(panel["title"], target["expr"], (target["legendFormat"],))


def alert_queries() -> Iterator[Query]:
    for rule in rules():
        yield Query(rule["alert"], rule["expr"], tuple(rule["annotations"].values()))


QUERIES: Final = [*dashboard_queries(), *alert_queries()]
IDS: Final = [f"{query.place}: {query.expression}" for query in QUERIES]


@pytest.mark.parametrize("query", QUERIES, ids=IDS)
def test_a_query_asks_for_series_and_labels_that_exist(query: Query) -> None:
    known, of_process = series(), process_series()

    for one in asked(query.expression):
        labels = set(known[one.name].labels) if one.name in known else set()
        histogram = {"le"} if one.name.endswith("_bucket") else set()
        assert one.name in {*known, *of_process, "up"}
        assert one.labels <= {*labels, *histogram, *TARGET_LABELS}


@pytest.mark.parametrize("query", QUERIES, ids=IDS)
def test_what_is_shown_of_a_result_is_in_the_result(query: Query) -> None:
    found = asked(query.expression)
    kept = set.intersection(*({*one.labels} for one in found))
    is_aggregated = bool(re.search(r"\b(sum|max|min|histogram_quantile)\b", query.expression))
    everything = {label for one in found if one.name in series() for label in series()[one.name].labels}
    shown = {label for text in query.texts for label in named_in_text(text)}

    assert shown <= (kept if is_aggregated else everything | TARGET_LABELS)


@pytest.mark.parametrize("query", QUERIES, ids=IDS)
def test_what_only_rises_is_asked_for_as_a_rate(query: Query) -> None:
    known = series()

    for one in asked(query.expression):
        rises = one.name in known and known[one.name].kind is not Kind.GAUGE
        assert rises == bool({"rate", "increase"} & set(one.functions)) or one.name.startswith(("process_", "up"))


def test_the_dashboard_shows_every_metric_there_is() -> None:
    shown = {one.name for query in dashboard_queries() for one in asked(query.expression)}

    hidden = {
        attribute
        for attribute, row in METRICS.items()
        if not shown & {f"{row.name}{suffix}" for suffix in SUFFIXES[row.kind]}
    }
    assert hidden == set()


def test_the_dashboard_has_its_rows_and_no_panel_covers_another() -> None:
    panels = dashboard()["panels"]
    cells = [
        (panel["gridPos"]["x"] + right, panel["gridPos"]["y"] + down)
        for panel in panels
        for right in range(panel["gridPos"]["w"])
        for down in range(panel["gridPos"]["h"])
    ]

    assert [panel["title"] for panel in panels if panel["type"] == "row"] == ROWS
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len(set(cells)) == len(cells)
    assert max(column for column, _ in cells) < 24


def test_a_dashboard_panel_takes_the_source_that_was_chosen() -> None:
    board = dashboard()
    sources = {
        part["datasource"]["uid"]
        for panel in board["panels"]
        for part in (panel, *panel.get("targets", ()))
        if panel["type"] != "row"
    }

    assert [variable["name"] for variable in board["templating"]["list"]] == ["datasource"]
    assert sources == {"${datasource}"}


def test_every_alert_says_what_it_means_and_the_guide_what_to_do() -> None:
    guide = [text for _, text in headings(ROOT / "docs" / "how-to" / "monitoring.md")]

    assert rules()
    for rule in rules():
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert set(rule["annotations"]) == {"summary", "description"}
        assert rule["alert"] in guide


def test_prometheus_asks_each_role_where_it_listens() -> None:
    (job,) = yaml.safe_load((CONFIG / "prometheus.yml").read_text())["scrape_configs"]
    asked_for = {one["labels"]["role"]: one["targets"] for one in job["static_configs"]}

    assert (job["job_name"], job["metrics_path"]) == ("matyan", "/metrics/")
    assert asked_for == {role: [f"{role}:{load(environ={}, role=role).http.port}"] for role in APART}
