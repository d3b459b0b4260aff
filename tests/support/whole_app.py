"""The app of `matyan up` in this process: every route and service, built by the product's own parts, not listening."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from litestar import Litestar

from matyan.configuration import load
from matyan.roles.context import Context, make_context
from matyan.roles.parts import builds


class WholeApp:
    """The app and what was built for it."""

    def __init__(self, app: Litestar, context: Context) -> None:
        self.app = app
        self.context = context

    def operations(self) -> list[tuple[str, str]]:
        """Return method and path, `/api/runs/{run_id:str}`, of every HTTP route that is part of the interface."""
        return sorted(
            (method, route.path)
            for route in self.app.routes
            for method, handler in _handlers(route)
            if handler.resolve_include_in_schema()
        )


@contextmanager
def whole_app(home: Path, **flags: Any) -> Iterator[WholeApp]:
    """Yield the app on embedded engines in `home`; `http__base_path="/x"` sets `http.base_path`."""
    settings = load(
        environ={}, flags={"data.home": str(home)} | {name.replace("__", "."): value for name, value in flags.items()}
    )
    context = make_context(settings)
    with ExitStack() as stack:
        for build in builds("local", context):
            built = build()
            if built.close is not None:
                stack.callback(built.close)
        assert context.http is not None
        app = context.http._app
        assert isinstance(app, Litestar)
        yield WholeApp(app, context)


def _handlers(route: Any) -> Iterator[tuple[str, Any]]:
    for method, (handler, _) in getattr(route, "route_handler_map", {}).items():
        if method != "OPTIONS":
            yield method, handler
