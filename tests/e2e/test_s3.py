"""`matyan up` with its blobs in a bucket: the client uploads into it, and a deleted run leaves nothing there."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.rest import Rest, eventually
from tests.support.s3 import SECRET_KEY, S3Server
from tests.support.scripts import run_module
from tests.support.server import MatyanServer, ServerError
from tests.support.writer import upload

pytestmark = pytest.mark.s3

NAMES = ("model.pt", "100%/#1?.txt", "日本 🚀.bin", "../../up", "line\nbreak", "n" * 3000)


@pytest.fixture
def bucket() -> str:
    return f"e2e-{uuid.uuid4()}"


@pytest.fixture
def server(s3_server: S3Server, bucket: str, tmp_path: Path) -> Iterator[MatyanServer]:
    server = MatyanServer(tmp_path / "home", environment=s3_server.environment(f"{bucket}/team"))
    yield server.start()
    server.kill()


def test_files_go_into_the_bucket_come_back_and_are_freed_with_their_run(
    s3_server: S3Server, bucket: str, server: MatyanServer, tmp_path: Path
) -> None:
    pytest.importorskip("matyan_client", reason="matyan-client is not installed")
    (tmp_path / "made").mkdir()
    names = [json.dumps(name) for name in NAMES]
    run_module("client_files", "upload", server.url, "files", str(tmp_path / "made"), *names)
    with Rest(server.url) as rest:
        eventually(lambda: rest.info("files"), lambda info: not info["props"]["active"])
        stored = s3_server.names(bucket)
        found = json.loads(run_module("client_files", "download", server.url, "files", str(tmp_path / "out"), *names))
        upload(server.url, "other", "model.bin", os.urandom(20_000_000))
        rest.send("DELETE", "/runs/files/")
        left = eventually(lambda: s3_server.names(bucket), lambda names: len(names) == 1)

    assert "team/default/files/model.pt!" in stored
    assert len(stored) == len(NAMES) + 1, "a name that is too long has its key beside it"
    assert found["singles"] == {name: [name, name] for name in NAMES}
    assert {artifact["path"] for artifact in found["listed"]} == set(NAMES)
    assert left == ["team/default/other/model.bin!"]
    assert SECRET_KEY not in server.log
    assert not (server.home / "blobs").exists()


def test_a_store_that_lets_nobody_in_stops_the_start_with_what_to_do(
    s3_server: S3Server, bucket: str, tmp_path: Path
) -> None:
    environment = {**s3_server.environment(bucket), "MATYAN_S3_SECRET_KEY": "guessed"}

    with pytest.raises(
        ServerError, match=r"ended with 2 (.|\n)*the secret key is wrong; check s3\.secret_key"
    ) as caught:
        MatyanServer(tmp_path / "home", environment=environment).start()
    assert "guessed" not in str(caught.value)
