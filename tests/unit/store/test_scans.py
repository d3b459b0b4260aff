"""A range longer than one scan is read to its end: in one transaction, or in one for each page."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from matyan.engines.kv.embedded import EmbeddedKv
from matyan.engines.kv.protocol import KvEngine, KvTransaction
from matyan.store.scans import scan_all, scan_pages
from tests.support.kv import RunTwiceKv

TEXTS = "abc"
KEYS = st.sets(st.text(TEXTS, min_size=1, max_size=3).map(str.encode), max_size=20)
BOUNDS = st.text(TEXTS, max_size=2).map(str.encode)


def filled(engine: EmbeddedKv, keys: Sequence[bytes]) -> KvEngine:
    """Return a store that holds these keys and nothing else."""

    def fill(tx: KvTransaction) -> None:
        tx.clear_range(b"", b"\xff")
        for key in keys:
            tx.put(key, key[::-1])

    engine.write(fill, durable=False)
    return RunTwiceKv(engine)


@given(keys=KEYS, begin=BOUNDS, end=BOUNDS, rows_max=st.integers(1, 7))
def test_a_range_is_read_to_its_end_whatever_a_scan_may_bring(
    engine: EmbeddedKv, keys: set[bytes], begin: bytes, end: bytes, rows_max: int
) -> None:
    kv = filled(engine, sorted(keys))
    wanted = [(key, key[::-1]) for key in sorted(keys) if begin <= key < end]

    rows = kv.read(lambda reader: list(scan_all(reader, begin, end, rows_max=rows_max)))
    pages = list(scan_pages(kv, begin, end, rows_max=rows_max))

    assert rows == wanted
    assert [row for page in pages for row in page] == wanted
    assert all(0 < len(page) <= rows_max for page in pages)


def test_pages_show_what_was_written_behind_them_since_the_one_before(engine: EmbeddedKv) -> None:
    kv = filled(engine, [b"a", b"b", b"c", b"d"])
    pages = scan_pages(kv, b"a", b"z", rows_max=2)

    first = [key for key, _ in next(pages)]
    kv.write(lambda tx: tx.clear_range(b"a", b"d"))
    kv.write(lambda tx: tx.put(b"e", b""))
    rest = [key for page in pages for key, _ in page]

    assert (first, rest) == ([b"a", b"b"], [b"d", b"e"])
