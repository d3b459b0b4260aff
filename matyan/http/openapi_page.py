"""/openapi/: the OpenAPI document and a page to browse it, Swagger UI out of the PyPI package `offapi` (ADR 0014)."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Final

from litestar import Response, Router, get
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from matyan.errors import NotFoundError
from matyan.http.answers import JSON
from matyan.http.openapi import Document
from matyan.threads import run_blocking

PATH: Final = "/openapi"
PACKAGE: Final = "offapi"
CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Nothing inline, nothing evaluated, nothing from elsewhere."""

_OWN: Final = Path(__file__).parent
_FOR_EVER: Final = "public, max-age=31536000, immutable"
_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Matyan: HTTP interface</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<link rel="stylesheet" href="{files}/swagger_style.css">
</head>
<body>
<div id="page"></div>
<script src="{files}/swagger_bundle.js"></script>
<script src="{files}/openapi_page.js" data-document="{path}/openapi.json"></script>
</body>
</html>
"""
_TYPES: Final[Mapping[str, str]] = {
    "swagger_bundle.js": "text/javascript",
    "swagger_style.css": "text/css",
    "openapi_page.js": "text/javascript",
}
"""The files of the page: nothing else can be asked for."""


def make_document_route(document: Document) -> HTTPRouteHandler:
    """Return the route of the document, `/openapi.json`; Aim has it right below `/api` [510]."""

    @get("/openapi.json", include_in_schema=False)
    async def read() -> Response[bytes]:
        """Return the document."""
        return Response(await run_blocking(document.encoded), media_type=JSON, headers={"cache-control": "no-cache"})

    return read


def make_openapi_router(read: HTTPRouteHandler, *, base_path: str, app_version: str) -> Router:
    """Return the routes below PATH.

    Args:
        read: the route of the document that is shown.
        base_path: what clients see before PATH.
        app_version: changes the addresses of the files, which browsers keep for ever.
    """
    path = f"{base_path}{PATH}"
    page = _PAGE.format(path=path, files=f"{path}/files/{app_version}-{version(PACKAGE)}").encode()

    @get("/")
    async def browse() -> Response[bytes]:
        """Return the page."""
        headers = {
            "content-security-policy": CONTENT_SECURITY_POLICY,
            "referrer-policy": "no-referrer",
            "x-content-type-options": "nosniff",
            "cache-control": "no-cache",
        }
        return Response(page, media_type="text/html", headers=headers)

    return Router(PATH, route_handlers=[browse, read, page_file], include_in_schema=False)


@get("/files/{build:str}/{name:str}")
async def page_file(build: FromPath[str], name: FromPath[str]) -> Response[bytes]:
    """Return a file of the page, whatever build the address names."""
    del build
    if name not in _TYPES:
        raise NotFoundError("Not Found")
    body = await run_blocking(_read, name)
    headers = {"cache-control": _FOR_EVER, "x-content-type-options": "nosniff"}
    return Response(body, media_type=_TYPES[name], headers=headers)


def _read(name: str) -> bytes:
    own = _OWN / name
    return own.read_bytes() if own.exists() else (_package() / name).read_bytes()


def _package() -> Path:
    """Return where the package lies; importing it would read all its megabytes."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise NotFoundError(f"the package {PACKAGE} is not installed")
    return Path(spec.submodule_search_locations[0])
