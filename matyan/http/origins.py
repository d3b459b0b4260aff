"""Who may call from a browser: cross-origin rules, host names, preflights.

The UI's own origin and pages of this machine may do everything. Pages of other origins may not read, write or open
WebSockets unless they are listed: a tracker without a login on loopback is otherwise open to every web site that its
user visits. A request without `Origin` (SDKs, curl) is none of this module's business.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final
from urllib.parse import urlsplit

import msgspec

Headers = list[tuple[bytes, bytes]]

_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_METHODS: Final = b"GET, POST, PUT, DELETE, OPTIONS, HEAD"
_HEADERS: Final = (
    b"Accept, Accept-Language, Authorization, Content-Language, Content-Type, Origin, X-Requested-With, "
    b"X-Timezone-Offset"
)
_VARY_PREFLIGHT: Final = b"Origin, Access-Control-Request-Method, Access-Control-Request-Headers"


class OriginPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Which origins and host names are answered."""

    origins: Collection[str] = ()
    """Further allowed origins (`https://host[:port]`); `*` allows all."""
    hosts: Collection[str] | None = None
    """Host names that the server goes by, besides the loopback ones; None takes any. Stops DNS rebinding."""

    def knows_host(self, host: str) -> bool:
        """Say whether a request with this `Host` header is meant for us."""
        name = _hostname(f"//{host}")
        return self.hosts is None or name in _LOOPBACK or name.endswith(".localhost") or name in self.hosts

    def allows(self, origin: str, host: str) -> bool:
        """Say whether pages of `origin` may talk to us, who were called `host`."""
        name = _hostname(origin)
        is_own = name != "" and name == _hostname(f"//{host}")
        return is_own or name in _LOOPBACK or "*" in self.origins or origin in self.origins

    def refuses(self, method: str, headers: Mapping[bytes, bytes]) -> bool:
        """Say whether this request must not be served at all.

        Reading is served without the headers that would let a foreign page see the answer; what changes something, or
        opens a WebSocket (method `WEBSOCKET`), needs no such leave in a browser and is refused here.
        """
        origin = headers.get(b"origin")
        if origin is None or method in _SAFE:
            return False
        return not self.allows(origin.decode("latin-1"), headers.get(b"host", b"").decode("latin-1"))

    def answer_headers(self, headers: Mapping[bytes, bytes]) -> Headers:
        """Return the headers that an answer to this request gets."""
        return [(b"vary", b"Origin"), *self._leave(headers)]

    def preflight(self, method: str, headers: Mapping[bytes, bytes]) -> Headers | None:
        """Return the headers of the answer to a preflight, or None when the request is none."""
        if method != "OPTIONS" or b"origin" not in headers or b"access-control-request-method" not in headers:
            return None
        return [
            (b"vary", _VARY_PREFLIGHT),
            (b"access-control-allow-methods", _METHODS),
            (b"access-control-allow-headers", _HEADERS),
            (b"access-control-max-age", b"86400"),
            (b"content-type", b"text/plain; charset=utf-8"),
            *self._leave(headers),
        ]

    def _leave(self, headers: Mapping[bytes, bytes]) -> Headers:
        origin = headers.get(b"origin", b"")
        if not origin or not self.allows(origin.decode("latin-1"), headers.get(b"host", b"").decode("latin-1")):
            return []
        return [(b"access-control-allow-origin", origin), (b"access-control-allow-credentials", b"true")]


def _hostname(url: str) -> str:
    try:
        return (urlsplit(url).hostname or "").lower()
    except ValueError:  # a malformed address in brackets
        return ""
