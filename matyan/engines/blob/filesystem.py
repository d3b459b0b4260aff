"""Blobs as files under one root: replaced whole, found by key or by run, uploaded through our own signed URLs."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from matyan.clock import Clock, SystemClock
from matyan.engines.blob.layout import directories_under, group_of, is_within_group, object_path
from matyan.engines.blob.objects import ObjectChunks, ObjectHeader, ObjectWriter, encode_key, read_header
from matyan.engines.blob.protocol import BlobEntry, BlobInfo, BlobStream, PresignedPut, always
from matyan.engines.blob.temporary import remove_leftovers, temporary_file
from matyan.engines.blob.uploads import UPLOAD_ROUTE, AllowedUpload, UploadTokens
from matyan.engines.disk import Disk, make_directory, reporting

logger = logging.getLogger(__name__)

_WHAT: Final = "the blob store"
_MOVE_ATTEMPTS: Final = 100


def open_filesystem_blobs(
    path: Path, *, keys: Sequence[bytes], clock: Clock | None = None, disk: Disk | None = None
) -> FilesystemBlobs:
    """Open the store in a directory, creating it when there is none. Several processes may share it.

    Args:
        path: holds `objects/` and `tmp/`, so both lie on one file system.
        keys: sign upload URLs, the first makes new ones; at least 16 random bytes each, the same in every process
            that shares the store.
        clock: for expiry and times of modification.
        disk: for tests that make it fail.

    Raises:
        ConfigurationError: there is no key, or one is too short.
        UnavailableError: the disk is full or fails.
    """
    return FilesystemBlobs(path, UploadTokens(keys, clock or SystemClock()), clock or SystemClock(), disk or Disk())


class FilesystemBlobs:
    """A BlobEngine and LocalUploads."""

    def __init__(self, root: Path, tokens: UploadTokens, clock: Clock, disk: Disk) -> None:
        self._root = root
        self._objects = root / "objects"
        self._temporary = root / "tmp"
        self._tokens = tokens
        self._clock = clock
        self._disk = disk
        self._making = threading.Lock()
        """Held while directories are made: who finds one may rely on its being durable."""
        with reporting(_WHAT, root):
            make_directory(disk, self._objects)
            make_directory(disk, self._temporary)
            removed = remove_leftovers(self._temporary)
        if removed:
            logger.info("unfinished uploads removed", extra={"files": removed})

    def put(self, key: str, chunks: Iterable[bytes], *, content_type: str) -> BlobInfo:
        """Store an object, replacing any other of this key at once; see BlobEngine.

        One failure leaves more than nothing: when only the last sync, of the directory, fails, readers may see the new
        object already.
        """
        with contextlib.closing(self.begin_put(key, content_type=content_type)) as upload:
            for chunk in chunks:
                upload.write(chunk)
            return upload.finish()

    def begin_put(self, key: str, *, content_type: str) -> FileUpload:
        """Begin an object whose content comes piece by piece; see LocalUploads."""
        encode_key(key)  # refuses what cannot be a key, before there is a file
        with contextlib.ExitStack() as stack, reporting(_WHAT, self._root):
            fd, path = stack.enter_context(temporary_file(self._temporary))
            writer = ObjectWriter(self._disk, fd, key, content_type)
            return FileUpload(self._root, writer, partial(self._finish, writer, path, key), stack.pop_all())

    def open(self, key: str) -> BlobStream | None:
        """Return the object as chunks; whoever stops early may `close` them. See BlobEngine."""
        path = object_path(self._objects, key)
        opened = self._open_file(path)
        if opened is None:
            return None
        fd, header = opened
        return BlobStream(header.info, ObjectChunks(fd, header, path))

    def get(self, key: str) -> bytes | None:
        """Return the whole object, or None."""
        stream = self.open(key)
        return None if stream is None else b"".join(stream.chunks)

    def info(self, key: str) -> BlobInfo | None:
        """Return what is known of an object without reading it, or None."""
        return self._read_info(object_path(self._objects, key))

    def list(self, prefix: str) -> Iterator[BlobInfo]:
        """Return every object whose key starts with `prefix`, in key order; see BlobEngine.

        Holds the entries of one group (a run) at a time, and the names of all groups under the prefix.
        """
        for _, directory in self._groups(prefix):
            infos = (info for path in _files(directory) if (info := self._read_info(path)))
            yield from sorted(info for info in infos if info.key.startswith(prefix))

    def entries(self, prefix: str, *, after: str = "") -> Iterator[BlobEntry]:
        """Return every object whose key starts with `prefix`, in the order of the names of their directories.

        Those are hashes, and tell where to go on without a look into any file that lies before. See BlobEngine.
        """
        last = object_path(self._objects, after).parent if after else self._objects
        for directory in sorted(directories_under(self._objects, prefix)):
            if directory >= last:
                infos = [info for path in _files(directory) if (info := self._read_info(path))]
                for info in sorted(info for info in infos if info.key.startswith(prefix)):
                    if directory > last or info.key > after:
                        yield BlobEntry(info.key, info.size_bytes, info.modified_at_seconds)

    def delete(self, key: str) -> None:
        """Delete an object; a missing one is fine."""
        path = object_path(self._objects, key)
        with reporting(_WHAT, self._root):
            _unlink(path)
            self._forget(path.parent)

    def delete_prefix(self, prefix: str, *, may_go_on: Callable[[], bool] = always) -> int:
        """Delete every object whose key starts with `prefix`, file by file; return how many. See BlobEngine."""
        deleted = 0
        with reporting(_WHAT, self._root):
            for group, directory in self._groups(prefix):
                for path in _files(directory):
                    if not may_go_on():
                        return deleted
                    if group.startswith(prefix) or self._has_prefix(path, prefix):
                        deleted += _unlink(path)
                self._forget(directory)
        return deleted

    def presign_put(self, key: str, *, content_type: str, expires_seconds: int, base_url: str) -> PresignedPut:
        """Return a URL of our own upload route; see BlobEngine."""
        token = self._tokens.seal(encode_key(key), content_type, expires_seconds)
        return PresignedPut(f"{base_url}{UPLOAD_ROUTE}/{token}", {})

    def verify_put(self, token: str) -> AllowedUpload:
        """Return what an upload token allows; see LocalUploads."""
        return self._tokens.open(token)

    def close(self) -> None:
        """Release everything: streams own their files, so there is nothing else."""

    # ---- files

    def _finish(self, writer: ObjectWriter, path: Path, key: str) -> BlobInfo:
        info = writer.finish(self._clock.now_seconds())
        self._move(path, object_path(self._objects, key))
        return info

    def _open_file(self, path: Path) -> tuple[int, ObjectHeader] | None:
        with reporting(_WHAT, self._root):
            try:
                fd = os.open(path, os.O_RDONLY)
            except FileNotFoundError:
                return None
            try:
                return fd, read_header(fd, path)
            except BaseException:
                os.close(fd)
                raise

    def _read_info(self, path: Path) -> BlobInfo | None:
        opened = self._open_file(path)
        if opened is None:
            return None
        os.close(opened[0])
        return opened[1].info

    def _has_prefix(self, path: Path, prefix: str) -> bool:
        info = self._read_info(path)
        return info is not None and info.key.startswith(prefix)

    def _move(self, source: Path, target: Path) -> None:
        for attempt in range(_MOVE_ATTEMPTS):
            try:
                with self._making:
                    make_directory(self._disk, target.parent)
                source.replace(target)
                break
            except FileNotFoundError:  # a concurrent delete emptied the directory and removed it
                if attempt == _MOVE_ATTEMPTS - 1:
                    raise
        with contextlib.suppress(FileNotFoundError):  # deleted already, directory and all
            self._disk.sync_directory(target.parent)

    def _forget(self, directory: Path) -> None:
        """Make deletions in a group's directory durable; remove it, and its project's, when they are empty."""
        with contextlib.suppress(FileNotFoundError):
            self._disk.sync_directory(directory)
        for empty in (directory, directory.parent):
            try:
                empty.rmdir()
            except OSError:  # not empty, or gone
                return
            with contextlib.suppress(FileNotFoundError):
                self._disk.sync_directory(empty.parent)

    def _groups(self, prefix: str) -> Sequence[tuple[str, Path]]:
        """Return the groups that hold keys with this prefix and their directories, in the order of these keys."""
        directories = directories_under(self._objects, prefix)
        if is_within_group(prefix):
            return [(group_of(prefix), directory) for directory in directories]
        # Directory names are hashes: any object of a group tells its text.
        found = []
        for directory in directories:
            first = next((info for path in _files(directory) if (info := self._read_info(path))), None)
            if first is not None and first.key.startswith(prefix):
                found.append((group_of(first.key), directory))
        return sorted(found)


class FileUpload:
    """An Upload into a temporary file. Made by `FilesystemBlobs.begin_put`."""

    def __init__(
        self, root: Path, writer: ObjectWriter, finish: Callable[[], BlobInfo], stack: contextlib.ExitStack
    ) -> None:
        self._root = root
        self._writer = writer
        self._finish = finish
        self._stack = stack
        self._lock = threading.Lock()
        """A file is not closed under its writer: its number may be another file's at once."""
        self._is_closed = False

    def write(self, chunk: bytes) -> None:
        """Add to the content; see Upload."""
        with self._lock, reporting(_WHAT, self._root):
            self._check_open()
            self._writer.write(chunk)

    def finish(self) -> BlobInfo:
        """Put the object in its place; see Upload."""
        with self._lock, reporting(_WHAT, self._root):
            self._check_open()
            return self._finish()

    def close(self) -> None:
        """Release the file; see Upload."""
        with self._lock:
            self._is_closed = True
            self._stack.close()

    def _check_open(self) -> None:
        if self._is_closed:
            raise RuntimeError("the upload is closed")


def _files(directory: Path) -> Iterator[Path]:
    """Yield the object files of a group; none when it is gone."""
    try:
        with os.scandir(directory) as entries:
            names = [entry.name for entry in entries]
    except FileNotFoundError:
        return
    yield from (directory / name for name in names)


def _unlink(path: Path) -> bool:
    """Delete a file; return whether it was there."""
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    return True
