"""The golden dataset as a real Aim repository, made by Aim itself once and copied for whoever asks."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
_GOLDEN: Final = ROOT / "tests" / "golden"
_INPUTS: Final = tuple(_GOLDEN / name for name in ("dataset.json", "expand.py", "tools/fill_aim.py"))
HAS_AIM: Final = importlib.util.find_spec("aim") is not None
REASON: Final = "aim is not installed: it has no release for this Python"
needs_aim: Final = pytest.mark.skipif(not HAS_AIM, reason=REASON)


def golden_aim_repository(to: Path) -> Path:
    """Return a copy, under `to`, of the golden Aim repository; a test may change it.

    Skips the test where Aim is not installed.
    """
    if not HAS_AIM:
        pytest.skip(REASON)
    return Path(shutil.copytree(_made(), to))


def run_with_aim(script: str, *arguments: str | Path) -> str:
    """Run a script that uses Aim in a process of its own (Aim warns, starts threads, and patches libraries)."""
    return _run("-c", script, *map(str, arguments))


@functools.cache
def _made() -> Path:
    """Return the repository; it takes Aim ten seconds, so it is kept as long as what it is made of stays the same."""
    digest = hashlib.blake2b(b"".join(path.read_bytes() for path in _INPUTS), digest_size=8).hexdigest()
    place = Path(tempfile.gettempdir()) / f"matyan-golden-aim-{os.getuid()}-{digest}"
    if not place.exists():
        fresh = Path(tempfile.mkdtemp(prefix="matyan-golden-aim-"))
        _run("-m", "tests.golden.tools.fill_aim", str(_INPUTS[0]), str(fresh))
        try:
            fresh.rename(place)
        except OSError:  # another session was quicker
            shutil.rmtree(fresh)
    return place


def _run(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=ROOT,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
