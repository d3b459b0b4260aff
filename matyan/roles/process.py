"""run_role: one process that runs a role; check_shared: what several of them must be told alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from matyan import threads
from matyan.errors import ConfigurationError
from matyan.http.app import BACKEND
from matyan.observe import logs
from matyan.roles.context import Context, make_context
from matyan.roles.parts import builds
from matyan.roles.runner import run
from matyan.roles.table import COMPONENTS, LOCAL
from matyan.settings import Settings
from matyan.workers.leases import ProcessLeases

Announce = Callable[[str], None]

PATIENCE_SECONDS: Final = 30.0
"""How long a role apart waits at its start for engines that others run: all may start together, in any order."""


def run_role(role: str, settings: Settings, *, announce: Announce, patience_seconds: float = 0.0) -> None:
    """Run the parts of a role until a signal or a failure; `announce` gets the URL when everything answers.

    `patience_seconds` is how long an engine that is not there yet is waited for.

    Raises:
        ConfigurationError: a port is in use, or an engine cannot be opened. And the error of a part that failed.
    """
    logs.set_up(settings.logging.level, settings.logging.format)
    threads.configure(query_threads=settings.query.threads)
    context = make_context(settings, component=COMPONENTS.get(role, BACKEND))
    if role == LOCAL and not settings.kv.uri:  # whoever holds the data directory is alone at its store
        context.leases = ProcessLeases()
    run(
        builds(role, context),
        metrics=context.metrics,
        announce=lambda: announce(_url(context)),
        patience_seconds=patience_seconds,
    )


def run_apart(role: str, settings: Settings, *, announce: Announce) -> None:
    """Run a role beside others in processes of their own, on engines that all of them reach.

    Raises:
        ConfigurationError: the settings name no such engines or no secrets; every fault is told.
        And what `run_role` raises.
    """
    check_shared(settings)
    run_role(role, settings, announce=announce, patience_seconds=PATIENCE_SECONDS)


def check_shared(settings: Settings) -> None:
    """Refuse settings with which this process would work by itself.

    Raises:
        ConfigurationError: with every fault, one a line.
    """
    if faults := list(_faults(settings)):
        raise ConfigurationError("\n".join(faults))


def _faults(settings: Settings) -> Iterator[str]:
    if not settings.kv.uri:
        yield "kv.uri is not set: all roles share one store; name it, such as fdb:///etc/foundationdb/fdb.cluster"
    if not settings.log_uri.startswith("kafka://"):
        yield "log.uri must be kafka://host:port: the log in files serves one process, use `matyan up` with that"
    if not settings.blob.uri:
        yield "blob.uri is not set: all roles share one store of files; name it, such as s3://bucket"
    if not settings.secrets.keys:
        yield (
            "secrets.keys is not set: all roles sign with the same secrets; make one with "
            "`python -c 'import secrets; print(secrets.token_urlsafe(48))'` and give it to every role as "
            "MATYAN_SECRETS_KEYS"
        )


def _url(context: Context) -> str:
    assert context.http is not None, "announced after everything has started"
    http = context.settings.http
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "::1": "[::1]"}.get(http.host, http.host)  # noqa: S104 - shown, not bound to
    return f"http://{host}:{context.http.ports[0]}{http.base_path}/"
