"""The checker of the fault suite finds what is lost, doubled, wrong, back from the dead or out of order."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

import pytest

from tests.support.rest import Rest
from tests.support.server import MatyanServer, started
from tests.support.writer import RawWriter, upload
from tests.torture import contents
from tests.torture.checker import Edits, Tally, check_all
from tests.torture.journal import Frame, Journal, Journals, digest, read_journals

RUN: Final = "raw-0-0-0"
FRAMES: Final = 10
NEVER_SENT: Final = FRAMES + 5


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MatyanServer]:
    with started(tmp_path_factory.mktemp("tracker") / "home") as running:
        yield running


@pytest.fixture(scope="module")
def written(server: MatyanServer, tmp_path_factory: pytest.TempPathFactory) -> Journals:
    """What was really written, file and pictures among it."""
    folder = tmp_path_factory.mktemp("journals")
    with closing(Journal(folder / "raw-0.jsonl")) as journal, RawWriter(server.websocket_url, RUN) as socket:
        journal.add("open", 1, server.url)
        for number in range(FRAMES):
            messages = contents.frame_messages(RUN, number)
            if (path := contents.file_path(number)) is not None:
                data = contents.file_bytes(RUN, path)
                journal.add("upload", f"{RUN}/{path}", digest(data))
                upload(server.url, RUN, path, data)
                messages.append(contents.announcement(RUN, path))
            text = json.dumps(messages)
            journal.add("send", 1, text)
            journal.add("reply", 1, socket.send_text(text)["status"], None)
    journals = read_journals(folder)
    assert check(server, journals, seconds=20.0).findings == []
    return journals


@pytest.fixture
def journals(written: Journals) -> Journals:
    """A copy of it, to be falsified."""
    return copy.deepcopy(written)


def check(server: MatyanServer, journals: Journals, edits: Edits | None = None, *, seconds: float = 0.0) -> Tally:
    with Rest(server.url) as rest:
        return check_all(rest, journals, edits or Edits(), seconds=seconds)


def kinds(tally: Tally) -> set[str]:
    return {finding.kind for finding in tally.findings}


def never_sent(*, acknowledged: bool) -> Frame:
    messages = contents.frame_messages(RUN, NEVER_SENT)
    return Frame("raw-0", "", json.dumps(messages), messages, acknowledged=acknowledged)


def test_everything_written_is_counted(server: MatyanServer, journals: Journals) -> None:
    tally = check(server, journals)

    assert (tally.runs, tally.frames, tally.acknowledged) == (1, FRAMES, FRAMES)
    assert tally.items > FRAMES * contents.STEPS_PER_FRAME * len(contents.CONTEXTS)


def test_an_acknowledged_frame_that_is_not_there_is_lost(server: MatyanServer, journals: Journals) -> None:
    journals.frames.append(never_sent(acknowledged=True))

    assert kinds(check(server, journals)) == {"lost"}


def test_a_frame_without_an_answer_may_be_missing(server: MatyanServer, journals: Journals) -> None:
    journals.frames.append(never_sent(acknowledged=False))

    tally = check(server, journals)

    assert (tally.findings, tally.absent) == ([], 1)


def test_a_frame_without_an_answer_may_be_there(server: MatyanServer, journals: Journals) -> None:
    journals.frames[-1].acknowledged = False

    tally = check(server, journals)

    assert (tally.findings, tally.present) == ([], 1)


def test_what_nobody_sent_is_a_ghost(server: MatyanServer, journals: Journals) -> None:
    del journals.frames[3]

    assert "ghost" in kinds(check(server, journals))


def test_a_frame_applied_too_early_is_out_of_order(server: MatyanServer, journals: Journals) -> None:
    journals.frames[4], journals.frames[5] = journals.frames[5], journals.frames[4]

    assert kinds(check(server, journals)) == {"order"}


def test_another_value_is_wrong(server: MatyanServer, journals: Journals) -> None:
    point = next(message for message in journals.frames[2].messages if message["type"] == "log_metric")
    point["value"] += 1e-9

    (finding,) = check(server, journals).findings
    assert finding.kind == "wrong"
    assert "'loss'" in finding.text


def test_a_file_with_other_bytes_is_wrong(server: MatyanServer, journals: Journals) -> None:
    (key,) = journals.uploads
    journals.uploads[key] = {digest(b"other")}

    (finding,) = check(server, journals).findings
    assert finding.kind == "wrong"
    assert key in finding.text


def test_a_deleted_run_that_answers_is_undead(server: MatyanServer, journals: Journals) -> None:
    assert kinds(check(server, journals, Edits(deleted={RUN}))) == {"undead"}


def test_an_edit_that_is_not_there_is_wrong(server: MatyanServer, journals: Journals) -> None:
    edits = Edits(writes={RUN: {("property", "name"): "another name"}})

    assert kinds(check(server, journals, edits)) == {"wrong"}


def test_a_frame_sent_twice_on_a_connection_is_one_frame(tmp_path: Path) -> None:
    text = json.dumps(contents.frame_messages(RUN, 0))
    other = json.dumps(contents.ending(RUN, 1))
    with closing(Journal(tmp_path / "client-0.jsonl")) as journal:
        for frame in (text, text):
            journal.add("send", 1, frame)
        for _ in range(2):
            journal.add("reply", 1, "ok", None)
        journal.add("send", 1, other)

    first, second = read_journals(tmp_path).frames

    assert (first.acknowledged, second.acknowledged) == (True, False)
