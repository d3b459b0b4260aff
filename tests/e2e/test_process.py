"""`matyan up` as an operator meets it: what it prints, what it refuses, and what a full disk does.

Every test starts the real command; refusals are looked for in its exit code and its words.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.support import loopback
from tests.support.rest import Rest, canonical, eventually
from tests.support.server import MatyanServer, ServerError, free_port
from tests.support.writer import RawWriter, create, metric

DISK_BYTES: Final = 64 * 1024 * 1024
NO_CONTEXT: Final = canonical(None)


def test_up_prints_the_address_and_six_lines_that_work(tmp_path: Path) -> None:
    pytest.importorskip("matyan_client", reason="matyan-client is not installed")
    with MatyanServer(tmp_path / "home") as server:
        log = eventually(lambda: server.log, lambda log: "run.close()" in log)  # it is ready a moment before it says so
        assert server.url in log
        script = printed_script(log)

        environment = {**os.environ, "MATYAN_BACKEND_URL": server.url, "MATYAN_FRONTIER_URL": server.url}
        subprocess.run([sys.executable, "-c", script], env=environment, check=True, timeout=60, capture_output=True)

        with Rest(server.url) as rest:
            runs = eventually(rest.runs, lambda runs: runs and all(run["traces"]["metric"] for run in runs.values()))
    (run,) = runs.values()
    assert run["traces"]["metric"]


def printed_script(log: str) -> str:
    """Cut the lines of Python out of what was printed: from the import to the first line that is not code."""
    lines = log.splitlines()
    begin = next(number for number, line in enumerate(lines) if "from matyan_client import Run" in line)
    indent = re.match(r"\s*", lines[begin])
    assert indent is not None
    width = len(indent[0])
    script = []
    for line in lines[begin:]:
        if not line.strip() or (len(line) - len(line.lstrip())) < width:
            break
        script.append(line[width:])
    assert len(script) <= 6
    return "\n".join(script)


def test_the_same_app_answers_on_the_second_port(server: MatyanServer) -> None:
    second = f"127.0.0.1:{server.port + 1}"

    version = loopback.get(f"http://{second}/api/v1/rest/version/").json()
    with RawWriter(f"ws://{second}", "second-port") as writer:
        reply = writer.send(create("second-port"))

    assert version["version"]
    assert reply["status"] == "ok"


def test_a_second_up_on_the_same_data_is_refused_and_names_the_holder(server: MatyanServer, tmp_path: Path) -> None:
    second = MatyanServer(server.home)
    second.log_path = tmp_path / "second.log"

    with pytest.raises(ServerError, match="ended with"):
        second.start()

    assert str(server.pid) in second.log
    assert "Traceback" not in second.log
    assert server.is_ready()


@pytest.mark.parametrize("options", [[], [socket.SO_REUSEPORT]], ids=["exclusive", "shared"])
def test_a_port_in_use_is_refused_and_named(tmp_path: Path, options: list[int]) -> None:
    with socket.socket() as holder:
        for option in options:  # what a second server would silently join
            holder.setsockopt(socket.SOL_SOCKET, option, 1)
        port = free_port()
        holder.bind(("127.0.0.1", port))
        holder.listen()
        server = MatyanServer(tmp_path / "home", port=port)

        with pytest.raises(ServerError, match="ended with"):
            server.start()

    assert str(port) in server.log
    assert "Traceback" not in server.log


def test_an_unknown_flag_is_refused_in_words(tmp_path: Path) -> None:
    command = [*MatyanServer(tmp_path / "home").command(), "--no-such-flag"]

    answer = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)

    assert answer.returncode != 0
    assert "--no-such-flag" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_data_is_private_to_its_owner(server: MatyanServer) -> None:
    secrets = [path for path in server.home.rglob("*") if "secret" in path.name.lower()]

    assert secrets
    assert [path for path in secrets if path.stat().st_mode & 0o077] == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own that can be filled without harm."""
    mount = tmp_path / "disk"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(mount)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a small file system cannot be mounted here: {error}")
    yield mount
    subprocess.run(["umount", "--lazy", str(mount)], check=True)


def test_a_full_disk_refuses_in_words_and_loses_nothing_acknowledged(small_disk: Path, tmp_path: Path) -> None:
    ballast = small_disk / "ballast"
    server = MatyanServer(small_disk / "home")
    server.log_path = tmp_path / "server.log"
    with server:
        with RawWriter(server.websocket_url, "full") as writer:
            acknowledged = [writer.send(create("full"), metric("full", "loss", 0.0, 0))["status"]]
            fill(ballast)
            step, error = write_until_refused(writer)
            assert re.search(r"disk|space", error), error
            assert server.is_running()

            ballast.unlink()
            eventually(lambda: writer.send(metric("full", "loss", -1.0, step))["status"], "ok".__eq__)
        server.stop()
        server.start()
        with Rest(server.url) as rest:
            found = eventually(lambda: rest.metrics("full")[("loss", NO_CONTEXT)], lambda found: step in found)

    assert acknowledged == ["ok"]
    kept = {number: point.value for number, point in found.items() if number < step}
    assert kept == {number: float(number) for number in range(step)}
    assert found[step].value == -1.0


def fill(ballast: Path) -> None:
    with ballast.open("wb", buffering=0) as file:
        for block in (1024 * 1024, 4096):
            try:
                while True:
                    file.write(bytes(block))
            except OSError:
                continue


def write_until_refused(writer: RawWriter) -> tuple[int, str]:
    """Return the first step that was refused, and why; every step before it was acknowledged."""
    for step in range(1, 100_000):
        reply = writer.send(metric("full", "loss", float(step), step))
        if reply["status"] != "ok":
            return step, reply["error"]
    raise AssertionError("the full disk was never noticed")
