"""BoardService: apps, dashboards and reports, as the UI saves them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from matyan.catalog import documents
from matyan.catalog.documents import App, D, Dashboard, Documents, Report
from matyan.clock import Clock, SystemClock
from matyan.engines.kv.protocol import KvEngine, KvReader, KvTransaction
from matyan.errors import NotFoundError
from matyan.ids import DEFAULT_PROJECT, Project, make_id


class Shown(NamedTuple):
    """A dashboard with its app, if that is still there."""

    dashboard: Dashboard
    app: App | None


class BoardService:
    """Saved documents of a project. What is not there raises NotFoundError."""

    def __init__(self, *, kv: KvEngine, clock: Clock | None = None) -> None:
        self._kv = kv
        self._clock = clock or SystemClock()

    # ---- apps

    def list_apps(self, *, project: Project = DEFAULT_PROJECT) -> list[App]:
        """Return all apps in the order of creation."""
        found = self._kv.read(lambda reader: documents.apps.list(reader, project))
        return sorted(found, key=lambda app: (app.created_at_seconds, app.id))

    def get_app(self, app_id: str, *, project: Project = DEFAULT_PROJECT) -> App:
        """Return an app."""
        return self._kv.read(lambda reader: _require(reader, project, documents.apps, app_id))

    def create_app(self, kind: str, state: bytes, *, project: Project = DEFAULT_PROJECT) -> App:
        """Save a state of a page; `state` is JSON text."""
        now = self._clock.now_seconds()
        app = App(id=make_id(), type=kind, state=state, created_at_seconds=now, updated_at_seconds=now)
        self._kv.write(lambda tx: documents.apps.put(tx, project, app))
        return app

    def edit_app(
        self, app_id: str, *, kind: str | None, state: bytes | None, project: Project = DEFAULT_PROJECT
    ) -> App:
        """Change an app; None, or an empty kind, leaves it as it is."""
        changes = {"type": kind or None, "state": state}
        return self._edit(documents.apps, app_id, changes, project)

    def delete_app(self, app_id: str, *, project: Project = DEFAULT_PROJECT) -> None:
        """Delete an app."""
        self._delete(documents.apps, app_id, project)

    # ---- dashboards

    def list_dashboards(self, *, project: Project = DEFAULT_PROJECT) -> list[Shown]:
        """Return all dashboards, the one changed last at the end."""

        def read(reader: KvReader) -> list[Shown]:
            found = sorted(documents.dashboards.list(reader, project), key=_changed)
            ids = sorted({one.app_id for one in found if one.app_id is not None})
            apps = documents.apps.get_many(reader, project, ids)
            return [Shown(one, apps.get(one.app_id or "")) for one in found]

        return self._kv.read(read)

    def get_dashboard(self, dashboard_id: str, *, project: Project = DEFAULT_PROJECT) -> Shown:
        """Return a dashboard."""

        def read(reader: KvReader) -> Shown:
            found = _require(reader, project, documents.dashboards, dashboard_id)
            return Shown(found, documents.apps.get(reader, project, found.app_id or ""))

        return self._kv.read(read)

    def create_dashboard(
        self, name: str, *, description: str | None, app_id: str | None, project: Project = DEFAULT_PROJECT
    ) -> Shown:
        """Make a dashboard for an app; an unknown app counts as none."""
        now, fresh_id = self._clock.now_seconds(), make_id()

        def write(tx: KvTransaction) -> Shown:
            app = None if app_id is None else documents.apps.get(tx, project, app_id)
            dashboard = Dashboard(
                id=fresh_id,
                name=name,
                description=description,
                app_id=None if app is None else app.id,
                created_at_seconds=now,
                updated_at_seconds=now,
            )
            documents.dashboards.put(tx, project, dashboard)
            return Shown(dashboard, app)

        return self._kv.write(write)

    def edit_dashboard(
        self, dashboard_id: str, *, name: str | None, description: str | None, project: Project = DEFAULT_PROJECT
    ) -> Shown:
        """Change a dashboard; None and empty texts leave it as it is."""
        changes = {"name": name or None, "description": description or None}
        self._edit(documents.dashboards, dashboard_id, changes, project)
        return self.get_dashboard(dashboard_id, project=project)

    def delete_dashboard(self, dashboard_id: str, *, project: Project = DEFAULT_PROJECT) -> None:
        """Delete a dashboard; its app stays."""
        self._delete(documents.dashboards, dashboard_id, project)

    # ---- reports

    def list_reports(self, *, project: Project = DEFAULT_PROJECT) -> list[Report]:
        """Return all reports, the one changed last at the end."""
        return sorted(self._kv.read(lambda reader: documents.reports.list(reader, project)), key=_changed)

    def get_report(self, report_id: str, *, project: Project = DEFAULT_PROJECT) -> Report:
        """Return a report."""
        return self._kv.read(lambda reader: _require(reader, project, documents.reports, report_id))

    def create_report(
        self, name: str, *, code: str | None, description: str | None, project: Project = DEFAULT_PROJECT
    ) -> Report:
        """Make a report."""
        now = self._clock.now_seconds()
        report = Report(
            id=make_id(),
            name=name,
            code=code,
            description=description,
            created_at_seconds=now,
            updated_at_seconds=now,
        )
        self._kv.write(lambda tx: documents.reports.put(tx, project, report))
        return report

    def edit_report(
        self,
        report_id: str,
        *,
        name: str | None,
        code: str | None,
        description: str | None,
        project: Project = DEFAULT_PROJECT,
    ) -> Report:
        """Change a report; None leaves a text as it is, an empty one is stored."""
        changes = {"name": name, "code": code, "description": description}
        return self._edit(documents.reports, report_id, changes, project)

    def delete_report(self, report_id: str, *, project: Project = DEFAULT_PROJECT) -> None:
        """Delete a report."""
        self._delete(documents.reports, report_id, project)

    # ---- all

    def _edit(
        self, kind: Documents[D], document_id: str, changes: Mapping[str, str | bytes | None], project: Project
    ) -> D:
        given = {field: value for field, value in changes.items() if value is not None}
        now = self._clock.now_seconds()

        def write(tx: KvTransaction) -> D:
            before = _require(tx, project, kind, document_id)
            if not given:
                return before
            after = msgspec.structs.replace(before, updated_at_seconds=now, **given)
            kind.put(tx, project, after)
            return after

        return self._kv.write(write)

    def _delete(self, kind: Documents[D], document_id: str, project: Project) -> None:
        def write(tx: KvTransaction) -> None:
            _require(tx, project, kind, document_id)
            kind.clear(tx, project, document_id)

        self._kv.write(write)


def _require(reader: KvReader, project: Project, kind: Documents[D], document_id: str) -> D:
    document = kind.get(reader, project, document_id)
    if document is None:
        raise NotFoundError("Not Found")
    return document


def _changed(document: Dashboard | Report) -> tuple[float, str]:
    return document.updated_at_seconds, document.id
