"""The real app over embedded engines: everything of runs, projects, entities and blobs."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from litestar import Litestar
from litestar.testing import TestClient

from matyan.blobs import routes as blob_routes
from matyan.blobs.service import BlobService
from matyan.blobs.uris import BlobUris
from matyan.clock import ManualClock
from matyan.engines.blob.filesystem import FilesystemBlobs, open_filesystem_blobs
from matyan.engines.kv.protocol import KvEngine
from matyan.entities import routes as entity_routes
from matyan.entities.boards import BoardService
from matyan.entities.deletion import EntityDeletions
from matyan.entities.service import ExperimentService, TagService
from matyan.http.app import make_app
from matyan.projects import routes as project_routes
from matyan.projects.service import ProjectService
from matyan.runs import routes as run_routes
from matyan.runs.changes import RunChanges
from matyan.runs.graves import Graves
from matyan.runs.logs import RunLogs
from matyan.runs.model import EditMark
from matyan.runs.service import RunService
from tests.support.kv import RunTwiceKv
from tests.support.standing_app import StandingApp
from tests.support.stores import opened_store

SECRET = b"0123456789abcdef"
ROUTES = (
    project_routes.ROUTES,
    run_routes.ROUTES,
    entity_routes.ROUTES,
    blob_routes.ROUTES,
    blob_routes.READ_ROUTES,
)


class RunsApp(NamedTuple):
    """The app, a client in the same process, and what stands below."""

    client: TestClient[Litestar]
    kv: KvEngine
    blobs: FilesystemBlobs
    uris: BlobUris
    clock: ManualClock

    def get(self, path: str, **options: Any) -> Any:
        """Read JSON under `/api`."""
        response = self.client.get(f"/api{path}", **options)
        assert response.status_code == 200, response.text
        return response.json()


@contextmanager
def runs_app(path: Path, *, read_only: bool = False) -> Iterator[RunsApp]:
    """Open engines below `path` and serve them; every transaction runs twice, the first time for nothing."""
    clock = ManualClock()
    with opened_store(path / "kv") as engine:
        kv = RunTwiceKv(engine)
        store = open_filesystem_blobs(path / "blobs", keys=[SECRET], clock=clock)
        uris = BlobUris([SECRET], clock=clock)
        blobs = BlobService(blobs=store, uris=uris)
        run_changes = RunChanges(
            kv=kv,
            graves=Graves(kv=kv, blobs=store),
            mark_of=lambda project, run_id: EditMark("log", 7),
            clock=clock,
        )
        deletions = EntityDeletions(kv=kv, run_changes=run_changes)
        services = {
            "projects": ProjectService(kv=kv),
            "runs": RunService(kv=kv, blobs=blobs, clock=clock),
            "run_changes": run_changes,
            "run_logs": RunLogs(kv=kv, blobs=store),
            "experiments": ExperimentService(kv=kv, deletions=deletions, clock=clock),
            "tags": TagService(kv=kv, deletions=deletions, clock=clock),
            "boards": BoardService(kv=kv, clock=clock),
            "blobs": blobs,
        }
        with _standing(tuple(services), read_only=read_only).serving(services) as client:
            yield RunsApp(client, kv, store, uris, clock)
        store.close()


@functools.cache
def _standing(names: tuple[str, ...], *, read_only: bool) -> StandingApp:
    return StandingApp(
        names,
        lambda services: make_app(
            [
                *project_routes.ROUTES,
                *run_routes.ROUTES,
                *entity_routes.ROUTES,
                *blob_routes.ROUTES,
                *blob_routes.READ_ROUTES,
            ],
            root_routes=blob_routes.ROOT_ROUTES,
            services=services,
            read_only=read_only,
        ),
    )
