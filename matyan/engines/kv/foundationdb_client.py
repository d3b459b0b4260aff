"""The client library of FoundationDB: found, its API version chosen, its network thread started, databases opened.

All of it is once for a process, by FoundationDB's design: one API version, one network thread that ends with the
process, and one handle per cluster file, which any number of engines share.
"""

from __future__ import annotations

import importlib
import threading
from pathlib import Path
from typing import Any, Final

import fdb

from matyan.engines.kv.foundationdb_errors import text_of
from matyan.errors import ConfigurationError

API_VERSION_MAX: Final = 730
"""The newest API this code was tested with."""
API_VERSION_LEAST: Final = 710
_BINDINGS_UNTOLD: Final = 710
"""The API of bindings that do not tell: those of 7.1."""
_INSTALL_LIBRARY: Final = (
    "install the package foundationdb-clients of the cluster's release (7.3 or 7.1), "
    "or name the directory of libfdb_c in LD_LIBRARY_PATH"
)
_lock = threading.Lock()


def open_database(cluster_file: Path | None, *, api_version: int) -> Any:
    """Return the database of a cluster; the first call of a process starts the network thread.

    Args:
        cluster_file: None stands for FoundationDB's default: FDB_CLUSTER_FILE, or /etc/foundationdb/fdb.cluster.
        api_version: 0 stands for the newest that bindings, library and this code know.

    Raises:
        ConfigurationError: no client library, none of the version, or no cluster file.
    """
    if cluster_file is not None and not cluster_file.is_file():
        raise ConfigurationError(f"there is no cluster file {cluster_file}: copy it from a machine of the cluster")
    with _lock:
        _select_api(api_version)
        try:
            return fdb.open(None if cluster_file is None else str(cluster_file))
        except fdb.FDBError as error:
            file = cluster_file or "of FoundationDB's default"
            raise ConfigurationError(f"cannot use the cluster file {file}: {text_of(error)} ({error.code})") from error


def _select_api(api_version: int) -> None:
    try:
        library = importlib.import_module("fdb.impl")._capi  # noqa: SLF001 - the bindings have no name for it
    except Exception as error:  # the bindings raise nothing narrower
        raise ConfigurationError(
            f"fdb:// needs the client library of FoundationDB ({_first_line(error)}); {_INSTALL_LIBRARY}"
        ) from error
    if fdb.is_api_version_selected() and api_version in {0, fdb.get_api_version()}:
        return
    wanted = choose_api_version(
        api_version,
        bindings=getattr(fdb, "LATEST_API_VERSION", _BINDINGS_UNTOLD),
        library=library.fdb_get_max_api_version(),
    )
    if fdb.is_api_version_selected():
        raise ConfigurationError(
            f"this process uses FoundationDB's API {fdb.get_api_version()}: fdb.api_version cannot be {wanted} as well"
        )
    fdb.api_version(wanted)


def choose_api_version(wanted: int, *, bindings: int, library: int) -> int:
    """Return the API version to select, from what the bindings and the library know at most; `wanted` 0: the newest.

    Raises:
        ConfigurationError: there is none that all of them know.
    """
    if bindings > library:
        raise ConfigurationError(
            f"the package foundationdb is newer (API {bindings}) than the client library (API {library}): "
            f"`pip install 'foundationdb=={library // 100}.{library // 10 % 10}.*'`, or install a newer library"
        )
    newest = min(API_VERSION_MAX, bindings)
    version = wanted or newest
    if not API_VERSION_LEAST <= version <= newest:
        raise ConfigurationError(
            f"fdb.api_version is {version}, must be between {API_VERSION_LEAST} and {max(newest, API_VERSION_LEAST)}: "
            f"the package foundationdb knows API {bindings}, the client library API {library}"
        )
    return version


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0].rstrip("!.")
