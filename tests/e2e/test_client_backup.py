"""`matyan-client backup` and `restore-reingest` against our server lose what the client loses, and nothing else."""

from __future__ import annotations

import copy
import json
import tarfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from tests.support.backups import LOSSES, Snapshot, entities, restored_from_a_client_backup, snapshot
from tests.support.rest import Rest, eventually
from tests.support.scripts import run_client, run_module
from tests.support.server import MatyanServer, started
from tests.support.writer import RawWriter, create, frames, message, metric, moment

pytest.importorskip("matyan_client", reason="matyan-client is not installed")

RICH: Final = "e" * 32
LONG: Final = "long-logs-and-series"
ARCHIVED: Final = "archived-größe"
ACTIVE: Final = "active"
RUNS: Final = (RICH, LONG, ARCHIVED, ACTIVE)
POINTS: Final = 3000
LINES: Final = 250


class Backup(NamedTuple):
    """A backup that the client made of a tracker."""

    path: Path
    before: Mapping[str, Snapshot]
    entities: Mapping[str, Any]


@pytest.fixture(scope="module")
def backup(server: MatyanServer, tmp_path_factory: pytest.TempPathFactory) -> Backup:
    """A tracker with every kind of data, and what the client saved of it."""
    run_module("client_scripts", "everything", server.url, RICH)
    for messages in (_long_run(), _archived_run(), _active_run()):
        sent = list(messages)
        with RawWriter(server.websocket_url, sent[0]["run_id"]) as writer:
            for frame in frames(sent):
                assert writer.send_text(frame)["status"] == "ok"
    with Rest(server.url) as rest:
        eventually(lambda: _progress(rest), lambda found: found == (3, POINTS, LINES))
        assert _progress(rest) == (3, POINTS, LINES)
        _make_entities(rest)
        before = {run: snapshot(rest, run) for run in RUNS}
        known = entities(rest)
    folder = tmp_path_factory.mktemp("backup")
    assert all(part for name, part in before[RICH].items() if name != "refusals")
    assert all(before[RICH]["objects"].values())
    output = run_client("backup", str(folder), "--backend-url", server.url, "--runs", ",".join(RUNS))
    assert "Backup complete: 4 run(s)" in output
    (path,) = folder.iterdir()
    return Backup(path, before, known)


