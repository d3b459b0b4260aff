"""What the disk may hold when the power goes, rebuilt from the store's own pages.

A commit writes its data pages, flushes, then writes one of the two meta pages, which the next flush covers. So while
commit n + 1 is written, the disk holds all data of commit n, the meta page of n or of n - 1, and any of the new pages.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import lmdb
import pytest

from matyan.engines.kv.embedded import EmbeddedKv, open_embedded_kv
from matyan.engines.kv.protocol import KvTransaction
from tests.support.kv import put_all, read_all

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
Pages = list[bytes]
Contents = dict[bytes, bytes]


def _pages_of(path: Path) -> Pages:
    raw = (path / "data.mdb").read_bytes()
    return [raw[begin : begin + PAGE_BYTES] for begin in range(0, len(raw), PAGE_BYTES)]


def _commit_at_random(kv: EmbeddedKv, chance: random.Random) -> None:
    keys = [b"key/%03d" % chance.randrange(60) for _ in range(12)]

    def change(tx: KvTransaction) -> None:
        for key in keys:
            tx.put(key, chance.randbytes(chance.choice([10, 900, 9_000])))
        tx.clear_range(min(keys), min(keys) + b"5")
        tx.add(b"commits", 1)

    kv.write(change, durable=False)


def _torn(history: list[Pages], chance: random.Random, *, is_meta_lost: bool) -> Pages:
    """Return what the disk may hold while the last commit of the history is being written."""
    before, last, coming = history[-3:]
    meta = next(page for page in (0, 1) if before[page] != last[page])
    disk = list(last)
    if is_meta_lost:
        disk[meta] = before[meta]
    for page in range(2, len(coming)):
        if page >= len(disk):
            disk.append(bytes(PAGE_BYTES))
        if chance.random() < 0.5:
            disk[page] = coming[page]
    return disk


def test_power_lost_while_a_commit_is_written_leaves_a_whole_earlier_state(tmp_path: Path) -> None:
    chance = random.Random(7)
    kv = open_embedded_kv(tmp_path / "kv")
    history: list[Pages] = []
    contents: list[Contents] = []
    lost = 0
    for _ in range(60):
        _commit_at_random(kv, chance)
        history.append(_pages_of(tmp_path / "kv"))
        contents.append(read_all(kv))
        if len(history) < 3:
            continue

        for is_meta_lost in (False, True):
            disk = tmp_path / f"disk-{len(history)}-{is_meta_lost}"
            disk.mkdir()
            (disk / "data.mdb").write_bytes(b"".join(_torn(history, chance, is_meta_lost=is_meta_lost)))
            after = open_embedded_kv(disk)

            assert read_all(after) == contents[-3 if is_meta_lost else -2]
            put_all(after, [(b"key/%03d" % number, bytes(5_000)) for number in range(60)])
            assert len(read_all(after)) == 61
            after.close()
            lost += is_meta_lost
    kv.close()

    assert lost == 58


def test_commits_flush_their_data_and_never_write_through_the_map(tmp_path: Path) -> None:
    """The order of writes that this file's model of a disk rests on follows from these flags, on every platform."""
    kv = open_embedded_kv(tmp_path)
    flags = kv._env().flags()
    kv.close()

    assert {name: flags[name] for name in ("sync", "metasync", "writemap", "map_async", "lock")} == {
        "sync": True,
        "metasync": False,
        "writemap": False,
        "map_async": False,
        "lock": True,
    }


class _WatchedEnvironment:
    """The real environment, with a note of each call that makes commits or flushes."""

    def __init__(self, env: lmdb.Environment) -> None:
        self._env = env
        self.calls: list[str] = []

    def begin(self, *, write: bool = False) -> Any:
        self.calls += ["write"] * write
        return self._env.begin(write=write)

    def sync(self, force: bool) -> None:
        self.calls.append(f"sync {force}")
        self._env.sync(force)

    def close(self) -> None:
        self._env.close()


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[tuple[EmbeddedKv, list[str]]]:
    env = _WatchedEnvironment(lmdb.open(str(tmp_path), metasync=False))
    kv = EmbeddedKv(cast("lmdb.Environment", env), tmp_path)
    yield kv, env.calls
    kv.close()


def test_a_durable_write_flushes_after_its_commit(watched: tuple[EmbeddedKv, list[str]]) -> None:
    kv, calls = watched

    kv.write(lambda tx: tx.put(b"a", b"1"))

    assert calls == ["write", "sync True"]


def test_a_durable_write_without_changes_flushes_what_it_may_have_read(watched: tuple[EmbeddedKv, list[str]]) -> None:
    kv, calls = watched

    kv.write(lambda tx: tx.get(b"a"))

    assert calls == ["write", "sync True"]


def test_a_write_that_need_not_last_flushes_no_second_time(watched: tuple[EmbeddedKv, list[str]]) -> None:
    kv, calls = watched

    kv.write(lambda tx: tx.put(b"a", b"1"), durable=False)
    kv.sync()

    assert calls == ["write", "sync True"]
