"""What every request passes before the routes: host and origin, base path, page or API, request id, counting, gzip."""

from __future__ import annotations

import secrets
import time
from collections.abc import Collection, Mapping
from typing import Any, Final

import msgspec
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Receive, Scope, Send

from matyan.http.answers import json_bytes
from matyan.http.bodies import IncomingBody
from matyan.http.compression import GzipJson, accepts_gzip
from matyan.http.connections import Connections, refuse_handshake
from matyan.http.dialect import dialect_of
from matyan.http.errors import error_body
from matyan.http.origins import Headers, OriginPolicy
from matyan.observe.logs import bound
from matyan.observe.metrics import Metrics

_OPS: Final = ("/health/", "/metrics")
_FORBIDDEN: Final = 403
"""Answered with and without the base path: probes know nothing of it."""
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Edge:
    """The outermost ASGI app."""

    def __init__(
        self,
        api: ASGIApp,
        *,
        api_roots: Collection[str],
        page: ASGIApp | None,
        connections: Connections,
        policy: OriginPolicy,
        metrics: Metrics,
        base_path: str,
    ) -> None:
        self._api = api
        self._api_roots = frozenset(api_roots)
        self._page = page
        self._connections = connections
        self._policy = policy
        self._metrics = metrics
        self._base_path = base_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        headers = dict(scope["headers"])
        with bound(request=secrets.token_hex(6)):
            if scope["type"] == ScopeType.WEBSOCKET:
                await self._socket(scope, receive, send, headers)
            else:
                await self._request(scope, receive, send, headers)

    async def _socket(self, scope: Scope, receive: Receive, send: Send, headers: Mapping[bytes, bytes]) -> None:
        host = headers.get(b"host", b"").decode("latin-1")
        if not self._policy.knows_host(host) or self._policy.refuses("WEBSOCKET", headers):
            await refuse_handshake(receive, send, status=403, text="this origin may not connect")
        elif not self._strip_base_path(scope):
            await refuse_handshake(receive, send, status=404, text="not found")
        else:
            await self._connections.serve_socket(self._api, scope, receive, send)

    async def _request(self, scope: Any, receive: Receive, send: Send, headers: Mapping[bytes, bytes]) -> None:
        body = IncomingBody(receive, headers)
        answer = _Answer(send, self._policy.answer_headers(headers), body)
        began = time.monotonic()
        try:
            if (preflight := self._policy.preflight(scope["method"], headers)) is not None:
                await _reply(send, 200, b"OK", preflight)
            elif not self._policy.knows_host(headers.get(b"host", b"").decode("latin-1")):
                text = "unknown host name; add it to http.allowed_hosts if it is this server's"
                await self._refuse(answer, scope, text)
            elif self._policy.refuses(scope["method"], headers):
                await self._refuse(answer, scope, "this origin may not change anything")
            else:
                await self._dispatch(scope, body, answer, headers)
        finally:
            self._count(scope, answer.status, time.monotonic() - began)

    async def _refuse(self, send: Any, scope: Any, text: str) -> None:
        dialect = dialect_of(scope["path"].removeprefix(self._base_path))
        body = json_bytes(error_body(dialect, _FORBIDDEN, text, name="forbidden"))
        await _reply(send, _FORBIDDEN, body, [(b"content-type", b"application/json")])

    async def _dispatch(self, scope: Any, receive: Receive, send: Send, headers: Mapping[bytes, bytes]) -> None:
        if self._base_path and scope["path"] == self._base_path:
            await _reply(send, 307, b"", [(b"location", f"{self._base_path}/".encode())])
        elif not self._strip_base_path(scope) or "//" in scope["path"]:
            await _reply(send, 404, b'{"detail":"Not Found"}', [(b"content-type", b"application/json")])
        elif self._page is not None and self._is_page(scope, headers):
            scope["path_template"] = "(page)"
            await self._connections.serve_request(self._page, scope, receive, send)
        else:
            sender: Any = GzipJson(send) if accepts_gzip(headers) else send
            await self._connections.serve_request(self._api, scope, receive, sender)

    def _strip_base_path(self, scope: Any) -> bool:
        """Take the base path off; return False when the request lies outside of it."""
        path, base = scope["path"], self._base_path
        if not base or path.startswith(_OPS):
            return True
        if not path.startswith(f"{base}/"):
            return False
        scope["path"] = path[len(base) :]
        scope["raw_path"] = scope["path"].encode()
        return True

    def _is_page(self, scope: Any, headers: Mapping[bytes, bytes]) -> bool:
        """Tell pages of the UI from the API. `/api` is a page, `/api/` is not; `/metrics` is both (rest-api 1, 14)."""
        path = scope["path"]
        if path == "/metrics":
            wanted = headers.get(b"accept", b"text/html")
            return b"openmetrics" not in wanted and not wanted.startswith(b"text/plain")
        root, slash, _ = path[1:].partition("/")
        return root not in self._api_roots or (root == "api" and not slash)

    def _count(self, scope: Any, status: int, seconds: float) -> None:
        method = scope["method"] if scope["method"] in _METHODS else "other"
        labels = (method, scope.get("path_template") or "(none)", f"{status // 100}xx")
        self._metrics.http_requests.labels(*labels).inc()
        self._metrics.http_request_seconds.labels(*labels).observe(seconds)


class _Answer:
    """An ASGI `send` that notes the status, adds headers to the head, and lets an error wait for the request's end."""

    def __init__(self, send: Send, headers: Headers, body: IncomingBody) -> None:
        self._send = send
        self._headers = headers
        self._body = body
        self.status = 0

    async def __call__(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            if self.status >= 400:  # noqa: PLR2004 - only errors come before the body was read
                await self._body.discard()
            message = {**message, "headers": [*message["headers"], *self._headers]}
        await self._send(message)


async def _reply(send: Any, status: int, body: bytes, headers: Headers) -> None:
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body, "more_body": False})


def check_base_path(text: str) -> str:
    """Return the base path in its one form: empty, or `/a/b` without a slash at the end."""
    stripped = text.strip("/")
    return f"/{stripped}" if stripped else ""


class EdgeOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How the app stands in its surroundings."""

    base_path: str = ""
    policy: OriginPolicy = msgspec.field(default_factory=OriginPolicy)
    page: ASGIApp | None = None
