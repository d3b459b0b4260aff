"""Recorded sessions in which the real client reads, backs up and restores: it is told what it was told then.

What the recording stub made up, and what the contract wants otherwise, stands in a table with its reason.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

import pytest

from tests.support.captured_reads import CapturedReads
from tests.support.checks import check_run
from tests.support.rest import Rest
from tests.support.server import MatyanServer, started

EXCEPTIONS: Final[Mapping[str, str]] = {
    r"description: '' -> None$": "a description that nobody gave is null",
    r"\.(creation|end)_time: 1767\d+\.0 -> 1795\d+": "the stub made its times up; replay checks ours",
    r"experiments/ \[.*\]\.creation_time: ": "an experiment is created when the first run names it",
    r"/search/\w+/.*\.(timestamps|epochs)": "media: nested one level deeper, as Aim does; metrics: the client's times",
    r"/search/run/.*\.traces\.metric\[loss\]\.last_value: .* -> '\(missing\)'": "a run search says values.last",
    r"/search/metric/.*\.slice\[\d\]: ": "Aim's form; no client reads it, and the UI sends it back as it came",
    r"/search/figures/.*\.data: ": "the same JSON, written without blanks",
    r"/search/figures/.*\.index: 0 -> '\(missing\)'": "figures are no lists, so they have no place in one",
    r"/search/metric/\?p=500.*e0\..* -> '\(missing\)'": "archived runs are found only by queries that speak of them",
    r"tags/ \[.*\]\.color: '' -> None": "a colour that nobody gave is null",
    r"tags/ \[.*\]\.run_count: 0 -> ": "the stub counted no runs",
    r"projects/ (name|path): ": "the stub's own name",
    r"version/ version: ": "the stub's own version",
    r"(experiments|tags)/ status: 400 -> 409": "the client takes 409 for `exists already`, 400 for a failure",
}
"""Pattern of a difference -> why it is right."""
SESSIONS: Final[Mapping[str, tuple[str, Callable[[str], bool]]]] = {
    "failures": ("08-failures", bool),
    "reads": ("09-reads", bool),
    "backup": ("10-backup-restore", lambda step: step in ("fill", "client backup through REST")),
    "restore": ("10-backup-restore", lambda step: step.startswith("restore") and "exporter" not in step),
    "restore of the reference's": ("10-backup-restore", lambda step: "exporter" in step),
}
"""Name -> capture, and which of its steps; the stub was emptied between those of the third."""


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[MatyanServer]:
    with started(tmp_path / "home") as running:
        yield running


@pytest.fixture(scope="module")
def used() -> dict[str, set[str]]:
    """Session -> the exceptions that it needed."""
    return {}


@pytest.mark.parametrize("session", SESSIONS)
def test_a_replayed_session_is_told_what_the_client_reads(
    fresh: MatyanServer, used: dict[str, set[str]], session: str
) -> None:
    capture, steps = SESSIONS[session]
    replay = CapturedReads(fresh, capture, steps=steps)

    replay.play()

    unexplained = [str(found) for found in replay.differences if not _reasons(str(found))]
    used[session] = {pattern for found in replay.differences for pattern in _reasons(str(found))}
    assert unexplained == []
    assert replay.refused == []
    assert replay.expected
    if session != "reads":  # which deletes what it read
        with Rest(fresh.url) as rest:
            for expected in replay.expected.values():
                check_run(rest, expected)


def test_no_exception_is_idle(used: dict[str, set[str]]) -> None:
    """A reason that no difference needs any more would hide the next one."""
    if used.keys() != SESSIONS.keys():
        pytest.skip("not all sessions were replayed")

    assert set().union(*used.values()) == EXCEPTIONS.keys()


def _reasons(difference: str) -> list[str]:
    return [pattern for pattern in EXCEPTIONS if re.search(pattern, difference)]
