"""Hypothesis drives an engine and a dict through the same transactions; they must always agree."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from matyan.engines.kv.embedded import open_embedded_kv
from matyan.engines.kv.protocol import KeyRange, KvEngine, KvReader, KvTransaction, Pair
from tests.support import foundationdb
from tests.support.kv import RunTwiceKv, counter_of
from tests.support.kv_faults import MODERATE, FaultyKv

pytestmark = pytest.mark.one_python

Model = dict[bytes, bytes]

KEYS = st.binary(min_size=1, max_size=3).filter(lambda key: key < b"\xff")
BOUNDS = st.one_of(KEYS, st.just(b""), st.just(b"\xff"))
VALUES = st.one_of(st.binary(max_size=9), st.integers(0, 20_000).map(bytes))  # the long ones leave their page
ROWS_MAX = st.sampled_from([1, 2, 3, 1_000])


class Step(NamedTuple):
    """One call inside a transaction, for the engine and for the model."""

    call: Literal["get", "get_many", "scan", "scan_many", "put", "clear", "clear_range", "add"]
    arguments: tuple[Any, ...]
    options: dict[str, Any] = {}  # noqa: RUF012 - never written to


def _steps(call: Any, *arguments: Any, **options: Any) -> st.SearchStrategy[Step]:
    return st.builds(Step, st.just(call), st.tuples(*arguments), st.fixed_dictionaries(options))


READS = st.one_of(
    _steps("get", KEYS),
    _steps("get_many", st.lists(KEYS, max_size=5)),
    _steps("scan", BOUNDS, BOUNDS, rows_max=ROWS_MAX, reverse=st.booleans()),
    _steps("scan_many", st.lists(st.builds(KeyRange, BOUNDS, BOUNDS), max_size=3), rows_max=ROWS_MAX),
)
WRITES = st.one_of(
    _steps("put", KEYS, VALUES),
    _steps("clear", KEYS),
    _steps("clear_range", BOUNDS, BOUNDS),
    _steps("add", KEYS, st.integers(-(2**63), 2**63 - 1)),
)


class ModelView:
    """The port on a dict, written for clarity."""

    def __init__(self, rows: Model) -> None:
        self.rows = rows

    def get(self, key: bytes) -> bytes | None:
        return self.rows.get(key)

    def get_many(self, keys: list[bytes]) -> list[bytes | None]:
        return [self.rows.get(key) for key in keys]

    def scan(self, begin: bytes, end: bytes, *, rows_max: int, reverse: bool = False) -> list[Pair]:
        rows = sorted((row for row in self.rows.items() if begin <= row[0] < end), reverse=reverse)
        return rows[:rows_max]

    def scan_many(self, ranges: list[KeyRange], *, rows_max: int) -> list[list[Pair]]:
        return [self.scan(begin, end, rows_max=rows_max) for begin, end in ranges]

    def put(self, key: bytes, value: bytes) -> None:
        self.rows[key] = value

    def clear(self, key: bytes) -> None:
        self.rows.pop(key, None)

    def clear_range(self, begin: bytes, end: bytes) -> None:
        for key, _ in self.scan(begin, end, rows_max=10_000):
            del self.rows[key]

    def add(self, key: bytes, delta: int) -> None:
        total = (counter_of(self.rows.get(key, b"")[:8].ljust(8, b"\0")) + delta) % 2**64
        self.rows[key] = total.to_bytes(8, "little")


def _run(view: ModelView | KvReader | KvTransaction, steps: list[Step]) -> list[Any]:
    return [getattr(view, step.call)(*step.arguments, **step.options) for step in steps]


class _AbandonedError(Exception):
    pass


class KvMachine(RuleBasedStateMachine):
    """Commits, failures, reads and re-openings in any order."""

    is_twice = False

    def __init__(self) -> None:
        super().__init__()
        self._directory = tempfile.TemporaryDirectory()
        self.kv = self._open()
        self.model: Model = {}

    def _open(self) -> KvEngine:
        engine = open_embedded_kv(Path(self._directory.name))
        return RunTwiceKv(engine) if self.is_twice else engine

    @rule(steps=st.lists(st.one_of(READS, WRITES), max_size=12))
    def commit(self, steps: list[Step]) -> None:
        found = self.kv.write(lambda tx: _run(tx, steps), durable=False)

        assert found == _run(ModelView(self.model), steps)

    @rule(steps=st.lists(st.one_of(READS, WRITES), max_size=12))
    def fail(self, steps: list[Step]) -> None:
        found: list[Any] = []

        def run_and_fail(tx: KvTransaction) -> None:
            found[:] = _run(tx, steps)
            raise _AbandonedError

        with pytest.raises(_AbandonedError):
            self.kv.write(run_and_fail)

        assert found == _run(ModelView(dict(self.model)), steps)

    @rule(steps=st.lists(READS, max_size=6))
    def read(self, steps: list[Step]) -> None:
        assert self.kv.read(lambda snapshot: _run(snapshot, steps)) == _run(ModelView(self.model), steps)

    @rule()
    def reopen(self) -> None:
        self.kv.close()
        self.kv = self._open()

    @invariant()
    def holds_what_the_model_holds(self) -> None:
        rows = self.kv.read(lambda snapshot: snapshot.scan(b"", b"\xff", rows_max=10_000))

        assert rows == sorted(self.model.items())

    def teardown(self) -> None:
        self.kv.close()
        self._directory.cleanup()


class KvTwiceMachine(KvMachine):
    """The same, with every function run twice."""

    is_twice = True


class KvFaultyMachine(KvMachine):
    """The same, with conflicts and other errors of FoundationDB."""

    def _open(self) -> KvEngine:
        return FaultyKv(super()._open(), seed=20_261_121, rates=MODERATE)


class KvFoundationDbMachine(KvMachine):
    """The same on FoundationDB."""

    def __init__(self) -> None:
        self._settings = foundationdb.make_settings()
        super().__init__()

    def _open(self) -> KvEngine:
        return foundationdb.open_store(self._settings)

    def teardown(self) -> None:
        super().teardown()
        foundationdb.remove_store(self._settings)


@pytest.mark.parametrize(
    "machine",
    [
        pytest.param(KvMachine, id="embedded"),
        pytest.param(KvTwiceMachine, id="embedded-twice"),
        pytest.param(KvFaultyMachine, id="faulty"),
        pytest.param(KvFoundationDbMachine, id="foundationdb", marks=pytest.mark.fdb),
    ],
)
def test_any_course_of_transactions_agrees_with_a_dict(machine: type[KvMachine]) -> None:
    if machine is KvFoundationDbMachine:
        foundationdb.cluster_file()  # skips here, not in the midst of an example
    run_state_machine_as_test(machine, settings=settings(max_examples=60, stateful_step_count=20, deadline=None))
