"""The store on a real FoundationDB: prefixes, long functions, conflicts that last, outages."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fdb
import msgspec
import pytest

from matyan.engines.kv.foundationdb import FoundationDbKv, open_foundationdb_kv
from matyan.engines.kv.foundationdb_client import open_database
from matyan.engines.kv.protocol import KvEngine, KvReader, KvTransaction
from matyan.errors import ConfigurationError, CorruptedError, TooLargeError, TooSlowError, UnavailableError
from matyan.settings import FdbSettings
from tests.support.foundationdb import Cluster, cluster_file, make_settings, remove_store
from tests.support.kv import counter_of, put_all, read_all
from tests.support.server import free_port

pytestmark = [pytest.mark.fdb]


@pytest.fixture
def settings() -> Iterator[FdbSettings]:
    cluster_file()  # skips where there is none
    made = make_settings()
    yield made
    remove_store(made)


@pytest.fixture
def kv(settings: FdbSettings) -> KvEngine:
    return open_foundationdb_kv(cluster_file(), settings)


def raw_database(settings: FdbSettings) -> fdb.Database:
    return open_database(cluster_file(), api_version=settings.api_version)


# ---- opening


def test_what_was_written_is_there_for_the_next_who_opens(settings: FdbSettings, kv: KvEngine) -> None:
    put_all(kv, [(b"a", b"1")])
    kv.close()

    again = open_foundationdb_kv(cluster_file(), settings)

    assert read_all(again) == {b"a": b"1"}
    with pytest.raises(RuntimeError, match="is closed"):
        read_all(kv)


def test_a_prefix_that_begins_like_another_one_is_another_store(settings: FdbSettings, kv: KvEngine) -> None:
    longer = msgspec.structs.replace(settings, prefix=f"{settings.prefix}-b")
    other = open_foundationdb_kv(cluster_file(), longer)
    try:
        put_all(kv, [(b"a", b"1")])
        put_all(other, [(b"b", b"2")])
        kv.write(lambda tx: tx.clear_range(b"", b"\xff"))

        assert (read_all(kv), read_all(other)) == ({}, {b"b": b"2"})
    finally:
        remove_store(longer)


def test_a_prefix_under_which_others_keep_keys_is_refused(settings: FdbSettings) -> None:
    raw_database(settings)[f"{settings.prefix}/theirs".encode()] = b""

    with pytest.raises(CorruptedError, match=r"was not written by matyan: choose another fdb\.prefix"):
        open_foundationdb_kv(cluster_file(), settings)


def test_a_store_of_another_format_is_refused(settings: FdbSettings, kv: KvEngine) -> None:
    raw_database(settings)[f"{settings.prefix}/".encode() + b"\xff/matyan/format"] = b"7"

    with pytest.raises(ConfigurationError, match="has format 7, this version reads 1"):
        open_foundationdb_kv(cluster_file(), settings)


def test_many_that_open_a_new_store_at_once_all_find_it_marked(settings: FdbSettings) -> None:
    with ThreadPoolExecutor(8) as pool:
        stores = list(pool.map(lambda _: open_foundationdb_kv(cluster_file(), settings), range(8)))

    assert [read_all(store) for store in stores] == [{}] * 8


def test_a_second_api_version_in_one_process_is_refused(settings: FdbSettings, kv: KvEngine) -> None:
    if getattr(fdb, "LATEST_API_VERSION", 710) == 710:
        pytest.skip("the bindings of FoundationDB 7.1 know one API version only")
    other = msgspec.structs.replace(settings, api_version={710: 730, 730: 710}[fdb.get_api_version()])

    with pytest.raises(ConfigurationError, match="this process uses FoundationDB's API"):
        open_foundationdb_kv(cluster_file(), other)


def test_a_child_that_was_forked_does_not_use_the_store(settings: FdbSettings) -> None:
    script = (
        "import os\nfrom pathlib import Path\nfrom matyan.engines.kv.foundationdb import *\n"
        f"kv = open_foundationdb_kv(Path({str(cluster_file())!r}), FdbSettings(prefix={settings.prefix!r}))\n"
        "if os.fork() == 0:\n"
        "    try:\n        kv.read(lambda snapshot: snapshot.get(b'a'))\n"
        "    except RuntimeError as error:\n        print(error, flush=True)\n"
        "    os._exit(0)\n"
        "os.wait()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)

    assert "was opened before a fork" in done.stdout


def test_a_cluster_file_that_is_none_is_refused(tmp_path: Path) -> None:
    cluster_file()
    file = tmp_path / "fdb.cluster"
    file.write_text("no cluster\n")

    with pytest.raises(ConfigurationError, match=r"\(2104\)"):
        open_foundationdb_kv(file, make_settings())


def test_a_cluster_that_does_not_answer_fails_the_opening_at_the_deadline(tmp_path: Path) -> None:
    cluster_file()
    file = tmp_path / "fdb.cluster"
    file.write_text(f"test:test@127.0.0.1:{free_port()}\n")
    began = time.monotonic()

    with pytest.raises(UnavailableError, match=r"\(1031\): no end within 1 s"):
        open_foundationdb_kv(file, msgspec.structs.replace(make_settings(), deadline_seconds=1.0))
    assert time.monotonic() - began < 5


# ---- transactions


@pytest.mark.slow
def test_a_read_that_outlives_its_snapshot_is_run_again_on_a_new_one(kv: KvEngine) -> None:
    put_all(kv, [(b"a", b"old")])
    seconds = iter([6.0, 0.0])

    def read_slowly_at_first(snapshot: KvReader) -> tuple[bytes | None, bytes | None]:
        before = snapshot.get(b"a")
        time.sleep(next(seconds))
        put_all(kv, [(b"b", b"newer")])
        return before, snapshot.get(b"z")

    assert kv.read(read_slowly_at_first) == (b"old", None)
    assert next(seconds, None) is None


@pytest.mark.slow
def test_a_write_that_always_outlives_its_transaction_fails_at_the_deadline(
    settings: FdbSettings, kv: KvEngine
) -> None:
    hasty = open_foundationdb_kv(cluster_file(), msgspec.structs.replace(settings, deadline_seconds=8.0))

    def dawdle(tx: KvTransaction) -> None:
        tx.put(b"a", tx.get(b"b") or b"")
        time.sleep(6)
        # A cluster tells the age of a write by the commits before it: one with nothing to do takes some up to 7 s old.
        put_all(kv, [(b"other", b"")])

    with pytest.raises(TooSlowError, match=r"\((1007|1031)\): .* five seconds"):
        hasty.write(dawdle)
    assert read_all(kv) == {b"other": b""}


def test_conflicts_that_last_fail_after_the_attempts_allowed(settings: FdbSettings, kv: KvEngine) -> None:
    impatient = open_foundationdb_kv(cluster_file(), msgspec.structs.replace(settings, attempts_max=3))
    runs = []

    def lose(tx: KvTransaction) -> None:
        runs.append(tx.get(b"a"))
        put_all(kv, [(b"a", b"%d" % len(runs))])
        tx.put(b"b", b"")

    with pytest.raises(UnavailableError, match=r"\(1020\): others changed what this transaction read"):
        impatient.write(lose)
    assert runs == [None, b"1", b"2"]
    assert read_all(kv) == {b"a": b"3"}


def test_counters_conflict_with_nothing(kv: KvEngine) -> None:
    runs = []

    def count(tx: KvTransaction) -> None:
        runs.append(1)
        tx.add(b"count", 1)
        kv.write(lambda other: other.add(b"count", 1))

    kv.write(count)

    assert len(runs) == 1
    assert counter_of(read_all(kv)[b"count"]) == 2


def test_more_than_foundationdb_takes_is_too_large_though_our_count_allows_it(kv: KvEngine) -> None:
    """FoundationDB counts some seventy bytes for each row besides, and its key thrice."""

    def write_many_small(tx: KvTransaction) -> None:
        for number in range(120_000):
            tx.put(b"%06d" % number, b"")

    with pytest.raises(TooLargeError, match=r"\(2101\)"):
        kv.write(write_many_small)
    assert read_all(kv) == {}


def test_reading_what_waits_for_its_versionstamp_is_a_mistake_that_is_told(kv: KvEngine) -> None:
    def stamp_and_look(tx: KvTransaction) -> None:
        tx.put_versionstamped(b"v/", b"", b"")
        tx.scan(b"v", b"w", rows_max=1)

    with pytest.raises(RuntimeError, match=r"\(1036\): a transaction read a key that it wrote by put_versionstamped"):
        kv.write(stamp_and_look)


def test_versionstamps_rise_over_processes_of_one_cluster(settings: FdbSettings, kv: KvEngine) -> None:
    stores = [kv, open_foundationdb_kv(cluster_file(), settings)]
    for number in range(20):
        stores[number % 2].write(lambda tx, n=number: tx.put_versionstamped(b"v/", b"", b"%d" % n))  # type: ignore[misc]  # mypy cannot infer a lambda with a default

    assert [int(value) for value in read_all(kv).values()] == list(range(20))


LOSE_ANSWERS = {
    "FDB_NETWORK_OPTION_CLIENT_BUGGIFY_ENABLE": "",
    "FDB_NETWORK_OPTION_CLIENT_BUGGIFY_SECTION_ACTIVATED_PROBABILITY": "100",
    "FDB_NETWORK_OPTION_CLIENT_BUGGIFY_SECTION_FIRED_PROBABILITY": "15",
}
"""The client library's own errors for tests: conflicts, timeouts, lost answers to commits that were applied."""
COUNT_ONCE = """
import sys
from pathlib import Path
from matyan.engines.kv.foundationdb import *
from matyan.errors import UnavailableError
kv = open_foundationdb_kv(Path(sys.argv[1]), FdbSettings(prefix=sys.argv[2]))
for number in range(300):
    try:
        kv.write(lambda tx: tx.add(b"%03d" % number, 1))
        print("done", flush=True)
    except UnavailableError as error:
        print(error, flush=True)
"""


