"""Serves a web UI: its page for every path, its static files, nothing from outside.

What the page would fetch from third parties is taken out when it is rendered (`ui_bundles.py`), the rest is answered by
`ui_shim.js` in the browser.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from litestar.types import Receive, Scope, Send

from matyan.http.ui_bundles import Bundle, render
from matyan.threads import run_blocking

STATIC: Final = "/static-files/"
CONTENT_SECURITY_POLICY: Final = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; worker-src 'self' blob:; object-src 'none'; base-uri 'self'"
)
"""Whatever a later page of the UI tries to load from elsewhere stays unloaded."""

_TYPES: Final[Mapping[str, str]] = {
    ".css": "text/css; charset=utf-8",
    ".eot": "application/vnd.ms-fontobject",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/vnd.microsoft.icon",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".map": "application/json",
    ".png": "image/png",
    ".py": "text/x-python; charset=utf-8",
    ".svg": "image/svg+xml",
    ".ttf": "font/ttf",
    ".txt": "text/plain; charset=utf-8",
    ".woff": "font/woff",
    ".woff2": "font/woff2",
}

_ALWAYS: Final = (b"cache-control", b"no-cache")
_FOR_EVER: Final = (b"cache-control", b"public, max-age=31536000, immutable")
_NOT_FOUND: Final = b'{"detail":"Not Found"}'


class _File(NamedTuple):
    path: Path
    gzip_path: Path | None
    content_type: str
    etag: bytes


class WebUi:
    """An ASGI app: `/static-files/...` is a file of the bundle, every other path is the page."""

    def __init__(self, bundle: Bundle, *, base_path: str = "") -> None:
        self._files = _index(bundle.build)
        self._page = render(bundle, base_path=base_path).encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        del receive  # a GET has no body to wait for
        request: Any = scope
        headers = dict(request["headers"])
        if request["method"] not in ("GET", "HEAD"):
            body = b'{"detail":"Method Not Allowed"}'
            await _send(send, 405, body, [(b"content-type", b"application/json"), (b"allow", b"GET, HEAD")])
        elif request["path"].startswith(STATIC):
            await self._static(request, headers, send)
        else:
            await _send(send, 200, self._page, _page_headers(), is_head=request["method"] == "HEAD")

    async def _static(self, request: Any, headers: Mapping[bytes, bytes], send: Send) -> None:
        # Only names found at the start are known, so no path can leave the directory. One may end in a slash, since
        # the Matyan UI asks for its Python helpers so.
        file = self._files.get(request["path"].removeprefix(STATIC).removesuffix("/"))
        if file is None:
            await _send(send, 404, _NOT_FOUND, [(b"content-type", b"application/json")])
            return
        is_named_by_content = b"version=" in request["query_string"]
        answer = [(b"etag", file.etag), _FOR_EVER if is_named_by_content else _ALWAYS, (b"vary", b"Accept-Encoding")]
        if headers.get(b"if-none-match") == file.etag:
            await _send(send, 304, b"", answer)
            return
        answer.append((b"content-type", file.content_type.encode()))
        path = file.path
        if file.gzip_path is not None and b"gzip" in headers.get(b"accept-encoding", b""):
            path = file.gzip_path
            answer.append((b"content-encoding", b"gzip"))
        body = await run_blocking(path.read_bytes)
        await _send(send, 200, body, answer, is_head=request["method"] == "HEAD")


def _index(build: Path) -> dict[str, _File]:
    # In half the time of `Path.rglob`: a bundle has hundreds of files, and every start looks at them.
    found = (f"{folder}/{name}" for folder, _, names in os.walk(build) for name in names)
    paths = {path.removeprefix(f"{build}/"): Path(path) for path in found if os.path.isfile(path)}  # noqa: PTH113 - faster
    return {
        name: _File(path, paths.get(f"{name}.gz"), _TYPES.get(path.suffix, "application/octet-stream"), _etag(path))
        for name, path in paths.items()
        if path.suffix not in (".gz", ".pyc")
    }


def _etag(path: Path) -> bytes:
    status = path.stat()
    return f'"{status.st_size:x}-{status.st_mtime_ns:x}"'.encode()


def _page_headers() -> list[tuple[bytes, bytes]]:
    return [
        (b"content-type", b"text/html; charset=utf-8"),
        (b"content-security-policy", CONTENT_SECURITY_POLICY.encode()),
        (b"referrer-policy", b"same-origin"),
        (b"x-content-type-options", b"nosniff"),
        _ALWAYS,
    ]


async def _send(
    send: Send, status: int, body: bytes, headers: list[tuple[bytes, bytes]], *, is_head: bool = False
) -> None:
    if status != 304:  # noqa: PLR2004 - Not Modified has no body, so no length either
        headers = [*headers, (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if is_head else body, "more_body": False})
