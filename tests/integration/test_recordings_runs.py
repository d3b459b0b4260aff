"""Everything that a real Aim was seen to answer about projects, runs, entities and saved documents.

Goal: the UIs cannot tell us from Aim. Method: the golden dataset, the recorded requests in order, and their answers
compared by the rules of the contract; what may differ by design is named in VOLATILE.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.support.golden_store import fill
from tests.support.recordings import Recording, Replay, load
from tests.support.runs_app import runs_app

RECORDINGS = load("runs.json")
INFO = [recording["id"] for recording in RECORDINGS if re.search(r"/runs/\w+/info", recording["path"])]
VOLATILE = {
    # Aim says 0.1 for everything; we say the real last value.
    **dict.fromkeys(INFO, ("json.traces.*.*.last_value",)),
    # One run of the dataset ended without a word; Aim sees that from a heartbeat file.
    **dict.fromkeys((3, 4, 5), ("json.num_active_runs",)),
    # Where a file lay on the machine that uploaded it, which nobody tells us.
    69: ("json.artifacts.*.path", "json.traces.*.*.last_value"),
    # Notifiers are no part of matyan: every record counts as notified.
    **dict.fromkeys(range(279, 285), ("stream.*.1.is_notified",)),
    # Aim gives the number of a deleted note again.
    **dict.fromkeys((375, 376, 377, 378), ("json.id", "json.0.id")),
    381: ("json.message", "json.detail"),
    # A state that is empty is stored (recording 389 is a quirk), so the one of 388 is gone after it.
    **dict.fromkeys((389, 404), ("json.state",)),
}
UNORDERED_TRACES = ("json.traces.*",)


@pytest.fixture(scope="module")
def replay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replay]:
    with runs_app(tmp_path_factory.mktemp("golden")) as app:
        fill(app.kv)
        yield Replay(app.client, volatile=VOLATILE, clock=app.clock)


@pytest.mark.parametrize(
    "recording", RECORDINGS, ids=[f"{each['id']:03} {each['name']}".replace(" ", "-") for each in RECORDINGS]
)
def test_recorded_request_gets_the_recorded_answer(replay: Replay, recording: Recording) -> None:
    unordered = (*recording.get("unordered", ()), *UNORDERED_TRACES)

    assert replay.difference({**recording, "unordered": unordered}) is None


def test_recordings_cover_info_of_runs() -> None:
    assert len(INFO) >= 18
