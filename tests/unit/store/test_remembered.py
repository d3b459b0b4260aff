"""A remembering transaction answers as the one under it does, and asks it for each key once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matyan.engines.kv.embedded import open_embedded_kv
from matyan.engines.kv.protocol import KeyRange, KvEngine, KvTransaction
from matyan.store.remembered import RememberingTransaction
from tests.support.kv_faults import FaultRates, FaultyKv, FaultyTransaction

KEYS = [b"a", b"aa", b"b", b"ba", b"c"]
COUNTER = (1).to_bytes(8, "little")
Step = Callable[[KvTransaction], Any]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KvEngine]:
    engine = open_embedded_kv(Path(tmp_path_factory.mktemp("kv")), map_bytes=2**28)
    yield engine
    engine.close()


def outcome(store: KvEngine, steps: list[Step], wrap: Callable[[KvTransaction], KvTransaction]) -> list[Any]:
    """Run the steps on a store that holds two keys; return every answer, and what is stored at the end."""

    def fill(tx: KvTransaction) -> None:
        tx.clear_range(b"", b"\xff")
        tx.put(b"a", COUNTER)
        tx.put(b"b", COUNTER)

    store.write(fill, durable=False)
    answers = store.write(lambda tx: [step(view) for view in [wrap(tx)] for step in steps], durable=False)
    return [*answers, store.read(lambda reader: reader.scan(b"", b"\xff", rows_max=10))]


key = st.sampled_from(KEYS)
step = st.one_of(
    st.builds(lambda one: lambda tx: tx.get(one), key),
    st.builds(lambda many: lambda tx: tx.get_many(many), st.lists(key, max_size=4)),
    st.builds(lambda begin, end: lambda tx: tx.scan(begin, end, rows_max=9, reverse=True), key, key),
    st.builds(lambda begin, end: lambda tx: tx.scan_many([KeyRange(begin, end)], rows_max=9), key, key),
    st.builds(lambda one, count: lambda tx: tx.put(one, count.to_bytes(8, "little")), key, st.integers(0, 9)),
    st.builds(lambda one: lambda tx: tx.clear(one), key),
    st.builds(lambda begin, end: lambda tx: tx.clear_range(*sorted([begin, end])), key, key),
    st.builds(lambda one, delta: lambda tx: tx.add(one, delta), key, st.integers(-3, 3)),
    st.just(lambda tx: tx.written_bytes),
)


@settings(max_examples=200, deadline=None)
@given(steps=st.lists(step, max_size=12))
def test_any_calls_are_answered_as_by_the_transaction_itself(store: KvEngine, steps: list[Step]) -> None:
    assert outcome(store, steps, RememberingTransaction) == outcome(store, steps, lambda tx: tx)


def test_each_key_is_asked_for_once(store: KvEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[bytes]] = []
    real = FaultyTransaction.get_many

    def get_many(self: FaultyTransaction, keys: Any) -> Any:
        asked.append(list(keys))
        return real(self, keys)

    monkeypatch.setattr(FaultyTransaction, "get_many", get_many)

    def look(tx: KvTransaction) -> None:
        own = RememberingTransaction(tx)
        own.put(b"c", b"3")
        own.get_many([b"a", b"b", b"a", b"c"])
        own.get_many([b"b", b"ba"])
        own.get(b"ba")

    FaultyKv(store, seed=1, rates=FaultRates()).write(look)

    assert asked == [[b"a", b"b"], [b"ba"]]