def test_a_commit_is_applied_once_though_its_answer_is_lost(settings: FdbSettings, kv: KvEngine) -> None:
    done = subprocess.run(
        [sys.executable, "-c", COUNT_ONCE, str(cluster_file()), settings.prefix],
        capture_output=True,
        text=True,
        check=True,
        timeout=200,
        env={**os.environ, **LOSE_ANSWERS},
    )

    answers = done.stdout.splitlines()
    counts = {int(key): counter_of(value) for key, value in read_all(kv).items()}
    assert answers.count("done") > 200
    assert set(counts.values()) == {1}
    assert {number for number, answer in enumerate(answers) if answer == "done"} <= set(counts)


# ---- outages


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path)
    made.start()
    yield made
    made.kill()


def put_numbers(kv: FoundationDbKv, numbers: range, failed: list[int]) -> None:
    for number in numbers:
        try:
            put_all(kv, [(b"%04d" % number, b"")])
        except UnavailableError:
            failed.append(number)


def test_writes_go_on_when_a_killed_cluster_is_back(cluster: Cluster) -> None:
    kv, failed = open_foundationdb_kv(cluster.file, FdbSettings()), list[int]()
    writer = threading.Thread(target=put_numbers, args=(kv, range(300), failed))
    writer.start()
    time.sleep(0.3)
    cluster.kill()
    time.sleep(1)
    cluster.start()
    writer.join()

    assert failed == []
    assert list(read_all(kv)) == [b"%04d" % number for number in range(300)]


