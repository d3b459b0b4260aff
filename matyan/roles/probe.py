"""Asks a server of this machine whether it is ready; made for health checks, which have no curl in a small image."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Final

from matyan.errors import UnavailableError
from matyan.settings import Settings

READY_PATH: Final = "/health/ready/"
SECONDS_MAX: Final = 5.0
_LOOPBACK: Final[Mapping[str, str]] = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "::1": "[::1]"}  # noqa: S104 - asked, not bound to


def url_of(settings: Settings) -> str:
    """Return where a server with these settings answers, seen from its own machine."""
    http = settings.http
    return f"http://{_LOOPBACK.get(http.host, http.host)}:{http.port}{http.base_path}"


def check_ready(url: str, *, timeout_seconds: float = SECONDS_MAX) -> Mapping[str, str]:
    """Ask the server at `url`; return what it says of each part when it takes requests.

    Raises:
        UnavailableError: nothing answers there, not in time, or it takes no requests; the message says which parts
            do not work.
    """
    # No proxy: the environment names those for the world outside.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{url.rstrip('/')}{READY_PATH}", timeout=timeout_seconds) as answer:
            return _checks(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            parts = "; ".join(f"{name}: {text}" for name, text in _checks(error.read()).items() if text != "ok")
        raise UnavailableError(f"{url} is not ready ({error.code}): {parts or 'it does not say why'}") from error
    except (OSError, ValueError) as error:  # ValueError: what we were given is no URL
        reason = getattr(error, "reason", None) or error
        raise UnavailableError(f"{url} does not answer: {reason}") from error


def _checks(body: bytes) -> Mapping[str, str]:
    """Return the parts that an answer names; none when it is not one of ours."""
    try:
        checks = json.loads(body)["checks"]
        return {str(name): str(text) for name, text in checks.items()}
    except (ValueError, LookupError, TypeError, AttributeError):
        return {}
