from __future__ import annotations

import multiprocessing
import os
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import lmdb
import pytest

from matyan.engines.kv.embedded import EmbeddedKv, open_embedded_kv
from matyan.engines.kv.protocol import KvReader, KvTransaction
from matyan.errors import ConfigurationError, ConflictError, CorruptedError, UnavailableError
from tests.support.kv import put_all, read_all

FORMAT_KEY = b"\xff/matyan/format"


@pytest.fixture
def kv(tmp_path: Path) -> Iterator[EmbeddedKv]:
    engine = open_embedded_kv(tmp_path / "kv")
    yield engine
    engine.close()


def fill(kv: EmbeddedKv, transactions: int, first: int = 0) -> None:
    """Commit so many transactions of 90 rows with 10 kB each."""
    for part in range(first, first + transactions):
        put_all(kv, [(b"%03d/%03d" % (part, number), bytes(10_000)) for number in range(90)])


# ---- opening and closing


def test_a_store_keeps_what_it_holds_over_closing(tmp_path: Path) -> None:
    kv = open_embedded_kv(tmp_path / "deep" / "kv")
    put_all(kv, [(b"a", b"1")])
    kv.close()

    again = open_embedded_kv(tmp_path / "deep" / "kv")

    assert read_all(again) == {b"a": b"1"}
    again.close()


def test_a_new_store_is_readable_by_its_owner_only(kv: EmbeddedKv, tmp_path: Path) -> None:
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "kv", *(tmp_path / "kv").iterdir())}

    assert modes == {"kv": 0o700, "data.mdb": 0o600, "lock.mdb": 0o600}


def test_a_second_opening_in_one_process_is_refused(kv: EmbeddedKv, tmp_path: Path) -> None:
    with pytest.raises(ConflictError, match="open in this process already"):
        open_embedded_kv(tmp_path / "kv")


def test_a_closed_store_says_so(tmp_path: Path) -> None:
    kv = open_embedded_kv(tmp_path / "kv")
    kv.close()
    kv.close()

    with pytest.raises(RuntimeError, match="is closed"):
        read_all(kv)
    with pytest.raises(RuntimeError, match="is closed"):
        put_all(kv, [])


@pytest.mark.parametrize("found", [b"2", b"\xff"])
def test_a_store_of_another_format_is_refused(tmp_path: Path, found: bytes) -> None:
    open_embedded_kv(tmp_path).close()
    with lmdb.open(str(tmp_path)) as env, env.begin(write=True) as txn:
        txn.put(FORMAT_KEY, found)

    with pytest.raises(ConfigurationError, match="this version reads 1"):
        open_embedded_kv(tmp_path)


def test_an_lmdb_file_of_somebody_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    with lmdb.open(str(tmp_path)) as env, env.begin(write=True) as txn:
        txn.put(b"theirs", b"1")

    with pytest.raises(CorruptedError, match="not written by matyan"):
        open_embedded_kv(tmp_path)

    with lmdb.open(str(tmp_path)) as env, env.begin() as txn:
        assert txn.get(FORMAT_KEY) is None


def test_an_lmdb_file_of_format_1_0_is_refused(tmp_path: Path) -> None:
    with lmdb.open(str(tmp_path), lib_version=1) as env, env.begin(write=True) as txn:
        txn.put(b"theirs", b"1")

    with pytest.raises(CorruptedError, match="not a key-value store"):
        open_embedded_kv(tmp_path)


@pytest.mark.parametrize("size", [100, 100_000])
def test_a_file_that_is_no_store_is_refused(tmp_path: Path, size: int) -> None:
    (tmp_path / "data.mdb").write_bytes(b"x" * size)

    with pytest.raises(CorruptedError, match="not a key-value store"):
        open_embedded_kv(tmp_path)


def test_a_path_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "kv").write_text("")

    with pytest.raises(ConfigurationError, match="cannot open the key-value store"):
        open_embedded_kv(tmp_path / "kv")


def test_a_failed_opening_leaves_the_store_openable(tmp_path: Path) -> None:
    (tmp_path / "data.mdb").write_bytes(b"x" * 100_000)
    with pytest.raises(CorruptedError):
        open_embedded_kv(tmp_path)
    (tmp_path / "data.mdb").unlink()

    kv = open_embedded_kv(tmp_path)

    assert read_all(kv) == {}
    kv.close()


# ---- programming errors are told, not waited for


def test_a_write_inside_a_write_is_refused(kv: EmbeddedKv) -> None:
    with pytest.raises(RuntimeError, match="wait for itself"):
        kv.write(lambda tx: put_all(kv, [(b"a", b"")]))

    put_all(kv, [(b"b", b"")])
    assert list(read_all(kv)) == [b"b"]


def test_a_read_inside_a_write_sees_the_last_commit(kv: EmbeddedKv) -> None:
    def read_inside(tx: KvTransaction) -> dict[bytes, bytes]:
        tx.put(b"a", b"")
        return read_all(kv)

    assert kv.write(read_inside) == {}


def _use_after_fork(kv: EmbeddedKv, answers: multiprocessing.SimpleQueue[str]) -> None:
    for use in (lambda: read_all(kv), lambda: put_all(kv, [(b"child", b"")]), kv.sync, kv.check_readers):
        try:
            use()
            answers.put("worked")
        except RuntimeError as error:
            answers.put(str(error))
    kv.close()


@pytest.mark.skipif(sys.platform != "linux", reason="forks safely on Linux only")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_is_refused_and_harms_nothing(kv: EmbeddedKv) -> None:
    put_all(kv, [(b"a", b"")])
    context = multiprocessing.get_context("fork")
    answers: multiprocessing.SimpleQueue[str] = context.SimpleQueue()
    child = context.Process(target=_use_after_fork, args=(kv, answers))
    child.start()
    found = [answers.get() for _ in range(4)]
    child.join()

    assert all("opened before a fork" in answer for answer in found), found
    put_all(kv, [(b"b", b"")])
    assert list(read_all(kv)) == [b"a", b"b"]


