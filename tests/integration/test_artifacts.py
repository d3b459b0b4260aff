"""Downloads of the files of a run: one by its path, all as a ZIP."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from matyan.engines.blob.objects import CHUNK_BYTES
from matyan.runs.artifacts import MISSING_NAME
from matyan.runs.model import Artifact
from tests.support.runs_app import RunsApp, runs_app
from tests.support.store import make_run

PREFIXES = ("/api", "/api/v1/rest")


@pytest.fixture
def app(tmp_path: Path) -> Iterator[RunsApp]:
    with runs_app(tmp_path) as opened:
        yield opened


def make_files(app: RunsApp, run: str, files: Mapping[str, bytes | None]) -> None:
    """Store a run with these files; None is listed without ever having been uploaded."""
    make_run(app.kv, run, artifacts=tuple(Artifact(path, f"{run}/{path}") for path in files))
    for path, content in files.items():
        if content is not None:
            app.blobs.put(f"default/{run}/{path}", [content], content_type="application/octet-stream")


def unzip(body: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("slash", ["", "/"])
def test_the_zip_holds_all_files_with_their_paths_in_order(app: RunsApp, prefix: str, slash: str) -> None:
    files = {"z.bin": bytes(3 * CHUNK_BYTES), "a/b.txt": b"b", "empty": b""}
    make_files(app, "run é", files)

    response = app.client.get(f"{prefix}/runs/run é/artifacts/download-all{slash}")

    assert response.status_code == 200
    assert response.headers["content-type"] == "application/zip"
    assert response.headers["content-disposition"] == (
        "attachment; filename=\"run _-artifacts.zip\"; filename*=UTF-8''run%20%C3%A9-artifacts.zip"
    )
    found = unzip(response.content)
    assert found == files
    assert list(found) == sorted(files)


def test_the_zip_leaves_other_blobs_of_the_run_and_other_runs_out(app: RunsApp) -> None:
    make_files(app, "a", {"mine": b"1"})
    make_files(app, "ab", {"other": b"2"})
    app.blobs.put("default/a/seq/pics/0.png", [b"png"], content_type="image/png")

    assert unzip(app.client.get("/api/runs/a/artifacts/download-all").content) == {"mine": b"1"}


def test_a_file_that_is_gone_is_404_and_named_in_the_zip(app: RunsApp) -> None:
    make_files(app, "a", {"there": b"1", "gone/x": None})

    single = app.client.get("/api/v1/rest/runs/a/artifacts/download/", params={"path": "gone/x"})
    found = unzip(app.client.get("/api/v1/rest/runs/a/artifacts/download-all/").content)

    assert single.status_code == 404
    assert single.json()["error"] == {"code": "not_found", "message": "Artifact not found."}
    assert found.keys() == {"there", MISSING_NAME}
    assert "gone/x" in found[MISSING_NAME].decode().splitlines()


@pytest.mark.parametrize(
    ("files", "text"),
    [
        ({}, "the run has no artifacts"),
        ({"x": None, "y": None}, "none of the 2 files of this run is in the object store"),
    ],
)
def test_a_run_without_a_file_to_send_is_404(app: RunsApp, files: Mapping[str, None], text: str) -> None:
    make_files(app, "a", files)

    response = app.client.get("/api/runs/a/artifacts/download-all/")

    assert response.status_code == 404
    assert response.json()["message"] == text


@pytest.mark.parametrize("run", ["nope", "%00", "%ED%A0%80"])
def test_an_unknown_run_has_no_zip(app: RunsApp, run: str) -> None:
    assert app.client.get(f"/api/runs/{run}/artifacts/download-all/").status_code == 404


def test_a_download_tells_its_size(app: RunsApp) -> None:
    make_files(app, "a", {"x": bytes(2 * CHUNK_BYTES + 1)})

    response = app.client.get("/api/runs/a/artifacts/download", params={"path": "x"})

    assert response.headers["content-length"] == str(2 * CHUNK_BYTES + 1)
    assert response.headers["content-disposition"] == 'attachment; filename="x"'
    assert response.headers["x-content-type-options"] == "nosniff"


def test_a_damaged_file_never_ends_like_a_whole_one(app: RunsApp, tmp_path: Path) -> None:
    make_files(app, "a", {"x": b"x"})
    (stored,) = (file for file in (tmp_path / "blobs" / "objects").rglob("*") if file.is_file())
    content = bytearray(stored.read_bytes())
    content[-1] ^= 1
    stored.write_bytes(content)

    response = app.client.get("/api/runs/a/artifacts/download", params={"path": "x"})

    assert response.status_code == 500
