"""Experiments, tags and saved documents over HTTP; what the recordings of Aim do not show."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from matyan.entities.service import PAGE_RUNS
from tests.support.runs_app import RunsApp, runs_app
from tests.support.store import CREATED_AT_SECONDS, make_experiment, make_run, make_tag

MATYAN = "/api/v1/rest"


@pytest.fixture
def app(tmp_path: Path) -> Iterator[RunsApp]:
    with runs_app(tmp_path) as opened:
        yield opened


def post(app: RunsApp, path: str, body: object) -> Any:
    response = app.client.post(path, json=body)
    assert response.is_success, response.text
    return response.json()


# ---- experiments


def test_runs_of_an_experiment_page_by_page_are_all_of_them_once(app: RunsApp) -> None:
    count = PAGE_RUNS + 5
    for run in range(count):
        make_run(app.kv, f"{run}", created_at_seconds=CREATED_AT_SECONDS + run)
    newest_first = [str(run) for run in reversed(range(count))]
    path = "/experiments/experiment-default/runs/"

    assert [run["run_id"] for run in app.get(path)["runs"]] == newest_first
    seen: list[str] = []
    while page := app.get(f"{path}?limit=200" + (f"&offset={seen[-1]}" if seen else ""))["runs"]:
        seen += [run["run_id"] for run in page]
    assert seen == newest_first


@pytest.mark.parametrize("limit", ["0", "-3"])
def test_limit_that_is_none_gives_all_runs(app: RunsApp, limit: str) -> None:
    for run in ("a", "b"):
        make_run(app.kv, run)

    assert len(app.get(f"/experiments/experiment-default/runs/?limit={limit}&offset=b")["runs"]) == 2


def test_experiments_are_listed_by_their_newest_run_then_by_age(app: RunsApp) -> None:
    for age, name in enumerate(["empty-old", "first", "second", "empty-new"]):
        make_experiment(app.kv, name, created_at_seconds=float(age))
    for run, experiment in enumerate(["second", "first"]):
        make_run(app.kv, f"{run}", experiment=experiment, created_at_seconds=CREATED_AT_SECONDS + run)

    assert [each["name"] for each in app.get("/experiments")] == ["first", "second", "empty-old", "empty-new"]


def test_name_that_is_taken_is_refused_with_the_status_of_the_dialect(app: RunsApp) -> None:
    for kind in ("experiments", "tags"):
        post(app, f"/api/{kind}/", {"name": "x"})
        assert app.client.post(f"/api/{kind}/", json={"name": " x "}).status_code == 400
        assert app.client.post(f"{MATYAN}/{kind}/", json={"name": "x"}).status_code == 409
        assert len(app.get(f"/{kind}/")) == 1


def test_name_of_any_length_up_to_the_limit_is_taken(app: RunsApp) -> None:
    made = post(app, "/api/experiments/", {"name": "é" * 2048})

    assert app.get(f"/experiments/{made['id']}")["name"] == "é" * 2048
    assert app.client.post("/api/experiments/", json={"name": "x" * 4097}).status_code == 400


def test_activity_of_an_experiment_counts_its_own_runs(app: RunsApp) -> None:
    make_run(app.kv, "a", end_time_seconds=CREATED_AT_SECONDS + 1, archived=True)
    make_run(app.kv, "b")
    make_run(app.kv, "c", experiment="other")

    found = app.client.get(f"{MATYAN}/experiments/experiment-default/activity/").json()
    assert found == {
        "num_runs": 2,
        "num_archived_runs": 1,
        "num_active_runs": 1,
        "activity_map": {"2024-06-01T00:00:00": 2},
    }


def test_unknown_experiment_is_404_everywhere(app: RunsApp) -> None:
    for rest in ("", "runs/", "activity/", "note/", "note/1/"):
        assert app.client.get(f"/api/experiments/nope/{rest}").status_code == 404


def test_note_of_an_experiment_names_it_under_matyan(app: RunsApp) -> None:
    experiment = make_experiment(app.kv, "x")
    note = post(app, f"{MATYAN}/experiments/{experiment.id}/note/", {"content": "c"})

    (listed,) = app.client.get(f"{MATYAN}/experiments/{experiment.id}/note/").json()
    assert (listed["id"], listed["experiment_id"]) == (note["id"], experiment.id)
    assert "run_hash" not in listed


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/experiments/", {"name": "\ud800"}),
        ("/api/tags/", {"name": "t", "color": "\ud800"}),
        ("/api/experiments/experiment-x/note/", {"content": "\ud800"}),
        ("/api/dashboards/", {"name": "\ud800"}),
        ("/api/projects/pinned-sequences/", {"sequences": [{"name": "\ud800", "context": {}}]}),
    ],
)
def test_text_that_is_no_unicode_is_the_callers_fault(app: RunsApp, path: str, body: object) -> None:
    make_experiment(app.kv, "x")

    response = app.client.post(path, content=json.dumps(body))
    assert response.status_code == 400, response.text


# ---- tags


def test_runs_of_a_tag_include_archived_ones(app: RunsApp) -> None:
    make_tag(app.kv, "t", archived=True)
    make_run(app.kv, "a", tags=["t"], archived=True)
    make_run(app.kv, "b", tags=["t"], experiment=None)
    make_run(app.kv, "c")

    found = app.get("/tags/tag-t/runs")["runs"]
    assert [(run["run_id"], run["experiment"]) for run in found] == [("a", "default"), ("b", None)]
    assert app.get("/tags/tag-t")["run_count"] == 2


# ---- saved documents


STATE = '{"z":1.0,"a":[1,null,1e-7,123456789012345678901],"é":{"":"\\ud83d","b":{}}}'


def test_state_of_an_app_is_kept_exactly(app: RunsApp) -> None:
    made = app.client.post("/api/apps/", content=f'{{"type":"runs","state":{STATE}}}').json()

    text = app.client.get(f"/api/apps/{made['id']}").text
    kept = text[text.index('"state":') + len('"state":') : -1]
    assert json.loads(kept) == json.loads(STATE)
    assert list(json.loads(kept)) == ["z", "a", "é"]
    assert '"z":1.0' in kept


def test_state_of_megabytes_is_kept(app: RunsApp) -> None:
    state = {"text": "x" * 3_000_000}

    made = post(app, "/api/apps", {"type": "runs", "state": state})
    assert app.get(f"/apps/{made['id']}")["state"] == state
    app.client.put(f"/api/apps/{made['id']}", json={"state": {}})
    assert [each["state"] for each in app.get("/apps")] == [{}]


def test_state_that_no_browser_could_read_is_refused(app: RunsApp) -> None:
    response = app.client.post("/api/apps/", content='{"type":"runs","state":{"a":NaN}}')

    assert response.status_code == 400
    assert app.get("/apps/") == []


@pytest.mark.parametrize(
    ("kind", "body"),
    [("apps", {"type": "runs", "state": {}}), ("dashboards", {"name": "x"}), ("reports", {"name": "x"})],
)
def test_delete_under_matyan_is_204_without_a_body(app: RunsApp, kind: str, body: object) -> None:
    made = post(app, f"{MATYAN}/{kind}/", body)
    assert made["created_at"] == app.clock.now_seconds()

    response = app.client.delete(f"{MATYAN}/{kind}/{made['id']}/")
    assert (response.status_code, response.content) == (204, b"")
    assert app.client.get(f"{MATYAN}/{kind}/{made['id']}/").status_code == 404
    assert app.client.delete(f"{MATYAN}/{kind}/{made['id']}/").status_code == 404


def test_bookmark_shows_the_page_it_opens_while_that_is_there(app: RunsApp) -> None:
    saved = post(app, "/api/apps", {"type": "runs", "state": {}})
    made = post(app, "/api/dashboards", {"name": "b", "app_id": saved["id"]})

    app.client.put(f"/api/apps/{saved['id']}", json={"type": "metrics"})
    assert app.get(f"/dashboards/{made['id']}")["app_type"] == "metrics"
    app.client.delete(f"/api/apps/{saved['id']}")
    assert [each["app_type"] for each in app.get("/dashboards")] == [None]


def test_edit_of_a_report_stores_empty_texts_and_leaves_missing_ones(app: RunsApp) -> None:
    made = post(app, "/api/reports", {"name": "r", "code": "c", "description": "d"})
    app.clock.advance(1.5)

    edited = app.client.put(f"/api/reports/{made['id']}", json={"code": "", "created_at": "?"}).json()
    assert (edited["name"], edited["code"], edited["description"]) == ("r", "", "d")
    assert edited["updated_at"] > made["updated_at"]
    assert edited["created_at"] == made["created_at"]
