"""EmbeddedKv: the key-value port on LMDB, for one machine; several threads and processes may share one store.

What each promise rests on (durability, sharing, forks, a full disk) stands in
docs/decisions/0003-embedded-key-value-engine.md.
"""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

import lmdb

from matyan.engines.disk import Disk, reporting
from matyan.engines.kv.embedded_views import EmbeddedReader, EmbeddedTransaction
from matyan.engines.kv.protocol import KvReader, KvTransaction
from matyan.errors import ConfigurationError, ConflictError, CorruptedError, MatyanError, UnavailableError
from matyan.limits import TRANSACTION_BYTES_MAX

T = TypeVar("T")

MAP_BYTES_DEFAULT: Final = 2**40
"""Address space, not disk: the file grows with the data and stops here."""
_MAP_BYTES_LEAST: Final = 2**28
_MAP_SHRINK: Final = 16
_READERS_MAX: Final = 1024
"""Snapshots open at one moment, over all processes; each takes 64 bytes of the lock file."""
_LMDB_MAJOR: Final = 0
"""LMDB 0.9 and its file format; 1.0 writes another."""
_DISK: Final = Disk()
_DATA_FILE: Final = "data.mdb"
_META_PAGES: Final = 2
_FORMAT_KEY: Final = b"\xff/matyan/format"
_FORMAT: Final = b"1"
_FULL_ERRNOS: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_DAMAGED: Final = (lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.InvalidError, lmdb.VersionMismatchError)


