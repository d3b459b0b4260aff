"""A deleted run must be gone at once and for good, its bytes freed, whatever its client and the process go on to do.

Real servers are told to delete runs that are still written, or are killed right after they answered; what is left is
then looked for in the answers of the API, in the store and among the files.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import httpx
import pytest

from matyan.roles.jobs import FREE_PATIENCE_SECONDS
from matyan.store.scans import scan_all
from matyan.store.subspaces import Subspace
from tests.support import loopback
from tests.support.rest import Rest, canonical, eventually
from tests.support.server import MatyanServer
from tests.support.stores import open_server_store
from tests.support.writer import RawWriter, create, message, metric, upload

NO_CONTEXT: Final = canonical(None)
CONTENTS: Final = (
    Subspace.RUNS,
    Subspace.SYSTEM_PARAMS,
    Subspace.SUMMARIES,
    Subspace.POINTS,
    Subspace.ITEMS,
    Subspace.TERMINALS,
)


def files_of(server: MatyanServer) -> list[Path]:
    """Return every object that the server keeps."""
    return [path for path in (server.home / "blobs" / "objects").rglob("*") if path.is_file()]


def keys_of(server: MatyanServer) -> int:
    """Return how many keys a stopped server keeps for the contents of runs."""
    kv = open_server_store(server.home)
    try:
        keys = kv.read(lambda reader: [key for key, _ in scan_all(reader, b"", b"\xff", rows_max=1000)])
    finally:
        kv.close()
    return sum(1 for key in keys if key[key.index(b"\x00") + 2] in CONTENTS)


def fill(server: MatyanServer, run: str) -> None:
    """Log points, texts and files, and wait until they are there."""
    with RawWriter(server.websocket_url, run) as socket:
        socket.send(create(run), *(metric(run, f"m{number}", 1.0, 0) for number in range(50)))
        for step in range(0, 1000, 50):
            texts = [
                message(
                    "log_custom_object", run, name="t", value={"type": "text", "data": f"{step + at}"}, step=step + at
                )
                for at in range(50)
            ]
            assert socket.send(*texts)["status"] == "ok"
        for number in range(20):
            upload(server.url, run, f"seq/{number}.bin", b"x" * 1000)
        socket.send(message("finish_run", run))
    with Rest(server.url) as rest:
        eventually(lambda: rest.info(run), lambda info: not info["props"]["active"])


@pytest.mark.slow
def test_a_killed_server_frees_what_it_had_just_promised_to_delete(tmp_path: Path) -> None:
    server = MatyanServer(tmp_path / "home").start()
    fill(server, "doomed")
    server.stop()
    keys = keys_of(server)
    server.start()
    files = files_of(server)
    assert keys > 1000
    assert len(files) >= 20

    with Rest(server.url) as rest:
        rest.send("DELETE", "/runs/doomed/")
        server.kill()

    server.start()
    with Rest(server.url) as rest:
        assert not rest.exists("doomed")
        left = eventually(lambda: files_of(server), lambda found: len(found) <= 0.05 * len(files))
        assert rest.runs("run.archived in [True, False]") == {}
    server.stop()
    assert len(left) <= 0.05 * len(files)
    assert keys_of(server) <= 0.05 * keys


def test_the_event_of_a_deletion_frees_its_files_before_any_job_looks(server: MatyanServer, rest: Rest) -> None:
    before = len(files_of(server))
    fill(server, "told")
    processed = events_processed(server)
    began = time.monotonic()

    rest.send("DELETE", "/runs/told/")

    eventually(lambda: len(files_of(server)), lambda found: found == before)
    assert time.monotonic() - began < FREE_PATIENCE_SECONDS
    assert eventually(lambda: events_processed(server), lambda found: found > processed) == processed + 1


def events_processed(server: MatyanServer) -> float:
    """Return how many deletions of runs were brought to their end by their event."""
    start = 'matyan_control_events_processed_total{event_type="run_deleted"}'
    lines = loopback.get(f"{server.url}/metrics/").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(start))


def test_a_hash_trains_again_after_its_tombstone_is_cleared(server: MatyanServer, rest: Rest) -> None:
    files = len(files_of(server))
    fill(server, "again")
    rest.send("DELETE", "/runs/again/")
    with RawWriter(server.websocket_url, "again") as socket:
        assert socket.send(create("again"), metric("again", "old", 1.0, 0))["status"] == "ok"
        time.sleep(1)
        assert not rest.exists("again"), "a deleted run came back"

        assert rest.send("POST", "/runs/again/clear-tombstone/").status_code == httpx.codes.NO_CONTENT
        socket.send(create("again"), metric("again", "new", 2.0, 7))
    upload(server.url, "again", "model.bin", b"new")

    metrics = eventually(lambda: rest.metrics("again"), len)
    assert {name: {step: point.value for step, point in series.items()} for (name, _), series in metrics.items()} == {
        "new": {7: 2.0}
    }
    time.sleep(2)
    assert len(files_of(server)) == files + 1, "the files of the old run are freed, that of the new one is not"


def test_a_run_deleted_while_its_client_trains_never_comes_back(server: MatyanServer, rest: Rest) -> None:
    pytest.importorskip("matyan_client", reason="matyan-client is not installed")
    run = "d" * 32
    command = [sys.executable, "-m", "tests.support.client_scripts", "keep_on", server.url, run, "4"]
    with subprocess.Popen(command, cwd=Path(__file__).parents[2], text=True, stdout=subprocess.PIPE) as client:
        eventually(lambda: rest.metrics(run), lambda found: len(found.get(("loss", NO_CONTEXT), {})) > 10)
        rest.send("DELETE", f"/runs/{run}/")

        seen = []
        while client.poll() is None:
            seen.append(rest.exists(run))
            time.sleep(0.05)
        output = client.communicate()[0]

    time.sleep(1)
    assert client.returncode == 0
    assert "trained" in output
    assert len(seen) > 10
    assert not any(seen)
    assert not rest.exists(run)
    assert run not in rest.runs("run.archived in [True, False]")
    dropped = loopback.get(f"{server.url}/metrics/").text
    (line,) = [line for line in dropped.splitlines() if line.startswith('matyan_ingest_items_total{outcome="dropped_')]
    assert float(line.split()[-1]) > 0
