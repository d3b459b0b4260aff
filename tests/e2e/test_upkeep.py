"""An operator looks after a server that runs: dead letters, the space that things take, runs that fell silent.

Commands are run as a person runs them, beside the server; their effect is looked for in the answers of the API.
"""

from __future__ import annotations

import random
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from matyan.ids import DEFAULT_PROJECT
from matyan.store import deadletters
from matyan.store.deadletters import DeadLetter
from matyan.wire.frames import encode_commands
from matyan.wire.messages import Command, LogMetric, SetRunProperty
from tests.support.rest import Rest, canonical, eventually
from tests.support.server import MatyanServer, matyan, matyan_here, started
from tests.support.stores import open_server_store, store_environment
from tests.support.writer import RawWriter, create, message, metric, upload

LONG: Final = "x" * 5000
"""No name that this release takes."""
SILENT_SECONDS: Final = 3.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MatyanServer]:
    environment = {"MATYAN_SWEEP_SILENT_SECONDS": str(SILENT_SECONDS)}
    with started(tmp_path_factory.mktemp("tracker") / "home", environment=environment) as running:
        yield running


@pytest.fixture
def no_letters(server: MatyanServer) -> Iterator[None]:
    yield
    matyan_here(
        "deadletters", "drop", "--all", "--yes", "--home", str(server.home), environment=store_environment(server.home)
    )


def run(server: MatyanServer, *arguments: str, check: bool = True) -> tuple[int, str]:
    """Return exit code and output of a command on the server's data."""
    done = matyan(*arguments, "--home", str(server.home), check=check, environment=store_environment(server.home))
    return done.returncode, done.stdout


def ids(server: MatyanServer) -> list[str]:
    """Return the ids of all letters, as the command lists them; many tests look again and again."""
    own = store_environment(server.home)
    lines = matyan_here("deadletters", "list", "--home", str(server.home), environment=own).stdout.splitlines()
    return [line.split()[0] for line in lines if "no dead" not in line]


def spoil(server: MatyanServer, name: str) -> str:
    """Log a run with an item that is acknowledged and cannot be stored; return the id of its letter."""
    before = set(ids(server))
    huge = random.Random(1).randbytes(5_500_000).hex()
    with RawWriter(server.websocket_url, name) as socket:
        socket.send(create(name))
        assert socket.send(message("log_hparams", name, value={"huge": huge}))["status"] == "ok"
    (letter,) = eventually(lambda: set(ids(server)) - before, len)
    return letter


def put_letter(server: MatyanServer, name: str, command: Command) -> str:
    """Store a letter of a command, as if it had been refused once; return its id."""
    letter = DeadLetter(
        log_id="another log",
        topic="data-ingestion",
        partition=0,
        offset=zlib.crc32(name.encode()),
        index=0,
        project=DEFAULT_PROJECT,
        run_id=name,
        reason="an older release knew no better",
        excerpt=encode_commands([command]),
        received_ms=int(time.time() * 1000),
    )
    kv = open_server_store(server.home)
    try:
        kv.write(lambda tx: deadletters.put(tx, letter))
    finally:
        kv.close()
    return letter.id


@pytest.mark.usefixtures("no_letters")
def test_a_dead_letter_is_listed_and_shown_with_all_that_is_known(server: MatyanServer) -> None:
    letter = spoil(server, "shown")

    listed = run(server, "deadletters", "list")[1]
    shown = run(server, "deadletters", "show", letter)[1]

    assert f"{letter}  " in listed
    assert "run shown" in listed
    assert "TooLargeError" in shown
    assert "data-ingestion, partition" in shown
    assert '"type": "log_hparams"' in shown
    assert len(shown) > 11_000_000


