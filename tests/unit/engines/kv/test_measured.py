"""What the wrapper counts of transactions that go well, run again, or fail."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from matyan.engines.kv.embedded import open_embedded_kv
from matyan.engines.kv.measured import MeasuredKv
from matyan.engines.kv.protocol import KvEngine, KvTransaction
from matyan.errors import NotFoundError, TooLargeError, UnavailableError
from matyan.limits import VALUE_BYTES_MAX
from matyan.observe.metrics import Metrics
from tests.support.kv import RunTwiceKv


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[KvEngine]:
    opened = open_embedded_kv(tmp_path / "kv", map_bytes=2**30)
    yield opened
    opened.close()


class Measured:
    """A measured engine and what it counted."""

    def __init__(self, engine: KvEngine) -> None:
        self._metrics = Metrics()
        self.kv = MeasuredKv(engine, self._metrics)

    def value(self, name: str, **labels: str) -> float | None:
        return self._metrics.registry.get_sample_value(name, labels)

    def count(self, kind: str, outcome: str) -> float | None:
        return self.value("matyan_kv_transaction_seconds_count", kind=kind, outcome=outcome)


def test_a_read_and_a_write_give_their_results_and_are_counted_apart(engine: KvEngine) -> None:
    measured = Measured(engine)

    measured.kv.write(lambda tx: tx.put(b"a", b"1"))
    found = measured.kv.read(lambda reader: reader.get(b"a"))

    assert found == b"1"
    assert (measured.count("write", "done"), measured.count("read", "done")) == (1, 1)
    assert measured.value("matyan_kv_retries_total", kind="write") == 0


def test_what_a_commit_wrote_is_weighed_as_the_limit_counts_it(engine: KvEngine) -> None:
    measured = Measured(engine)

    def write(tx: KvTransaction) -> None:
        tx.put(b"key", b"v" * 100)
        tx.clear(b"other")

    measured.kv.write(write)

    assert measured.value("matyan_kv_transaction_bytes_sum") == 3 + 100 + 5
    assert measured.value("matyan_kv_transaction_bytes_count") == 1


def test_a_function_that_runs_twice_is_one_retry_and_weighed_once(engine: KvEngine) -> None:
    measured = Measured(RunTwiceKv(engine))

    measured.kv.write(lambda tx: tx.put(b"a", b"12"))
    measured.kv.read(lambda reader: reader.get(b"a"))

    assert measured.value("matyan_kv_retries_total", kind="write") == 1
    assert measured.value("matyan_kv_retries_total", kind="read") == 1
    assert measured.value("matyan_kv_transaction_bytes_sum") == 3


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (UnavailableError("the cluster does not answer"), "unavailable"),
        (NotFoundError("no such run"), "aborted"),
        (KeyboardInterrupt(), "aborted"),
    ],
)
def test_a_failure_goes_through_and_is_told_apart(engine: KvEngine, error: BaseException, outcome: str) -> None:
    measured = Measured(engine)

    def fail(_: object) -> None:
        raise error

    for kind, call in (("read", measured.kv.read), ("write", measured.kv.write)):
        with pytest.raises(type(error)):
            call(fail)

        assert measured.count(kind, outcome) == 1
        assert measured.count(kind, "done") == 0
    assert measured.value("matyan_kv_transaction_bytes_count") == 0


def test_a_write_over_the_limit_is_too_large(engine: KvEngine) -> None:
    measured = Measured(engine)

    def put(tx: KvTransaction) -> None:
        tx.put(b"a", b"v" * (VALUE_BYTES_MAX + 1))

    with pytest.raises(TooLargeError):
        measured.kv.write(put)

    assert measured.count("write", "too_large") == 1
