"""Limits of the key-value port, each tried at its exact boundary."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from matyan.engines.kv.protocol import KeyRange, KvEngine, KvTransaction
from matyan.errors import InvalidArgumentError, TooLargeError
from matyan.limits import KEY_BYTES_MAX, TRANSACTION_BYTES_MAX, VALUE_BYTES_MAX
from tests.support.kv import put_all, read_all


def test_the_longest_key_and_value_are_accepted(kv: KvEngine) -> None:
    key, value = b"k" * KEY_BYTES_MAX, b"v" * VALUE_BYTES_MAX

    put_all(kv, [(key, value)])

    assert kv.read(lambda snapshot: snapshot.get(key)) == value
    kv.write(lambda tx: tx.clear(key))
    assert read_all(kv) == {}


@pytest.mark.parametrize(
    ("change", "limit"),
    [
        (lambda tx: tx.put(b"k" * (KEY_BYTES_MAX + 1), b""), KEY_BYTES_MAX),
        (lambda tx: tx.clear(b"k" * (KEY_BYTES_MAX + 1)), KEY_BYTES_MAX),
        (lambda tx: tx.add(b"k" * (KEY_BYTES_MAX + 1), 1), KEY_BYTES_MAX),
        (lambda tx: tx.put_versionstamped(b"k" * (KEY_BYTES_MAX - 10), b"s", b""), KEY_BYTES_MAX),
        (lambda tx: tx.put(b"k", bytes(VALUE_BYTES_MAX + 1)), VALUE_BYTES_MAX),
        (lambda tx: tx.put_versionstamped(b"k", b"", bytes(VALUE_BYTES_MAX + 1)), VALUE_BYTES_MAX),
    ],
    ids=["put-key", "clear-key", "add-key", "versionstamped-key", "put-value", "versionstamped-value"],
)
def test_one_byte_too_many_is_refused_and_nothing_is_written(
    kv: KvEngine, change: Callable[[KvTransaction], None], limit: int
) -> None:
    def write_and_pass_the_limit(tx: KvTransaction) -> None:
        tx.put(b"a", b"")
        change(tx)

    with pytest.raises(TooLargeError, match=f"has {limit + 1} bytes, limit {limit}"):
        kv.write(write_and_pass_the_limit)
    assert read_all(kv) == {}


def test_the_longest_versionstamped_key_is_accepted(kv: KvEngine) -> None:
    kv.write(lambda tx: tx.put_versionstamped(b"k" * (KEY_BYTES_MAX - 11), b"s", b"v"))

    assert [len(key) for key in read_all(kv)] == [KEY_BYTES_MAX]


def test_a_transaction_holds_exactly_its_limit_in_keys_and_values(kv: KvEngine) -> None:
    value = bytes(VALUE_BYTES_MAX - 3)  # with its key of three bytes, a hundredth of a transaction

    put_all(kv, [(b"%03d" % number, value) for number in range(100)])

    assert TRANSACTION_BYTES_MAX == 100 * VALUE_BYTES_MAX
    assert len(read_all(kv)) == 100


@pytest.mark.parametrize(
    "change",
    [
        lambda tx: tx.put(b"x", b""),
        lambda tx: tx.clear(b"x"),
        lambda tx: tx.clear_range(b"x", b""),
        lambda tx: tx.add(b"x", 1),
        lambda tx: tx.put_versionstamped(b"x", b"", b""),
        lambda tx: tx.put(b"000", b""),
    ],
    ids=["put", "clear", "clear_range", "add", "put_versionstamped", "put-again"],
)
@pytest.mark.parametrize("is_flushed", [False, True])
def test_a_full_transaction_refuses_every_further_write(
    kv: KvEngine,
    change: Callable[[KvTransaction], None],
    is_flushed: bool,
) -> None:
    value = bytes(VALUE_BYTES_MAX - 3)

    def fill_and_go_on(tx: KvTransaction) -> None:
        for number in range(100):
            tx.put(b"%03d" % number, value)
        if is_flushed:
            tx.scan(b"x", b"z", rows_max=1)
        change(tx)

    with pytest.raises(TooLargeError, match=f"limit {TRANSACTION_BYTES_MAX}"):
        kv.write(fill_and_go_on, durable=False)
    assert kv.read(lambda snapshot: snapshot.scan(b"", b"\xff", rows_max=1)) == []


def test_clearing_a_big_range_costs_only_its_bounds(kv: KvEngine) -> None:
    for part in range(2):
        put_all(kv, [(b"%d/%03d" % (part, number), bytes(90_000)) for number in range(90)])

    kv.write(lambda tx: tx.clear_range(b"", b"\xff"), durable=False)

    assert read_all(kv) == {}


@pytest.mark.parametrize("key", [b"", b"\xff", b"\xff\x01"])
@pytest.mark.parametrize("write", ["put", "clear", "add"])
def test_the_empty_key_and_keys_from_0xff_on_are_refused(kv: KvEngine, write: str, key: bytes) -> None:
    changes: dict[str, Callable[[KvTransaction], None]] = {
        "put": lambda tx: tx.put(key, b""),
        "clear": lambda tx: tx.clear(key),
        "add": lambda tx: tx.add(key, 1),
    }

    with pytest.raises(InvalidArgumentError, match="must not be empty or begin with 0xff"):
        kv.write(changes[write])


@pytest.mark.parametrize(
    "change",
    [
        lambda tx: tx.clear_range(b"a", b"\xff\x00"),
        lambda tx: tx.scan(b"a", b"\xff\x00", rows_max=1),
        lambda tx: tx.scan_many([KeyRange(b"a", b"b"), KeyRange(b"a", b"\xff\x00")], rows_max=1),
    ],
    ids=["clear_range", "scan", "scan_many"],
)
def test_a_range_past_0xff_is_refused(kv: KvEngine, change: Callable[[KvTransaction], object]) -> None:
    with pytest.raises(InvalidArgumentError, match="lies above"):
        kv.write(change)