def _long_run() -> Iterator[dict[str, Any]]:
    yield create(LONG)
    yield message("log_hparams", LONG, value={"hparams": {"deep": {"er": [1, [2, {"x": None}]]}, "e": {}, "l": []}})
    yield message("log_hparams", LONG, value={"__system_params": {"arguments": ["a"], "packages": {"numpy": "2"}}})
    for step in range(POINTS):
        yield metric(LONG, "loss", 1 / (1 + step), step, epoch=step // 100, context={"subset": "train"}, seconds=step)
    for number in range(LINES):
        yield message("log_record", LONG, message=f"record {number}", level=20, timestamp=1e9 + number)
    for number in range(LINES):
        yield message("log_terminal_line", LONG, line=f"line {number}", step=number)
    yield message("finish_run", LONG, client_datetime=moment(5000))


def _archived_run() -> Iterator[dict[str, Any]]:
    yield create(ARCHIVED, seconds=-(10**8))
    yield message("set_run_property", ARCHIVED, name="old", description="d", archived=True, experiment="other")
    yield metric(ARCHIVED, "__system__gpu", 50.5, 0, context={"gpu": 0})
    yield message("finish_run", ARCHIVED, client_datetime=moment(-(10**8) + 1))


def _active_run() -> Iterator[dict[str, Any]]:
    yield create(ACTIVE)
    yield message("log_hparams", ACTIVE, value={"only": {"one": {"key": 1}}})
    yield metric(ACTIVE, "loss", 0.5, 0)


def _progress(rest: Rest) -> tuple[int, int, int]:
    """Return how many runs have finished, and how much of the long one is visible."""
    points = sum(map(len, rest.metrics(LONG).values()))
    return sum(not rest.info(run)["props"]["active"] for run in RUNS), points, len(rest.lines(LONG))


def _make_entities(rest: Rest) -> None:
    """Make what stands beside the runs."""
    rest.send("POST", "/tags/", {"name": "coloured", "color": "#f00", "description": "tag without a run"})
    rest.send("POST", "/experiments/", {"name": "empty"})
    rest.send("POST", f"/runs/{RICH}/note/", {"content": "a note"})


def restore(backup: Backup, target: MatyanServer, *options: str) -> Mapping[str, Snapshot]:
    """Restore into a tracker and return what is there then."""
    began = time.time() - 0.001  # times are stored in milliseconds
    output = run_client(
        "restore-reingest", str(backup.path), "--backend-url", target.url, "--frontier-url", target.url, *options
    )
    assert "Restored: 4 run(s), 8 entity/ies, " in output
    assert "Errors" not in output
    with Rest(target.url) as rest:
        eventually(lambda: _progress(rest), lambda found: found == (3, POINTS, 200))
        return {run: snapshot(rest, run, restored=(began, time.time())) for run in RUNS}


@pytest.fixture
def other_server(tmp_path: Path) -> Iterator[MatyanServer]:
    with started(tmp_path / "other") as running:
        yield running


@pytest.mark.parametrize("reason", LOSSES)
def test_every_fault_of_the_client_is_one_that_these_runs_show(backup: Backup, reason: str) -> None:
    after = copy.deepcopy(backup.before)
    for run in after.values():
        LOSSES[reason](run)

    assert after != backup.before


def test_a_backup_restored_into_an_empty_server_differs_only_by_the_clients_own_faults(
    backup: Backup, other_server: MatyanServer
) -> None:
    after = restore(backup, other_server)

    for run in RUNS:
        assert after[run] == restored_from_a_client_backup(backup.before[run])
    with Rest(other_server.url) as rest:
        assert entities(rest) == backup.entities


def test_a_backup_restored_over_deleted_runs_differs_only_by_the_clients_own_faults(
    backup: Backup, server: MatyanServer, rest: Rest
) -> None:
    rest.send("POST", "/runs/delete-batch/", list(RUNS))
    assert not any(rest.exists(run) for run in RUNS)

    after = restore(backup, server)

    for run in RUNS:
        assert after[run] == restored_from_a_client_backup(backup.before[run])
    assert entities(rest) == backup.entities


def test_a_backup_is_compressed_and_checked_without_writing(
    backup: Backup, server: MatyanServer, other_server: MatyanServer, tmp_path: Path
) -> None:
    folder = tmp_path / "compressed"
    run_client("backup", str(folder), "--backend-url", server.url, "--compress", "--runs", ",".join(RUNS))
    (path,) = folder.iterdir()

    urls = ("--backend-url", other_server.url, "--frontier-url", other_server.url)
    output = run_client("restore-reingest", str(path), "--dry-run", *urls)

    with tarfile.open(path) as archive:
        assert f"{path.name.removesuffix('.tar.gz')}/manifest.json" in archive.getnames()
    records = sum(len(file.read_text().splitlines()) for file in backup.path.rglob("sequences.jsonl"))
    assert output.strip() == (
        f"[dry-run] Would restore: 4 run(s), 8 entity/ies, {records} sequence record(s), 0 blob(s)"
    )
    with Rest(other_server.url) as rest:
        assert rest.runs() == {}


def test_a_backup_is_restored_without_its_experiments_and_tags_when_told_so(
    backup: Backup, other_server: MatyanServer
) -> None:
    urls = ("--backend-url", other_server.url, "--frontier-url", other_server.url)

    output = run_client("restore-reingest", str(backup.path), "--skip-entities", "--skip-blobs", *urls)

    assert "Restored: 4 run(s), 0 entity/ies, " in output
    with Rest(other_server.url) as rest:
        found = eventually(lambda: entities(rest), lambda found: len(found) == 3)
    assert found.keys() == {"experiments default", "experiments everything", "experiments other"}


@pytest.mark.parametrize(
    ("options", "runs"),
    [
        ([], [RICH, LONG, ACTIVE]),  # archived runs are no search's result unless it names them
        (["--runs", f"{RICH}, {ARCHIVED}", "--no-blobs"], [RICH, ARCHIVED]),
        (["--experiment", "everything"], [RICH]),
        (["--experiment", "nothing"], []),
        (["--since", "2000-01-01T00:00:00+00:00"], [RICH, LONG, ACTIVE]),
        (["--since", "2100-01-01T00:00:00+00:00"], []),
    ],
)
def test_a_backup_holds_the_runs_that_are_chosen(
    backup: Backup, server: MatyanServer, tmp_path: Path, options: list[str], runs: list[str]
) -> None:
    run_client("backup", str(tmp_path), "--backend-url", server.url, *options)

    (path,) = tmp_path.iterdir()
    assert set(json.loads((path / "manifest.json").read_text())["run_hashes"]) == set(runs)