# ---- space


def test_a_full_map_is_unavailable_and_the_store_goes_on(tmp_path: Path) -> None:
    kv = open_embedded_kv(tmp_path, map_bytes=2_000_000)
    put_all(kv, [(b"a", b"1")])

    with pytest.raises(UnavailableError, match="map size of 200"):
        fill(kv, 3)

    put_all(kv, [(b"a", b"2")])
    assert read_all(kv)[b"a"] == b"2"
    kv.close()


def test_a_full_map_met_inside_a_scan_is_unavailable(tmp_path: Path) -> None:
    kv = open_embedded_kv(tmp_path, map_bytes=1_000_000)

    def overfill(tx: KvTransaction) -> None:
        for number in range(200):
            tx.put(b"%03d" % number, bytes(10_000))
        tx.scan(b"", b"z", rows_max=1)

    with pytest.raises(UnavailableError, match="map size"):
        kv.write(overfill)
    assert read_all(kv) == {}
    kv.close()


def test_a_map_grows_with_the_next_opening(tmp_path: Path) -> None:
    kv = open_embedded_kv(tmp_path, map_bytes=1_500_000)
    fill(kv, 1)
    kv.close()

    kv = open_embedded_kv(tmp_path)
    fill(kv, 5)

    assert len(read_all(kv)) == 450
    kv.close()


def test_a_smaller_map_than_the_data_still_opens(tmp_path: Path) -> None:
    kv = open_embedded_kv(tmp_path)
    fill(kv, 3)
    kv.close()

    kv = open_embedded_kv(tmp_path, map_bytes=1_000_000)

    assert len(read_all(kv)) == 270
    kv.close()


def test_cleared_space_is_reported_and_used_again(kv: EmbeddedKv) -> None:
    fill(kv, 10)
    full_bytes, free_before = kv.size_bytes(), kv.free_bytes()

    kv.write(lambda tx: tx.clear_range(b"", b"\xff"))
    freed = kv.free_bytes()
    for _ in range(5):
        fill(kv, 5)
        kv.write(lambda tx: tx.clear_range(b"", b"\xff"))

    assert full_bytes > 9_000_000
    assert free_before < 1_000_000
    assert freed > 0.9 * full_bytes
    assert kv.size_bytes() < 1.2 * full_bytes


def test_a_compact_copy_is_small_and_whole(kv: EmbeddedKv, tmp_path: Path) -> None:
    fill(kv, 5)
    kv.write(lambda tx: tx.clear_range(b"001", b"999"))
    kv.write(lambda tx: tx.put_versionstamped(b"v/", b"", b"first"))

    kv.compact_to(tmp_path / "copy")

    copy = open_embedded_kv(tmp_path / "copy")
    assert read_all(copy) == read_all(kv)
    assert copy.size_bytes() < 0.4 * kv.size_bytes()
    copy.write(lambda tx: tx.put_versionstamped(b"v/", b"", b"second"))
    stamped = copy.read(lambda snapshot: snapshot.scan(b"v/", b"v0", rows_max=9))
    assert [value for _, value in stamped] == [b"first", b"second"]
    copy.close()


def test_compacting_onto_a_store_is_refused(kv: EmbeddedKv, tmp_path: Path) -> None:
    kv.compact_to(tmp_path / "copy")

    with pytest.raises(ConflictError, match="exists already"):
        kv.compact_to(tmp_path / "copy")


def test_a_disk_that_is_full_is_told_and_the_store_goes_on_when_there_is_space(kv: EmbeddedKv, tmp_path: Path) -> None:
    """The file behind LMDB's descriptors is swapped for /dev/full, which refuses every byte with ENOSPC."""
    data_file = tmp_path / "kv" / "data.mdb"
    descriptors = _descriptors_of(data_file)
    put_all(kv, [(b"a", b"1")])
    saved = [os.dup(descriptor) for descriptor in descriptors]
    full = os.open("/dev/full", os.O_RDWR)
    for descriptor in descriptors:
        os.dup2(full, descriptor)
    try:
        with pytest.raises(UnavailableError, match=r"is full, nothing was written: free some space"):
            put_all(kv, [(b"a", b"2")])
        after_failure = read_all(kv)
    finally:
        for descriptor, original in zip(descriptors, saved, strict=True):
            os.dup2(original, descriptor)
            os.close(original)
        os.close(full)

    put_all(kv, [(b"b", b"3")])
    assert after_failure == {b"a": b"1"}
    assert read_all(kv) == {b"a": b"1", b"b": b"3"}


def _descriptors_of(path: Path) -> list[int]:
    if not Path("/dev/full").exists() or not Path("/proc/self/fd").exists():
        pytest.skip("needs /dev/full and /proc")
    links = {int(link.name): link for link in Path("/proc/self/fd").iterdir() if link.exists()}
    return [descriptor for descriptor, link in links.items() if link.samefile(path)]


# ---- many readers


def test_more_threads_than_readers_of_plain_lmdb_read_at_once(kv: EmbeddedKv) -> None:
    put_all(kv, [(b"a", b"1")])
    threads_count = 150  # LMDB's own limit is 126
    barrier = threading.Barrier(threads_count, timeout=60)

    def read_together(snapshot: KvReader) -> bytes | None:
        barrier.wait()
        return snapshot.get(b"a")

    with ThreadPoolExecutor(threads_count) as pool:
        found = list(pool.map(lambda _: kv.read(read_together), range(threads_count)))

    assert found == [b"1"] * threads_count
