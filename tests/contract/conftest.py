"""The engines that every contract test runs on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

import pytest

from matyan.engines.kv.embedded import open_embedded_kv
from matyan.engines.kv.measured import MeasuredKv
from matyan.engines.kv.protocol import KvEngine
from matyan.observe.metrics import Metrics
from tests.support.foundationdb import fresh_store
from tests.support.kv import RunTwiceKv
from tests.support.kv_faults import MODERATE, FaultyKv

SEED: Final = 20_261_121
WRAPPERS: Final[Mapping[str, Callable[[KvEngine], KvEngine]]] = {
    "embedded": lambda engine: engine,
    "embedded-twice": RunTwiceKv,
    "measured": lambda engine: MeasuredKv(engine, Metrics()),
    "faulty": lambda engine: FaultyKv(engine, seed=SEED, rates=MODERATE),
}

NOT_BY_FOUNDATIONDB: Final[Mapping[str, str]] = {
    "test_a_transaction_holds_exactly_its_limit_in_keys_and_values": "it counts its own bookkeeping of each row too",
}


ENGINES: Final = (
    "embedded",
    *(pytest.param(name, marks=pytest.mark.one_python) for name in WRAPPERS if name != "embedded"),
    pytest.param("foundationdb", marks=pytest.mark.fdb),
)


@pytest.fixture(params=ENGINES)
def kv(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[KvEngine]:
    """An empty key-value store."""
    reason = NOT_BY_FOUNDATIONDB.get(request.node.originalname)
    if reason is not None and request.param in {"faulty", "foundationdb"}:
        request.applymarker(pytest.mark.xfail(strict=True, reason=reason))
    if request.param == "foundationdb":
        with fresh_store() as store:
            yield store
        return
    engine = open_embedded_kv(tmp_path / "kv")
    yield WRAPPERS[request.param](engine)
    engine.close()
