"""Snapshots and serializability of the key-value port, with several threads."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from matyan.engines.kv.protocol import KvEngine, KvReader, KvTransaction, Pair
from tests.support.kv import engine_under, put_all, read_all


def test_a_snapshot_does_not_see_later_commits(kv: KvEngine) -> None:
    put_all(kv, [(b"a", b"old")])

    def read_while_another_writes(snapshot: KvReader) -> tuple[bytes | None, list[Pair]]:
        snapshot.get(b"a")
        writer = threading.Thread(target=put_all, args=(kv, [(b"a", b"new"), (b"b", b"new")]))
        writer.start()
        writer.join()
        return snapshot.get(b"a"), snapshot.scan(b"b", b"c", rows_max=1)

    found = engine_under(kv).read(read_while_another_writes)

    assert found == (b"old", [])
    assert read_all(kv) == {b"a": b"new", b"b": b"new"}


@pytest.mark.parametrize("durable", [False, True])
def test_threads_that_read_and_write_one_key_lose_nothing(kv: KvEngine, durable: bool) -> None:
    def increment(tx: KvTransaction) -> None:
        tx.put(b"count", str(int(tx.get(b"count") or b"0") + 1).encode())

    def work(_: int) -> None:
        for _ in range(40):
            kv.write(increment, durable=durable)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))

    assert read_all(kv) == {b"count": b"320"}


def test_write_skew_cannot_happen(kv: KvEngine) -> None:
    """Each of many transactions counts the rows and adds one only while there are fewer than ten."""

    def insert_below_ten(tx: KvTransaction, name: bytes) -> None:
        if len(tx.scan(b"row/", b"row0", rows_max=100)) < 10:
            tx.put(b"row/" + name, b"")

    def work(worker: int) -> None:
        for number in range(10):
            kv.write(partial(insert_below_ten, name=b"%d/%d" % (worker, number)), durable=False)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))

    assert len(read_all(kv)) == 10


def test_readers_see_whole_commits_while_others_write(kv: KvEngine) -> None:
    keys = [b"k%02d" % number for number in range(20)]
    stop = threading.Event()

    def watch() -> int:
        looks = 0
        while not stop.is_set() or looks == 0:
            values = kv.read(lambda snapshot: snapshot.get_many(keys))
            assert len(set(values)) == 1
            looks += 1
        return looks

    with ThreadPoolExecutor(2) as pool:
        watchers = [pool.submit(watch) for _ in range(2)]
        try:
            for number in range(200):
                put_all(kv, [(key, b"%d" % number) for key in keys])
        finally:
            stop.set()

    assert all(watcher.result() > 0 for watcher in watchers)


def test_a_long_read_does_not_hold_up_a_writer(kv: KvEngine) -> None:
    is_reading, go_on = threading.Event(), threading.Event()

    def read_long(snapshot: KvReader) -> bytes | None:
        is_reading.set()
        assert go_on.wait(60)
        return snapshot.get(b"a")

    put_all(kv, [(b"a", b"old")])
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(engine_under(kv).read, read_long)
        try:
            assert is_reading.wait(60)
            put_all(kv, [(b"a", b"new")])
        finally:
            go_on.set()

    assert reading.result() == b"old"


def test_sync_returns_for_many_threads_at_once(kv: KvEngine) -> None:
    def work(worker: int) -> None:
        for number in range(10):
            put_all(kv, [(b"%d/%d" % (worker, number), b"")])
            kv.sync()

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))

    assert len(read_all(kv)) == 60