@pytest.mark.usefixtures("no_letters")
def test_a_retried_letter_is_stored_once_while_the_server_runs(server: MatyanServer, rest: Rest) -> None:
    with RawWriter(server.websocket_url, "retried") as socket:
        socket.send(create("retried"), metric("retried", "late", 1.0, 0))
    letter = put_letter(server, "retried", LogMetric("late", 5.0))

    outcome = run(server, "deadletters", "retry", letter)
    with RawWriter(server.websocket_url, "retried") as socket:
        socket.send(metric("retried", "late", 6.0, None))

    assert outcome == (0, f"{letter}  stored\n")
    found = eventually(lambda: rest.metrics("retried")[("late", canonical(None))], lambda series: 2 in series)
    assert {step: point.value for step, point in found.items()} == {0: 1.0, 1: 5.0, 2: 6.0}
    assert ids(server) == []


@pytest.mark.usefixtures("no_letters")
def test_a_letter_refused_again_is_told_and_kept(server: MatyanServer) -> None:
    letter = put_letter(server, "stubborn", SetRunProperty(name=LONG))

    code, output = run(server, "deadletters", "retry", "--all", check=False)

    assert code == 1
    assert output.startswith(f"{letter}  refused again: ")
    assert ids(server) == [letter]
    assert "(retries: 1)" in run(server, "deadletters", "list")[1]


def test_letters_are_dropped_only_when_somebody_says_so(server: MatyanServer) -> None:
    first, second = (put_letter(server, name, SetRunProperty(name=LONG)) for name in ("dropped", "dropped-too"))

    refused = run(server, "deadletters", "drop", first, check=False)
    kept = ids(server)
    dropped = run(server, "deadletters", "drop", first, "--yes")

    assert refused[0] == 1
    assert set(kept) == {first, second}
    assert dropped[0] == 0
    assert first in dropped[1]
    assert ids(server) == [second]
    assert run(server, "deadletters", "drop", "--all", "--yes")[1].endswith("deleted 1\n")


def test_an_unknown_letter_is_named(server: MatyanServer) -> None:
    done = matyan("deadletters", "show", "nosuchletter", "--home", str(server.home), check=False)

    assert done.returncode == 1
    assert "no dead letter nosuchletter" in done.stderr


def test_a_run_whose_client_died_is_marked_crashed_until_it_is_heard_of_again(server: MatyanServer, rest: Rest) -> None:
    with RawWriter(server.websocket_url, "silent") as socket:
        socket.send(create("silent"), metric("silent", "loss", 1.0, 0))
        time.sleep(3 * SILENT_SECONDS)
        connected = rest.info("silent")["props"]

    dead = eventually(lambda: rest.info("silent")["props"], lambda props: not props["active"])
    with RawWriter(server.websocket_url, "silent") as socket:
        socket.send(metric("silent", "loss", 1.0, 1))
        again = eventually(lambda: rest.info("silent")["props"], lambda props: props["active"])

    assert connected["active"], "its client said nothing and was there"
    assert dead["crashed"] is True
    assert dead["end_time"] > dead["creation_time"] + SILENT_SECONDS
    assert "crashed" not in again
    assert again["end_time"] is None


def test_deleting_a_large_run_frees_almost_all_of_its_space(server: MatyanServer, rest: Rest) -> None:
    source = random.Random(7)
    name = "large"
    with RawWriter(server.websocket_url, name) as socket:
        socket.send(create(name), message("log_hparams", name, value={"lr": 0.1, "layers": list(range(100))}))
        for start in range(0, 20_000, 1000):
            points = [
                metric(name, f"m{one}", source.random(), step)
                for step in range(start, start + 1000)
                for one in range(10)
            ]
            assert socket.send(*points)["status"] == "ok"
        for step in range(20):
            key = upload(server.url, name, f"seq/images/{step}.png", source.randbytes(20_000), "image/png")
            image = {"type": "image", "s3_key": key, "format": "png", "width": 9, "height": 9, "caption": ""}
            socket.send(message("log_custom_object", name, name="images", value=image, step=step))
        key = upload(server.url, name, "model.bin", source.randbytes(500_000))
        socket.send(message("blob_ref", name, s3_key=key, artifact_path="model.bin"))
        socket.send(message("finish_run", name))
    eventually(lambda: rest.info(name), lambda info: not info["props"]["active"])
    before = space(server, name)

    rest.send("DELETE", f"/runs/{name}/")

    after = eventually(lambda: space(server, name), lambda found: sum(found) <= 0.05 * sum(before))
    assert before[0] > 200_000, "200,000 points are something"
    assert before[1] == 20 * 20_000 + 500_000
    assert after[0] <= 0.05 * before[0]
    assert after[1] == 0