def open_embedded_kv(path: Path, *, map_bytes: int = MAP_BYTES_DEFAULT) -> EmbeddedKv:
    """Open the store in the directory `path`; make it when there is none.

    Args:
        path: a directory on a local file system (LMDB's locks do not work over NFS).
        map_bytes: the size up to which the store may grow. Where the system refuses so much address space, a part.

    Raises:
        ConflictError: this process has the store open already.
        ConfigurationError: no access, or the store was written by another version.
        CorruptedError: the file is not a key-value store.
        UnavailableError: the disk is full or failed.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        env = _open_environment(path, map_bytes)
    except (lmdb.Error, OSError) as error:
        raise _opening_error(path, error) from error
    kv = EmbeddedKv(env, path)
    try:
        kv.check_readers()
        kv.check_format()
    except BaseException:
        kv.close()
        raise
    return kv


class EmbeddedKv:
    """A KvEngine on one LMDB environment. Made by `open_embedded_kv`; never used in a forked child."""

    def __init__(self, env: lmdb.Environment, path: Path) -> None:
        self._open_env: lmdb.Environment | None = env
        self._path = path
        self._pid = os.getpid()
        self._failure: str | None = None
        """Set when a write to the disk failed: what the disk holds is then unknown, so nothing more is written."""
        self._ticket_lock = threading.Lock()
        self._sync_lock = threading.Lock()
        self._syncs_asked = 0
        self._syncs_done = 0

    # ---- KvEngine

    def read(self, fn: Callable[[KvReader], T]) -> T:
        """Run `fn` on a snapshot of its own and return its result; writers do not wait for it."""
        env = self._env()
        try:
            txn = _begin_read(env)
            reader = EmbeddedReader(txn)
            try:
                return fn(reader)
            finally:
                reader.end()
                txn.abort()
        except lmdb.Error as error:
            raise self._our_error(error) from error

    def write(self, fn: Callable[[KvTransaction], T], *, durable: bool = True) -> T:
        """Run `fn` as the only writer of all threads and processes, commit, and return its result."""
        env = self._writable_env()
        try:
            txn = env.begin(write=True)
            transaction = EmbeddedTransaction(txn)
            try:
                result = fn(transaction)
                transaction.flush()
            except BaseException:
                _roll_back(txn, transaction)
                raise
            transaction.end()
            txn.commit()
        except lmdb.Error as error:
            raise self._our_error(error) from error
        if durable:
            self.sync()
        return result

    def sync(self) -> None:
        """Return when every commit made before this call, by any process, survives the loss of power.

        Threads that wait here together share one flush: a flush serves all who asked before it began.
        """
        env = self._writable_env()
        with self._ticket_lock:
            self._syncs_asked += 1
            ticket = self._syncs_asked
        with self._sync_lock:
            if self._syncs_done >= ticket:
                return
            with self._ticket_lock:
                served = self._syncs_asked
            try:
                env.sync(True)
            except lmdb.Error as error:
                raise self._our_error(error) from error
            self._syncs_done = served

    def close(self) -> None:
        """Release everything. Other calls must have ended."""
        env, self._open_env = self._open_env, None
        if env is not None and os.getpid() == self._pid:  # a forked child owns none of it
            env.close()

    # ---- upkeep

    def tend(self) -> None:
        """Let go of what processes that died have left."""
        self.check_readers()

    def check_readers(self) -> int:
        """Free the snapshots of processes that died (they keep pages from being reused); return how many."""
        return self._env().reader_check()

    def check_format(self) -> None:
        """Mark a fresh store with the format that this version writes; refuse one with another mark.

        Raises:
            ConfigurationError: another version wrote the store.
            CorruptedError: something else wrote it.
        """
        found = self.read(lambda snapshot: snapshot.get(_FORMAT_KEY))
        if found is None:
            found = self._mark_format()
        if found != _FORMAT:
            raise ConfigurationError(
                f"the key-value store at {self._path} has format {found.decode(errors='replace')}, "
                f"this version reads {_FORMAT.decode()}: open it with the version that wrote it"
            )

    def size_bytes(self) -> int:
        """Return the size of the data file; it never shrinks."""
        self._env()
        return (self._path / _DATA_FILE).stat().st_size

    def free_bytes(self) -> int:
        """Return how much of the file the next writes reuse before it grows; off by a transaction or so while busy."""
        env = self._env()
        stat, pages = env.stat(), env.info()["last_pgno"] + 1
        used = stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"] + _META_PAGES
        return max(0, pages - used) * stat["psize"]

    def compact_to(self, path: Path) -> None:
        """Write a copy without free pages into the directory `path`, durably; the store stays in use.

        The copy is a snapshot: while it is made, freed pages are not reused and the store may grow.

        Raises:
            ConflictError: there is a store at `path` already.
            UnavailableError: the disk is full or failed; nothing is left behind.
        """
        target = path / _DATA_FILE
        if target.exists():
            raise ConflictError(f"{target} exists already")
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._env().copy(str(path), compact=True)
            with target.open("rb") as copy:
                _DISK.sync(copy.fileno())
            _DISK.sync_directory(path)
        except (lmdb.Error, OSError) as error:
            target.unlink(missing_ok=True)
            raise UnavailableError(f"cannot copy the key-value store at {self._path} to {path}: {error}") from error

    # ---- inside

    def _env(self) -> lmdb.Environment:
        env = self._open_env
        if env is None:
            raise RuntimeError(f"the key-value store at {self._path} is closed")
        if os.getpid() != self._pid:
            raise RuntimeError(
                f"the key-value store at {self._path} was opened before a fork: open engines in the process that "
                f"uses them, or start processes with spawn"
            )
        return env

    def _writable_env(self) -> lmdb.Environment:
        env = self._env()
        if self._failure is not None:
            raise UnavailableError(self._failure)
        return env

    def _mark_format(self) -> bytes:
        """Write the mark unless another process was faster; return what stands there."""
        env = self._env()
        try:
            with env.begin(write=True) as txn:
                found = txn.get(_FORMAT_KEY)
                if found is None and txn.stat()["entries"]:
                    raise CorruptedError(f"{self._path / _DATA_FILE} was not written by matyan")
                if found is None:
                    txn.put(_FORMAT_KEY, _FORMAT)
            env.sync(True)
        except lmdb.Error as error:
            raise self._our_error(error) from error
        with reporting("the key-value store", self._path):
            for directory in (self._path, self._path.parent):  # a new file is safe when its name is
                _DISK.sync_directory(directory)
        return found or _FORMAT

    def _our_error(self, error: lmdb.Error) -> Exception:
        """Return what a caller is told instead of LMDB's error."""
        if isinstance(error, _DAMAGED):
            return CorruptedError(f"the key-value store at {self._path} is damaged: {error}")
        if error.code == errno.EBUSY:
            return RuntimeError("a write inside the function of another write would wait for itself")
        return UnavailableError(self._what_is_wrong(error))

    def _what_is_wrong(self, error: lmdb.Error) -> str:
        store = f"the key-value store at {self._path}"
        if isinstance(error, lmdb.MapFullError):
            map_bytes = self._env().info()["map_size"]
            return f"{store} reached its map size of {map_bytes} bytes, nothing was written: raise it and restart"
        if isinstance(error, lmdb.MapResizedError):
            return f"{store} outgrew the map size of this process: raise it and restart"
        if error.code in _FULL_ERRNOS or (error.code == errno.EIO and _is_nearly_full(self._path)):
            return f"the disk under {store} is full, nothing was written: free some space"
        if error.code == errno.EIO or isinstance(error, lmdb.PanicError):
            self._failure = f"the disk under {store} failed, no more is written: check it and restart ({error})"
            return self._failure
        return f"{store} failed: {error}"


