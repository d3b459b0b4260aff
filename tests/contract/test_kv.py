"""What every key-value engine promises: a test per sentence of matyan/engines/kv/protocol.py."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

import pytest

from matyan.engines.kv.protocol import KeyRange, KvEngine, KvReader, KvTransaction, Pair
from matyan.errors import InvalidArgumentError
from matyan.limits import KEY_BYTES_MAX, SCAN_ROWS_MAX
from tests.support.kv import counter_of, put_all, read_all


class _StopError(Exception):
    pass


def keys_of(rows: Iterable[Pair]) -> list[bytes]:
    return [key for key, _ in rows]


def get(kv: KvEngine, key: bytes) -> bytes | None:
    return kv.read(lambda snapshot: snapshot.get(key))


# ---- reading


def test_get_returns_the_value_and_none_when_missing(kv: KvEngine) -> None:
    put_all(kv, [(b"a", b"1"), (b"empty", b"")])

    assert get(kv, b"a") == b"1"
    assert get(kv, b"empty") == b""
    assert get(kv, b"b") is None


@pytest.mark.parametrize("key", [b"", b"k" * (KEY_BYTES_MAX + 1), b"k" * 5_000], ids=["empty", "501", "5000"])
def test_a_key_that_cannot_be_stored_is_missing(kv: KvEngine, key: bytes) -> None:
    put_all(kv, [(b"a", b"1")])

    found = kv.read(lambda snapshot: (snapshot.get(key), snapshot.get_many([key, b"a"])))

    assert found == (None, [None, b"1"])


def test_get_many_answers_in_the_order_asked_with_repeats_and_gaps(kv: KvEngine) -> None:
    put_all(kv, [(b"a", b"1"), (b"b", b"2"), (b"c", b"3")])

    found = kv.read(lambda snapshot: snapshot.get_many([b"c", b"x", b"a", b"c"]))

    assert found == [b"3", None, b"1", b"3"]
    assert kv.read(lambda snapshot: snapshot.get_many([])) == []


def test_scan_is_half_open_and_ordered(kv: KvEngine) -> None:
    put_all(kv, [(b"c", b"3"), (b"a", b"1"), (b"b", b"2")])

    found = kv.read(lambda snapshot: snapshot.scan(b"a", b"c", rows_max=10))

    assert found == [(b"a", b"1"), (b"b", b"2")]


def test_keys_are_ordered_as_unsigned_bytes(kv: KvEngine) -> None:
    keys = [b"\x00", b"\x00\x00", b"\x00\xff", b"\x01", b"\x7f", b"\x80", b"\xfe", b"\xfe\xff" * 250]
    put_all(kv, [(key, b"") for key in reversed(keys)])

    assert keys_of(kv.read(lambda snapshot: snapshot.scan(b"", b"\xff", rows_max=100))) == keys


def test_scan_in_reverse_is_descending_over_the_same_range(kv: KvEngine) -> None:
    put_all(kv, [(key, b"") for key in (b"a", b"b", b"c", b"d")])

    def scans(snapshot: KvReader) -> list[list[bytes]]:
        ranges = [(b"b", b"d"), (b"", b"c"), (b"b", b"z"), (b"", b"a"), (b"bb", b"cc")]
        return [keys_of(snapshot.scan(begin, end, rows_max=10, reverse=True)) for begin, end in ranges]

    assert kv.read(scans) == [[b"c", b"b"], [b"b", b"a"], [b"d", b"c", b"b"], [], [b"c"]]


@pytest.mark.parametrize(("begin", "end"), [(b"b", b"b"), (b"c", b"a"), (b"x", b"z"), (b"", b""), (b"aa", b"ab")])
@pytest.mark.parametrize("reverse", [False, True])
def test_an_empty_range_has_no_rows(kv: KvEngine, begin: bytes, end: bytes, reverse: bool) -> None:
    put_all(kv, [(key, b"") for key in (b"a", b"b", b"c")])

    assert kv.read(lambda snapshot: snapshot.scan(begin, end, rows_max=10, reverse=reverse)) == []


@pytest.mark.parametrize("reverse", [False, True])
def test_scan_of_an_empty_store_has_no_rows(kv: KvEngine, reverse: bool) -> None:
    assert kv.read(lambda snapshot: snapshot.scan(b"", b"\xff", rows_max=10, reverse=reverse)) == []


def test_scan_takes_bounds_longer_than_any_key(kv: KvEngine) -> None:
    longest = b"m" * KEY_BYTES_MAX
    put_all(kv, [(b"a", b""), (longest, b""), (b"z", b"")])
    bound = longest + b"m" * 1_000

    def scans(snapshot: KvReader) -> list[list[bytes]]:
        return [
            keys_of(snapshot.scan(bound, b"\xff", rows_max=9)),
            keys_of(snapshot.scan(b"", bound, rows_max=9)),
            keys_of(snapshot.scan(b"", bound, rows_max=9, reverse=True)),
        ]

    assert kv.read(scans) == [[b"z"], [b"a", longest], [longest, b"a"]]


def test_scan_stops_at_rows_max_on_the_side_where_it_began(kv: KvEngine) -> None:
    put_all(kv, [(b"%d" % number, b"") for number in range(9)])

    def scans(snapshot: KvReader) -> tuple[list[bytes], list[bytes]]:
        first = snapshot.scan(b"2", b"8", rows_max=2)
        last = snapshot.scan(b"2", b"8", rows_max=2, reverse=True)
        return keys_of(first), keys_of(last)

    assert kv.read(scans) == ([b"2", b"3"], [b"7", b"6"])


def test_a_scan_continues_after_its_last_key(kv: KvEngine) -> None:
    put_all(kv, [(b"k%05d" % number, b"v") for number in range(SCAN_ROWS_MAX + 7)])

    first = kv.read(lambda snapshot: snapshot.scan(b"", b"\xff", rows_max=SCAN_ROWS_MAX))
    rest = kv.read(lambda snapshot: snapshot.scan(first[-1][0] + b"\x00", b"\xff", rows_max=SCAN_ROWS_MAX))

    assert len(first) == SCAN_ROWS_MAX
    assert keys_of(rest) == [b"k%05d" % number for number in range(SCAN_ROWS_MAX, SCAN_ROWS_MAX + 7)]


@pytest.mark.parametrize("rows_max", [0, -1, SCAN_ROWS_MAX + 1])
def test_scan_refuses_a_row_limit_out_of_bounds(kv: KvEngine, rows_max: int) -> None:
    with pytest.raises(InvalidArgumentError, match=str(rows_max)):
        kv.read(lambda snapshot: snapshot.scan(b"", b"z", rows_max=rows_max))
    with pytest.raises(InvalidArgumentError, match=str(rows_max)):
        kv.read(lambda snapshot: snapshot.scan_many([KeyRange(b"", b"z")], rows_max=rows_max))


def test_scan_many_scans_each_range_with_its_own_row_limit(kv: KvEngine) -> None:
    put_all(kv, [(b"%d" % number, b"v") for number in range(9)])
    ranges = [KeyRange(b"6", b"z"), KeyRange(b"x", b"z"), KeyRange(b"0", b"2"), KeyRange(b"1", b"9")]

    found = kv.read(lambda snapshot: snapshot.scan_many(ranges, rows_max=3))

    assert [keys_of(rows) for rows in found] == [[b"6", b"7", b"8"], [], [b"0", b"1"], [b"1", b"2", b"3"]]
    assert kv.read(lambda snapshot: snapshot.scan_many([], rows_max=3)) == []


def test_a_snapshot_sees_every_commit_made_before_it(kv: KvEngine) -> None:
    for number in range(20):
        put_all(kv, [(b"a", b"%d" % number)])

        assert get(kv, b"a") == b"%d" % number


@pytest.mark.parametrize(
    "use",
    [
        lambda view: view.get(b"a"),
        lambda view: view.get_many([b"a"]),
        lambda view: view.scan(b"a", b"b", rows_max=1),
        lambda view: view.scan_many([KeyRange(b"a", b"b")], rows_max=1),
    ],
    ids=["get", "get_many", "scan", "scan_many"],
)
def test_a_reader_fails_after_its_function_returned(kv: KvEngine, use: Callable[[KvReader], object]) -> None:
    snapshot = kv.read(lambda snapshot: snapshot)
    transaction = kv.write(lambda tx: tx, durable=False)

    for ended in (snapshot, transaction):
        with pytest.raises(RuntimeError, match="after the function that received it"):
            use(ended)


@pytest.mark.parametrize(
    "use",
    [
        lambda tx: tx.put(b"a", b""),
        lambda tx: tx.clear(b"a"),
        lambda tx: tx.clear_range(b"a", b"b"),
        lambda tx: tx.add(b"a", 1),
        lambda tx: tx.put_versionstamped(b"a", b"", b""),
    ],
    ids=["put", "clear", "clear_range", "add", "put_versionstamped"],
)
def test_a_transaction_fails_after_its_function_returned(kv: KvEngine, use: Callable[[KvTransaction], object]) -> None:
    transaction = kv.write(lambda tx: tx, durable=False)

    with pytest.raises(RuntimeError, match="after the function that received it"):
        use(transaction)
    assert read_all(kv) == {}


# ---- writing


def test_read_and_write_return_what_the_function_returns(kv: KvEngine) -> None:
    assert kv.write(lambda tx: "written") == "written"
    assert kv.read(lambda snapshot: "read") == "read"


def test_a_transaction_sees_its_own_writes(kv: KvEngine) -> None:
    put_all(kv, [(b"a", b"old"), (b"b", b"old"), (b"c", b"old")])

    def look(tx: KvTransaction) -> tuple[object, ...]:
        tx.put(b"a", b"new")
        tx.clear(b"b")
        tx.put(b"d", b"new")
        return (
            tx.get(b"a"),
            tx.get_many([b"d", b"c", b"b", b"a"]),
            tx.scan(b"a", b"z", rows_max=10),
            tx.scan(b"a", b"z", rows_max=10, reverse=True),
            tx.scan_many([KeyRange(b"b", b"d")], rows_max=10),
        )

    rows = [(b"a", b"new"), (b"c", b"old"), (b"d", b"new")]
    assert kv.write(look) == (b"new", [b"new", b"old", None, b"new"], rows, rows[::-1], [[(b"c", b"old")]])


def test_writes_after_a_scan_are_seen_by_the_next_one_and_committed(kv: KvEngine) -> None:
    def write_between_scans(tx: KvTransaction) -> list[list[bytes]]:
        seen = []
        for key in (b"a", b"b", b"c"):
            tx.put(key, b"")
            seen.append(keys_of(tx.scan(b"", b"z", rows_max=10)))
        tx.clear(b"b")
        return seen

    assert kv.write(write_between_scans) == [[b"a"], [b"a", b"b"], [b"a", b"b", b"c"]]
    assert list(read_all(kv)) == [b"a", b"c"]


def test_put_replaces_and_clear_deletes(kv: KvEngine) -> None:
    put_all(kv, [(b"a", b"1"), (b"b", b"1")])

    def change(tx: KvTransaction) -> None:
        tx.put(b"a", b"2")
        tx.clear(b"b")

    kv.write(change)

    assert read_all(kv) == {b"a": b"2"}


def test_clearing_what_is_missing_is_fine(kv: KvEngine) -> None:
    def change(tx: KvTransaction) -> None:
        tx.clear(b"a")
        tx.clear_range(b"a", b"z")

    kv.write(change)

    assert read_all(kv) == {}


def test_the_last_of_several_writes_to_a_key_counts(kv: KvEngine) -> None:
    def change(tx: KvTransaction) -> None:
        tx.put(b"a", b"1")
        tx.clear(b"a")
        tx.put(b"b", b"1")
        tx.put(b"b", b"2")
        tx.clear(b"c")
        tx.put(b"c", b"1")

    kv.write(change)

    assert read_all(kv) == {b"b": b"2", b"c": b"1"}


def test_clear_range_is_half_open(kv: KvEngine) -> None:
    put_all(kv, [(key, b"") for key in (b"a", b"b", b"bb", b"c", b"d")])

    kv.write(lambda tx: tx.clear_range(b"b", b"c"))

    assert list(read_all(kv)) == [b"a", b"c", b"d"]


def test_clear_range_also_clears_what_the_transaction_wrote_before_not_after(kv: KvEngine) -> None:
    put_all(kv, [(b"b1", b"stored")])

    def change(tx: KvTransaction) -> list[Pair]:
        tx.put(b"a", b"kept")
        tx.put(b"b1", b"gone")
        tx.put(b"b2", b"gone")
        tx.clear_range(b"b", b"c")
        seen = tx.scan(b"", b"z", rows_max=9)
        tx.put(b"b2", b"kept")
        return seen

    assert kv.write(change) == [(b"a", b"kept")]
    assert read_all(kv) == {b"a": b"kept", b"b2": b"kept"}


@pytest.mark.parametrize(("begin", "end"), [(b"", b"\xff"), (b"k00500", b"k02500"), (b"k02999", b"z"), (b"k1", b"k0")])
def test_clear_range_of_many_rows_deletes_exactly_them(kv: KvEngine, begin: bytes, end: bytes) -> None:
    rows = {b"k%05d" % number: bytes(number % 7 * 700) for number in range(3_000)}
    put_all(kv, rows.items())

    kv.write(lambda tx: tx.clear_range(begin, end), durable=False)

    assert read_all(kv) == {key: value for key, value in rows.items() if not begin <= key < end}


@pytest.mark.parametrize("is_scanned", [False, True])
def test_an_exception_undoes_everything_and_passes_through(kv: KvEngine, is_scanned: bool) -> None:
    put_all(kv, [(b"a", b"1"), (b"b", b"1")])

    def fail(tx: KvTransaction) -> None:
        tx.put(b"a", b"2")
        tx.put(b"c", b"2")
        tx.clear_range(b"b", b"c")
        tx.add(b"count", 1)
        tx.put_versionstamped(b"v", b"", b"")
        if is_scanned:
            tx.scan(b"", b"v", rows_max=9)
        raise _StopError

    with pytest.raises(_StopError):
        kv.write(fail)

    assert read_all(kv) == {b"a": b"1", b"b": b"1"}
    put_all(kv, [(b"d", b"")])
    assert list(read_all(kv)) == [b"a", b"b", b"d"]


def test_nothing_is_visible_before_the_commit(kv: KvEngine) -> None:
    seen: list[bytes | None] = []

    def look_from_another_thread(tx: KvTransaction) -> None:
        tx.put(b"a", b"1")
        tx.scan(b"", b"z", rows_max=1)
        reader = threading.Thread(target=lambda: seen.append(get(kv, b"a")))
        reader.start()
        reader.join()

    kv.write(look_from_another_thread)

    assert set(seen) == {None}
    assert get(kv, b"a") == b"1"


# ---- counters and versionstamps


def test_add_counts_from_zero_up_and_down(kv: KvEngine) -> None:
    for delta in (5, -7, 2**40):
        kv.write(lambda tx, delta=delta: tx.add(b"count", delta))  # type: ignore[misc]  # mypy cannot infer a lambda with a default

    assert get(kv, b"count") == (2**40 - 2).to_bytes(8, "little", signed=True)


def test_add_twice_in_one_transaction_counts_twice_and_is_seen(kv: KvEngine) -> None:
    def change(tx: KvTransaction) -> int:
        tx.add(b"count", 2)
        tx.add(b"count", 3)
        return counter_of(tx.get(b"count"))

    assert kv.write(change) == 5
    assert counter_of(get(kv, b"count")) == 5


def test_add_reaches_the_ends_of_int64_and_wraps(kv: KvEngine) -> None:
    kv.write(lambda tx: tx.add(b"top", 2**63 - 1))
    kv.write(lambda tx: tx.add(b"bottom", -(2**63)))
    ends = counter_of(get(kv, b"top")), counter_of(get(kv, b"bottom"))
    kv.write(lambda tx: tx.add(b"top", 1))

    assert ends == (2**63 - 1, -(2**63))
    assert counter_of(get(kv, b"top")) == -(2**63)


@pytest.mark.parametrize("delta", [2**63, -(2**63) - 1])
def test_add_refuses_a_delta_past_int64(kv: KvEngine, delta: int) -> None:
    with pytest.raises(InvalidArgumentError, match="64-bit"):
        kv.write(lambda tx: tx.add(b"count", delta))


def test_versionstamps_are_ten_bytes_and_greater_in_every_later_commit(kv: KvEngine) -> None:
    for number in range(300):
        kv.write(lambda tx, n=number: tx.put_versionstamped(b"v/", b"/s", b"%d" % n), durable=False)  # type: ignore[misc]  # mypy cannot infer a lambda with a default

    rows = kv.read(lambda snapshot: snapshot.scan(b"v/", b"v0", rows_max=1_000))
    assert [int(value) for _, value in rows] == list(range(300))
    assert {len(key) for key, _ in rows} == {len(b"v/") + 10 + len(b"/s")}
    assert all(key.endswith(b"/s") for key, _ in rows)


def test_versionstamped_keys_of_one_transaction_are_all_kept(kv: KvEngine) -> None:
    def change(tx: KvTransaction) -> None:
        for prefix in (b"x", b"y"):
            for suffix in (b"", b"1", b"2"):
                tx.put_versionstamped(prefix, suffix, prefix + suffix)

    kv.write(change)

    assert sorted(read_all(kv).values()) == [b"x", b"x1", b"x2", b"y", b"y1", b"y2"]
