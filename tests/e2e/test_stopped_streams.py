"""A search that is out of time says so at the end of its stream, and no client takes what it got for the whole answer.

A server with a second for each search is asked what takes longer, over plain HTTP, by matyan-client and by the web
interface; and what came of the stream is decoded by the codecs of Aim and matyan-client.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from loguru import logger
from matyan_client.transport.http import HttpTransport, _decode_streaming_response

from tests.support import treestream
from tests.support.browser import metrics_path, open_page
from tests.support.rest import Rest, eventually
from tests.support.server import MatyanServer, started
from tests.support.writer import RawWriter, create, metric

RUNS: Final = 300
NEWEST: Final = f"run{RUNS - 1}"
SLOW: Final = "len([1 for a in range(8000)]) < 0"
"""False of every run, after some milliseconds."""
QUERY: Final = f"run.hash == '{NEWEST}' or " + " or ".join([SLOW] * 4)
"""True of the newest run; the others take all the time there is."""


DECODE_WITH_AIM: Final = """
import json, sys
from aim.storage.treeutils import decode_tree
data, blocks, at = sys.stdin.buffer.read(), [], 0
while at < len(data):
    size = int.from_bytes(data[at : at + 4], "little")
    blocks.append(data[at + 4 : at + 4 + size])
    at += 4 + size
tree = decode_tree(zip(blocks[::2], blocks[1::2]))
print(json.dumps([list(tree), list(tree.values())]))
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MatyanServer]:
    home: Path = tmp_path_factory.mktemp("stopped") / "home"
    with started(home, environment={"MATYAN_QUERY_SECONDS": "1"}) as running:
        for number in range(RUNS):
            with RawWriter(running.websocket_url, f"run{number}") as writer:
                writer.send(create(f"run{number}", seconds=number), metric(f"run{number}", "loss", 0.5, 0))
        with Rest(running.url) as rest:
            eventually(rest.runs, lambda found: len(found) == RUNS)
        yield running


def take(server: MatyanServer, **params: str) -> bytes:
    """Return what came of a stream until it was cut, which it must be."""
    taken: list[bytes] = []
    with (
        httpx.Client(trust_env=False, timeout=60) as client,
        client.stream("GET", f"{server.url}/api/runs/search/run", params={"q": QUERY, **params}) as answer,
    ):
        assert answer.status_code == httpx.codes.OK
        with pytest.raises(httpx.RemoteProtocolError):
            taken.extend(answer.iter_bytes())
    return b"".join(taken)


@pytest.mark.parametrize("report_progress", ["true", "false"])
def test_a_search_out_of_time_says_so_and_is_cut(server: MatyanServer, report_progress: str) -> None:
    taken = take(server, report_progress=report_progress)

    assert set(treestream.runs(taken)) == {NEWEST}
    key, (checked, total, reason, message) = treestream.trees(taken)[-1]
    assert str(key).startswith("progress_")
    assert 0 < checked <= total <= RUNS
    assert checked < RUNS
    assert reason == "deadline"
    assert "longer than it may" in message


def test_a_search_that_had_time_says_nothing_of_the_kind(server: MatyanServer) -> None:
    answer = httpx.get(f"{server.url}/api/runs/search/run", params={"q": f"run.hash == '{NEWEST}'"}, trust_env=False)

    assert [len(value) for key, value in treestream.trees(answer.content) if str(key).startswith("progress")] == [2, 2]


def test_the_decoder_of_matyan_client_takes_the_last_message_for_progress(server: MatyanServer) -> None:
    decoded = _decode_streaming_response(take(server))

    assert [run["hash"] for run in decoded] == [NEWEST]


def test_the_codec_of_aim_takes_the_last_message_for_a_list(server: MatyanServer) -> None:
    decoded = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", DECODE_WITH_AIM], input=take(server), capture_output=True, check=True
    )

    keys, values = json.loads(decoded.stdout)
    assert keys[0] == NEWEST
    assert all(key.startswith("progress_") for key in keys[1:])
    assert values[-1][2] == "deadline"


def test_matyan_client_says_that_it_failed_and_passes_on_nothing(server: MatyanServer) -> None:
    client: Any = HttpTransport(server.url)
    said: list[str] = []
    sink = logger.add(said.append)

    found = client.search_runs(QUERY)
    logger.remove(sink)

    assert found == [], "a part of the runs would look like all"
    assert "search_runs failed" in said[0]


@pytest.mark.browser
def test_the_web_interface_shows_nothing_of_a_part_and_goes_on(server: MatyanServer) -> None:
    with open_page(server.url) as page:
        page.open(metrics_path(f"metric.name == 'loss' and ({QUERY})"))
        complaints = eventually(lambda: list(page.complaints), bool)
        page.page.wait_for_timeout(1000)
        page.take_picture("stopped")
        page.wait_for_text("Searching over runs")
        assert page.page.locator("svg path.Line").count() == 0
        page.open(metrics_path(f"metric.name == 'loss' and run.hash == '{NEWEST}'"))
        page.wait_for_text("loss")

    assert "ERR_INCOMPLETE_CHUNKED_ENCODING" in complaints[0]
    assert not [complaint for complaint in page.complaints if complaint.startswith(("uncaught", "5"))]
