"""Every request about objects that was recorded from a real Aim, on objects stored as clients send them.

Goal: what matyan-client tracks is shown as Aim shows what its SDK tracks. Method: the golden dataset's objects, each
with the fields and the upload of matyan-client, served by a real server; the recordings of the pages that show them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pytest

from matyan.engines.blob.filesystem import open_filesystem_blobs
from tests.support.golden_objects import fill_objects
from tests.support.golden_store import fill
from tests.support.replay import Allowance, Recording, Replay, load
from tests.support.server import started
from tests.support.stores import open_server_store

RECORDINGS: Final = [each for each in load("read") if each["id"] == 123 or 185 <= each["id"] <= 262]
_EMPTY: Final = Allowance("a range without sense and a step beyond the end are empty, where Aim fails", status=200)
_LEFT_OUT: Final = Allowance("an address that is none is left out, where Aim fails", status=200)
_ORDER: Final = Allowance("the order of a run's traces is free", unordered=("decoded.*.traces",))
ALLOWED: Final = {**dict.fromkeys((191, 192, 241), _EMPTY), **dict.fromkeys((247, 248), _LEFT_OUT)}


@pytest.fixture(scope="module")
def replay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replay]:
    home = tmp_path_factory.mktemp("golden") / "home"
    kv, blobs = open_server_store(home), open_filesystem_blobs(home / "blobs", keys=[bytes(16)])
    fill(kv)
    fill_objects(kv, blobs)
    blobs.close()
    kv.close()
    with started(home) as server, Replay(server.url) as opened:
        yield opened


@pytest.mark.parametrize("recording", RECORDINGS, ids=[f"{each['id']} {each['name']}" for each in RECORDINGS])
def test_a_recorded_request_gets_the_recorded_answer(replay: Replay, recording: Recording) -> None:
    assert replay.difference(recording, ALLOWED.get(recording["id"], _ORDER)) is None
