"""The checker of the fault suite finds lost files, and takes none for lost that only nobody names."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import pytest

from matyan.configuration import load
from matyan.engines.blob.protocol import BlobEngine
from matyan.engines.open import open_blobs
from tests.support.rest import Rest
from tests.support.server import MatyanServer, started
from tests.support.writer import RawWriter, create, message, moment, upload
from tests.torture.checker import Edits, Finding, check_all
from tests.torture.contents import announcement, file_bytes
from tests.torture.journal import Journal, Journals, digest, read_journals
from tests.torture.leftovers import lost_files

RUN: Final = "client-0-0-0"
UNNAMED: Final = "seq/pictures/1.png"
"""Uploaded and announced; the frame of its item was refused."""
NAMED: Final = "seq/pictures/2.png"
NAMED_AND_GONE: Final = "seq/pictures/3.png"
UNNAMED_AND_GONE: Final = "seq/pictures/4.png"
ARTIFACT_GONE: Final = "models/weights.bin"
GONE: Final = frozenset({NAMED_AND_GONE, UNNAMED_AND_GONE, ARTIFACT_GONE})
ANNOUNCED: Final = (UNNAMED, NAMED, *sorted(GONE))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MatyanServer]:
    with started(tmp_path_factory.mktemp("tracker") / "home") as running:
        yield running


@pytest.fixture(scope="module")
def journals(server: MatyanServer, tmp_path_factory: pytest.TempPathFactory) -> Journals:
    """A run as a client writes it whose frames with the items of some pictures were refused."""
    folder = tmp_path_factory.mktemp("journals")
    frames = [create(RUN), item(NAMED), item(NAMED_AND_GONE), *(announcement(RUN, path) for path in ANNOUNCED)]
    with closing(Journal(folder / "client-0.jsonl")) as journal, RawWriter(server.websocket_url, RUN) as socket:
        for path in ANNOUNCED:
            journal.add("upload", f"{RUN}/{path}", digest(file_bytes(RUN, path)))
        for path in (UNNAMED, NAMED):
            upload(server.url, RUN, path, file_bytes(RUN, path))
        for frame in frames:
            journal.add("send", 1, json.dumps(frame))
            journal.add("reply", 1, socket.send(frame)["status"], None)
    return read_journals(folder)


@pytest.fixture
def blobs(server: MatyanServer) -> Iterator[BlobEngine]:
    settings = load(environ={"MATYAN_HOME": str(server.home)})
    with closing(open_blobs(settings.blob_uri, keys=[b"signs nothing here, as nothing is uploaded"])) as opened:
        yield opened


def item(path: str) -> dict[str, Any]:
    value = {"type": "image", "format": "PNG", "caption": "", "width": 1, "height": 1, "s3_key": f"{RUN}/{path}"}
    return message(
        "log_custom_object",
        RUN,
        name="pictures",
        value=value,
        step=int(Path(path).stem),
        epoch=None,
        context=None,
        dtype="image",
        client_datetime=moment(0),
    )


def paths(findings: list[Finding]) -> set[str]:
    """Return the files that are lost; there must be no other findings."""
    assert {finding.kind for finding in findings} <= {"lost"}
    return {path for path in ANNOUNCED for finding in findings if path in finding.text}


def test_readers_miss_what_a_run_names_and_not_what_nothing_names(server: MatyanServer, journals: Journals) -> None:
    with Rest(server.url) as rest:
        tally = check_all(rest, journals, Edits(), seconds=2.0)

    assert paths(tally.findings) == {NAMED_AND_GONE, ARTIFACT_GONE}


def test_files_that_were_uploaded_and_are_not_in_the_bucket_are_lost(blobs: BlobEngine, journals: Journals) -> None:
    findings = list(lost_files(blobs, journals, deleted=()))

    assert paths(findings) == GONE


def test_a_file_is_lost_though_its_announcement_was_refused(blobs: BlobEngine, journals: Journals) -> None:
    created, *others = journals.frames
    refused = [dataclasses.replace(frame, acknowledged=False, refusal="the spill is full") for frame in others]

    findings = list(lost_files(blobs, Journals([created, *refused], journals.uploads), deleted=()))

    assert paths(findings) == GONE


def test_the_files_of_a_run_that_was_never_stored_may_be_gone(blobs: BlobEngine, journals: Journals) -> None:
    refused = [dataclasses.replace(frame, acknowledged=False) for frame in journals.frames]

    assert list(lost_files(blobs, Journals(refused, journals.uploads), deleted=())) == []


def test_the_files_of_a_deleted_run_may_be_gone(blobs: BlobEngine, journals: Journals) -> None:
    assert list(lost_files(blobs, journals, deleted={RUN})) == []


def test_a_file_in_the_bucket_with_other_bytes_is_wrong(blobs: BlobEngine, journals: Journals) -> None:
    stored = blobs.get(f"default/{RUN}/{UNNAMED}")
    assert stored is not None
    uploads = {**journals.uploads, f"{RUN}/{UNNAMED}": {digest(stored + b"!")}}

    kinds = [finding.kind for finding in lost_files(blobs, Journals(journals.frames, uploads), deleted=())]

    assert kinds.count("wrong") == 1
