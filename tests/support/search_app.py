"""Searches and reads of sequences in a real app over embedded engines."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from litestar.testing import TestClient

from matyan.blobs import routes as blob_routes
from matyan.blobs.service import BlobService
from matyan.blobs.uris import BlobUris
from matyan.clock import ManualClock
from matyan.engines.blob.filesystem import FilesystemBlobs, open_filesystem_blobs
from matyan.engines.kv.protocol import KvEngine
from matyan.http.app import make_app
from matyan.query import object_routes as search_routes
from matyan.query import routes as query_routes
from matyan.query.objects import ObjectSearchService
from matyan.query.service import SearchService
from matyan.runs import repository as runs
from matyan.sequences import object_routes, routes
from matyan.sequences.objects import ObjectReader, ObjectReads
from matyan.sequences.service import MetricReads
from tests.support.kv import RunTwiceKv
from tests.support.standing_app import StandingApp
from tests.support.stores import opened_store

SECRET = b"0123456789abcdef"


class SearchApp(NamedTuple):
    """A client in the same process, and what stands below."""

    client: TestClient[Any]
    kv: KvEngine
    blobs: FilesystemBlobs
    uris: BlobUris
    clock: ManualClock
    searches: ObjectSearchService


@contextmanager
def search_app(path: Path) -> Iterator[SearchApp]:
    """Open engines below `path` and serve them; every transaction runs twice, the first time for nothing."""
    clock = ManualClock()
    with opened_store(path / "kv") as engine:
        kv = RunTwiceKv(engine)
        store = open_filesystem_blobs(path / "blobs", keys=[SECRET], clock=clock)
        uris = BlobUris([SECRET], clock=clock)
        blobs = BlobService(blobs=store, uris=uris)
        reader = ObjectReader(kv=kv, engine=store, blobs=blobs)
        searches = ObjectSearchService(reader=reader, kv=kv, clock=clock)
        services = {
            "search": SearchService(kv=kv, clock=clock),
            "object_search": searches,
            "metric_reads": MetricReads(kv=kv, numbers_of=runs.get_numbers),
            "object_reads": ObjectReads(kv=kv, reader=reader, numbers_of=runs.get_numbers),
            "blobs": blobs,
        }
        with _standing(tuple(services)).serving(services) as client:
            yield SearchApp(client, kv, store, uris, clock, searches)
        store.close()


@functools.cache
def _standing(names: tuple[str, ...]) -> StandingApp:
    return StandingApp(
        names,
        lambda services: make_app(
            [
                *query_routes.ROUTES,
                *search_routes.ROUTES,
                *routes.ROUTES,
                *object_routes.ROUTES,
                *blob_routes.READ_ROUTES,
            ],
            services=services,
        ),
    )
