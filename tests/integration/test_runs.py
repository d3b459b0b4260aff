"""One run over HTTP: info, logs, edits, notes and files; what the recordings of Aim do not show."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from matyan.ids import DEFAULT_PROJECT, RunNumber
from matyan.runs import repository
from matyan.runs.logs import LINES, PAGE_ITEMS_FIRST, RECORDS
from matyan.runs.model import SYSTEM_PARAMS, Artifact, EditMark
from matyan.sequences import items
from matyan.sequences.model import Item
from matyan.store import keyspace
from tests.support import treestream
from tests.support.golden_store import put_items
from tests.support.runs_app import RunsApp, runs_app
from tests.support.store import make_experiment, make_metric, make_objects, make_run

AIM, MATYAN = "/api/runs/a", "/api/v1/rest/runs/a"


@pytest.fixture
def app(tmp_path: Path) -> Iterator[RunsApp]:
    with runs_app(tmp_path) as opened:
        yield opened


def lines_of(app: RunsApp, query: str = "", base: str = AIM) -> dict[Any, Any]:
    response = app.client.get(f"{base}/logs/{query}")
    assert response.status_code == 200, response.text
    return dict(treestream.trees(response.content))


def records_of(app: RunsApp, query: str = "", base: str = AIM) -> dict[Any, Any]:
    return dict(treestream.trees(app.client.get(f"{base}/log-records/{query}").content))


def put_lines(app: RunsApp, number: RunNumber, count: int) -> None:
    found = [Item(f"line {step}") for step in range(count)]
    app.kv.write(lambda tx: put_items(tx, number, LINES, found))


# ---- info


def test_info_tells_params_that_json_cannot_say(app: RunsApp) -> None:
    params = {"a": [math.nan, {"b": math.inf}], "c": -math.inf, "big": 2**70, 7: "seven", "é": "日本"}
    make_run(app.kv, "a", params=params)

    found = app.get("/runs/a/info/")["params"]
    assert found == {"a": ["NaN", {"b": "inf"}], "c": "-inf", "big": 2**70, "7": "seven", "é": "日本"}


def test_info_leaves_system_params_out_when_asked(app: RunsApp) -> None:
    make_run(app.kv, "a", params={"lr": 1, SYSTEM_PARAMS: {"packages": {}}})

    assert app.get("/runs/a/info/")["params"] == {"lr": 1, SYSTEM_PARAMS: {"packages": {}}}
    assert app.get("/runs/a/info/?skip_system=yes")["params"] == {"lr": 1}


def test_info_tells_the_last_value_of_metrics(app: RunsApp) -> None:
    number = make_run(app.kv, "a")
    make_metric(app.kv, number, "loss", [3, 2, 1.5], context={"subset": "val"})
    make_metric(app.kv, number, "broken", [math.nan])
    make_objects(app.kv, number, "text", "samples", [{"data": "x"}])

    traces = app.get("/runs/a/info/")["traces"]
    assert sorted(traces) == sorted(
        ["metric", "images", "audios", "texts", "distributions", "figures", "logs", "log_records"]
    )
    assert {trace["name"]: trace["last_value"] for trace in traces["metric"]} == {"loss": 1.5, "broken": None}
    assert traces["metric"][0]["context"] in ({}, {"subset": "val"})
    assert traces["texts"] == [{"context": {}, "name": "samples", "last_value": 0.1}]


def test_info_under_matyan_has_public_kinds_and_base_names(app: RunsApp) -> None:
    file = Artifact("dir/model.bin", "a/dir/model.bin")
    number = make_run(app.kv, "a", experiment=None, artifacts=(file,))
    put_lines(app, number, 1)

    info = app.client.get(f"{MATYAN}/info/").json()
    assert list(info["traces"]) == ["metric", "images", "audios", "texts", "distributions", "figures"]
    assert info["artifacts"] == [{"name": "model.bin", "path": "dir/model.bin", "uri": "a/dir/model.bin"}]
    assert info["props"]["experiment"] == {"id": None, "name": None, "description": None}


@pytest.mark.parametrize("run_id", ["unknown", "x" * 600, "%00", "%ED%A0%80"])
@pytest.mark.parametrize("what", ["info", "logs", "log-records", "note", "artifacts/download?path=x"])
def test_unknown_run_is_404_whatever_its_name(app: RunsApp, run_id: str, what: str) -> None:
    assert app.client.get(f"/api/runs/{run_id}/{what}").status_code == 404


# ---- logs


def test_logs_end_with_the_tail_of_the_dialect(app: RunsApp) -> None:
    put_lines(app, make_run(app.kv, "a"), 500)

    assert list(lines_of(app)) == list(range(299, 500))
    assert list(lines_of(app, base=MATYAN)) == list(range(300, 500))


def test_bare_range_is_a_start_for_aim_and_everything_for_matyan(app: RunsApp) -> None:
    put_lines(app, make_run(app.kv, "a"), 10)

    assert list(lines_of(app, "?record_range=7")) == [7, 8, 9]
    assert list(lines_of(app, "?record_range=7", base=MATYAN)) == list(range(10))


def test_logs_longer_than_a_page_come_whole_and_in_order(app: RunsApp) -> None:
    count = 7 * PAGE_ITEMS_FIRST
    put_lines(app, make_run(app.kv, "a"), count)

    assert list(lines_of(app, f"?record_range=0:{count}").items()) == [(n, f"line {n}") for n in range(count)]


@pytest.mark.parametrize("wanted", ["5:2", "100:100", "-5:", "10:", "1000:2000"])
def test_range_without_lines_is_an_empty_body(app: RunsApp, wanted: str) -> None:
    put_lines(app, make_run(app.kv, "a"), 10)

    response = app.client.get(f"{AIM}/logs/?record_range={wanted}")
    assert (response.status_code, response.content) == (200, b"")


@pytest.mark.parametrize("what", ["logs", "log-records"])
def test_range_that_is_none_is_400(app: RunsApp, what: str) -> None:
    make_run(app.kv, "a")

    response = app.client.get(f"{AIM}/{what}/?record_range=x")
    assert response.status_code == 400
    assert response.json()["message"] == "Invalid range format"


def test_logs_skip_numbers_that_were_never_written(app: RunsApp) -> None:
    number = make_run(app.kv, "a")
    put_lines(app, number, 5)
    app.kv.write(lambda tx: tx.clear_range(*item_range(number, 2)))

    assert list(lines_of(app)) == [0, 1, 3, 4]


def test_line_of_many_pieces_and_line_in_a_blob_are_read_whole(app: RunsApp) -> None:
    number = make_run(app.kv, "a")
    encoded = items.encode(Item("z" * 10))
    spilled = items.spilled(Item("z" * 10), encoded, "default/a/")
    app.blobs.put(str(spilled.blob_key), [encoded], content_type="application/x-matyan-item")
    found = [Item("first"), Item("é" * 200_000), spilled, Item(None, blob_key="gone")]
    app.kv.write(lambda tx: put_items(tx, number, LINES, found))

    assert lines_of(app) == {0: "first", 1: "é" * 200_000, 2: "z" * 10, 3: ""}


def test_log_records_tell_level_names_and_under_matyan_the_caller(app: RunsApp) -> None:
    number = make_run(app.kv, "a")
    record = {"message": "m", "log_level": 25, "timestamp": 1.5, "args": {"k": [1]}, "logger_info": ["f.py", 3]}
    app.kv.write(lambda tx: put_items(tx, number, RECORDS, [Item(record)]))

    plain = {"message": "m", "log_level": "Level 25", "timestamp": 1.5, "args": {"k": [1]}, "is_notified": True}
    assert records_of(app) == {"log_records_count": 1, 0: plain}
    assert records_of(app, base=MATYAN)[0] == {**plain, "logger_info": ["f.py", 3]}


def test_log_records_end_with_the_last_200(app: RunsApp) -> None:
    number = make_run(app.kv, "a")
    found = [Item({"message": str(step), "log_level": 20, "timestamp": 0.0}) for step in range(250)]
    app.kv.write(lambda tx: put_items(tx, number, RECORDS, found))

    assert list(records_of(app)) == ["log_records_count", *range(50, 250)]
    assert list(records_of(app, "?record_range=248:")) == ["log_records_count", 248, 249]


# ---- edits


def test_edit_changes_what_is_given_and_nothing_else(app: RunsApp) -> None:
    number = make_run(app.kv, "a", name="old", description="d", end_time_seconds=1_717_243_300.0)

    response = app.client.put(f"{AIM}/", json={"name": " new ", "experiment": "fresh"})
    assert response.json() == {"id": "a", "status": "OK"}
    props = app.get("/runs/a/info/")["props"]
    assert (props["name"], props["description"], props["archived"]) == ("new", "d", False)
    assert props["experiment"]["name"] == "fresh"
    assert props["end_time"] == 1_717_243_300.0
    assert [run["run_id"] for run in runs_of(app, "fresh")] == ["a"]
    assert runs_of(app, "default") == []
    (document,) = app.kv.read(lambda reader: repository.read_documents(reader, DEFAULT_PROJECT, [number]))
    assert document is not None
    assert document.edits == {"name": EditMark("log", 7), "experiment": EditMark("log", 7)}


def test_edit_moves_a_run_to_an_experiment_that_is_there(app: RunsApp) -> None:
    make_run(app.kv, "a")
    there = make_experiment(app.kv, "there")

    app.client.put(f"{MATYAN}/", json={"experiment": "there"})

    assert app.get("/runs/a/info/")["props"]["experiment"]["id"] == there.id


def test_edit_finishes_a_run_once_and_opens_it_again(app: RunsApp) -> None:
    make_run(app.kv, "a")

    app.client.put(f"{MATYAN}/", json={"active": False})
    ended = app.get("/runs/a/info/")["props"]["end_time"]
    app.clock.advance(60)
    app.client.put(f"{MATYAN}/", json={"active": False})
    assert app.get("/runs/a/info/")["props"]["end_time"] == ended == app.clock.now_seconds() - 60
    app.client.put(f"{MATYAN}/", json={"active": True})

    props = app.get("/runs/a/info/")["props"]
    assert (props["active"], props["end_time"]) == (True, None)


@pytest.mark.parametrize("body", [{"archived": "perhaps"}, {"name": 5}, []])
def test_edit_of_a_wrong_type_is_422_and_changes_nothing(app: RunsApp, body: object) -> None:
    make_run(app.kv, "a", name="kept")

    assert app.client.put(f"{AIM}/", json=body).status_code == 422
    assert app.get("/runs/a/info/")["props"]["name"] == "kept"


# ---- notes


def test_notes_under_matyan_have_uuids_and_float_times(app: RunsApp) -> None:
    make_run(app.kv, "a")

    made = app.client.post(f"{MATYAN}/note/", json={"content": " hi "}).json()
    note = app.client.get(f"{MATYAN}/note/{made['id']}/").json()
    assert note == {"id": made["id"], "content": "hi", "updated_at": app.clock.now_seconds()}
    (listed,) = app.client.get(f"{MATYAN}/note/").json()
    assert listed["run_hash"] == "a"
    assert app.get("/runs/a/note/1")["content"] == "hi"


@pytest.mark.parametrize("note", ["xyz", "ffffffff-ffff-4fff-8fff-ffffffffffff"])
def test_note_that_is_none_is_404_under_matyan(app: RunsApp, note: str) -> None:
    make_run(app.kv, "a")

    assert app.client.get(f"{MATYAN}/note/{note}/").status_code == 404


def test_note_of_another_run_is_404(app: RunsApp) -> None:
    make_run(app.kv, "a")
    make_run(app.kv, "b")
    app.client.post("/api/runs/b/note", json={"content": "x"})

    assert app.client.delete(f"{AIM}/note/1").status_code == 404
    assert app.get("/runs/b/note/1")["content"] == "x"


# ---- files


def test_download_sends_the_file_as_an_attachment_of_its_type(app: RunsApp) -> None:
    make_run(app.kv, "a")
    app.blobs.put("default/a/dir/é ?.csv", [b"1,2\n", b"3,4\n"], content_type="text/csv")

    response = app.client.get(f"{MATYAN}/artifacts/download/", params={"path": "dir/é ?.csv"})
    assert response.content == b"1,2\n3,4\n"
    assert response.headers["content-type"] == "text/csv"
    assert response.headers["content-disposition"] == (
        "attachment; filename=\"_ ?.csv\"; filename*=UTF-8''%C3%A9%20%3F.csv"
    )


def test_download_of_an_empty_file_and_of_none(app: RunsApp) -> None:
    make_run(app.kv, "a")
    app.blobs.put("default/a/empty", [], content_type="bad type\r\nx: y")

    response = app.client.get(f"{AIM}/artifacts/download/?path=empty")
    assert (response.status_code, response.content) == (200, b"")
    assert response.headers["content-type"] == "application/octet-stream"
    assert app.client.get(f"{AIM}/artifacts/download/?path=none").status_code == 404
    assert app.client.get(f"{AIM}/artifacts/download/").status_code == 422


def runs_of(app: RunsApp, experiment: str) -> list[dict[str, Any]]:
    found = {each["name"]: each["id"] for each in app.get("/experiments/")}
    runs: list[dict[str, Any]] = app.get(f"/experiments/{found[experiment]}/runs/")["runs"]
    return runs


def item_range(number: RunNumber, step: int) -> tuple[bytes, bytes]:
    base = keyspace.item(DEFAULT_PROJECT, number, LINES.bucket, LINES.digest(), step)
    return base, base + b"\xff"
