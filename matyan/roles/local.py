"""The role `local`: everything in one process on embedded engines, in one data directory."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TextIO, runtime_checkable

from matyan.clock import SystemClock
from matyan.engines.disk import Disk
from matyan.errors import ConfigurationError
from matyan.ids import DEFAULT_PROJECT
from matyan.roles.home import locked_home, writing_home
from matyan.roles.process import Announce, run_role
from matyan.roles.secrets import keys_of
from matyan.roles.table import LOCAL
from matyan.settings import Settings

if TYPE_CHECKING:
    from matyan.transfer.aim_import import Report, Selection


def run_local(settings: Settings, *, announce: Announce) -> None:
    """Run until a signal or a failure; `announce` gets the URL when everything answers.

    Raises:
        ConfigurationError: the data is in use, a port is, or an engine cannot be opened.
        And the error of a part that failed.
    """
    with locked_home(settings.home):
        run_role(LOCAL, settings, announce=announce)


@runtime_checkable
class Compactable(Protocol):
    """A store whose file can be written anew without its free pages."""

    def size_bytes(self) -> int:
        """Return the size of the file."""

    def compact_to(self, path: Path) -> None:
        """Write a compact copy into a directory."""

    def close(self) -> None:
        """Release everything."""


def compact_store(settings: Settings) -> tuple[int, int]:
    """Rewrite the embedded store without its free pages; return its size in bytes before and after.

    Raises:
        ConfigurationError: the server runs, or the store is not an embedded one.
        UnavailableError: the disk has no room for a second copy.
    """
    from matyan.engines.open import open_kv  # noqa: PLC0415 - brings the storage library
    from matyan.maintenance.settle import settle_quiet_runs  # noqa: PLC0415 - likewise

    with locked_home(settings.home), writing_home(settings.home, alone=True):
        kv = open_kv(settings.kv_uri, fdb=settings.fdb)
        settle_quiet_runs(kv, DEFAULT_PROJECT, SystemClock(), all_runs=True)
        if not isinstance(kv, Compactable):
            kv.close()
            raise ConfigurationError(f"the store {settings.kv_uri} gives space back by itself")
        return _rewrite(kv, Path(settings.kv_uri.partition("://")[2]), lambda: open_kv(settings.kv_uri))


def import_aim(settings: Settings, path: Path, selection: Selection, out: TextIO) -> Report:
    """Import the runs of an Aim repository; the server may run meanwhile. Progress goes to `out`.

    Raises:
        ConfigurationError: no repository, no such experiment, no library to read it, or the store cannot be opened.
    """
    from matyan.engines.open import open_blobs, open_kv  # noqa: PLC0415 - brings the storage library
    from matyan.transfer.aim_import import AimImport  # noqa: PLC0415 - likewise
    from matyan.transfer.aim_source import AimRepository  # noqa: PLC0415 - likewise
    from matyan.transfer.reporting import ProgressLine  # noqa: PLC0415 - likewise

    repository = AimRepository(path)
    with writing_home(settings.home), contextlib.ExitStack() as stack:
        kv = open_kv(settings.kv_uri, fdb=settings.fdb)
        stack.callback(kv.close)
        blobs = open_blobs(settings.blob_uri, keys=keys_of(settings, "uploads"), s3=settings.s3)
        stack.callback(blobs.close)
        work = AimImport(kv=kv, blobs=blobs, repository=repository, progress=ProgressLine(out))
        return work.run(selection)


def _rewrite(kv: Compactable, path: Path, reopen: Callable[[], object]) -> tuple[int, int]:
    fresh = path.with_name(f"{path.name}.compact")
    shutil.rmtree(fresh, ignore_errors=True)  # left by a crash
    before = kv.size_bytes()
    try:
        kv.compact_to(fresh)
    finally:
        kv.close()
    # One rename: a crash leaves either file whole.
    for file in fresh.iterdir():
        file.replace(path / file.name)
    Disk().sync_directory(path)
    shutil.rmtree(fresh)
    again = reopen()
    assert isinstance(again, Compactable)
    after = again.size_bytes()
    again.close()
    return before, after
