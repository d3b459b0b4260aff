"""URI -> engine; the only file that names implementations.

    key-value  lmdb://PATH
    log        file+log://PATH
    blobs      file://PATH

PATH is taken as it stands, relative to the working directory unless it begins with a slash; `~` is the home directory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from matyan.clock import Clock
from matyan.engines.blob.filesystem import open_filesystem_blobs
from matyan.engines.blob.protocol import BlobEngine
from matyan.engines.kv.embedded import open_embedded_kv
from matyan.engines.kv.protocol import KvEngine
from matyan.engines.log.embedded import open_embedded_log
from matyan.engines.log.protocol import LogEngine
from matyan.errors import ConfigurationError

_MISSING: Final = {
    "fdb": "the FoundationDB engine is not part of this version; use lmdb://PATH",
    "kafka": "the Kafka engine is not part of this version; use file+log://PATH",
    "s3": "the S3 engine is not part of this version; use file://PATH",
}


def open_kv(uri: str) -> KvEngine:
    """Open the key-value store that a URI names.

    Raises:
        ConfigurationError: no engine of that name, or no path. And what the engine raises when it opens.
    """
    return open_embedded_kv(_path(uri, "lmdb", what="key-value store"))


def open_log(uri: str, *, partitions: Mapping[str, int] | int, clock: Clock | None = None) -> LogEngine:
    """Open the log that a URI names; `partitions` as in `open_embedded_log`.

    Raises:
        ConfigurationError: no engine of that name, or no path. And what the engine raises when it opens.
    """
    return open_embedded_log(_path(uri, "file+log", what="log"), partitions=partitions, clock=clock)


def open_blobs(uri: str, *, keys: Sequence[bytes], clock: Clock | None = None) -> BlobEngine:
    """Open the blob store that a URI names; `keys` sign upload URLs, the first makes new ones.

    Raises:
        ConfigurationError: no engine of that name, or no path. And what the engine raises when it opens.
    """
    return open_filesystem_blobs(_path(uri, "file", what="blob store"), keys=keys, clock=clock)


def _path(uri: str, scheme: str, *, what: str) -> Path:
    found, separator, rest = uri.partition("://")
    if separator and found == scheme and rest:
        return Path(rest).expanduser()
    expected = f"the {what} is named by {scheme}://PATH"
    if not separator:
        raise ConfigurationError(f"{uri!r} is no URI; {expected}")
    if found == scheme:
        raise ConfigurationError(f"{uri!r} has no path; {expected}")
    # Only the scheme: the rest may hold a password.
    raise ConfigurationError(f"{found}:// cannot be opened: {_MISSING.get(found, 'unknown engine')}; {expected}")
