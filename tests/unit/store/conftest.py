from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from matyan.engines.kv.embedded import EmbeddedKv, open_embedded_kv
from matyan.engines.kv.protocol import KvEngine
from tests.support.kv import RunTwiceKv


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedKv]:
    """One store for all tests of a module."""
    found = open_embedded_kv(Path(tmp_path_factory.mktemp("kv")), map_bytes=2**28)
    yield found
    found.close()


@pytest.fixture
def kv(engine: EmbeddedKv) -> KvEngine:
    """That store, empty, and every function on it runs twice."""
    engine.write(lambda tx: tx.clear_range(b"", b"\xff"), durable=False)
    return RunTwiceKv(engine)