def space(server: MatyanServer, *names: str) -> tuple[int, int]:
    """Return the bytes of a run, or of everything, in the store and in files."""
    lines = run(server, "space", *names)[1].splitlines()
    found = {line.split()[0]: int(line.split()[1].replace(",", "")) for line in lines if " bytes " in line}
    return found["store"], found["files"]


def test_the_space_of_everything_is_that_of_all_its_parts(server: MatyanServer, rest: Rest) -> None:
    with RawWriter(server.websocket_url, "small") as socket:
        socket.send(create("small"), metric("small", "loss", 1.0, 0))
    eventually(lambda: rest.exists("small"), bool)

    output = run(server, "space")[1].splitlines()

    sizes = {line.split()[0]: int(line.split()[1].replace(",", "")) for line in output}
    assert sizes["store"] == sum(size for name, size in sizes.items() if name not in ("store", "files"))
    assert sizes["store"] > 0


def test_the_space_of_a_run_nobody_knows_is_an_error(server: MatyanServer) -> None:
    done = matyan("space", "nobody", "--home", str(server.home), check=False)

    assert done.returncode == 1
    assert "no run nobody" in done.stderr


def test_ages_of_the_settings_are_judged_after_a_watch_and_chosen_ones_at_once(tmp_path: Path) -> None:
    environment = {"MATYAN_SWEEP_ORPHAN_HOURS": str(1 / 3600)}
    with started(tmp_path / "home", environment=environment) as server:
        upload(server.url, "ghost", "never.bin", b"x" * 1000)
        server.stop()
        time.sleep(1.5)

        own = store_environment(server.home)
        watched = matyan("sweep", "--home", str(server.home), environment=own | environment).stdout
        chosen = run(server, "sweep", "--orphan-hours", str(1 / 3600))[1]

        assert "0  files without a run deleted" in watched, "nobody has watched before"
        assert "1  files without a run deleted" in chosen


@pytest.mark.parametrize("option", ["--tombstone-hours=2.9", "--orphan-hours=-1"])
def test_an_age_below_its_bound_is_refused(tmp_path: Path, option: str) -> None:
    done = matyan("sweep", option, "--home", str(tmp_path), check=False)

    assert done.returncode == 2
    assert "sweep: Expected `float` >= " in done.stderr


def test_a_stopped_server_is_swept_to_the_end(tmp_path: Path) -> None:
    with started(tmp_path / "home") as server:
        upload(server.url, "ghost", "never.bin", b"x" * 1000)
        with RawWriter(server.websocket_url, "kept") as socket:
            socket.send(create("kept"), metric("kept", "loss", 1.0, 0))
        upload(server.url, "kept", "model.bin", b"y" * 1000)
        with Rest(server.url) as rest:
            eventually(lambda: rest.exists("kept"), bool)
        busy = matyan("sweep", "--home", str(server.home), check=False, environment=store_environment(server.home))
        server.stop()

        first = run(server, "sweep")[1]
        second = run(server, "sweep", "--now")[1]

        assert busy.returncode == 2
        assert "in use" in busy.stderr
        assert "0  files without a run deleted" in first, "the file is young"
        assert "1  files without a run deleted" in second
        assert space(server, "kept")[1] == 1000
        assert space(server)[1] == 1000
