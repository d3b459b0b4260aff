"""The engines that every contract test runs on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from matyan.engines.kv.embedded import open_embedded_kv
from matyan.engines.kv.protocol import KvEngine
from tests.support.kv import RunTwiceKv


@pytest.fixture(params=["embedded", "embedded-twice", pytest.param("foundationdb", marks=pytest.mark.fdb)])
def kv(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[KvEngine]:
    """An empty key-value store."""
    if request.param == "foundationdb":
        if "MATYAN_TEST_FDB_CLUSTER_FILE" not in os.environ:
            pytest.skip("needs a FoundationDB cluster: set MATYAN_TEST_FDB_CLUSTER_FILE")
        pytest.skip("the FoundationDB engine comes in a later issue")
    engine = open_embedded_kv(tmp_path / "kv")
    yield RunTwiceKv(engine) if request.param == "embedded-twice" else engine
    engine.close()
