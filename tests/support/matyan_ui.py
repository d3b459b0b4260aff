"""The released Matyan UI, unpacked: its wheel wants a newer Python than some the tests run on, its files do not."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Final

import pytest

REQUIREMENT: Final = "matyan-ui==0.3.2"
WHEEL: Final = "matyan_ui-0.3.2-py3-none-any.whl"
SHA256: Final = "a0dbfb4cce387d5cef3ed4d5149bf9613e2ddaaecd0e750b894452be2892a96f"
DOWNLOAD_SECONDS_MAX: Final = 120.0
CACHE: Final = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "matyan-tests"


def unpacked_wheel() -> Path:
    """Return the directory to give as `http.ui_path`, downloaded once; skip the test aloud when that fails."""
    home = CACHE / SHA256[:16]
    if not home.is_dir():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
            _unpack(_download(Path(scratch)), home)
    return home


def _download(folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--python-version", "3.12", "--only-binary=:all:", "--dest", str(folder), REQUIREMENT]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=DOWNLOAD_SECONDS_MAX)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        pytest.skip(f"cannot download {REQUIREMENT}: {error}\n{error.stderr!s}")
    wheel = folder / WHEEL
    assert hashlib.sha256(wheel.read_bytes()).hexdigest() == SHA256
    return wheel


def _unpack(wheel: Path, home: Path) -> None:
    """Unpack beside and rename, so that a half-unpacked wheel is never taken for a whole one."""
    fresh = wheel.with_suffix(".unpacked")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(fresh)
    try:
        fresh.rename(home)
    except OSError:  # another test process was first
        assert home.is_dir()
