"""The store of tests that do not care which it is: MATYAN_TEST_KV names it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from matyan.configuration import load
from matyan.engines.kv.embedded import open_embedded_kv
from matyan.engines.kv.protocol import KvEngine
from matyan.engines.open import open_kv
from matyan.settings import FdbSettings
from tests.support.foundationdb import cluster_file, fresh_store, remove_store_at_exit
from tests.support.kv_faults import MODERATE, FaultRates, FaultyKv

KIND: Final = "MATYAN_TEST_KV"
"""`embedded` (or not set), `faulty`, `lost-answers`, or `foundationdb` on MATYAN_TEST_FDB_CLUSTER_FILE."""
_SEED: Final = 20_261_121
_RATES: Final = {"faulty": MODERATE, "lost-answers": FaultRates(unknown_applied=0.9)}


@contextmanager
def opened_store(path: Path) -> Iterator[KvEngine]:
    """Open an empty store; the embedded one has its file in the directory `path`."""
    kind = os.environ.get(KIND, "embedded")
    if kind == "foundationdb":
        with fresh_store() as store:
            yield store
        return
    engine = open_embedded_kv(path)
    yield FaultyKv(engine, seed=_SEED, rates=_RATES[kind]) if kind in _RATES else engine
    engine.close()


def store_environment(place: Path) -> dict[str, str]:
    """Return the settings by which a server with its data in `place` uses that store; it is removed at the end of all.

    Nothing for the embedded store, which a server has by itself.
    """
    if os.environ.get(KIND) != "foundationdb":
        return {}
    prefix = f"test-{hashlib.sha256(str(place).encode()).hexdigest()[:32]}"
    remove_store_at_exit(FdbSettings(prefix=prefix))
    return {"MATYAN_KV_URI": f"fdb://{cluster_file()}", "MATYAN_FDB_PREFIX": prefix}


def open_server_store(place: Path) -> KvEngine:
    """Open the store of a server with its data in `place`; the embedded one while no server has it open."""
    settings = load(environ={"MATYAN_HOME": str(place), **store_environment(place)})
    return open_kv(settings.kv_uri, fdb=settings.fdb)
