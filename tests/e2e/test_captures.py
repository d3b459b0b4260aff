"""Recorded sessions of the real client must end in exactly the runs that the contract demands.

Each capture is replayed frame by frame through a real server and every run is read back and compared with an oracle
that was fed the same frames.
"""

from __future__ import annotations

import pytest

from tests.support.captures import Replay
from tests.support.checks import check_run
from tests.support.rest import Rest
from tests.support.server import MatyanServer

CAPTURES = (
    "01-run-basics",
    "02-scalar-types",
    "03-objects",
    "04-artifacts",
    "05-logs-system",
    "06-resume",
    "07-batching",
    "11-adapters",
)


@pytest.mark.parametrize("capture", CAPTURES)
def test_a_replayed_capture_reads_back_as_the_contract_says(server: MatyanServer, rest: Rest, capture: str) -> None:
    replay = Replay(server, capture)

    replay.play()

    assert replay.expected, "the capture holds no run"
    assert replay.refused == []
    for expected in replay.expected.values():
        check_run(rest, expected)
