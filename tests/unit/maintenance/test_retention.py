"""The log goes only below what is applied, and a store and a log that do not belong together are refused."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from matyan.engines.kv.embedded import EmbeddedKv, open_embedded_kv
from matyan.engines.log.embedded import open_embedded_log
from matyan.engines.log.protocol import LogEngine, LogEntry, TopicPartition
from matyan.errors import ConfigurationError
from matyan.maintenance.retention import check_continuity, trim_applied
from matyan.store import offsets
from matyan.store.offsets import Applied

TOPIC = "data-ingestion"
PARTITION = TopicPartition(TOPIC, 0)


@pytest.fixture
def kv(tmp_path: Path) -> Iterator[EmbeddedKv]:
    engine = open_embedded_kv(tmp_path / "kv", map_bytes=2**28)
    yield engine
    engine.close()


@pytest.fixture
def log(tmp_path: Path) -> Iterator[LogEngine]:
    engine = open_embedded_log(tmp_path / "log", partitions={TOPIC: 1}, segment_bytes=10_000)
    yield engine
    engine.close()


def fill(log: LogEngine, records: int) -> None:
    for _ in range(records):
        log.producer().append_many(TOPIC, [LogEntry(b"k", b"x" * 1_000)]).result(10)


def advance(kv: EmbeddedKv, log: LogEngine, expected: Applied, to: Applied) -> None:
    kv.write(lambda tx: offsets.advance(tx, log.log_id, PARTITION, expected=expected, to=to))


def test_only_applied_segments_are_deleted(kv: EmbeddedKv, log: LogEngine) -> None:
    fill(log, 100)
    assert trim_applied(kv, log, TOPIC) == 0
    advance(kv, log, offsets.START, Applied(50))

    freed = trim_applied(kv, log, TOPIC)

    assert freed > 20_000
    assert 0 < log.start_offset(PARTITION) <= 50
    check_continuity(kv, log, TOPIC)


def test_the_newest_applied_records_stay_for_other_readers(kv: EmbeddedKv, log: LogEngine) -> None:
    fill(log, 100)
    advance(kv, log, offsets.START, Applied(100))

    trim_applied(kv, log, TOPIC, keep_records=200)
    untouched = log.start_offset(PARTITION)
    trim_applied(kv, log, TOPIC, keep_records=60)

    assert untouched == 0
    assert 0 < log.start_offset(PARTITION) <= 40


def test_a_store_ahead_of_its_log_is_refused(kv: EmbeddedKv, log: LogEngine) -> None:
    fill(log, 3)
    advance(kv, log, offsets.START, Applied(7))

    with pytest.raises(ConfigurationError, match="up to offset 7, the log holds 0 to 3"):
        check_continuity(kv, log, TOPIC)


def test_a_log_whose_unapplied_records_are_gone_is_refused(kv: EmbeddedKv, log: LogEngine) -> None:
    fill(log, 100)
    log.trim(PARTITION, 80)

    with pytest.raises(ConfigurationError, match="up to offset 0"):
        check_continuity(kv, log, TOPIC)
