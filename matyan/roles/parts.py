"""Context and one build function per part. Each imports what it wires when it is called: a role pays for its own parts.

Order comes from `table.py`: a build function finds in the context what the parts before it left there.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from matyan.clock import Clock, SystemClock
from matyan.engines.blob.protocol import BlobEngine
from matyan.engines.kv.protocol import KvEngine, KvReader
from matyan.engines.log.protocol import LogEngine, LogRecord, TopicPartition
from matyan.http.connections import Connections
from matyan.http.health import Health
from matyan.http.origins import OriginPolicy
from matyan.ids import Project, RunId, log_key
from matyan.observe.metrics import Metrics, add_process_metrics
from matyan.roles.home import keys
from matyan.roles.runner import Build, Built
from matyan.roles.table import Part, start_order
from matyan.settings import LOOPBACK_HOSTS, Settings

if TYPE_CHECKING:
    from litestar.types import ASGIApp

    from matyan.http.server import HttpServer
    from matyan.runs.changes import RunChanges
    from matyan.runs.graves import Graves
    from matyan.runs.model import EditMark

DATA_TOPIC: Final = "data-ingestion"
INGEST_GROUP: Final = "ingest"
TRIM_SECONDS: Final = 5.0
SETTLE_SECONDS: Final = 10.0
TEND_SECONDS: Final = 60.0
FREE_SECONDS: Final = 1.0
"""How soon after a deletion its bytes are freed, and how long that may hold up the other jobs."""


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
    backlog: Any = None
    graves: Any = None
    http: HttpServer | None = None


def make_context(settings: Settings) -> Context:
    """Return a context in which nothing is built yet."""
    metrics = Metrics()
    add_process_metrics(metrics)
    return Context(settings=settings, metrics=metrics, health=Health(), connections=Connections(metrics))


def builds(role: str, context: Context) -> Sequence[Build]:
    """Return the build functions of a role, in the order to call them."""
    return [functools.partial(BUILD[part], context) for part in start_order(role)]


# ---- engines


def build_kv(context: Context) -> Built:
    """Open the store."""
    from matyan.engines.open import open_kv  # noqa: PLC0415 - see the module's docstring

    context.kv = open_kv(context.settings.kv_uri)
    context.health.add("kv", functools.partial(context.kv.read, _touch))
    return Built(close=context.kv.close)


def _touch(reader: KvReader) -> None:
    """Read something, there or not: it fails when the store cannot be read."""
    reader.get(b"\x00")


def build_log(context: Context) -> Built:
    """Open the log."""
    from matyan.engines.open import open_log  # noqa: PLC0415 - see the module's docstring

    context.log = open_log(
        context.settings.log_uri, partitions=context.settings.log.partitions, kafka=context.settings.kafka
    )
    context.health.add("log", lambda: _nothing(context.log.start_offset(TopicPartition(DATA_TOPIC, 0))))
    return Built(close=context.log.close)


def build_blob(context: Context) -> Built:
    """Open the object store."""
    from matyan.engines.open import open_blobs  # noqa: PLC0415 - see the module's docstring

    context.blobs = open_blobs(
        context.settings.blob_uri, keys=keys(context.settings.home, "uploads"), s3=context.settings.s3
    )
    context.health.add("blob", lambda: _nothing(context.blobs.info("health")))
    return Built(close=context.blobs.close)


# ---- what is served


def build_ops(context: Context) -> Built:
    """Health and metrics come with every app; there is nothing more to build."""
    del context
    return Built()


def build_rest(context: Context) -> Built:
    """Make the services that the REST routes call."""
    from matyan.blobs import routes as blob_routes  # noqa: PLC0415 - see the module's docstring
    from matyan.entities import routes as entity_routes  # noqa: PLC0415
    from matyan.entities.boards import BoardService  # noqa: PLC0415
    from matyan.entities.deletion import EntityDeletions  # noqa: PLC0415
    from matyan.entities.service import ExperimentService, TagService  # noqa: PLC0415
    from matyan.projects import routes as project_routes  # noqa: PLC0415
    from matyan.projects.service import ProjectService  # noqa: PLC0415
    from matyan.query import object_routes as object_search_routes  # noqa: PLC0415
    from matyan.query import routes as query_routes  # noqa: PLC0415
    from matyan.query.objects import ObjectSearchService  # noqa: PLC0415
    from matyan.query.service import SearchService  # noqa: PLC0415
    from matyan.runs import repository as runs  # noqa: PLC0415
    from matyan.runs import routes as run_routes  # noqa: PLC0415
    from matyan.runs.logs import RunLogs  # noqa: PLC0415
    from matyan.runs.service import RunService  # noqa: PLC0415
    from matyan.sequences import object_routes  # noqa: PLC0415
    from matyan.sequences import routes as sequence_routes  # noqa: PLC0415
    from matyan.sequences.objects import ObjectReader, ObjectReads  # noqa: PLC0415
    from matyan.sequences.service import MetricReads  # noqa: PLC0415

    kv, clock = context.kv, context.clock
    blobs = _blob_service(context)
    run_changes = _run_changes(context)
    entity_deletions = EntityDeletions(kv=kv, run_changes=run_changes)
    objects = ObjectReader(kv=kv, engine=context.blobs, blobs=blobs)
    context.services |= {
        "experiments": ExperimentService(kv=kv, deletions=entity_deletions, clock=clock),
        "tags": TagService(kv=kv, deletions=entity_deletions, clock=clock),
        "boards": BoardService(kv=kv, clock=clock),
        "projects": ProjectService(kv=kv),
        "search": SearchService(
            kv=kv, clock=clock, metrics=context.metrics, seconds_max=context.settings.query.seconds
        ),
        "object_search": ObjectSearchService(
            reader=objects, kv=kv, clock=clock, metrics=context.metrics, seconds_max=context.settings.query.seconds
        ),
        "runs": RunService(kv=kv, blobs=blobs, clock=clock),
        "run_changes": run_changes,
        "run_logs": RunLogs(kv=kv, blobs=context.blobs),
        "metric_reads": MetricReads(kv=kv, numbers_of=runs.get_numbers),
        "object_reads": ObjectReads(kv=kv, reader=objects, numbers_of=runs.get_numbers),
    }
    for module in (entity_routes, project_routes, query_routes, run_routes, sequence_routes):
        context.routes += module.ROUTES
    context.routes += [*object_search_routes.ROUTES, *object_routes.ROUTES]
    context.routes += blob_routes.READ_ROUTES
    return Built()


def build_gateway(context: Context) -> Built:
    """Make what takes in frames and files."""
    from matyan.blobs import routes as blob_routes  # noqa: PLC0415 - see the module's docstring
    from matyan.ingestion.gateway import Gateway, make_route  # noqa: PLC0415

    _blob_service(context)
    gateway = Gateway(
        producer=context.log.producer(),
        topic=DATA_TOPIC,
        backlog=_backlog(context),
        metrics=context.metrics,
        clock=context.clock,
    )
    context.drains.append(gateway.drain)
    context.routes += blob_routes.ROUTES
    context.root_routes += [*blob_routes.ROOT_ROUTES, make_route(gateway)]
    return Built()


# ---- what runs beside


def build_ingest(context: Context) -> Built:
    """Make the worker that applies the log to the store."""
    from matyan.ingestion.apply import Applier  # noqa: PLC0415 - see the module's docstring
    from matyan.maintenance.retention import check_continuity  # noqa: PLC0415
    from matyan.workers.consume import ConsumerService, Pace  # noqa: PLC0415

    check_continuity(context.kv, context.log, DATA_TOPIC)
    applier = Applier(kv=context.kv, log_id=context.log.log_id, blobs=context.blobs)
    ingest = context.settings.ingest
    service = ConsumerService(
        "ingest",
        open_consumer=lambda: context.log.consumer(DATA_TOPIC, INGEST_GROUP, applier.start_offset),
        handle=applier.handle,
        observe=_observe_ingest(context),
        metrics=context.metrics,
        pace=Pace(records_max=ingest.records_max, linger_seconds=ingest.linger_seconds),
    )
    return Built(service)


def build_sweep(context: Context) -> Built:
    """Make the periodic jobs."""
    from matyan.entities.deletion import EntityDeletions  # noqa: PLC0415 - see the module's docstring
    from matyan.ids import DEFAULT_PROJECT  # noqa: PLC0415
    from matyan.maintenance.deletion import Deletions  # noqa: PLC0415
    from matyan.maintenance.retention import trim_applied  # noqa: PLC0415
    from matyan.maintenance.settle import settle_quiet_runs  # noqa: PLC0415
    from matyan.workers.periodic import Job, PeriodicService  # noqa: PLC0415

    kv, log, clock = context.kv, context.log, context.clock
    deletions = Deletions(kv=kv, graves=_graves(context), clock=clock)
    entity_deletions = EntityDeletions(kv=kv, run_changes=_run_changes(context))
    jobs = [
        Job(
            name="free-deleted",
            every_seconds=FREE_SECONDS,
            run=lambda: deletions.free_due(DEFAULT_PROJECT, seconds_max=FREE_SECONDS),
        ),
        Job(
            name="detach-deleted",
            every_seconds=FREE_SECONDS,
            run=lambda: entity_deletions.finish_all(seconds_max=FREE_SECONDS),
        ),
        Job(name="trim-log", every_seconds=TRIM_SECONDS, run=lambda: trim_applied(kv, log, DATA_TOPIC)),
        Job(name="tend-store", every_seconds=TEND_SECONDS, run=kv.tend),
        Job(
            name="settle-runs",
            every_seconds=SETTLE_SECONDS,
            run=lambda: settle_quiet_runs(kv, DEFAULT_PROJECT, clock),
        ),
    ]
    return Built(PeriodicService("sweep", jobs, metrics=context.metrics))


def build_http(context: Context) -> Built:
    """Make the app of all routes that are there, and the server in front of it."""
    from matyan.http.app import make_app  # noqa: PLC0415 - see the module's docstring
    from matyan.http.edge import EdgeOptions  # noqa: PLC0415
    from matyan.http.server import HttpServer  # noqa: PLC0415

    http = context.settings.http
    is_local = http.host in LOOPBACK_HOSTS
    policy = OriginPolicy(origins=http.cors_origins, hosts=http.allowed_hosts if is_local else None)
    app = make_app(
        context.routes,
        services=context.services,
        root_routes=context.root_routes,
        metrics=context.metrics,
        health=context.health,
        connections=context.connections,
        edge=EdgeOptions(base_path=http.base_path, policy=policy, page=_page(context.settings)),
        read_only=http.read_only,
    )
    context.http = HttpServer(
        app,
        host=http.host,
        ports=(http.port, *http.extra_ports),
        connections=context.connections,
        health=context.health,
        drains=context.drains,
    )
    return Built(context.http)


BUILD: Final[Mapping[Part, Callable[[Context], Built]]] = {
    Part.KV: build_kv,
    Part.LOG: build_log,
    Part.BLOB: build_blob,
    Part.OPS: build_ops,
    Part.REST: build_rest,
    Part.GATEWAY: build_gateway,
    Part.INGEST: build_ingest,
    Part.SWEEP: build_sweep,
    Part.HTTP: build_http,
}


def _nothing(_: object) -> None:
    """Make a health check of a call: what it returns does not matter, only that it returns."""


def _backlog(context: Context) -> Any:
    """Return the measure of what is durable but not applied, which the gateway reads and the worker keeps."""
    if context.backlog is None:
        from matyan.ingestion.backlog import Backlog  # noqa: PLC0415 - see the module's docstring

        context.backlog = Backlog()
    return context.backlog


def _observe_ingest(context: Context) -> Callable[[TopicPartition, Sequence[LogRecord], Any], None]:
    """Return what the worker calls after each slice: it counts, and tells the backlog."""
    metrics, clock, backlog = context.metrics, context.clock, _backlog(context)

    def observe(partition: TopicPartition, records: Sequence[LogRecord], outcome: Any) -> None:
        metrics.ingest_records.labels("applied").inc(outcome.records)
        metrics.ingest_records.labels("repeated").inc(len(records) - outcome.records)
        metrics.ingest_items.labels("applied").inc(outcome.commands - outcome.dead_letters - outcome.dropped_deleted)
        metrics.ingest_items.labels("dropped_deleted").inc(outcome.dropped_deleted)
        metrics.ingest_items.labels("dead").inc(outcome.dead_letters)
        if outcome.records:
            metrics.ingest_visibility_seconds.observe(max(0.0, clock.now_seconds() - outcome.received_ms_min / 1000))
        backlog.applied(partition.partition, records[-1].offset + 1)

    return observe


def _mark_of(log: LogEngine) -> Callable[[Project, RunId], EditMark]:
    """Return where the next record of a run will stand: an edit is newer than everything before it."""
    from matyan.runs.model import EditMark  # noqa: PLC0415 - see the module's docstring

    producer = log.producer()

    def mark(project: Project, run_id: RunId) -> EditMark:
        partition = producer.partition_of(DATA_TOPIC, log_key(project, run_id))
        return EditMark(log.log_id, producer.end_offset(TopicPartition(DATA_TOPIC, partition)))

    return mark


def _graves(context: Context) -> Graves:
    """Return what frees the files of deleted runs; one for all, see `Graves`."""
    from matyan.runs.graves import Graves  # noqa: PLC0415 - see the module's docstring

    graves: Graves = context.graves or Graves(kv=context.kv, blobs=context.blobs)
    context.graves = graves
    return graves


def _run_changes(context: Context) -> RunChanges:
    """Return what changes and deletes runs, for the routes and for the jobs that end what they began."""
    from matyan.runs.changes import RunChanges  # noqa: PLC0415 - see the module's docstring

    return RunChanges(kv=context.kv, graves=_graves(context), mark_of=_mark_of(context.log), clock=context.clock)


def _blob_service(context: Context) -> Any:
    """Return the service of blobs, which both the REST routes and the upload routes use."""
    if "blobs" not in context.services:
        from matyan.blobs.service import BlobService  # noqa: PLC0415 - see the module's docstring
        from matyan.blobs.uris import BlobUris  # noqa: PLC0415

        uris = BlobUris(keys(context.settings.home, "blob-uris"), clock=context.clock)
        context.services["blobs"] = BlobService(
            blobs=context.blobs, uris=uris, base_path=context.settings.http.base_path
        )
    return context.services["blobs"]


def _page(settings: Settings) -> ASGIApp | None:
    if settings.http.ui == "none":
        return None
    from matyan.http.ui import WebUi  # noqa: PLC0415 - see the module's docstring
    from matyan.http.ui_bundles import find_bundle  # noqa: PLC0415

    return WebUi(find_bundle(settings.http.ui, settings.http.ui_path), base_path=settings.http.base_path)
