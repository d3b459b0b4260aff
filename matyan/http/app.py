"""make_app(routes, services): health, metrics and version routes; one app for every role."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from copy import copy
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

import msgspec
from litestar import Litestar, Request, Response, Router, get
from litestar.connection import ASGIConnection
from litestar.di import NamedDependency, Provide
from litestar.exceptions import PermissionDeniedException
from litestar.handlers import BaseRouteHandler, HTTPRouteHandler
from litestar.openapi import OpenAPIConfig
from litestar.plugins import PluginProtocol
from litestar.plugins.core import MsgspecDIPlugin
from litestar.types import ControllerRouterHandler, Guard

from matyan.http.answers import json_response
from matyan.http.connections import Connections
from matyan.http.dialect import DIALECTS, Dialect, dialect_of
from matyan.http.edge import Edge, EdgeOptions, check_base_path
from matyan.http.errors import EXCEPTION_HANDLERS
from matyan.http.health import OPS_ROUTES, Health
from matyan.http.openapi import Document, answers, named_for
from matyan.http.openapi_page import make_document_route, make_openapi_router
from matyan.http.requests import JsonRequest
from matyan.limits import BODY_BYTES_MAX
from matyan.observe.metrics import Metrics

DISTRIBUTION: Final = "matyan-tracker"
FDB_API_VERSION: Final = 730
BACKEND: Final = "backend"

REFUSED_WHEN_READ_ONLY: Final[Mapping[str, bool]] = {"refused_when_read_only": True}
"""`opt=REFUSED_WHEN_READ_ONLY` on a handler: 403 on a read-only server (rest-api section 2)."""


def make_app(
    routes: Sequence[HTTPRouteHandler],
    *,
    services: Mapping[str, object] | None = None,
    root_routes: Sequence[ControllerRouterHandler] = (),
    metrics: Metrics | None = None,
    health: Health | None = None,
    connections: Connections | None = None,
    edge: EdgeOptions | None = None,
    component: str = BACKEND,
    read_only: bool = False,
) -> Litestar:
    """Make the ASGI app.

    Args:
        routes: handlers of the REST API; each is mounted under every dialect's prefix and answers with and without a
            slash at the end.
        services: what handlers may ask for by name, `runs: NamedDependency[RunService]`.
        root_routes: handlers with absolute paths: WebSockets, uploads.
        metrics: where requests are counted; also served at `/metrics/`.
        health: what `/health/ready/` asks.
        connections: the connections under way, for the server that drains them.
        edge: base path, pages, allowed origins.
        component: what `/version/` calls this process.
        read_only: refuse handlers marked REFUSED_WHEN_READ_ONLY.
    """
    metrics, health, edge = metrics or Metrics(), health or Health(), edge or EdgeOptions()
    provided = {"metrics": metrics, "health": health, "component": component, **(services or {})}
    base_path = check_base_path(edge.base_path)

    assemble = functools.partial(_assemble, services=provided, read_only=read_only)

    # The document is made from a second app of the same routes, when it is first asked for: starting stays quick, and
    # what is served has no routes of Litestar's own.
    def make_described() -> Litestar:
        described = [*OPS_ROUTES, *root_routes, *_routers([api_version, *routes])]
        return assemble(described, openapi=openapi_config())

    document = Document(make_described, base_path=base_path)
    read = make_document_route(document)
    page = make_openapi_router(read, base_path=base_path, app_version=package_version())
    served = map(_under_prefixes, [api_version, read, *routes])
    app = assemble([*OPS_ROUTES, *root_routes, *served, page])
    app.asgi_handler = Edge(
        app.asgi_handler,
        api_roots={route.path.split("/")[1] for route in app.routes},
        page=edge.page,
        connections=connections or Connections(metrics),
        policy=edge.policy,
        metrics=metrics,
        base_path=base_path,
    )
    return app


def _assemble(
    routes: Sequence[ControllerRouterHandler],
    *,
    services: Mapping[str, object],
    read_only: bool,
    openapi: OpenAPIConfig | None = None,
) -> Litestar:
    """Put the routes together; with `openapi` for its document, and not to be served."""
    return _App(
        routes,
        dependencies={"dialect": _DIALECT, **{name: _constant(service) for name, service in services.items()}},
        exception_handlers=EXCEPTION_HANDLERS,
        guards=_guards(read_only=read_only),
        request_class=JsonRequest,
        request_max_body_size=BODY_BYTES_MAX,
        openapi_config=openapi,
        logging_config=None,
    )


class _App(Litestar):
    """Litestar without its plugins for Pydantic and attrs, whose import is a tenth of the start where they are there.

    No handler has a model of theirs.
    """

    @staticmethod
    def _get_default_plugins(plugins: list[PluginProtocol]) -> list[PluginProtocol]:
        return [*plugins, MsgspecDIPlugin()]


def _under_prefixes(handler: HTTPRouteHandler) -> HTTPRouteHandler:
    """Return the handler for the paths of all dialects: Litestar works out what a handler needs once, not per path."""
    mounted = copy(handler)
    mounted.paths = {f"{dialect.prefix}{path}" for dialect in DIALECTS for path in handler.paths}
    return mounted


def _routers(handlers: Sequence[HTTPRouteHandler]) -> list[Router]:
    """Return the handlers as each dialect describes them."""
    return [Router(dialect.prefix, route_handlers=named_for(dialect, handlers)) for dialect in DIALECTS]


def openapi_config() -> OpenAPIConfig:
    """Return the head of the OpenAPI document."""
    return OpenAPIConfig(
        title="Matyan",
        version=package_version(),
        description="Most operations exist twice: under `/api` as Aim has them, under `/api/v1/rest` as Matyan does.",
        use_handler_docstrings=True,
    )


def package_version() -> str:
    """Return the installed version of this package."""
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "0+unknown"


class VersionAnswer(msgspec.Struct, frozen=True):
    """Versions of the parts."""

    version: str
    component: str
    fdb_api_version: int


@get("/version", operation_id="getVersion", responses=answers(VersionAnswer, "The version of the server."))
async def api_version(component: NamedDependency[str]) -> Response[bytes]:
    """Return the version, in the words that matyan-client prints."""
    return json_response(VersionAnswer(package_version(), component, FDB_API_VERSION))


def _constant(value: object) -> Provide:
    return Provide(lambda: value, sync_to_thread=False)


def _dialect(request: Request[Any, Any, Any]) -> Dialect:
    return dialect_of(request.scope["path"])


_DIALECT: Final = Provide(_dialect, sync_to_thread=False)


def _guards(*, read_only: bool) -> list[Guard]:
    def refuse(_: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
        if read_only and handler.opt.get("refused_when_read_only"):
            raise PermissionDeniedException("Forbidden")

    return [refuse] if read_only else []
