"""An operator proves the index right beside a running server, and a store that has none gets one by itself.

What the command says is compared with what was done to the store behind the server's back.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from matyan.engines.kv.protocol import KvTransaction
from matyan.ids import DEFAULT_PROJECT
from matyan.store import keyspace
from tests.support.rest import Rest, eventually
from tests.support.server import MatyanServer, matyan, started
from tests.support.stores import open_server_store, store_environment
from tests.support.writer import RawWriter, create, message, metric


@pytest.fixture
def server(tmp_path: Path) -> Iterator[MatyanServer]:
    """Return a server that has one run."""
    with started(tmp_path / "home") as running:
        with RawWriter(running.websocket_url, "a") as socket:
            params = message("log_hparams", "a", value={"hparams": {"lr": 0.1, "layers": [1, 2]}})
            socket.send(create("a"), params, metric("a", "loss", 1.0, 0))
        with Rest(running.url) as rest:
            eventually(lambda: rest.exists("a"), bool)
        yield running


def reindex(home: Path, *options: str) -> tuple[int, str]:
    """Return exit code and output of the command."""
    done = matyan("reindex", *options, "--home", str(home), check=False, environment=store_environment(home))
    return done.returncode, done.stdout


def forget(home: Path) -> None:
    """Take the index out of a store that nobody serves."""
    kv = open_server_store(home)

    def write(tx: KvTransaction) -> None:
        tx.clear_range(*keyspace.children(keyspace.index(DEFAULT_PROJECT)))
        tx.clear(keyspace.index_state(DEFAULT_PROJECT))

    kv.write(write)
    kv.close()


def test_index_is_proven_right_beside_a_server_and_made_anew(server: MatyanServer) -> None:
    code, verdict = reindex(server.home, "--verify")
    again = reindex(server.home)
    after = reindex(server.home, "--verify")

    assert (code, verdict.count("\n")) == (0, 1), verdict
    assert verdict.startswith("1 runs should have ")
    assert verdict.endswith(": 0 missing, 0 left over\n")
    assert again == (0, "the index is complete\n")
    assert after[0] == 0
    assert after[1].endswith(": 0 missing, 0 left over\n")


def test_store_without_an_index_is_told_and_gets_one_by_itself(server: MatyanServer) -> None:
    server.stop()
    forget(server.home)

    code, verdict = reindex(server.home, "--verify")

    assert code == 1
    assert "missing: run 1, param hparams / lr, code " in verdict
    assert "run `matyan reindex`" in verdict
    with started(server.home):
        assert eventually(lambda: reindex(server.home, "--verify")[0], lambda code: code == 0) == 0
