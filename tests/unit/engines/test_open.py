"""URIs of engines: what opens, and what a wrong one says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from matyan.engines.open import open_blobs, open_kv, open_log
from matyan.errors import ConfigurationError


def test_each_scheme_opens_its_engine(tmp_path: Path) -> None:
    kv = open_kv(f"lmdb://{tmp_path}/kv")
    log = open_log(f"file+log://{tmp_path}/log", partitions=2)
    blobs = open_blobs(f"file://{tmp_path}/a b%20?c", keys=[b"s" * 16])
    for engine in (kv, log, blobs):
        engine.close()

    assert sorted(path.name for path in tmp_path.iterdir()) == ["a b%20?c", "kv", "log"]


def test_a_path_may_be_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    open_log("file+log://data/log", partitions=1).close()

    assert (tmp_path / "data" / "log" / "log.json").exists()


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("fdb:///no/fdb.cluster", r"there is no cluster file /no/fdb.cluster: copy it from a machine of the cluster"),
        ("file:///x", r"file:// cannot be opened: unknown engine; the key-value store is named by lmdb://PATH"),
        ("lmdb://", r"'lmdb://' has no path"),
        ("/var/lib/x", r"'/var/lib/x' is no URI"),
        ("", r"'' is no URI"),
    ],
)
def test_a_wrong_kv_uri_says_what_to_do(uri: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        open_kv(uri)


def test_a_place_that_is_no_bucket_is_refused_without_telling_its_password() -> None:
    with pytest.raises(ConfigurationError, match=r"s3:// is followed by a bucket .* s3\.secret_key") as caught:
        open_blobs("s3://user:password@bucket", keys=[b"s" * 16])
    assert "password" not in str(caught.value)


@pytest.mark.parametrize(
    ("scheme", "library", "call"),
    [
        ("fdb", "fdb", "open_kv('fdb://')"),
        ("s3", "minio", "open_blobs('s3://bucket', keys=[])"),
        ("kafka", "kafka", "open_log('kafka://h', partitions=1)"),
    ],
)
def test_an_engine_whose_library_is_missing_says_what_to_install(scheme: str, library: str, call: str) -> None:
    script = f"import sys; sys.modules[{library!r}] = None\nfrom matyan.engines.open import *\n{call}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)

    assert re.search(rf"ConfigurationError: {scheme}:// needs the package .*{library}.* not installed", done.stderr)
    assert "pip install 'matyan-tracker[distributed]'" in done.stderr
