"""Several processes on one store: nothing lost, nothing torn, whoever dies."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from matyan.engines.kv.embedded import EmbeddedKv, open_embedded_kv
from matyan.engines.kv.protocol import KvReader
from tests.support import kv_process
from tests.support.kv import put_all, read_all

SCRIPT = str(Path(kv_process.__file__))


@contextmanager
def process(path: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run tests/support/kv_process.py; kill it at the end, if it still runs."""
    command = [sys.executable, SCRIPT, str(path), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        try:
            yield child
        finally:
            child.kill()


def line_of(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    return child.stdout.readline().strip()


def test_processes_that_increment_one_counter_lose_nothing(tmp_path: Path) -> None:
    with (
        process(tmp_path, "add", "150") as first,
        process(tmp_path, "add", "150") as second,
        process(tmp_path, "add", "150") as third,
    ):
        assert [child.wait(timeout=120) for child in (first, second, third)] == [0, 0, 0]

    kv = open_embedded_kv(tmp_path)
    assert read_all(kv) == {b"count": b"450"}
    kv.close()


def test_versionstamps_rise_over_processes_and_openings(tmp_path: Path) -> None:
    for opening in range(3):
        kv = open_embedded_kv(tmp_path)
        kv.write(lambda tx, n=opening: tx.put_versionstamped(b"v", b"", b"%d" % n))  # type: ignore[misc]  # mypy cannot infer a lambda with a default
        kv.close()

    kv = open_embedded_kv(tmp_path)
    assert list(read_all(kv).values()) == [b"0", b"1", b"2"]
    kv.close()


def _check_stream(kv: EmbeddedKv, acknowledged: int) -> None:
    def look(snapshot: KvReader) -> tuple[int, list[bytes | None], int]:
        number = int(snapshot.get(b"number") or b"0")
        keys = [kv_process.key_of(key_index) for key_index in range(kv_process.KEYS_PER_COMMIT)]
        return number, snapshot.get_many(keys), len(snapshot.scan(b"new/", b"new0", rows_max=10_000))

    number, values, new_rows = kv.read(look)

    assert acknowledged <= number <= acknowledged + 1
    assert values == [kv_process.value_of(number, key_index) for key_index in range(kv_process.KEYS_PER_COMMIT)]
    assert new_rows == number


@pytest.mark.parametrize("durable", [False, True])
def test_a_writer_killed_at_any_moment_leaves_whole_commits(tmp_path: Path, durable: bool) -> None:
    moments = random.Random(20261)
    for _ in range(8):
        with process(tmp_path, "stream", str(durable)) as writer:
            for _ in range(moments.randrange(1, 80)):
                acknowledged = int(line_of(writer))
            writer.kill()
            assert writer.stdout is not None
            acknowledged = max([acknowledged, *map(int, writer.stdout.read().split())])

        kv = open_embedded_kv(tmp_path)
        _check_stream(kv, acknowledged)
        kv.close()


def test_an_open_store_survives_the_death_of_another_process_that_writes(tmp_path: Path) -> None:
    kv = open_embedded_kv(tmp_path)
    for _ in range(4):
        with process(tmp_path, "stream", "False") as writer:
            for _ in range(15):
                acknowledged = int(line_of(writer))
            writer.kill()
            assert writer.stdout is not None
            acknowledged = max([acknowledged, *map(int, writer.stdout.read().split())])

        _check_stream(kv, acknowledged)
        put_all(kv, [(b"mine", b"")])
    kv.close()


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS has no robust locks: see the ADR")
def test_a_writer_killed_inside_its_function_gives_the_lock_back(tmp_path: Path) -> None:
    kv = open_embedded_kv(tmp_path)
    with process(tmp_path, "hold") as holder:
        assert line_of(holder) == "held"
        while_held = read_all(kv)

    put_all(kv, [(b"a", b"1")])

    assert while_held == {}
    assert read_all(kv) == {b"a": b"1"}
    kv.close()


def test_snapshots_of_dead_processes_are_cleared_on_demand_and_at_opening(tmp_path: Path) -> None:
    kv = open_embedded_kv(tmp_path)
    with process(tmp_path, "stare") as alive:
        assert line_of(alive) == "held"
        with process(tmp_path, "stare") as dying:
            assert line_of(dying) == "held"

        assert kv.check_readers() == 1
        assert kv.check_readers() == 0

        with process(tmp_path, "stare") as dying:
            assert line_of(dying) == "held"
        kv.close()
        kv = open_embedded_kv(tmp_path)

        assert kv.check_readers() == 0
        put_all(kv, [(b"a", b"1")])
    kv.close()


FILL_UNDER_A_LIMIT = """
import resource, sys
from pathlib import Path
from matyan.engines.kv.embedded import open_embedded_kv
from matyan.errors import UnavailableError
kv = open_embedded_kv(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, -1))
number = 0
try:
    while True:
        kv.write(lambda tx: tx.put(b"%06d" % number, bytes(50_000)), durable=False)
        number += 1
except UnavailableError as error:
    print(number)
    print(error)
print(kv.read(lambda snapshot: len(snapshot.scan(b"", b"a", rows_max=10_000))))
resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))
for again in (lambda: kv.write(lambda tx: tx.put(b"a", b""), durable=False), kv.sync):
    try:
        again()
    except UnavailableError as error:
        print(error)
"""


def test_a_write_cut_short_loses_no_commit_and_stops_writing_until_the_store_is_opened_again(tmp_path: Path) -> None:
    """A limit on the file's size makes LMDB's write short, which LMDB reports as EIO, as it does a failing disk."""
    answer = subprocess.run(
        [sys.executable, "-c", FILL_UNDER_A_LIMIT, str(tmp_path)], capture_output=True, text=True, check=True
    )
    committed, message, readable, *refusals = answer.stdout.splitlines()

    kv = open_embedded_kv(tmp_path)
    assert int(committed) > 30
    assert "failed, no more is written: check it and restart" in message
    assert readable == committed
    assert refusals == [message, message]
    assert list(read_all(kv)) == [b"%06d" % number for number in range(int(committed))]
    put_all(kv, [(b"a", b"1")])
    kv.close()


OPEN_IN_LITTLE_SPACE = """
import resource, sys
from pathlib import Path
from matyan.engines.kv.embedded import open_embedded_kv
resource.setrlimit(resource.RLIMIT_AS, (8 * 2**30, 8 * 2**30))
kv = open_embedded_kv(Path(sys.argv[1]))
kv.write(lambda tx: tx.put(b"a", b"1"))
print("opened")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux bounds the address space")
def test_a_small_address_space_takes_a_smaller_map(tmp_path: Path) -> None:
    answer = subprocess.run(
        [sys.executable, "-c", OPEN_IN_LITTLE_SPACE, str(tmp_path)], capture_output=True, text=True, check=True
    )

    assert answer.stdout.strip() == "opened"
