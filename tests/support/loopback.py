"""HTTP to servers of this machine: no proxy on the way, and no certificates read.

Reading the certificates of the world's authorities takes 35 ms of processor time for each client that httpx makes; who
waits for a server to come up asks it many times, and would slow it down more than its own start takes.
"""

from __future__ import annotations

from typing import Any

import httpx


def client(origin: str = "", *, timeout: float = 30, **options: Any) -> httpx.Client:
    """Make a client of a server without TLS."""
    return httpx.Client(base_url=origin, timeout=timeout, trust_env=False, verify=False, **options)


def get(url: str, *, timeout: float = 30, **options: Any) -> httpx.Response:
    """Ask once, on a connection of its own."""
    return httpx.get(url, timeout=timeout, trust_env=False, verify=False, **options)
