"""Context: what the parts of a role share, and what more than one of them is made of.

Order comes from `table.py`: a build function finds in the context what the parts before it left there.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

import msgspec

from matyan.clock import Clock, SystemClock
from matyan.engines.blob.protocol import BlobEngine
from matyan.engines.kv.protocol import KvEngine, KvReader
from matyan.engines.log.protocol import LogEngine, TopicPartition
from matyan.http.app import BACKEND
from matyan.http.connections import Connections
from matyan.http.health import Health
from matyan.ids import Project, RunId, log_key
from matyan.observe.metrics import Metrics, add_process_metrics
from matyan.roles.gauges import sample_threads
from matyan.roles.secrets import keys_of
from matyan.settings import Settings

if TYPE_CHECKING:
    from litestar.types import ASGIApp

    from matyan.blobs.service import BlobService
    from matyan.http.server import HttpServer
    from matyan.ingestion.backlog import Backlog
    from matyan.ingestion.handover import Handover
    from matyan.runs.changes import RunChanges
    from matyan.runs.graves import Graves
    from matyan.runs.model import EditMark
    from matyan.workers.leases import Leases

DATA_TOPIC: Final = "data-ingestion"
INGEST_GROUP: Final = "ingest"
CONTROL_GROUP: Final = "control"


class Context(msgspec.Struct, kw_only=True):
    """What the parts share: engines by their port, routes and services on their way to the app."""

    settings: Settings
    metrics: Metrics
    health: Health
    connections: Connections
    clock: Clock = msgspec.field(default_factory=SystemClock)
    kv: KvEngine = msgspec.UNSET  # type: ignore[assignment]  # set by the part of that name, before its users
    log: LogEngine = msgspec.UNSET  # type: ignore[assignment]  # likewise
    blobs: BlobEngine = msgspec.UNSET  # type: ignore[assignment]  # likewise
    routes: list[Any] = msgspec.field(default_factory=list)
    root_routes: list[Any] = msgspec.field(default_factory=list)
    services: dict[str, object] = msgspec.field(default_factory=dict)
    drains: list[Callable[[], Awaitable[None]]] = msgspec.field(default_factory=list)
    component: str
    page: ASGIApp | None = None
    backlog: Backlog | None = None
    handover: Handover | None = None
    graves: Graves | None = None
    leases: Leases | None = None
    http: HttpServer | None = None


def make_context(settings: Settings, *, component: str = BACKEND) -> Context:
    """Return a context in which nothing is built yet; `component` is what `/version/` calls the process."""
    metrics = Metrics()
    add_process_metrics(metrics)
    sample_threads(metrics)
    return Context(
        settings=settings, component=component, metrics=metrics, health=Health(), connections=Connections(metrics)
    )


def require_store(context: Context) -> None:
    """Make readiness depend on the store; not every part that holds one does."""

    def touch(reader: KvReader) -> None:
        reader.get(b"\x00")  # there or not: it fails when the store cannot be read

    context.health.add("kv", lambda: context.kv.read(touch))


def require_log(context: Context) -> None:
    """Make readiness depend on the log."""

    def touch() -> None:
        context.log.start_offset(TopicPartition(DATA_TOPIC, 0))

    context.health.add("log", touch)


def backlog_of(context: Context) -> Backlog:
    """Return the measure of what is durable but not applied, which the gateway reads and others keep."""
    if context.backlog is None:
        from matyan.ingestion.backlog import Backlog  # noqa: PLC0415 - a role pays for its own parts

        context.backlog = Backlog()
    return context.backlog


def handover_of(context: Context) -> Handover:
    """Return how the gateway hands decoded frames to the worker, where both are in this process."""
    if context.handover is None:
        from matyan.ingestion.handover import Handover  # noqa: PLC0415 - a role pays for its own parts

        context.handover = Handover()
    return context.handover


def leases_of(context: Context) -> Leases:
    """Return where this process takes leases from; closed before the store."""
    if context.leases is None:
        from matyan.workers.leases import StoreLeases  # noqa: PLC0415 - a role pays for its own parts

        context.leases = StoreLeases(kv=context.kv, clock=context.clock)
    return context.leases


def graves_of(context: Context) -> Graves:
    """Return what frees the files of deleted runs; one for all, see `Graves`."""
    if context.graves is None:
        from matyan.runs.graves import Graves  # noqa: PLC0415 - a role pays for its own parts

        context.graves = Graves(kv=context.kv, blobs=context.blobs, leases=leases_of(context))
    return context.graves


def run_changes_of(context: Context) -> RunChanges:
    """Return what changes and deletes runs, for the routes and for the jobs that end what they began."""
    from matyan.runs.changes import RunChanges  # noqa: PLC0415 - a role pays for its own parts

    return RunChanges(kv=context.kv, graves=graves_of(context), mark_of=_mark_of(context.log), clock=context.clock)


def blob_service_of(context: Context) -> BlobService:
    """Return the service of blobs, which both the REST routes and the upload routes use."""
    from matyan.blobs.service import BlobService  # noqa: PLC0415 - a role pays for its own parts
    from matyan.blobs.uris import BlobUris  # noqa: PLC0415

    found = context.services.get("blobs")
    if found is None:
        uris = BlobUris(keys_of(context.settings, "blob-uris"), clock=context.clock)
        base_path = context.settings.http.base_path
        found = context.services["blobs"] = BlobService(blobs=context.blobs, uris=uris, base_path=base_path)
    assert isinstance(found, BlobService)
    return found


def _mark_of(log: LogEngine) -> Callable[[Project, RunId], EditMark]:
    """Return where the next record of a run will stand: an edit is newer than everything before it."""
    from matyan.runs.model import EditMark  # noqa: PLC0415 - a role pays for its own parts

    producer = log.producer()

    def mark(project: Project, run_id: RunId) -> EditMark:
        partition = producer.partition_of(DATA_TOPIC, log_key(project, run_id))
        return EditMark(log.log_id, producer.end_offset(TopicPartition(DATA_TOPIC, partition)))

    return mark
