"""The golden dataset in a data directory, brought there by the real `matyan import aim`."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tests.support.aim_repository import golden_aim_repository
from tests.support.server import matyan
from tests.support.stores import store_environment


def import_golden(home: Path) -> Path:
    """Make `home` a data directory that holds the golden dataset, and return it.

    The import is done once a session and copied, unless the store is elsewhere (`MATYAN_TEST_KV`). Skips the test where
    Aim is not installed.
    """
    elsewhere = store_environment(home)
    if elsewhere:
        _import(home, elsewhere)
    else:
        shutil.copytree(_imported(), home, dirs_exist_ok=True)
    return home


@functools.cache
def _imported() -> Path:
    """Return a directory that lives as long as this process."""
    place = Path(tempfile.mkdtemp(prefix="matyan-golden-import-"))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    _import(place, {})
    return place


def _import(home: Path, environment: Mapping[str, str]) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        source = golden_aim_repository(Path(scratch) / "source")
        matyan("import", "aim", str(source), "--home", str(home), environment=environment)
