"""The parts that answer clients. Each imports what it wires when it is called: a role pays for its own parts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from matyan.http.origins import OriginPolicy
from matyan.roles.context import (
    DATA_TOPIC,
    Context,
    backlog_of,
    blob_service_of,
    handover_of,
    require_log,
    require_store,
    run_changes_of,
)
from matyan.roles.gauges import sample_backlog, sample_cache
from matyan.roles.runner import Built
from matyan.settings import LOOPBACK_HOSTS, Settings

if TYPE_CHECKING:
    from litestar.types import ASGIApp

BYTES_PER_MB: Final = 1024 * 1024
SIGNS_PER_SILENCE: Final = 5
"""How often a gateway tells of a connection in the time after which a run counts as silent."""


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
    from matyan.runs.cache import RunCache  # noqa: PLC0415
    from matyan.runs.logs import RunLogs  # noqa: PLC0415
    from matyan.runs.service import RunService  # noqa: PLC0415
    from matyan.sequences import object_routes  # noqa: PLC0415
    from matyan.sequences import routes as sequence_routes  # noqa: PLC0415
    from matyan.sequences.objects import ObjectReader, ObjectReads  # noqa: PLC0415
    from matyan.sequences.service import MetricReads  # noqa: PLC0415

    kv, clock = context.kv, context.clock
    blobs = blob_service_of(context)
    cache = RunCache(kv, bytes_max=context.settings.cache.memory_mb * BYTES_PER_MB)
    sample_cache(context.metrics, cache)
    run_changes = run_changes_of(context)
    entity_deletions = EntityDeletions(kv=kv, run_changes=run_changes)
    objects = ObjectReader(kv=kv, engine=context.blobs, blobs=blobs)
    context.services |= {
        "experiments": ExperimentService(kv=kv, deletions=entity_deletions, clock=clock),
        "tags": TagService(kv=kv, deletions=entity_deletions, clock=clock),
        "boards": BoardService(kv=kv, clock=clock),
        "projects": ProjectService(kv=kv),
        "search": SearchService(
            kv=kv, clock=clock, metrics=context.metrics, seconds_max=context.settings.query.seconds, cache=cache
        ),
        "object_search": ObjectSearchService(
            reader=objects,
            kv=kv,
            clock=clock,
            metrics=context.metrics,
            seconds_max=context.settings.query.seconds,
            cache=cache,
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
    context.page = _page(context.settings)
    require_store(context)
    return Built()


def build_gateway(context: Context) -> Built:
    """Make what takes in frames and files."""
    from matyan.blobs import routes as blob_routes  # noqa: PLC0415 - see the module's docstring
    from matyan.ingestion.gateway import Gateway, make_route  # noqa: PLC0415
    from matyan.roles.spill import open_spill, require_room  # noqa: PLC0415

    blob_service_of(context)
    sample_backlog(context.metrics, backlog_of(context))
    spilling = open_spill(context)
    gateway = Gateway(
        producer=spilling or context.log.producer(),
        topic=DATA_TOPIC,
        backlog=backlog_of(context),
        metrics=context.metrics,
        clock=context.clock,
        is_ready=lambda: spilling is None or spilling.is_ready,
        is_log_away=lambda: spilling is not None and not spilling.is_direct,
        keep_alive_seconds=context.settings.sweep.silent_seconds / SIGNS_PER_SILENCE,
        handover=handover_of(context),
    )
    context.drains.append(gateway.drain)
    context.routes += blob_routes.ROUTES
    context.root_routes += [*blob_routes.ROOT_ROUTES, make_route(gateway)]
    if spilling is None:
        require_log(context)
        return Built()
    require_room(context, spilling)
    return Built(close=spilling.close)


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
        edge=EdgeOptions(base_path=http.base_path, policy=policy, page=context.page),
        component=context.component,
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


def _page(settings: Settings) -> ASGIApp | None:
    if settings.http.ui == "none":
        return None
    from matyan.http.ui import WebUi  # noqa: PLC0415 - see the module's docstring
    from matyan.http.ui_bundles import find_bundle  # noqa: PLC0415

    return WebUi(find_bundle(settings.http.ui, settings.http.ui_path), base_path=settings.http.base_path)
