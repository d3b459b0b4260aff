"""URI -> engine; the only file that names implementations.

    key-value  lmdb://PATH, fdb://PATH of a cluster file, or fdb:// for the default one
    log        file+log://PATH, kafka://HOST:PORT,HOST:PORT
    blobs      file://PATH, s3://BUCKET or s3://BUCKET/PREFIX

PATH is taken as it stands, relative to the working directory unless it begins with a slash; `~` is the home directory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matyan.clock import Clock
from matyan.engines.blob.filesystem import open_filesystem_blobs
from matyan.engines.blob.protocol import BlobEngine
from matyan.engines.kv.embedded import open_embedded_kv
from matyan.engines.kv.protocol import KvEngine
from matyan.engines.log.embedded import open_embedded_log
from matyan.engines.log.protocol import LogEngine
from matyan.errors import ConfigurationError
from matyan.settings import FdbSettings, KafkaSettings, S3Settings


def open_kv(uri: str, *, fdb: FdbSettings | None = None) -> KvEngine:
    """Open the key-value store that a URI names.

    Args:
        uri: see above.
        fdb: how to use the cluster of fdb://.

    Raises:
        ConfigurationError: no engine of that name, no path, or what the engine needs is not installed. And what the
            engine raises when it opens.
    """
    if uri.startswith("fdb://"):
        return _open_fdb(uri.removeprefix("fdb://"), fdb or FdbSettings())
    return open_embedded_kv(_path(uri, "lmdb", what="key-value store"))


def _open_fdb(place: str, settings: FdbSettings) -> KvEngine:
    try:
        from matyan.engines.kv.foundationdb import open_foundationdb_kv  # noqa: PLC0415 - not always installed
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"fdb:// needs the package foundationdb (module {error.name}), which is not installed; "
            "`pip install 'matyan-tracker[distributed]'`"
        ) from error
    return open_foundationdb_kv(Path(place).expanduser() if place else None, settings)


def open_log(
    uri: str, *, partitions: Mapping[str, int] | int, kafka: KafkaSettings | None = None, clock: Clock | None = None
) -> LogEngine:
    """Open the log that a URI names.

    Args:
        uri: see above.
        partitions: of each topic, or one number for every topic that is ever named. Fixed for a log id. 0 is whatever
            a log in files has, and `partitions_of_new` for new topics.
        kafka: how to talk with the brokers of kafka://.
        clock: for the records' timestamps.

    Raises:
        ConfigurationError: no engine of that name, no path, or what the engine needs is not installed. And what the
            engine raises when it opens.
    """
    if uri.startswith("kafka://"):
        return _open_kafka(uri, partitions or partitions_of_new(uri), kafka or KafkaSettings(), clock)
    return open_embedded_log(_path(uri, "file+log", what="log"), partitions=partitions, clock=clock)


def partitions_of_new(uri: str) -> int:
    """Return how many partitions the topics of a new log get where nobody says a number (ADR 0026).

    One process syncs one file where it would sync four; several workers need several partitions.
    """
    return 4 if uri.startswith("kafka://") else 1


def _open_kafka(
    uri: str, partitions: Mapping[str, int] | int, settings: KafkaSettings, clock: Clock | None
) -> LogEngine:
    try:
        from matyan.engines.log.kafka import open_kafka_log  # noqa: PLC0415 - its library is not always installed
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"kafka:// needs the package {error.name}, which is not installed; "
            "`pip install 'matyan-tracker[distributed]'`"
        ) from error
    return open_kafka_log(uri, partitions=partitions, settings=settings, clock=clock)


def open_blobs(
    uri: str, *, keys: Sequence[bytes], s3: S3Settings | None = None, clock: Clock | None = None
) -> BlobEngine:
    """Open the blob store that a URI names.

    Args:
        uri: see above.
        keys: sign the upload URLs of file://, the first makes new ones.
        s3: how to reach and enter the store of s3://.
        clock: for times of modification and expiry.

    Raises:
        ConfigurationError: no engine of that name, no path, or what the engine needs is not installed. And what the
            engine raises when it opens.
    """
    if uri.startswith("s3://"):
        return _open_s3(uri.removeprefix("s3://"), s3 or S3Settings(), clock)
    return open_filesystem_blobs(_path(uri, "file", what="blob store"), keys=keys, clock=clock)


def _open_s3(place: str, settings: S3Settings, clock: Clock | None) -> BlobEngine:
    try:
        from matyan.engines.blob.s3 import open_s3_blobs  # noqa: PLC0415 - its library is not always installed
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"s3:// needs the package {error.name}, which is not installed; `pip install 'matyan-tracker[distributed]'`"
        ) from error
    return open_s3_blobs(place, settings, clock=clock)


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
    raise ConfigurationError(f"{found}:// cannot be opened: unknown engine; {expected}")
