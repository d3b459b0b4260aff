"""A client that leaves takes its work with it.

Searches that take many seconds are begun on plain sockets, as many as the server has threads for them, and their
sockets closed; the server must count them as left within a second and have its threads for others again.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Final
from urllib.parse import quote

import pytest

from matyan.threads import QUERY_THREADS
from tests.support import loopback
from tests.support.rest import Rest, eventually
from tests.support.server import MatyanServer
from tests.support.writer import RawWriter, create

RUNS: Final = 300
SLOW: Final = " or ".join(["len([1 for a in range(8000)]) < 0"] * 4)
"""False of every run, after about a hundredth of a second."""
PATH: Final = "/api/runs/search/run"


@pytest.fixture(scope="module")
def filled(server: MatyanServer) -> MatyanServer:
    for number in range(RUNS):
        with RawWriter(server.websocket_url, f"run{number}") as writer:
            writer.send(create(f"run{number}"))
    with Rest(server.url) as rest:
        assert len(eventually(rest.runs, lambda found: len(found) == RUNS)) == RUNS
    return server


def ask(server: MatyanServer, **params: str) -> socket.socket:
    """Send a search and leave its answer in the socket."""
    query = "&".join(f"{name}={quote(value)}" for name, value in params.items())
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=10)
    connection.sendall(f"GET {PATH}?{query} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
    return connection


def left(server: MatyanServer) -> int:
    """Return how many searches were ended by their clients' leaving."""
    text = loopback.get(f"{server.url}/metrics/").text
    found = re.search(r'matyan_query_stopped_total\{reason="disconnect"\} (\d+)', text)
    return int(found[1]) if found else 0


def ended(server: MatyanServer) -> int:
    """Return how many searches of runs have come to an end, whichever."""
    text = loopback.get(f"{server.url}/metrics/").text
    found = re.search(r'matyan_query_seconds_count\{endpoint="run"\} (\d+)', text)
    return int(found[1]) if found else 0


@pytest.fixture
def slow_searches(filled: MatyanServer) -> Iterator[ExitStack]:
    """Searches on every thread there is, which have sent nothing yet; they are left when the stack is closed."""
    with ExitStack() as stack:
        for _ in range(QUERY_THREADS):
            stack.enter_context(ask(filled, q=SLOW, report_progress="false"))
        time.sleep(0.5)
        yield stack


def test_searches_left_before_their_first_byte_end_within_a_second(
    filled: MatyanServer, rest: Rest, slow_searches: ExitStack
) -> None:
    before = left(filled)

    slow_searches.close()

    assert eventually(lambda: left(filled), lambda now: now == before + QUERY_THREADS, seconds=1.0) == (
        before + QUERY_THREADS
    )
    began = time.monotonic()
    assert set(rest.runs("run.hash == 'run1'")) == {"run1"}
    assert time.monotonic() - began < 1.0


def test_a_search_left_in_the_middle_ends_within_a_second(filled: MatyanServer) -> None:
    before = left(filled)
    with ask(filled, q=f"run.hash == 'run{RUNS - 1}' or {SLOW}") as connection:
        head = connection.recv(4096)

    assert head.startswith(b"HTTP/1.1 200")
    assert eventually(lambda: left(filled), lambda now: now == before + 1, seconds=1.0) == before + 1


@pytest.mark.usefixtures("slow_searches")
def test_a_short_search_is_answered_while_as_many_run_away_as_there_are_threads(
    filled: MatyanServer, rest: Rest
) -> None:
    before = ended(filled)

    found = rest.runs("run.hash == 'run1'")

    assert set(found) == {"run1"}
    assert ended(filled) == before + 1, "this one alone"
