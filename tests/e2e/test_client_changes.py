"""What the released matyan-client changes and deletes through REST is changed and deleted, for everybody."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support.rest import Rest, eventually
from tests.support.scripts import run_client
from tests.support.server import MatyanServer
from tests.support.writer import RawWriter, create, message, metric, moment

client_reads = pytest.importorskip("tests.support.client_reads", reason="matyan-client is not installed")


def log_runs(server: MatyanServer, rest: Rest, *runs: str, finishes: bool = True) -> None:
    """Log small runs and wait until their last message is visible."""
    for run in runs:
        with RawWriter(server.websocket_url, run) as writer:
            writer.send(create(run), message("log_hparams", run, value={"hparams": {"lr": 0.1}}))
            writer.send(message("add_tag", run, tag_name="kept"))
            if finishes:
                writer.send(message("finish_run", run, client_datetime=moment(5)))
            writer.send(metric(run, "loss", 1.5, 0))
        info = eventually(partial(rest.info, run), lambda info: info["traces"]["metric"])
        assert info["traces"]["metric"]


def test_a_read_only_handle_changes_nothing_and_the_transport_everything(
    server: MatyanServer, rest: Rest, tmp_path: Path
) -> None:
    log_runs(server, rest, "changed", "left alone")
    log_runs(server, rest, "stopped", finishes=False)
    before = rest.info("changed")

    found = client_reads.results("changes", server.url, tmp_path, "changed", "stopped")

    assert found["after the read-only handle"] == before
    assert found["update_run"] == {"id": "changed", "status": "OK"}
    assert found["finish"] == {"id": "stopped", "status": "OK"}
    props = found["after all"]["props"]
    assert (props["name"], props["description"], props["archived"]) == ("renamed", "why", True)
    assert props["experiment"]["name"] == "moved"
    assert [tag["name"] for tag in props["tags"]] == ["kept", "from REST"]
    assert found["add_tag_to_run"]["tag_id"] == props["tags"][1]["id"]
    assert found["remove_tag_from_run"] == {"id": "changed", "removed": True, "status": "OK"}
    assert found["add_tag_to_run of an unknown run"] == 404
    assert found["after all"]["params"] == before["params"]
    assert found["finished"]["props"]["active"] is False
    assert found["finished"]["props"]["end_time"] > 0
    assert rest.info("changed") == found["after all"]
    assert rest.tags("left alone") == {"kept"}


def test_experiments_and_tags_are_created_once_listed_and_deleted(server: MatyanServer, tmp_path: Path) -> None:
    found = client_reads.results("entities", server.url, tmp_path)

    assert found["create_experiment"]["status"] == found["create_tag"]["status"] == "OK"
    assert found["create_experiment again"] == found["create_tag again"] == 409
    assert _named(found["list_experiments"], "made")["id"] == found["create_experiment"]["id"]
    red = _named(found["list_tags"], "red")
    assert (red["id"], red["color"], red["description"]) == (found["create_tag"]["id"], "#f00", "x")
    assert found["delete_experiment"] is True
    assert "made" in found["left"]
    assert "to delete" not in found["left"]
    assert found["get_project_info"].keys() >= {"name", "path"}
    assert found["get_version"]["component"] == "backend"


def _named(entities: list[dict[str, Any]], name: str) -> dict[str, Any]:
    (found,) = [entity for entity in entities if entity["name"] == name]
    return found


def test_deleted_runs_are_gone_from_every_reading_call(server: MatyanServer, rest: Rest, tmp_path: Path) -> None:
    runs = [f"deleted-{number}" for number in range(5)]
    log_runs(server, rest, *runs, "survivor")

    found = client_reads.results("deletions", server.url, tmp_path, *runs)

    assert found["delete_run"] is True
    assert (found["run_exists"], found["get_run"]) == (False, None)
    assert found["delete_runs"] == (True, [])
    assert found["delete_runs_batch"]["status"] == "OK"
    for listed in (found["left"], found["queried"]):
        assert not set(runs) & set(listed)
        assert "survivor" in listed
    assert not any(rest.exists(run) for run in runs)


def test_a_deletion_of_what_is_not_there_is_reported_as_failed(
    server: MatyanServer, rest: Rest, tmp_path: Path
) -> None:
    log_runs(server, rest, "to refuse")

    found = client_reads.results("refusals", server.url, tmp_path, "to refuse", warns=True)

    assert found == {"delete_run": False, "delete_runs": (False, ["nope"]), "delete_experiment": False}


def test_a_deleted_run_can_be_logged_anew_when_its_tombstone_is_cleared(
    server: MatyanServer, rest: Rest, tmp_path: Path
) -> None:
    runs = [f"again-{number}" for number in range(5)]
    log_runs(server, rest, *runs)
    client_reads.results("deletions", server.url, tmp_path, *runs)  # clears the tombstone of the first

    log_runs(server, rest, runs[0])
    with RawWriter(server.websocket_url, runs[1]) as writer:
        writer.send(create(runs[1]), metric(runs[1], "loss", 2.5, 1))
    log_runs(server, rest, "written after them")

    series = rest.metrics(runs[0])
    assert [{step: point.value for step, point in points.items()} for points in series.values()] == [{0: 1.5}]
    assert not rest.exists(runs[1])


def test_status_tells_the_versions_of_both_ends(server: MatyanServer, rest: Rest) -> None:
    lines = run_client("status", "--backend-url", server.url, "--frontier-url", server.url).splitlines()

    version = rest.get("/version/").json()["version"]
    assert [line.split() for line in lines[1:3]] == [["Backend", "OK", version], ["Frontier", "OK", version]]
    assert lines[3].split() == ["Client", "(local)", "0.3.0"]


def test_status_of_a_server_that_is_not_there_is_unreachable() -> None:
    output = run_client("status", "--backend-url", "http://127.0.0.1:9", "--frontier-url", "http://127.0.0.1:9")

    assert [line.split()[1] for line in output.splitlines()[1:3]] == ["unreachable", "unreachable"]