def test_a_cluster_that_hangs_fails_calls_at_their_deadline_and_serves_the_next(cluster: Cluster) -> None:
    kv = open_foundationdb_kv(cluster.file, FdbSettings(deadline_seconds=1.0))
    cluster.pause(is_paused=True)
    began = time.monotonic()
    for call in (lambda: read_all(kv), lambda: put_all(kv, [(b"a", b"")])):
        with pytest.raises(UnavailableError, match=r"\(1031\)"):
            call()
    seconds = time.monotonic() - began
    cluster.pause(is_paused=False)
    patient = open_foundationdb_kv(cluster.file, FdbSettings())
    put_all(patient, [(b"b", b"")])

    assert seconds < 4
    assert b"b" in read_all(patient)


def test_two_clusters_serve_one_process(settings: FdbSettings, kv: KvEngine, cluster: Cluster) -> None:
    other = open_foundationdb_kv(cluster.file, settings)
    put_all(kv, [(b"here", b"")])
    put_all(other, [(b"there", b"")])

    assert (list(read_all(kv)), list(read_all(other))) == ([b"here"], [b"there"])


def test_a_process_ends_by_itself_with_the_store_open(settings: FdbSettings) -> None:
    script = (
        "from pathlib import Path\nfrom matyan.engines.kv.foundationdb import *\n"
        f"kv = open_foundationdb_kv(Path({str(cluster_file())!r}), FdbSettings(prefix={settings.prefix!r}))\n"
        "kv.write(lambda tx: tx.put(b'a', b''))\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=False, timeout=60
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
