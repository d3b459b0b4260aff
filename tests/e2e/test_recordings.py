"""Every request that was recorded from a real Aim gets the recorded answer.

Goal: whoever used Aim's server can put ours in its place. Method: the golden dataset moves in from a real Aim
repository, a real server serves it, all recordings are sent in order; what may differ stands in ALLOWED.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.support.golden_import import import_golden
from tests.support.replay import EXACT, Allowance, Recording, Replay, load
from tests.support.server import MatyanServer

_SAMPLE: Final = tuple(
    f"decoded.*.traces.*.{name}.blob"
    for name in ("values", "iters", "epochs", "timestamps", "x_axis_values", "x_axis_iters")
)


def _table(*rows: tuple[Iterable[int], Allowance]) -> Mapping[int, Allowance]:
    return {number: allowance for numbers, allowance in rows for number in numbers}


_AXES: Final = ("decoded.*.traces.*.x_axis_values", "decoded.*.traces.*.x_axis_iters")
_ALL_POINTS: Final = _SAMPLE[:4]
_LAST_VALUE: Final = "json.traces.*.*.last_value"

ALLOWED: Final = _table(
    (
        (3, 4, 5),
        Allowance(
            "active is what has not ended; Aim asks for a heartbeat, which one run of the dataset lacks",
            ignored=("json.num_active_runs",),
        ),
    ),
    ((288, 289), Allowance("likewise: that run is listed, and the total counts it", ignored=("decoded",))),
    ((17, 305), Allowance("an addition of Matyan, served under both prefixes", status=200)),
    (
        (*range(58, 65), 69, 70, 71, 73, 74, 351, 358, 364, 379, 531),
        Allowance("the real last value; Aim says 0.1 of everything", ignored=(_LAST_VALUE,)),
    ),
    (
        (77, 78, 79, 94),
        Allowance(
            "of a step tracked twice the last value counts, not the first",
            ignored=("decoded.*.traces.metric.*.values.last",),
        ),
    ),
    ((107,), Allowance("streams leave uncompressed (ADR 0007)", ignored=("answer_headers.content-encoding",))),
    (
        (133, *range(135, 140), 146, 148, 156, 157, 159, 161, 162),
        Allowance("a sample holds other points, but as many", lengths=_SAMPLE),
    ),
    (
        (158, 160, 163, 164),
        Allowance("likewise; the x axis has step numbers, and values of 0", lengths=_ALL_POINTS, ignored=_AXES),
    ),
    (
        (165, 166),
        Allowance(
            "a sample holds other points, but as many; the x axis has step numbers",
            lengths=("decoded.*.*.x_axis_values.blob", "decoded.*.*.x_axis_iters.blob"),
        ),
    ),
    ((167, 168), Allowance("null where nothing can be aligned, since pages merge by position", ignored=("decoded",))),
    ((174,), Allowance("a sample holds other points, but as many", lengths=("json.*.values", "json.*.iters"))),
    (range(280, 285), Allowance("there is no notifier that could have been told", ignored=("decoded.*.is_notified",))),
    (
        (375, 376, 377, 378, 381),
        Allowance(
            "the number of a deleted note is not given again",
            ignored=("json.id", "json.*.id", "json.message", "json.detail"),
        ),
    ),
    ((350,), Allowance("the tag that was added; Aim names another that contains its name", ignored=("json.tag_id",))),
    ((363,), Allowance("a body without `archived` leaves it as it is, so the run is found", ignored=("decoded",))),
    ((389, 404), Allowance("an empty state is stored like any other", ignored=("json.state",))),
    ((394,), Allowance("the words of a library about what is no UUID", ignored=("json.detail",))),
    # Aim answers 500 to what follows.
    ((124, 125, 126, 130, 142, 144, 274, 285, 344, 427), Allowance("a fault of the caller's", status=400)),
    ((356, 506), Allowance("there is no such thing", status=404)),
    ((191, 192, 241, 269, 270, 271), Allowance("a range without anything in it is empty", status=200)),
    ((247, 248), Allowance("an address that is none is left out", status=200)),
    ((169,), Allowance("a run that is unknown has nothing to align: nulls", status=200)),
    ((428,), Allowance("the refused rename before broke nothing", status=200)),
)
"""Recording -> how our answer may differ from Aim's, and why."""


@contextmanager
def replaying(home: Path, *, base: str = "/api", environment: Mapping[str, str] | None = None) -> Iterator[Replay]:
    """Serve `home` and yield what sends recordings there."""
    with MatyanServer(home, environment=environment) as server, Replay(server.url, base=base) as replay:
        yield replay


def differences(replay: Replay, recordings: Sequence[Recording]) -> dict[str, str]:
    """Send all recordings in order; return what differs, by number and name."""
    found = {}
    for recording in recordings:
        difference = replay.difference(recording, ALLOWED.get(recording["id"], EXACT))
        if difference is not None:
            found[f"{recording['id']} {recording['name']}"] = difference
    return found


@pytest.fixture
def golden_home(tmp_path: Path) -> Path:
    """The golden data, to be changed at will."""
    return import_golden(tmp_path / "home")


@pytest.mark.parametrize("slash", ["slash", "no slash"])
def test_reads_are_answered_as_recorded(golden_home: Path, slash: str) -> None:
    recordings = load("read")
    if slash == "no slash":
        recordings = [{**one, "path": one["path"].rstrip("/")} for one in recordings]

    with replaying(golden_home) as replay:
        assert differences(replay, recordings) == {}


def test_edits_are_answered_as_recorded(golden_home: Path) -> None:
    with replaying(golden_home) as replay:
        assert differences(replay, load("write")) == {}


def test_a_read_only_server_answers_as_recorded(golden_home: Path) -> None:
    with replaying(golden_home, environment={"MATYAN_HTTP_READ_ONLY": "true"}) as replay:
        assert differences(replay, load("readonly-server")) == {}


def test_pages_and_files_of_the_ui_are_served_as_recorded(golden_home: Path) -> None:
    with replaying(golden_home, base="") as replay:
        assert differences(replay, load("static")) == {}


def test_every_allowance_names_a_recording_and_a_reason() -> None:
    known = {one["id"] for phase in ("read", "write", "static", "readonly-server") for one in load(phase)}

    assert set(ALLOWED) <= known
    assert all(allowance.why for allowance in ALLOWED.values())
