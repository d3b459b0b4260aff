"""Acknowledged is kept: logs whose process is killed, or whose disk is full. See tests/support/log_process.py."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from matyan.engines.log.embedded import open_embedded_log
from tests.support import log_process
from tests.support.log_process import SEGMENT_BYTES, make_entry
from tests.support.logs import SECONDS, append, read_all

KILLS = 8


def start(path: Path, seed: int, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, log_process.__file__, str(path), str(seed), *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def run_until_killed(path: Path, seed: int, lines: int) -> dict[int, int]:
    """Kill the process when it has acknowledged so many records; return offset -> number, for all it acknowledged."""
    with start(path, seed) as process:
        assert process.stdout is not None
        said = [process.stdout.readline() for _ in range(lines)]
        process.kill()
        said += process.stdout.readlines()
    return {int(offset): int(number) for offset, number in map(str.split, said)}


@pytest.mark.parametrize("seed", [1])
def test_what_a_killed_process_acknowledged_is_there_once_whole_and_in_order(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    acknowledged: dict[int, tuple[int, int]] = {}
    for kill in range(KILLS):
        found = run_until_killed(tmp_path, kill, chance.choice([1, 5, 40, 150]))
        acknowledged |= {offset: (kill, number) for offset, number in found.items()}

        log = open_embedded_log(tmp_path, partitions=1, segment_bytes=SEGMENT_BYTES)
        records = read_all(log)
        log.close()
        assert [record.offset for record in records] == list(range(len(records)))
        for offset, (life, number) in acknowledged.items():
            assert (records[offset].key, records[offset].value) == make_entry(life, number)
    # Also what was not acknowledged is whole, follows the order of appending, and appears once.
    for record in records:
        life, number = (int(part) for part in record.key.split(b"/"))
        assert (record.key, record.value) == make_entry(life, number)
    keys = [tuple(map(int, record.key.split(b"/"))) for record in records]
    assert keys == sorted(set(keys))


def test_a_file_that_may_not_grow_refuses_keeps_what_it_acknowledged_and_goes_on_later(tmp_path: Path) -> None:
    with start(tmp_path, 7, "200000") as process:
        assert process.stdout is not None
        said: list[str] = []
        while not said or not said[-1].startswith("refused"):
            said.append(process.stdout.readline())
        after = process.stdout.readline()  # the limit is lifted now
        process.kill()
        more = process.stdout.readlines()

    assert "limit on file sizes is reached; free space" in said[-1]
    acknowledged = {int(offset): int(number) for offset, number in map(str.split, [*said[:-1], after, *more])}
    log = open_embedded_log(tmp_path, partitions=1)
    records = read_all(log)
    log.close()
    assert [(record.key, record.value) for record in records[: len(acknowledged)]] == [
        make_entry(7, number) for _, number in sorted(acknowledged.items())
    ]
    refused = make_entry(7, len(said) - 1).key
    assert refused not in {record.key for record in records}


def test_a_second_process_is_told_who_holds_the_log(tmp_path: Path) -> None:
    log = open_embedded_log(tmp_path, partitions=1)
    append(log, b"1")
    with start(tmp_path, 0) as process:
        assert process.wait(SECONDS) != 0
    log.close()

    assert run_until_killed(tmp_path, 0, 1)
