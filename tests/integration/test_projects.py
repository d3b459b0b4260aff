"""The project over HTTP: activity, vocabulary, pinned sequences; what the recordings of Aim do not show."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from matyan.projects.scanning import PAGE_RUNS
from tests.support.runs_app import RunsApp, runs_app
from tests.support.store import CREATED_AT_SECONDS, make_metric, make_objects, make_run


@pytest.fixture
def app(tmp_path: Path) -> Iterator[RunsApp]:
    with runs_app(tmp_path) as opened:
        yield opened


def test_empty_project_answers_everywhere(app: RunsApp) -> None:
    assert app.get("/projects")["telemetry_enabled"] == 0
    assert app.get("/projects/params?sequence=metric") == {"params": {}, "metric": {}}
    assert app.get("/projects/activity/") == {
        "num_experiments": 0,
        "num_runs": 0,
        "num_archived_runs": 0,
        "num_active_runs": 0,
        "activity_map": {},
    }
    assert app.client.get("/api/v1/rest/projects/status/").json() == "up-to-date"


def test_activity_and_vocabulary_count_more_runs_than_a_page(app: RunsApp) -> None:
    count = PAGE_RUNS + 1
    for run in range(count):
        make_run(app.kv, f"run-{run}", params={f"p{run}": run}, created_at_seconds=CREATED_AT_SECONDS + run)

    assert app.get("/projects/activity")["num_runs"] == count
    assert len(app.get("/projects/params/")["params"]) == count


def test_activity_counts_hours_for_aim_and_days_for_matyan(app: RunsApp) -> None:
    for run, hours in enumerate([0, 0.5, 1, 11, 12]):
        make_run(app.kv, f"run-{run}", created_at_seconds=CREATED_AT_SECONDS + hours * 3600, archived=hours == 1)

    found = app.client.get("/api/v1/rest/projects/activity/").json()
    assert found["activity_map"] == {"2024-06-01T00:00:00": 4, "2024-06-02T00:00:00": 1}
    assert found["num_archived_runs"] == 1
    hours_of_aim = app.get("/projects/activity/", headers={"X-Timezone-Offset": "-30"})["activity_map"]
    assert hours_of_aim == {
        "2024-06-01T12:00:00": 1,
        "2024-06-01T13:00:00": 2,
        "2024-06-01T23:00:00": 1,
        "2024-06-02T00:00:00": 1,
    }


def test_vocabulary_unites_contexts_of_all_runs(app: RunsApp) -> None:
    for name in ("a", "b"):
        number = make_run(app.kv, name)
        make_metric(app.kv, number, "loss", [1.0], context={"subset": "train"})
        make_metric(app.kv, number, "loss", [1.0], context={"run": name})
        make_objects(app.kv, number, "image", "pics", [{"caption": "x"}])

    found = app.get("/projects/params/?sequence=metric&sequence=images&exclude_params=true")
    assert list(found) == ["metric", "images"]
    assert len(found["metric"]["loss"]) == 3
    assert {"subset": "train"} in found["metric"]["loss"]
    assert found["images"] == {"pics": [{}]}


def test_vocabulary_of_all_kinds_equals_that_of_each_kind(app: RunsApp) -> None:
    number = make_run(app.kv, "a")
    make_metric(app.kv, number, "loss", [1.0])
    for kind in ("image", "audio", "text", "distribution", "figure"):
        make_objects(app.kv, number, kind, kind, [{"x": 1}])

    whole = app.get("/projects/params/?exclude_params=1")
    assert set(whole) == {"metric", "images", "audios", "texts", "distributions", "figures"}
    for kind, names in whole.items():
        assert app.get(f"/projects/params/?exclude_params=1&sequence={kind}") == {kind: names}
        assert len(names) == 1


def test_pinned_sequences_are_kept_and_a_bad_body_changes_nothing(app: RunsApp) -> None:
    pins = {"sequences": [{"name": "loss", "context": {"a": [1, None, "é"]}}]}

    assert app.client.post("/api/v1/rest/projects/pinned-sequences/", json=pins).json() == pins
    assert app.client.post("/api/projects/pinned-sequences", json={"sequences": [{"name": "x"}]}).status_code == 422
    assert app.get("/projects/pinned-sequences") == pins
