"""Files that a user logs with the released matyan-client come back whole, whatever their names and sizes."""

from __future__ import annotations

import filecmp
import json
import operator
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from tests.support.rest import Rest, eventually
from tests.support.scripts import run_module
from tests.support.server import MatyanServer, started
from tests.support.writer import RawWriter, create, message, moment, upload

pytest.importorskip("matyan_client", reason="matyan-client is not installed")

GROWTH_BYTES_MAX: Final = 100 * 1024 * 1024
MEGABYTE: Final = 1024 * 1024
UNPACKED: Final = {
    "model.pt": "model.pt",
    "dir/model.pt": "dir/model.pt",
    "100%/#1?.txt": "100%/#1?.txt",
    "a b & c=d+e;f": "a b & c=d+e;f",
    "日本 🚀.bin": "日本 🚀.bin",
    "line\nbreak": "line\nbreak",
    ".hidden": ".hidden",
    "..": "__~2",
    "../../up": "__/__/up",
    "/etc/absolute": "etc/absolute",
    "etc/absolute": "etc/absolute",
    "ends/with/slash/": "ends/with/slash",
    "back\\slash": "back_slash",
    "nul\x00byte": "nul_byte",
    "file and directory": "file and directory~2",
    "file and directory/x": "file and directory/x",
}
"""Path of a file -> its name in the ZIP."""
TWICE: Final = ("/etc/absolute", "etc/absolute~2")
"""Both paths would unpack to one place; the harmless one keeps it."""
LONG: Final = f"{'x' * 1000}.txt"


def finished(rest: Rest, run: str) -> dict[str, Any]:
    """Return the run's info once its last message is visible."""
    info = eventually(lambda: rest.info(run), lambda info: not info["props"]["active"])
    assert not info["props"]["active"]
    return info


def tree(folder: Path) -> dict[str, bytes]:
    """Return every file below `folder` with its bytes."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_files_of_any_name_come_back_by_their_paths_and_as_a_zip(
    server: MatyanServer, rest: Rest, tmp_path: Path
) -> None:
    run, unpacked = "any-name", tmp_path / "a" / "b" / "unpacked"
    names = [json.dumps(name) for name in (*UNPACKED, LONG)]
    unpacked.parent.mkdir(parents=True)
    (tmp_path / "made").mkdir()
    run_module("client_files", "upload", server.url, run, str(tmp_path / "made"), *names)
    shutil.rmtree(tmp_path / "made")
    finished(rest, run)

    found = json.loads(run_module("client_files", "download", server.url, run, str(unpacked), *names))

    assert {artifact["path"] for artifact in found["listed"]} == {*UNPACKED, LONG}
    assert found["singles"] == {name: [name, name] for name in (*UNPACKED, LONG)}
    (unpacked.parent / "single").unlink()
    assert all(path.is_relative_to(unpacked) for path in tmp_path.rglob("*") if path.is_file())
    files = tree(unpacked)
    (long_name,) = [name for name in files if name.startswith("xxx")]
    expected = {inside: path.encode() for path, inside in {**UNPACKED, TWICE[0]: TWICE[1]}.items()}
    assert files == {**expected, long_name: LONG.encode()}
    assert {os.path.relpath(path, unpacked) for path in found["all"]} == files.keys()


def test_a_directory_comes_back_as_it_was(server: MatyanServer, rest: Rest, tmp_path: Path) -> None:
    made, unpacked = tmp_path / "made", tmp_path / "unpacked"
    contents = {"empty": b"", "sub dir/ünï.bin": bytes(range(256)), ".hidden/x": b"\n", "z/z/z/z": b"deep"}
    for name, content in contents.items():
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).write_bytes(content)
    run_module("client_files", "upload_tree", server.url, "tree", str(made), "ckpt/1")
    finished(rest, "tree")

    run_module("client_files", "download", server.url, "tree", str(unpacked))

    assert tree(unpacked) == {**contents, **{f"ckpt/1/{name}": content for name, content in contents.items()}}


def test_what_is_not_there_is_refused_with_404(server: MatyanServer, rest: Rest, tmp_path: Path) -> None:
    run_module("client_files", "upload", server.url, "no-files", str(tmp_path))
    finished(rest, "no-files")

    for run in ("no-files", "no-such-run"):
        assert json.loads(run_module("client_files", "download_nothing", server.url, run, str(tmp_path))) == [404] * 3


def test_a_file_of_64_mb_passes_through_a_server_that_stays_small(own_server: MatyanServer, tmp_path: Path) -> None:
    source = _make_file(tmp_path / "model.pt", megabytes=64)
    before_bytes = _peak_bytes(own_server.pid)

    run_module("client_files", "upload_file", own_server.url, "large", str(source))
    single = tmp_path / "single"
    with Rest(own_server.url) as rest:
        finished(rest, "large")
    run_module("client_files", "download_file", own_server.url, "large", source.name, str(single))

    assert filecmp.cmp(single, source, shallow=False)
    _check_zip(own_server, source)
    assert _peak_bytes(own_server.pid) - before_bytes < GROWTH_BYTES_MAX


@pytest.mark.slow
def test_a_file_of_1_gb_passes_through_a_server_that_stays_small(own_server: MatyanServer, tmp_path: Path) -> None:
    """The upload and one download are not the client's, which takes minutes to send it and reads 8 KB at a time."""
    source = _make_file(tmp_path / "model.pt", megabytes=1024)
    before_bytes = _peak_bytes(own_server.pid)

    with RawWriter(own_server.websocket_url, "large") as writer:
        writer.send(create("large"))
        key = upload(own_server.url, "large", source.name, _pieces(source))
        reference = {"s3_key": key, "artifact_path": source.name, "content_type": "application/octet-stream"}
        writer.send(
            message("blob_ref", "large", **reference), message("finish_run", "large", client_datetime=moment(1))
        )
    with Rest(own_server.url) as rest:
        finished(rest, "large")
    where = f"{own_server.url}/api/v1/rest/runs/large/artifacts/download/"
    with httpx.stream("GET", where, params={"path": source.name}, trust_env=False) as answer:
        pieces = answer.iter_raw(MEGABYTE)
        assert all(map(operator.eq, pieces, _pieces(source)))
        assert answer.num_bytes_downloaded == source.stat().st_size

    _check_zip(own_server, source)
    assert _peak_bytes(own_server.pid) - before_bytes < GROWTH_BYTES_MAX


def _check_zip(server: MatyanServer, source: Path) -> None:
    """Let the client fetch the ZIP of the run `large`, whose only file is `source`."""
    folder = source.with_name("unpacked")
    run_module("client_files", "download_all", server.url, "large", str(folder))
    assert filecmp.cmp(folder / source.name, source, shallow=False)
    shutil.rmtree(folder)


@pytest.fixture
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MatyanServer]:
    """A server whose peak of memory no other test raised; its data is gone afterwards."""
    folder = tmp_path_factory.mktemp("own")
    with started(folder / "home") as running:
        yield running
    shutil.rmtree(folder)


def _make_file(path: Path, *, megabytes: int) -> Path:
    """Write zeros with a mark in each megabyte: the disk holds little of it, and no piece is like another."""
    with path.open("wb") as file:
        for number in range(megabytes):
            file.seek(number * MEGABYTE)
            file.write(number.to_bytes(4, "big"))
        file.truncate(megabytes * MEGABYTE)
    return path


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(MEGABYTE):
            yield piece


def _peak_bytes(pid: int) -> int:
    """Return the most memory that a process ever held."""
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024
