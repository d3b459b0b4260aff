"""`matyan health` is the health check of the image.

A real server is started, asked and stopped; the exit code has to say what a container engine is to think of it.
"""

from __future__ import annotations

from pathlib import Path

from tests.support.server import MatyanServer, matyan


def test_a_server_is_healthy_from_its_start_to_its_stop(tmp_path: Path) -> None:
    with MatyanServer(tmp_path / "home") as server:
        up = matyan("health", "--url", server.url, check=False)
        server.stop()
        down = matyan("health", "--url", server.url, check=False)

    assert (up.returncode, up.stdout) == (0, "ready: blob ok, kv ok, log ok\n")
    assert (down.returncode, down.stdout) == (1, "")
    assert f"matyan: {server.url} does not answer" in down.stderr
