"""Several processes at one store: leases pass on, events are told at least once, freeing goes on where it was."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import pytest

from matyan.clock import SystemClock
from matyan.engines.blob.filesystem import open_filesystem_blobs
from matyan.engines.kv.embedded import EmbeddedKv, open_embedded_kv
from matyan.engines.log.embedded import open_embedded_log
from matyan.engines.log.protocol import LogEngine, TopicPartition
from matyan.ids import DEFAULT_PROJECT, RunId, RunNumber
from matyan.maintenance.deletion import Deletions
from matyan.observe.metrics import Metrics
from matyan.runs.changes import RunChanges
from matyan.runs.graves import Graves
from matyan.runs.model import EditMark
from matyan.store import keyspace, outbox
from matyan.wire.events import decode_event
from matyan.wire.topics import CONTROL_EVENTS, OUTBOX_TOPICS
from matyan.workers.relay import OutboxRelay
from tests.support.control_process import BLOB_KEYS, LEASE, make_leases, read_counter
from tests.support.kv import read_all
from tests.support.store import make_metric, make_objects, make_run

pytestmark = pytest.mark.one_python

SECONDS_MAX = 30.0
SCRIPT = Path(__file__).parents[1] / "support" / "control_process.py"


@pytest.fixture
def kv(tmp_path: Path) -> Iterator[EmbeddedKv]:
    engine = open_embedded_kv(tmp_path / "kv")
    yield engine
    engine.close()


@contextlib.contextmanager
def process(path: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run the script; it is killed at the end of the block."""
    command = [sys.executable, "-m", "tests.support.control_process", str(path), *arguments]
    with subprocess.Popen(
        command, cwd=SCRIPT.parents[2], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as running:
        try:
            yield running
        finally:
            running.kill()


def said(running: subprocess.Popen[str]) -> str:
    """Return the next line that a process says."""
    assert running.stdout is not None
    return running.stdout.readline().strip()


def tell(running: subprocess.Popen[str]) -> str:
    """Have the holder write; return what became of it."""
    stdin: IO[str] | None = running.stdin
    assert stdin is not None
    stdin.write("\n")
    stdin.flush()
    return said(running)


def changes(kv: EmbeddedKv, graves: Graves) -> RunChanges:
    return RunChanges(kv=kv, graves=graves, mark_of=lambda *_: EditMark("log", 7))


def told(log: LogEngine) -> list[str]:
    """Return the ids of all events in the topic."""
    partition = TopicPartition(CONTROL_EVENTS, 0)
    consumer = log.consumer(CONTROL_EVENTS, "test", lambda _: None)
    found = consumer.poll(records_max=1000, timeout_seconds=5).get(partition, [])
    consumer.close()
    return [decode_event(record.value).id for record in found]


def test_processes_that_fight_for_a_lease_are_never_two_inside(tmp_path: Path, kv: EmbeddedKv) -> None:
    with contextlib.ExitStack() as stack:
        fighters = [stack.enter_context(process(tmp_path, "count", "25")) for _ in range(4)]
        for fighter in fighters:
            assert fighter.wait(SECONDS_MAX) == 0

    assert read_counter(kv) == 100


def test_a_killed_holder_is_replaced_when_its_lease_has_expired(tmp_path: Path, kv: EmbeddedKv) -> None:
    leases = make_leases(kv)
    with process(tmp_path, "hold") as holder:
        assert said(holder) == "held"
        assert tell(holder) == "written"
        assert leases.acquire(LEASE) is None
        holder.kill()
        holder.wait(SECONDS_MAX)

        with leases.holding(LEASE, wait_seconds=SECONDS_MAX) as lease:
            kv.write(lease.require)

    leases.close()


def test_a_holder_that_is_stopped_and_wakes_writes_nothing(tmp_path: Path, kv: EmbeddedKv) -> None:
    leases = make_leases(kv)
    with process(tmp_path, "hold") as holder:
        assert said(holder) == "held"
        holder.send_signal(signal.SIGSTOP)
        with leases.holding(LEASE, wait_seconds=SECONDS_MAX):
            holder.send_signal(signal.SIGCONT)
            while_held = tell(holder)
        after = tell(holder)

    assert (while_held, after) == ("lost", "lost")
    assert read_counter(kv) == 0
    leases.close()


def test_a_relay_killed_between_append_and_clear_tells_twice_and_never_not(tmp_path: Path, kv: EmbeddedKv) -> None:
    runs = [RunId(f"r{number}") for number in range(3)]
    for run in runs:
        make_run(kv, run)
    blobs = open_filesystem_blobs(tmp_path / "blobs", keys=BLOB_KEYS)
    changes(kv, Graves(kv=kv, blobs=blobs)).delete_many(runs)
    waiting = kv.read(lambda reader: outbox.read(reader, CONTROL_EVENTS, rows_max=10))
    ids = [decode_event(one.entry.value).id for one in waiting]
    with process(tmp_path, "relay") as relay:
        assert said(relay) == "appended"
        relay.kill()
        relay.wait(SECONDS_MAX)

    log = open_embedded_log(tmp_path / "log", partitions=1)
    once = told(log)
    relay_until_empty(kv, log)
    twice = told(log)
    log.close()

    assert once == ids
    assert twice == ids * 2


def relay_until_empty(kv: EmbeddedKv, log: LogEngine) -> None:
    leases, stop = make_leases(kv), threading.Event()
    relay = OutboxRelay(kv=kv, producer=log.producer(), leases=leases, topics=OUTBOX_TOPICS, metrics=Metrics())
    thread = threading.Thread(target=relay.run, args=(stop,))
    thread.start()
    ends = time.monotonic() + SECONDS_MAX
    while kv.read(lambda reader: outbox.read_backlog(reader, CONTROL_EVENTS)).entries and time.monotonic() < ends:
        time.sleep(0.01)
    stop.set()
    thread.join(SECONDS_MAX)
    leases.close()


@pytest.mark.parametrize("commits", [1, 2, 4, 5])
def test_freeing_that_is_killed_in_the_middle_is_ended_by_another(tmp_path: Path, kv: EmbeddedKv, commits: int) -> None:
    leases = make_leases(kv)
    blobs = open_filesystem_blobs(tmp_path / "blobs", keys=BLOB_KEYS)
    graves = Graves(kv=kv, blobs=blobs, leases=leases)
    make_run(kv, "other")
    empty = stored_bytes(kv)
    number = make_run(kv, "a")
    make_metric(kv, number, "loss", list(range(5000)))
    make_objects(kv, number, "text", "samples", [{"type": "text", "data": "x" * 50}] * 1500)
    blobs.put("default/a/model.bin", [b"x" * 100_000], content_type="x")
    full = stored_bytes(kv)
    changes(kv, graves).delete(RunId("a"))
    with process(tmp_path, "free", str(commits)) as worker:
        assert said(worker) == "freeing"
        worker.kill()
        worker.wait(SECONDS_MAX)
    assert list(blobs.list("")), "it did not come to the files"

    with leases.holding("grave/default/a", wait_seconds=SECONDS_MAX, forget=True):
        pass  # at the last commit the dead one held it
    free(Deletions(kv=kv, graves=graves, clock=SystemClock()))

    assert list(blobs.list("")) == []
    assert stored_bytes(kv) - empty < 0.05 * (full - empty)
    blobs.close()
    leases.close()


def test_two_that_free_the_same_at_once_do_no_harm(tmp_path: Path, kv: EmbeddedKv) -> None:
    blobs = open_filesystem_blobs(tmp_path / "blobs", keys=BLOB_KEYS)
    workers = [make_leases(kv) for _ in range(2)]
    runs = [RunId(f"r{number}") for number in range(20)]
    for run in runs:
        number = make_run(kv, run)
        make_objects(kv, number, "text", "samples", [{"type": "text", "data": "x"}] * 50)
        blobs.put(f"default/{run}/model.bin", [b"x"], content_type="x")
    changes(kv, Graves(kv=kv, blobs=blobs, leases=workers[0])).delete_many(runs)

    jobs = [Deletions(kv=kv, graves=Graves(kv=kv, blobs=blobs, leases=one), clock=SystemClock()) for one in workers]
    threads = [threading.Thread(target=free, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS_MAX)

    assert list(blobs.list("")) == []
    assert not any(left_of(kv, numbers=range(1, len(runs) + 1)))
    for one in workers:
        one.close()
    blobs.close()


def free(job: Deletions) -> None:
    job.free_due(DEFAULT_PROJECT, seconds_max=SECONDS_MAX)


def left_of(kv: EmbeddedKv, *, numbers: Sequence[int]) -> Iterator[bytes]:
    """Yield the keys of what runs contain."""
    rows = read_all(kv)
    for number in numbers:
        for begin, end in keyspace.run_contents(DEFAULT_PROJECT, RunNumber(number)):
            yield from (key for key in rows if begin <= key < end)


def stored_bytes(kv: EmbeddedKv) -> int:
    """Return what the store holds, but for the outbox: the relay empties that."""
    waiting = {one.place for one in kv.read(lambda reader: outbox.read(reader, CONTROL_EVENTS, rows_max=1000))}
    return sum(len(key) + len(value) for key, value in read_all(kv).items() if key not in waiting)
