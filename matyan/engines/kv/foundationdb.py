"""FoundationDbKv: the key-value port on FoundationDB, for many machines; loaded only where fdb:// is asked for.

What each promise rests on (retries, lost answers, the prefix, versions) stands in docs/decisions/0017-foundationdb.md.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import fdb

from matyan.engines.kv.foundationdb_client import open_database
from matyan.engines.kv.foundationdb_commits import CommitMark, CommitMarks
from matyan.engines.kv.foundationdb_errors import TOO_OLD, our_error, text_of
from matyan.engines.kv.foundationdb_views import FoundationDbReader, FoundationDbTransaction
from matyan.engines.kv.protocol import KvReader, KvTransaction
from matyan.errors import ConfigurationError, CorruptedError
from matyan.settings import FdbSettings

T = TypeVar("T")

_FORMAT_KEY: Final = b"\xff/matyan/format"
"""Above every key of a caller, as in the embedded store."""
_FORMAT: Final = b"1"
_BACK_OFF_SECONDS_MAX: Final = 1.0


def open_foundationdb_kv(cluster_file: Path | None, settings: FdbSettings) -> FoundationDbKv:
    """Open the store under the prefix of the settings; make it when there is none.

    Args:
        cluster_file: None stands for FoundationDB's default.
        settings: prefix, API version and how long to try.

    Raises:
        ConfigurationError: no client library, no cluster file, or another version wrote the store.
        CorruptedError: something else wrote under the prefix.
        UnavailableError: the cluster does not answer.
    """
    kv = FoundationDbKv(open_database(cluster_file, api_version=settings.api_version), settings)
    kv.check_format()
    return kv


class FoundationDbKv:
    """A KvEngine on one FoundationDB cluster. Made by `open_foundationdb_kv`; never used in a forked child."""

    def __init__(self, database: Any, settings: FdbSettings) -> None:
        self._open_database: Any | None = database
        self._settings = settings
        self._prefix = f"{settings.prefix}/".encode()
        self._marks = CommitMarks(self._prefix)
        self._place = f"the FoundationDB store under {settings.prefix!r}"
        self._pid = os.getpid()

    # ---- KvEngine

    def read(self, fn: Callable[[KvReader], T]) -> T:
        """Run `fn` on a snapshot of its own and return its result; again when it takes longer than five seconds."""

        def attempt(transaction: Any) -> T:
            begun = transaction.get_read_version()  # so that the snapshot is of now, not of the first read
            # Reads of a snapshot are no part of a conflict set, which nobody would look at.
            reader = FoundationDbReader(transaction.snapshot, self._prefix)
            try:
                return fn(reader)
            finally:
                reader.end()
                begun.cancel()  # for who read nothing

        return self._retried(attempt)

    def write(self, fn: Callable[[KvTransaction], T], *, durable: bool = True) -> T:
        """Run `fn`, commit, and return its result. Every commit is durable; one that was applied is not repeated."""
        del durable
        with self._marks.lend() as mark:
            return self._retried(self._committing(fn, mark))

    def sync(self) -> None:
        """Return at once: a commit is on the disks of the cluster before it returns."""

    def tend(self) -> None:
        """Return at once: the cluster keeps house by itself."""

    def close(self) -> None:
        """Let go of the cluster; its connections serve other engines of the process and end with it."""
        self._open_database = None

    # ---- upkeep

    def check_format(self) -> None:
        """Mark a fresh store with the format that this version writes; refuse one with another mark.

        Raises:
            ConfigurationError: another version wrote the store.
            CorruptedError: something else wrote under the prefix.
        """
        found = self.read(lambda snapshot: snapshot.get(_FORMAT_KEY)) or self._retried(self._mark_format)
        if found != _FORMAT:
            raise ConfigurationError(
                f"{self._place} has format {found.decode(errors='replace')}, this version reads {_FORMAT.decode()}: "
                "open it with the version that wrote it"
            )

    # ---- inside

    def _committing(self, fn: Callable[[KvTransaction], T], mark: CommitMark) -> Callable[[Any], T]:
        """Return an attempt to run `fn` and commit; it does nothing where the attempt before was applied after all."""
        unanswered: list[T] = []
        """The result of the attempt before, when the answer to its commit was lost."""

        def attempt(transaction: Any) -> T:
            if unanswered and mark.is_left(transaction):
                return unanswered[0]
            unanswered.clear()
            view = FoundationDbTransaction(transaction, self._prefix)
            try:
                result = fn(view)
            finally:
                view.end()
            if view.written_bytes:
                mark.leave(transaction)
            try:
                transaction.commit().wait()
            except fdb.FDBError as error:
                if fdb.predicates.is_maybe_committed(error):
                    unanswered.append(result)
                raise
            return result

        return attempt

    def _mark_format(self, transaction: Any) -> bytes:
        """Write the mark unless another process was faster; return what stands there."""
        found: bytes | None = transaction.get(self._prefix + _FORMAT_KEY).value
        if found is None:
            if list(transaction.get_range(self._prefix, self._prefix + b"\xff", 1)):
                raise CorruptedError(f"{self._place} was not written by matyan: choose another fdb.prefix")
            transaction.set(self._prefix + _FORMAT_KEY, _FORMAT)
            transaction.commit().wait()
        return found or _FORMAT

    def _retried(self, attempt: Callable[[Any], T]) -> T:
        """Run `attempt` until it succeeds, fails for good, or uses up its attempts or its time."""
        transaction = self._begin()
        is_after_too_old = False
        try:
            while True:
                try:
                    return attempt(transaction)
                except fdb.FDBError as error:
                    is_too_old = error.code == TOO_OLD
                    self._back_off(transaction, error, is_after_too_old=is_too_old or is_after_too_old)
                    is_after_too_old = is_too_old
        finally:
            transaction.cancel()  # requests still under way, where the function failed before it had its answers

    def _begin(self) -> Any:
        """Return a transaction whose retries, in all, end with the deadline."""
        transaction = self._database().create_transaction()
        options, settings = transaction.options, self._settings
        options.set_timeout(math.ceil(settings.deadline_seconds * 1000))
        options.set_retry_limit(settings.attempts_max - 1)
        options.set_max_retry_delay(math.ceil(_BACK_OFF_SECONDS_MAX * 1000))
        return transaction

    def _back_off(self, transaction: Any, error: Any, *, is_after_too_old: bool) -> None:
        """Wait as FoundationDB wants it and make the transaction fresh; raise ours when another attempt is no use.

        That is so for errors which repeat themselves, after `attempts_max`, and when the deadline has come. Of a commit
        whose result is unknown (1021) the library has made sure, by then, that it cannot be applied any later.
        """
        try:
            transaction.on_error(error).wait()
        except fdb.FDBError as final:
            raise our_error(
                final.code,
                text_of(final),
                place=self._place,
                seconds=self._settings.deadline_seconds,
                is_after_too_old=is_after_too_old,
            ) from error

    def _database(self) -> Any:
        database = self._open_database
        if database is None:
            raise RuntimeError(f"{self._place} is closed")
        if os.getpid() != self._pid:
            raise RuntimeError(
                f"{self._place} was opened before a fork: open engines in the process that uses them, "
                "or start processes with spawn"
            )
        return database
