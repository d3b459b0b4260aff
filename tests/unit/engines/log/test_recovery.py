"""Opening after a crash or damage: torn tails are cut, damaged records that were durable are a loud refusal."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from matyan.engines.disk import Disk
from matyan.engines.log.embedded import open_embedded_log
from matyan.engines.log.protocol import LogEntry
from matyan.engines.log.segments import SEGMENT_HEADER_BYTES
from matyan.errors import CorruptedError
from tests.support.logs import SECONDS, TOPIC, append, read_all, values_of

PAGE_BYTES = 4096


class Written:
    """A closed log with one segment, and where each group begins in it."""

    def __init__(self, root: Path, groups: Sequence[Sequence[bytes]]) -> None:
        self.root = root
        self.begins = [SEGMENT_HEADER_BYTES]
        log = open_embedded_log(root, partitions={TOPIC: 1})
        self.segment = root / f"{TOPIC}-0" / f"{0:020d}.log"
        for group in groups:
            append(log, *group)
            self.begins.append(self.segment.stat().st_size)
        log.close()
        self.content = self.segment.read_bytes()

    def reopen(self, content: bytes) -> list[bytes]:
        """Return the values found when the segment holds `content`, after one more append."""
        self.segment.write_bytes(content)
        log = open_embedded_log(self.root, partitions=1)
        try:
            append(log, b"more")
            return values_of(read_all(log))
        finally:
            log.close()


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Written]:
    return lambda *groups: Written(tmp_path / "log", groups)


def test_a_tail_torn_at_any_byte_of_the_last_record_costs_that_record_only(write: Callable[..., Written]) -> None:
    log = write([b"1"], [b"2"], [b"3" * 40])

    for end in range(log.begins[2], log.begins[3]):
        assert log.reopen(log.content[:end]) == [b"1", b"2", b"more"]
    assert log.reopen(log.content) == [b"1", b"2", b"3" * 40, b"more"]


def test_any_changed_byte_of_the_last_record_costs_that_record_only(write: Callable[..., Written]) -> None:
    log = write([b"1"], [b"2" * 10])

    for at in range(log.begins[1], log.begins[2]):
        changed = bytearray(log.content)
        changed[at] ^= 0x40
        assert log.reopen(bytes(changed)) == [b"1", b"more"]


@pytest.mark.parametrize("tail", [bytes(5000), b"\xff" * 100, b"\xd7mR\x01" * 50], ids=["zeros", "ones", "magics"])
def test_garbage_behind_the_last_record_is_cut(write: Callable[..., Written], tail: bytes) -> None:
    log = write([b"1"], [b"2"])

    assert log.reopen(log.content + tail) == [b"1", b"2", b"more"]


@pytest.mark.parametrize("seed", range(20))
def test_a_power_loss_that_kept_some_pages_of_the_last_group_keeps_all_groups_before(
    write: Callable[..., Written], seed: int
) -> None:
    # Pages of one unsynced write reach the disk in any order: a hole with whole records behind it is no damage.
    chance = random.Random(seed)
    durable = [chance.randbytes(chance.randrange(9000)) for _ in range(5)]
    last = [chance.randbytes(chance.randrange(3000)) for _ in range(30)]
    log = write(*([value] for value in durable), last)
    content = bytearray(log.content)
    synced = log.begins[-2]
    for begin in range(synced - synced % PAGE_BYTES, len(content), PAGE_BYTES):
        if chance.random() < 0.3:
            lost = slice(max(begin, synced), min(begin + PAGE_BYTES, len(content)))
            content[lost] = bytes(lost.stop - lost.start)

    found = log.reopen(bytes(content))

    assert found[:5] == durable
    assert found[5:-1] == last[: len(found) - 6]


def test_damage_before_a_later_group_is_refused_with_its_position(write: Callable[..., Written]) -> None:
    log = write([b"1"], [b"2" * 100], [b"3"])
    changed = bytearray(log.content)
    changed[log.begins[1] + 50] ^= 1

    with pytest.raises(CorruptedError, match=f"damaged at byte {log.begins[1]}: offset 1 is not readable"):
        log.reopen(bytes(changed))
    assert log.segment.read_bytes() == changed  # nothing was cut


def test_a_torn_header_of_a_fresh_segment_is_written_again(write: Callable[..., Written]) -> None:
    log = write()

    for end in range(SEGMENT_HEADER_BYTES):
        assert log.reopen(log.content[:end]) == [b"more"]


def test_a_damaged_header_before_records_is_refused(write: Callable[..., Written]) -> None:
    log = write([b"1"])

    with pytest.raises(CorruptedError, match="damaged at byte 0"):
        log.reopen(b"X" + log.content[1:])


def test_a_segment_of_another_log_is_refused(write: Callable[..., Written], tmp_path: Path) -> None:
    log = write([b"1"])
    other = Written(tmp_path / "other", [[b"2"]])

    with pytest.raises(CorruptedError, match="belongs to another log"):
        log.reopen(other.content)


def test_records_of_another_log_behind_the_end_are_garbage(write: Callable[..., Written], tmp_path: Path) -> None:
    log = write([b"1"])
    other = Written(tmp_path / "other", [[b"1"], [b"2"], [b"3"]])

    assert log.reopen(log.content + other.content[other.begins[1] :]) == [b"1", b"more"]


def make_segments(root: Path) -> list[Path]:
    log = open_embedded_log(root, partitions=1, segment_bytes=500, tail_bytes_max=0)
    for _ in range(10):
        append(log, b"x" * 400)
    log.close()
    return sorted((root / f"{TOPIC}-0").iterdir())


@pytest.mark.parametrize("at", [SEGMENT_HEADER_BYTES, 300, -1])
def test_damage_in_an_old_segment_is_found_when_it_is_read(tmp_path: Path, at: int) -> None:
    segment = make_segments(tmp_path)[2]
    content = bytearray(segment.read_bytes())
    content[at] ^= 1
    segment.write_bytes(content)
    log = open_embedded_log(tmp_path, partitions=1)

    with pytest.raises(CorruptedError, match=f"{segment.name} is damaged"):
        read_all(log)
    log.close()


def test_a_missing_or_short_old_segment_is_found_when_it_is_read(tmp_path: Path) -> None:
    segments = make_segments(tmp_path)
    segments[1].unlink()
    segments[3].write_bytes(segments[3].read_bytes()[:-1])
    log = open_embedded_log(tmp_path, partitions=1)

    with pytest.raises(CorruptedError, match="is damaged"):
        read_all(log)
    with pytest.raises(CorruptedError, match=f"{segments[3].name} is damaged"):
        read_all(log, begin=int(segments[3].stem))
    log.close()


def test_other_files_in_the_directory_are_left_alone(tmp_path: Path) -> None:
    directory = make_segments(tmp_path)[0].parent
    (directory / "notes.log").write_text("mine")
    log = open_embedded_log(tmp_path, partitions=1)

    assert len(read_all(log)) == 10
    assert (directory / "notes.log").read_text() == "mine"
    log.close()


class SyncedOnly(Disk):
    """Keeps, beside the log, what a loss of power at the last sync would have left."""

    def __init__(self, root: Path, copy: Path) -> None:
        self._root, self._copy = root, copy

    def sync(self, fd: int) -> None:
        """Sync, and remember the moment."""
        super().sync(fd)
        shutil.rmtree(self._copy, ignore_errors=True)
        shutil.copytree(self._root, self._copy)


def test_what_is_acknowledged_was_in_the_file_at_its_sync(tmp_path: Path) -> None:
    root, copy = tmp_path / "log", tmp_path / "copy"
    log = open_embedded_log(root, partitions=1, segment_bytes=300, disk=SyncedOnly(root, copy))
    producer = log.producer()
    for number in range(20):
        producer.append_many(TOPIC, [LogEntry(b"k", b"%d" % number * 50)]).result(SECONDS)
        found = open_embedded_log(copy, partitions=1)
        assert len(read_all(found)) == number + 1
        found.close()
    log.close()
