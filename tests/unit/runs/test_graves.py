"""A hash lives again only after its old files are gone, and freeing never meets the files of the new run."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from matyan.engines.blob.filesystem import FilesystemBlobs, open_filesystem_blobs
from matyan.engines.blob.protocol import always
from matyan.engines.kv.embedded import EmbeddedKv, open_embedded_kv
from matyan.errors import UnavailableError
from matyan.ids import DEFAULT_PROJECT, RunId, RunNumber
from matyan.runs import tombstones
from matyan.runs.graves import Graves
from matyan.runs.model import EditMark
from matyan.runs.tombstones import Tombstone
from matyan.store import leases
from matyan.workers.leases import StoreLeases

RUN: Final = RunId("a")
KEY: Final = "default/a/model.bin"
SECONDS_MAX: Final = 20.0


class SlowBlobs:
    """An object store whose first deletion goes on only when it is let."""

    def __init__(self, blobs: FilesystemBlobs) -> None:
        self._blobs = blobs
        self.asked = threading.Event()
        self.may_go_on = threading.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._blobs, name)

    def delete_prefix(self, prefix: str, *, may_go_on: Callable[[], bool] = always) -> int:
        is_first = not self.asked.is_set()
        self.asked.set()
        if is_first:
            assert self.may_go_on.wait(SECONDS_MAX)
        return self._blobs.delete_prefix(prefix, may_go_on=may_go_on)


@pytest.fixture
def kv(tmp_path: Path) -> Iterator[EmbeddedKv]:
    engine = open_embedded_kv(tmp_path / "kv", map_bytes=2**28)
    stone = Tombstone(mark=EditMark("log", 3), deleted_at_seconds=1.0, number=RunNumber(1))
    engine.write(lambda tx: tombstones.put(tx, DEFAULT_PROJECT, RUN, stone))
    yield engine
    engine.close()


@pytest.fixture
def blobs(tmp_path: Path) -> SlowBlobs:
    store = open_filesystem_blobs(tmp_path / "blobs", keys=[b"s" * 32])
    store.put(KEY, [b"old"], content_type="x")
    return SlowBlobs(store)


def test_clearing_waits_for_the_freeing_that_is_under_way(kv: EmbeddedKv, blobs: SlowBlobs) -> None:
    graves = Graves(kv=kv, blobs=blobs)
    freeing = threading.Thread(target=graves.free_files, args=(DEFAULT_PROJECT, RUN))
    clearing = threading.Thread(target=graves.clear, args=(DEFAULT_PROJECT, RUN, EditMark("log", 9), 2.0))
    freeing.start()
    assert blobs.asked.wait(SECONDS_MAX)
    clearing.start()
    clearing.join(0.2)
    waited = clearing.is_alive()
    blobs.may_go_on.set()
    freeing.join(SECONDS_MAX)
    clearing.join(SECONDS_MAX)
    blobs.put(KEY, [b"new"], content_type="x")

    freed = graves.free_files(DEFAULT_PROJECT, RUN)

    assert waited
    assert freed == 0
    assert blobs.get(KEY) == b"new"


def test_clearing_moves_the_mark_once(kv: EmbeddedKv, blobs: SlowBlobs) -> None:
    graves = Graves(kv=kv, blobs=blobs)
    blobs.may_go_on.set()

    first = graves.clear(DEFAULT_PROJECT, RUN, EditMark("log", 9), 2.0)
    second = graves.clear(DEFAULT_PROJECT, RUN, EditMark("log", 12), 3.0)

    assert (first, second) == (True, False)
    stone = kv.read(lambda reader: tombstones.get(reader, DEFAULT_PROJECT, RUN))
    assert stone is not None
    assert (stone.mark, stone.cleared_at_seconds) == (EditMark("log", 9), 2.0)
    assert blobs.get(KEY) is None


def test_freeing_that_another_process_has_begun_is_left_to_it(kv: EmbeddedKv, blobs: SlowBlobs) -> None:
    ours, theirs = StoreLeases(kv=kv), StoreLeases(kv=kv)
    freeing = threading.Thread(target=Graves(kv=kv, blobs=blobs, leases=theirs).free_files, args=(DEFAULT_PROJECT, RUN))
    freeing.start()
    assert blobs.asked.wait(SECONDS_MAX)

    with pytest.raises(UnavailableError) as refused:
        Graves(kv=kv, blobs=blobs, leases=ours).free_files(DEFAULT_PROJECT, RUN)

    blobs.may_go_on.set()
    freeing.join(SECONDS_MAX)
    assert "the deleted run a are being freed by another process; try again in some seconds" in refused.value.message
    assert blobs.get(KEY) is None
    assert kv.read(lambda reader: leases.get(reader, "grave/default/a")) is None, "nothing is left of the lease"
    ours.close()
    theirs.close()


def test_whoever_slept_while_freeing_does_not_meet_the_files_of_the_new_run(kv: EmbeddedKv, blobs: SlowBlobs) -> None:
    asleep, awake = StoreLeases(kv=kv, seconds=0.2), StoreLeases(kv=kv, seconds=5)
    refusals: list[UnavailableError] = []

    def free() -> None:
        try:
            Graves(kv=kv, blobs=blobs, leases=asleep).free_files(DEFAULT_PROJECT, RUN)
        except UnavailableError as error:
            refusals.append(error)

    freeing = threading.Thread(target=free)
    freeing.start()
    assert blobs.asked.wait(SECONDS_MAX)
    asleep.close()  # as if the process were stopped: nothing is renewed any more
    cleared = Graves(kv=kv, blobs=blobs, leases=awake).clear(DEFAULT_PROJECT, RUN, EditMark("log", 9), 2.0)
    blobs.put(KEY, [b"new"], content_type="x")
    blobs.may_go_on.set()
    freeing.join(SECONDS_MAX)

    assert cleared
    assert blobs.get(KEY) == b"new"
    assert len(refusals) == 1
    awake.close()


def test_clearing_that_lost_its_lease_on_the_way_clears_nothing(kv: EmbeddedKv, blobs: SlowBlobs) -> None:
    asleep, awake = StoreLeases(kv=kv, seconds=0.2), StoreLeases(kv=kv, seconds=5)
    refusals: list[UnavailableError] = []

    def clear() -> None:
        try:
            Graves(kv=kv, blobs=blobs, leases=asleep).clear(DEFAULT_PROJECT, RUN, EditMark("log", 9), 2.0)
        except UnavailableError as error:
            refusals.append(error)

    clearing = threading.Thread(target=clear)
    clearing.start()
    assert blobs.asked.wait(SECONDS_MAX)
    asleep.close()
    with awake.holding("grave/default/a", wait_seconds=SECONDS_MAX):
        blobs.may_go_on.set()
        clearing.join(SECONDS_MAX)

    stone = kv.read(lambda reader: tombstones.get(reader, DEFAULT_PROJECT, RUN))
    assert stone is not None
    assert not stone.is_cleared
    assert len(refusals) == 1
    awake.close()


@pytest.mark.parametrize(
    ("cleared", "log_id", "offset", "is_dead"),
    [
        (False, "log", 0, True),
        (False, "log", 99, True),
        (False, "other", 0, True),
        (True, "log", 2, True),
        (True, "log", 3, False),
        (True, "other", 0, False),
    ],
)
def test_a_tombstone_buries_all_until_cleared_and_then_what_is_older(
    log_id: str, offset: int, *, cleared: bool, is_dead: bool
) -> None:
    stone = Tombstone(
        mark=EditMark("log", 3),
        deleted_at_seconds=1.0,
        number=RunNumber(1),
        cleared_at_seconds=2.0 if cleared else None,
    )

    assert stone.buries(log_id, offset) is is_dead