def _open_environment(path: Path, map_bytes: int) -> lmdb.Environment:
    while True:
        try:
            return lmdb.open(
                str(path),
                map_size=map_bytes,
                # The flush of a commit covers the commit before it: one flush each instead of two. See the ADR.
                metasync=False,
                mode=0o700,
                max_readers=_READERS_MAX,
                # No spare transactions: a forked child that drops its copy would free the parent's. They save 0.07 us.
                max_spare_txns=0,
                lib_version=_LMDB_MAJOR,
            )
        except lmdb.MemoryError:  # small address spaces: `ulimit -v`, some arm64 kernels
            if map_bytes // _MAP_SHRINK < _MAP_BYTES_LEAST:
                raise
            map_bytes //= _MAP_SHRINK


def _opening_error(path: Path, error: lmdb.Error | OSError) -> MatyanError:
    code = error.code if isinstance(error, lmdb.Error) else error.errno
    if isinstance(error, lmdb.Error) and "already open" in str(error):  # it has neither class nor code of its own
        return ConflictError(f"the key-value store at {path} is open in this process already")
    if isinstance(error, _DAMAGED):
        return CorruptedError(f"{path / _DATA_FILE} is not a key-value store of this version: {error}")
    if code in _FULL_ERRNOS or code == errno.EIO:
        return UnavailableError(f"the disk under the key-value store at {path} is full or failed: {error}")
    return ConfigurationError(f"cannot open the key-value store at {path}: {error}")


def _begin_read(env: lmdb.Environment) -> lmdb.Transaction[bytes]:
    try:
        return env.begin()
    except lmdb.ReadersFullError:
        env.reader_check()  # perhaps the dead hold them
        return env.begin()


def _roll_back(txn: lmdb.Transaction[bytes], transaction: EmbeddedTransaction) -> None:
    """Undo everything.

    py-lmdb's abort waits until no other thread is inside LMDB, so behind a long copy it would hold the writer lock.
    Where LMDB was handed no change (the usual case), a commit ends the transaction as well, and waits for nobody.
    """
    transaction.end()
    if transaction.is_flushed:
        txn.abort()
    else:
        txn.commit()


def _is_nearly_full(path: Path) -> bool:
    """Tell a full disk from a broken one: LMDB reports a write that was cut short as EIO."""
    return shutil.disk_usage(path).free < 2 * TRANSACTION_BYTES_MAX
