"""What is put into the outbox is read back in the order of commits, and only what was committed."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matyan.engines.kv.embedded import EmbeddedKv
from matyan.engines.kv.protocol import KvEngine, KvTransaction
from matyan.errors import TooLargeError
from matyan.limits import VALUE_BYTES_MAX
from matyan.store import outbox
from matyan.store.outbox import Backlog, OutboxEntry

TOPIC = "events"


def put(kv: KvEngine, *values: bytes, topic: str = TOPIC, time_ms: int = 1) -> None:
    """Commit some entries in one transaction."""

    def write(tx: KvTransaction) -> None:
        for number, value in enumerate(values):
            entry = OutboxEntry(time_ms=time_ms, key=b"k", value=value)
            outbox.put(tx, topic, entry, name=number.to_bytes(2, "big"))

    kv.write(write, durable=False)


def values(kv: KvEngine, topic: str = TOPIC) -> list[bytes]:
    return [one.entry.value for one in kv.read(lambda reader: outbox.read(reader, topic, rows_max=1000))]


@settings(deadline=None)  # it writes to a disk
@given(transactions=st.lists(st.lists(st.binary(max_size=20), max_size=4), max_size=6))
def test_entries_come_in_the_order_of_commits_and_within_one_by_name(
    engine: EmbeddedKv, transactions: Sequence[Sequence[bytes]]
) -> None:
    engine.write(lambda tx: tx.clear_range(b"", b"\xff"), durable=False)
    for one in transactions:
        put(engine, *one)

    assert values(engine) == [value for one in transactions for value in one]


def test_what_was_not_committed_was_never_put(kv: KvEngine) -> None:
    def fail(tx: KvTransaction) -> None:
        outbox.put(tx, TOPIC, OutboxEntry(time_ms=1, key=b"k", value=b"v"), name=b"")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        kv.write(fail)

    assert values(kv) == []


def test_topics_do_not_meet_though_one_name_begins_the_other(kv: KvEngine) -> None:
    put(kv, b"a", topic="events")
    put(kv, b"b", topic="events-dead")
    put(kv, b"c", topic="events\x00")

    assert [values(kv, topic) for topic in ("events", "events-dead", "events\x00")] == [[b"a"], [b"b"], [b"c"]]


def test_cleared_entries_are_gone_and_the_others_stay_in_order(kv: KvEngine) -> None:
    put(kv, b"a", b"b")
    put(kv, b"c")
    first = kv.read(lambda reader: outbox.read(reader, TOPIC, rows_max=2))

    for _ in range(2):  # again does no harm
        kv.write(lambda tx: outbox.clear(tx, [one.place for one in first]))

    assert [one.entry.value for one in first] == [b"a", b"b"]
    assert values(kv) == [b"c"]


def test_the_backlog_counts_and_knows_the_oldest(kv: KvEngine) -> None:
    put(kv, b"a", time_ms=5)
    put(kv, b"b", b"c", time_ms=3)

    found = [kv.read(lambda reader: outbox.read_backlog(reader, topic)) for topic in (TOPIC, "other")]  # noqa: B023

    assert found == [Backlog(3, 5), Backlog(0, None)]


def test_the_backlog_reads_no_more_than_a_hundred_entries(kv: KvEngine) -> None:
    put(kv, *[b"a"] * 150, time_ms=5)

    assert kv.read(lambda reader: outbox.read_backlog(reader, TOPIC)) == Backlog(100, 5)


def test_an_entry_too_large_for_a_value_is_refused(kv: KvEngine) -> None:
    with pytest.raises(TooLargeError):
        put(kv, bytes(VALUE_BYTES_MAX))

    assert values(kv) == []
