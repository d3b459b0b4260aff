"""`matyan query` beside a running server: what a query selects, and how that was found."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.rest import Rest, eventually
from tests.support.server import MatyanServer, matyan, matyan_here, started
from tests.support.stores import store_environment
from tests.support.writer import RawWriter, create, message, metric

RUNS = 5


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MatyanServer]:
    with started(tmp_path_factory.mktemp("tracker") / "home") as running:
        for number in range(RUNS):
            with RawWriter(running.websocket_url, f"run-{number}") as socket:
                socket.send(create(f"run-{number}"))
                socket.send(message("log_hparams", f"run-{number}", value={"lr": number}))
                socket.send(metric(f"run-{number}", "loss", 1.0, 0))
        with Rest(running.url) as rest:
            eventually(lambda: rest.runs("run.lr >= 0"), lambda found: len(found) == RUNS)
        yield running


def asked(server: MatyanServer, *arguments: str) -> list[str]:
    """Return the lines of `matyan query` on the server's data."""
    environment = store_environment(server.home)
    return matyan("query", *arguments, "--home", str(server.home), environment=environment).stdout.splitlines()


def test_runs_that_match_are_printed_newest_first(server: MatyanServer) -> None:
    assert asked(server, "run.lr >= 3") == ["run-4  Run: run-4", "run-3  Run: run-3"]
    assert asked(server, "run.lr >= 3", "--limit", "1") == ["run-4  Run: run-4"]


def test_sequences_that_match_are_printed_below_their_run(server: MatyanServer) -> None:
    lines = asked(server, "metric.name == 'loss' and run.lr == 2", "--search", "metric")

    assert lines == ["run-2  Run: run-2", "    loss  {}"]


def test_what_was_planned_and_what_came_of_it_is_explained(server: MatyanServer) -> None:
    lines = asked(server, "run.lr == 2", "--explain")

    assert lines[:4] == [
        "run-2  Run: run-2",
        "plan   not run.archived and run.lr == 2",
        "path   newest: the newest runs were enough, the index was not read",
        f"asked  {RUNS} runs, 1 match",
    ]
    assert lines[4].startswith("time   ")


@pytest.mark.parametrize(
    ("q", "said"),
    [
        ("run.lr ==", "the query is no expression: invalid syntax (line 1, column 10)"),
        ("run.lr == 1 and\n run.x ==", "the query is no expression: invalid syntax (line 2, column 10)"),
        ("(run.lr > 1", "the query is no expression: '(' was never closed (line 1, column 1)"),
        ("select everything", "the query is no expression: select without if"),
        ("run.__class__", "underscore"),
    ],
)
def test_what_is_no_query_is_told_where_and_is_for_the_user_to_put_right(
    server: MatyanServer, q: str, said: str
) -> None:
    done = matyan_here("query", q, "--home", str(server.home), check=False, environment=store_environment(server.home))

    (line,) = done.stderr.splitlines()
    assert line.startswith("matyan: ")
    assert said in line
    assert (done.returncode, done.stdout) == (2, "")
