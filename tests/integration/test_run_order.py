"""Searches of runs with `sort`: order, pages, and what is read for them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import store, treestream
from tests.support.search_app import SearchApp, search_app

PREFIXES = ("/api", "/api/v1/rest")


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SearchApp]:
    with search_app(tmp_path_factory.mktemp("order")) as opened:
        for i in range(150):
            number = store.make_run(
                opened.kv,
                f"run-{i:03}",
                name=f"name {i % 7}",
                experiment=f"experiment {i % 2}",
                created_at_seconds=1e9 + i,
                end_time_seconds=1e9 + 200,
                archived=i == 100,
                params={"i": i, "__system_params": {"cpu": i}},
            )
            if i < 20:
                store.make_metric(opened.kv, number, "loss", [float(i)])
        yield opened


def search(app: SearchApp, *orders: tuple[str, str], prefix: str = PREFIXES[0], **params: Any) -> bytes:
    sort = json.dumps([{"field": field, "order": order} for field, order in orders])
    answer = app.client.get(f"{prefix}/runs/search/run/", params={"sort": sort, **params})
    assert answer.status_code == 200, answer.text
    return answer.content


def found(app: SearchApp, *orders: tuple[str, str], **params: Any) -> list[str]:
    return list(treestream.runs(search(app, *orders, **params)))


def expected(*, archived: bool = False) -> list[str]:
    """Return all runs by experiment descending, then name, then the newest first."""
    rows = [i for i in reversed(range(150)) if archived or i != 100]
    return [f"run-{i:03}" for i in sorted(rows, key=lambda i: (-(i % 2), i % 7))]


ORDER = (("experiment", "desc"), ("run", "asc"))


@pytest.mark.parametrize("prefix", PREFIXES)
def test_several_fields_sort_and_ties_are_the_newest_first(app: SearchApp, prefix: str) -> None:
    assert found(app, *ORDER, prefix=prefix) == expected()


def test_oldest_first(app: SearchApp) -> None:
    assert found(app, ("date", "asc"), limit=3) == ["run-000", "run-001", "run-002"]


def test_the_longest_first(app: SearchApp) -> None:
    assert found(app, ("duration", "desc"), limit=2) == ["run-000", "run-001"]


def test_pages_by_offset_are_the_sorted_list(app: SearchApp) -> None:
    seen: list[str] = []
    while True:
        page = found(app, *ORDER, limit=40, **({"offset": seen[-1]} if seen else {}))
        seen += page
        if len(page) < 40:
            break

    assert seen == expected()


def test_an_offset_that_does_not_match_has_its_place_in_the_order(app: SearchApp) -> None:
    everything = expected(archived=True)
    place = everything.index("run-100")

    page = found(app, *ORDER, offset="run-100", limit=3)

    assert page == everything[place + 1 : place + 4]


def test_an_unknown_offset_is_ignored_and_a_negative_limit_is_one(app: SearchApp) -> None:
    assert found(app, *ORDER, offset="nope", limit=-3) == expected()[:1]


def test_a_sorted_run_has_what_an_unsorted_one_has(app: SearchApp) -> None:
    for params in ({}, {"skip_system": "false"}, {"exclude_traces": "true", "exclude_params": "true"}):
        sorted_runs = treestream.runs(search(app, ("date", "asc"), q="run.i < 10", **params))
        others = treestream.runs(search(app, q="run.i < 10", **params))

        assert sorted_runs == others
        assert list(sorted_runs) == list(others)[::-1]


def test_a_query_on_metrics_can_be_sorted(app: SearchApp) -> None:
    runs = treestream.runs(search(app, ("hash", "asc"), q="run.metrics['loss'].last >= 17"))

    assert list(runs) == ["run-017", "run-018", "run-019"]
    assert runs["run-017"]["traces"]["metric"][0]["values"]["last"] == 17.0


def test_progress_of_a_sorted_search_says_that_all_were_looked_at(app: SearchApp) -> None:
    data = search(app, ("date", "asc"), limit=2)

    assert treestream.progress(data) == [[150, 150]] * 3


@pytest.mark.parametrize("sort", ["x", '[{"field": "lr"}]', '[{"field": "date", "order": 1}]'])
def test_what_is_no_order_is_400(app: SearchApp, sort: str) -> None:
    answer = app.client.get("/api/v1/rest/runs/search/run/", params={"sort": sort})

    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "bad_request"
    assert "sort" in answer.json()["message"]
