"""Deleting and changing runs, experiments and tags over HTTP; what the recordings of Aim do not show."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from matyan.catalog import repository as catalog
from matyan.entities.deletion import EntityDeletions
from matyan.entities.service import ExperimentService
from matyan.ids import DEFAULT_PROJECT, RunId
from matyan.runs import repository as runs
from matyan.runs.changes import RUNS_PER_TRANSACTION, RunChanges, RunEdit
from matyan.runs.graves import Graves
from matyan.runs.model import EditMark
from tests.support.runs_app import RunsApp, runs_app
from tests.support.store import CREATED_AT_SECONDS, make_experiment, make_metric, make_run, make_tag

AIM, MATYAN = "/api", "/api/v1/rest"
MANY = 2 * RUNS_PER_TRANSACTION + 3


@pytest.fixture
def app(tmp_path: Path) -> Iterator[RunsApp]:
    with runs_app(tmp_path) as opened:
        yield opened


def stored(app: RunsApp) -> list[str]:
    """Return the hashes of all runs, the newest first."""
    listed = app.kv.read(lambda reader: runs.list_newest(reader, DEFAULT_PROJECT))
    found = app.kv.read(lambda reader: runs.load(reader, DEFAULT_PROJECT, [one.number for one in listed]))
    return [run.hash for run in found]


def status(app: RunsApp, method: str, path: str, body: Any = None) -> int:
    return int(app.client.request(method, path, json=body).status_code)


def make_many(app: RunsApp, **fields: Any) -> list[str]:
    names = [f"r{number}" for number in range(MANY)]
    for number, name in enumerate(names):
        make_run(app.kv, name, created_at_seconds=CREATED_AT_SECONDS + number, **fields)
    return names


def rest_of_the_work(app: RunsApp) -> EntityDeletions:
    """Return what the periodic job uses after a restart."""
    changes = RunChanges(
        kv=app.kv, graves=Graves(kv=app.kv, blobs=app.blobs), mark_of=lambda project, run_id: EditMark("log", 9)
    )
    return EntityDeletions(kv=app.kv, run_changes=changes)


# ---- deleting runs


def test_a_deleted_run_is_404_everywhere_and_in_no_list(app: RunsApp) -> None:
    number = make_run(app.kv, "a", tags=["t"])
    make_metric(app.kv, number, "loss", [1.0])
    make_run(app.kv, "b")
    note = app.client.post(f"{AIM}/runs/a/note", json={"content": "n"}).json()["id"]

    assert app.client.delete(f"{AIM}/runs/a/").json() == {"id": "a", "status": "OK"}

    assert stored(app) == ["b"]
    assert app.get("/tags/tag-t")["run_count"] == 0
    assert [run["run_id"] for run in app.get("/experiments/experiment-default/runs")["runs"]] == ["b"]
    assert app.get("/projects/activity")["num_runs"] == 1
    for path in ("info", "logs", "log-records", "note", f"note/{note}", "artifacts/download?path=x"):
        assert status(app, "GET", f"{AIM}/runs/a/{path}") == 404, path
    for method, path, body in (
        ("POST", "note", {"content": "x"}),
        ("PUT", f"note/{note}", {"content": "x"}),
        ("DELETE", f"note/{note}", None),
        ("POST", "tags/new", {"tag_name": "t"}),
        ("DELETE", "tags/tag-t", None),
        ("PUT", "", {"name": "x"}),
    ):
        assert status(app, method, f"{AIM}/runs/a/{path}", body) == 404, path


def test_deleting_an_unknown_run_is_an_error_under_matyan_only(app: RunsApp) -> None:
    make_run(app.kv, "a")

    assert status(app, "DELETE", f"{AIM}/runs/nope/") == 200
    assert status(app, "DELETE", f"{MATYAN}/runs/nope/") == 404
    assert status(app, "DELETE", f"{MATYAN}/runs/a/") == 200
    assert status(app, "DELETE", f"{MATYAN}/runs/a/") == 404


@pytest.mark.parametrize("run", ["x" * 2000, "é 🚀", "%00"])
def test_a_hash_that_no_run_can_have_is_an_unknown_run(app: RunsApp, run: str) -> None:
    paths = {
        ("DELETE", f"runs/{run}/", None): 404,
        ("PUT", f"runs/{run}/", "{}"): 404,
        ("POST", f"runs/{run}/clear-tombstone/", None): 204,
        ("POST", f"runs/{run}/tags/new/", '{"tag_name": "t"}'): 404,
        ("DELETE", f"runs/{run}/tags/{run}/", None): 404,
        ("PUT", f"experiments/{run}/", "{}"): 404,
        ("DELETE", f"experiments/{run}/", None): 404,
        ("PUT", f"tags/{run}/", "{}"): 404,
        ("DELETE", f"tags/{run}/", None): 404,
    }

    found = {key: app.client.request(key[0], f"{MATYAN}/{key[1]}", content=key[2]).status_code for key in paths}

    assert found == paths
    for path in ("delete-batch", "finish-batch"):
        assert status(app, "POST", f"{MATYAN}/runs/{path}/", [run, "", "a/b"]) == 200
        assert app.client.post(f"{MATYAN}/runs/{path}/", content=json.dumps(["\ud800"])).status_code == 400


def test_a_batch_of_any_length_is_deleted(app: RunsApp) -> None:
    names = make_many(app)
    make_run(app.kv, "kept")

    assert status(app, "POST", f"{MATYAN}/runs/delete-batch/", [*names, "nope", names[0]]) == 200

    assert stored(app) == ["kept"]


def test_runs_too_large_for_one_transaction_are_deleted_and_edited_in_several(app: RunsApp) -> None:
    names = [f"r{number}" for number in range(6)]
    for name in names:
        make_run(app.kv, name, params={"blob": "x" * 3_000_000})

    assert status(app, "POST", f"{AIM}/runs/archive-batch/", names) == 200
    assert app.get("/projects/activity")["num_archived_runs"] == 6
    assert status(app, "POST", f"{AIM}/runs/delete-batch/", names) == 200
    assert stored(app) == []


@pytest.mark.parametrize(("path", "expected"), [("delete-batch", 200), ("archive-batch", 404), ("finish-batch", 200)])
def test_an_empty_list_comes_as_an_object_too(app: RunsApp, path: str, expected: int) -> None:
    make_run(app.kv, "a")

    assert status(app, "POST", f"{MATYAN}/runs/{path}/", []) == expected
    assert status(app, "POST", f"{MATYAN}/runs/{path}/", {}) == expected
    assert status(app, "POST", f"{MATYAN}/runs/{path}/", [1]) == 422
    assert status(app, "POST", f"{MATYAN}/runs/{path}/", "a") == 422
    assert stored(app) == ["a"]


def test_clearing_a_tombstone_answers_204_for_any_run(app: RunsApp) -> None:
    make_run(app.kv, "alive")
    make_run(app.kv, "dead")
    app.client.delete(f"{MATYAN}/runs/dead/")

    for run in ("alive", "dead", "dead", "unknown"):
        response = app.client.post(f"{MATYAN}/runs/{run}/clear-tombstone/")
        assert (response.status_code, response.content) == (204, b"")
    assert stored(app) == ["alive"]


def test_images_of_a_deleted_run_are_left_out_of_a_batch_when_they_are_freed(app: RunsApp) -> None:
    make_run(app.kv, "a")
    app.blobs.put("default/a/seq/x.png", [b"png"], content_type="image/png")
    uri = app.uris.seal("default", "a", "seq/x.png")
    assert b"png" in app.client.post(f"{AIM}/runs/images/get-batch/", json=[uri]).content
    app.client.delete(f"{AIM}/runs/a/")

    app.client.post(f"{AIM}/runs/a/clear-tombstone/")

    response = app.client.post(f"{AIM}/runs/images/get-batch/", json=[uri])
    assert (response.status_code, response.content) == (200, b"")


# ---- changing runs


def test_a_batch_is_archived_and_brought_back(app: RunsApp) -> None:
    names = make_many(app)

    assert status(app, "POST", f"{AIM}/runs/archive-batch/", [*names, "nope"]) == 200
    assert app.get("/projects/activity")["num_archived_runs"] == MANY
    assert status(app, "POST", f"{AIM}/runs/archive-batch/?archive=no", names[1:]) == 200
    assert app.get("/projects/activity")["num_archived_runs"] == 1


def test_archiving_is_newer_than_what_the_runs_have_queued(app: RunsApp) -> None:
    number = make_run(app.kv, "a")

    app.client.post(f"{AIM}/runs/archive-batch/", json=["a"])

    (document,) = app.kv.read(lambda reader: runs.read_documents(reader, DEFAULT_PROJECT, [number]))
    assert document is not None
    assert document.edits == {"archived": EditMark("log", 7)}


def test_finishing_ends_active_runs_now_and_leaves_the_others(app: RunsApp) -> None:
    make_run(app.kv, "live")
    make_run(app.kv, "over", end_time_seconds=CREATED_AT_SECONDS + 5)

    assert app.client.post(f"{MATYAN}/runs/finish-batch/", json=["live", "over", "nope"]).json() == {"status": "OK"}

    ends = [app.get(f"/runs/{run}/info")["props"]["end_time"] for run in ("live", "over")]
    assert ends == [app.clock.now_seconds(), CREATED_AT_SECONDS + 5]


def test_a_tag_is_attached_once_by_its_exact_name(app: RunsApp) -> None:
    make_run(app.kv, "a")
    make_tag(app.kv, "prod-eu")

    first = app.client.post(f"{AIM}/runs/a/tags/new/", json={"tag_name": "eu"}).json()
    second = app.client.post(f"{AIM}/runs/a/tags/new/", json={"tag_name": "eu"}).json()

    assert first == second
    assert [tag["name"] for tag in app.get("/runs/a/info")["props"]["tags"]] == ["eu"]
    assert app.get(f"/tags/{first['tag_id']}")["run_count"] == 1
    assert app.client.delete(f"{AIM}/runs/a/tags/{first['tag_id']}/").json()["removed"] is True
    assert app.get("/runs/a/info")["props"]["tags"] == []
    assert app.get(f"/tags/{first['tag_id']}")["run_count"] == 0
    assert status(app, "POST", f"{AIM}/runs/a/tags/new/", {"tag_name": "x" * 4097}) == 400


# ---- experiments


def test_a_renamed_experiment_is_found_by_its_new_name_only(app: RunsApp) -> None:
    for kind, make in (("experiments", make_experiment), ("tags", make_tag)):
        entity = make(app.kv, "old")
        assert app.client.put(f"{AIM}/{kind}/{entity.id}/", json={"name": " new "}).json()["id"] == entity.id
        assert app.get(f"/{kind}/{entity.id}")["name"] == "new"

        assert status(app, "POST", f"{AIM}/{kind}/", {"name": "new"}) == 400
        assert status(app, "POST", f"{AIM}/{kind}/", {"name": "old"}) == 200


def test_a_taken_name_is_refused_and_changes_nothing(app: RunsApp) -> None:
    for kind, make in (("experiments", make_experiment), ("tags", make_tag)):
        entity = make(app.kv, "a")
        make(app.kv, "b")

        assert status(app, "PUT", f"{AIM}/{kind}/{entity.id}/", {"name": "b", "description": "x"}) == 400
        assert status(app, "PUT", f"{MATYAN}/{kind}/{entity.id}/", {"name": "b"}) == 409
        assert app.get(f"/{kind}/{entity.id}")["description"] is None
        assert status(app, "PUT", f"{AIM}/{kind}/{entity.id}/", {"name": "a", "description": "x"}) == 200
        assert status(app, "PUT", f"{AIM}/{kind}/{entity.id}/", {"name": "x" * 4097}) == 400


def test_an_experiment_with_runs_is_not_archived_but_its_other_changes_are_made(app: RunsApp) -> None:
    make_run(app.kv, "a")
    path = f"{AIM}/experiments/experiment-default/"

    response = app.client.put(path, json={"name": "x", "description": "d", "archived": True})

    assert response.status_code == 400
    found = app.get("/experiments/experiment-default/")
    assert (found["name"], found["description"], found["archived"]) == ("x", "d", False)


def test_description_that_is_missing_is_cleared_and_null_leaves_it(app: RunsApp) -> None:
    entity = make_experiment(app.kv, "a", description="d")

    app.client.put(f"{AIM}/experiments/{entity.id}/", json={"description": None})
    assert app.get(f"/experiments/{entity.id}")["description"] == "d"
    app.client.put(f"{AIM}/experiments/{entity.id}/", json={})
    assert app.get(f"/experiments/{entity.id}")["description"] == ""


def test_deleting_an_experiment_deletes_its_runs_under_aim(app: RunsApp) -> None:
    make_many(app, experiment="x", tags=["t"])
    make_run(app.kv, "other")
    app.client.post(f"{AIM}/experiments/experiment-x/note/", json={"content": "n"})

    assert app.client.delete(f"{AIM}/experiments/experiment-x/").json() == {"status": "OK"}

    assert stored(app) == ["other"]
    assert app.get("/tags/tag-t")["run_count"] == 0
    assert [one["name"] for one in app.get("/experiments")] == ["default"]
    assert status(app, "GET", f"{AIM}/experiments/experiment-x/note/") == 404
    assert status(app, "DELETE", f"{AIM}/experiments/experiment-x/") == 200
    assert status(app, "DELETE", f"{MATYAN}/experiments/experiment-x/") == 404


def test_deleting_an_experiment_keeps_its_runs_under_matyan(app: RunsApp) -> None:
    names = make_many(app, experiment="x")

    assert status(app, "DELETE", f"{MATYAN}/experiments/experiment-x/") == 200

    assert len(stored(app)) == MANY
    props = app.get(f"/runs/{names[0]}/info")["props"]
    assert props["experiment"] == {"id": None, "name": None, "description": None}
    number = app.kv.read(lambda reader: runs.get_number(reader, DEFAULT_PROJECT, RunId(names[0])))
    assert number is not None
    (document,) = app.kv.read(lambda reader: runs.read_documents(reader, DEFAULT_PROJECT, [number]))
    assert document is not None
    assert document.experiment_id is None


@pytest.mark.parametrize("deletes_runs", [True, False])
def test_a_deletion_that_was_cut_short_is_ended_by_the_job(app: RunsApp, *, deletes_runs: bool) -> None:
    names = make_many(app, experiment="x")
    experiment = app.kv.read(lambda reader: catalog.experiments.get(reader, DEFAULT_PROJECT, "experiment-x"))
    assert experiment is not None
    app.kv.write(
        lambda tx: catalog.experiments.begin_deletion(tx, DEFAULT_PROJECT, experiment, deletes_runs=deletes_runs)
    )
    assert app.get(f"/runs/{names[0]}/info")["props"]["experiment"]["id"] is None, "readers see it gone at once"
    job = rest_of_the_work(app)

    job.finish_all(seconds_max=1e-9)
    job.finish_all(seconds_max=None)

    assert len(stored(app)) == (0 if deletes_runs else MANY)
    left = app.kv.read(lambda reader: catalog.experiments.list_deletions(reader, DEFAULT_PROJECT, rows_max=9))
    assert left == []
    assert app.kv.read(lambda reader: catalog.experiments.count_runs(reader, DEFAULT_PROJECT, "experiment-x")) == 0


class _MovedMeanwhile(RunChanges):
    """Moves a run elsewhere after a deletion of its experiment chose it, before it is deleted."""

    def delete_many(self, run_ids: Sequence[RunId], **options: Any) -> int:
        self.edit(run_ids[0], RunEdit(experiment="elsewhere"))
        return super().delete_many(run_ids, **options)


def test_a_run_that_leaves_an_experiment_in_time_is_not_deleted_with_it(app: RunsApp) -> None:
    make_run(app.kv, "a", experiment="doomed")
    make_run(app.kv, "b", experiment="doomed", created_at_seconds=CREATED_AT_SECONDS - 1)
    experiment = app.get("/runs/a/info")["props"]["experiment"]["id"]
    changes = _MovedMeanwhile(
        kv=app.kv, graves=Graves(kv=app.kv, blobs=app.blobs), mark_of=lambda project, run_id: EditMark("log", 9)
    )
    service = ExperimentService(kv=app.kv, deletions=EntityDeletions(kv=app.kv, run_changes=changes), clock=app.clock)

    service.delete(experiment, deletes_runs=True)

    assert stored(app) == ["a"]
    assert app.get("/runs/a/info")["props"]["experiment"]["name"] == "elsewhere"


def test_a_text_that_utf8_cannot_carry_is_a_fault_of_the_request(app: RunsApp) -> None:
    make_run(app.kv, "a")

    answers = [
        app.client.post(f"{prefix}/runs/a/{route}/", content=body)
        for prefix in (AIM, MATYAN)
        for route, body in (("tags/new", r'{"\ud800":1}'), ("note", r'["\ud800"]'))
    ]

    assert [answer.status_code for answer in answers] == [422] * 4
    assert all("detail" in answer.json() for answer in answers)


def test_runs_of_an_experiment_are_listed_by_creation_whatever_the_order_of_arrival(app: RunsApp) -> None:
    for run, age in (("middle", 20), ("newest", 30), ("oldest", 10)):
        make_run(app.kv, run, created_at_seconds=CREATED_AT_SECONDS + age, tags=["t"])

    path = "/experiments/experiment-default/runs/"
    assert [run["run_id"] for run in app.get(path)["runs"]] == ["newest", "middle", "oldest"]
    assert [run["run_id"] for run in app.get(f"{path}?limit=1&offset=newest")["runs"]] == ["middle"]
    assert [run["run_id"] for run in app.get("/tags/tag-t/runs")["runs"]] == ["oldest", "middle", "newest"]


# ---- tags


def test_an_archived_tag_is_hidden_from_runs_and_still_counts(app: RunsApp) -> None:
    make_run(app.kv, "a", tags=["t", "u"])

    app.client.put(f"{AIM}/tags/tag-t", json={"archived": True})

    assert [tag["name"] for tag in app.get("/runs/a/info")["props"]["tags"]] == ["u"]
    assert app.get("/tags/tag-t")["run_count"] == 1


def test_a_deleted_tag_is_on_no_run(app: RunsApp) -> None:
    names = make_many(app, tags=["t", "u"])

    assert app.client.delete(f"{AIM}/tags/tag-t").json() is None

    assert [tag["name"] for tag in app.get(f"/runs/{names[0]}/info")["props"]["tags"]] == ["u"]
    assert status(app, "GET", f"{AIM}/tags/tag-t/runs") == 404
    assert status(app, "DELETE", f"{AIM}/tags/tag-t") == 404
    fresh = app.client.post(f"{AIM}/runs/{names[0]}/tags/new", json={"tag_name": "t"}).json()["tag_id"]
    assert app.get(f"/tags/{fresh}")["run_count"] == 1


# ---- a read-only server


def test_a_read_only_server_refuses_what_changes_runs(tmp_path: Path) -> None:
    with runs_app(tmp_path, read_only=True) as app:
        make_run(app.kv, "a")
        refused = [
            ("PUT", "runs/a", {"archived": True}),
            ("DELETE", "runs/a", None),
            ("POST", "runs/delete-batch", ["a"]),
            ("POST", "runs/archive-batch", ["a"]),
            ("POST", "runs/finish-batch", ["a"]),
            ("PUT", "experiments/experiment-default", {"description": "x"}),
            ("DELETE", "experiments/experiment-default", None),
        ]
        allowed = [("POST", "runs/a/tags/new", {"tag_name": "t"}), ("PUT", "tags/nope", {})]

        assert {status(app, method, f"{AIM}/{path}", body) for method, path, body in refused} == {403}
        assert [status(app, method, f"{AIM}/{path}", body) for method, path, body in allowed] == [200, 404]
