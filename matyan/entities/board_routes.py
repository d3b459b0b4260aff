"""Apps (saved explorer states), dashboards (their names) and reports over HTTP."""

from __future__ import annotations

import json
import uuid
from typing import Any, Final

import msgspec
from litestar import Response, delete, get, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody

from matyan.catalog.documents import App, Report
from matyan.entities.boards import BoardService, Shown
from matyan.errors import InvalidArgumentError
from matyan.http.answers import json_response
from matyan.http.dialect import Dialect
from matyan.http.openapi import answers, deletes
from matyan.runs.notes import Moment, moment
from matyan.threads import run_blocking


class NewApp(msgspec.Struct, frozen=True):
    """The state to save: free JSON of the UI."""

    type: str
    state: dict[str, Any]


class AppEdit(msgspec.Struct, frozen=True):
    """What to change."""

    type: str | None = None
    state: dict[str, Any] | None = None


class AppAnswer(msgspec.Struct, frozen=True):
    """A saved state."""

    id: str
    type: str
    updated_at: Moment
    created_at: Moment
    state: msgspec.Raw


class NewDashboard(msgspec.Struct, frozen=True):
    """The bookmark to make."""

    name: str
    description: str | None = None
    app_id: uuid.UUID | None = None


class DashboardEdit(msgspec.Struct, frozen=True):
    """What to change."""

    name: str | None = None
    description: str | None = None


class DashboardAnswer(msgspec.Struct, frozen=True):
    """A bookmark; `app_type` says which page it opens."""

    id: str
    name: str
    description: str | None
    app_id: str | None
    app_type: str | None
    updated_at: Moment
    created_at: Moment


class NewReport(msgspec.Struct, frozen=True):
    """The report to make."""

    name: str
    code: str | None = None
    description: str | None = None


class ReportEdit(msgspec.Struct, frozen=True):
    """What to change."""

    name: str | None = None
    code: str | None = None
    description: str | None = None


class ReportAnswer(msgspec.Struct, frozen=True):
    """A report."""

    id: str
    name: str
    code: str | None
    description: str | None
    updated_at: Moment
    created_at: Moment


# ---- apps


@get("/apps", operation_id="listApps", responses=answers(list[AppAnswer], "All saved states."))
async def list_apps(boards: NamedDependency[BoardService], dialect: NamedDependency[Dialect]) -> Response[bytes]:
    """Return all saved states."""
    return json_response([_app(app, dialect) for app in await run_blocking(boards.list_apps)])


@post("/apps", operation_id="createApp", responses=answers(AppAnswer, "What was made.", status=201))
async def create_app(
    data: JSONBody[NewApp], boards: NamedDependency[BoardService], dialect: NamedDependency[Dialect]
) -> Response[bytes]:
    """Save a state."""
    app = await run_blocking(boards.create_app, data.type, _state_text(data.state))
    return json_response(_app(app, dialect), status=201)


@get("/apps/{app_id:str}", operation_id="getApp", responses=answers(AppAnswer, "What is there."))
async def get_app(
    app_id: FromPath[str], boards: NamedDependency[BoardService], dialect: NamedDependency[Dialect]
) -> Response[bytes]:
    """Return a saved state."""
    return json_response(_app(await run_blocking(boards.get_app, app_id), dialect))


@put("/apps/{app_id:str}", operation_id="editApp", responses=answers(AppAnswer, "As it is now."))
async def edit_app(
    app_id: FromPath[str],
    data: JSONBody[AppEdit],
    boards: NamedDependency[BoardService],
    dialect: NamedDependency[Dialect],
) -> Response[bytes]:
    """Replace a saved state."""
    state = None if data.state is None else _state_text(data.state)
    return json_response(_app(await run_blocking(boards.edit_app, app_id, kind=data.type, state=state), dialect))


@delete("/apps/{app_id:str}", status_code=200, operation_id="deleteApp", responses=deletes("It is gone."))
async def delete_app(
    app_id: FromPath[str], boards: NamedDependency[BoardService], dialect: NamedDependency[Dialect]
) -> Response[bytes]:
    """Delete a saved state."""
    await run_blocking(boards.delete_app, app_id)
    return _deleted(dialect)


# ---- dashboards


@get("/dashboards", operation_id="listDashboards", responses=answers(list[DashboardAnswer], "All bookmarks."))
async def list_dashboards(boards: NamedDependency[BoardService], dialect: NamedDependency[Dialect]) -> Response[bytes]:
    """Return all bookmarks, the one changed last at the end."""
    return json_response([_dashboard(shown, dialect) for shown in await run_blocking(boards.list_dashboards)])


@post("/dashboards", operation_id="createDashboard", responses=answers(DashboardAnswer, "What was made.", status=201))
async def create_dashboard(
    data: JSONBody[NewDashboard], boards: NamedDependency[BoardService], dialect: NamedDependency[Dialect]
) -> Response[bytes]:
    """Make a bookmark."""
    app_id = None if data.app_id is None else str(data.app_id)
    shown = await run_blocking(boards.create_dashboard, data.name, description=data.description, app_id=app_id)
    return json_response(_dashboard(shown, dialect), status=201)


@get(
    "/dashboards/{dashboard_id:str}", operation_id="getDashboard", responses=answers(DashboardAnswer, "What is there.")
)
async def get_dashboard(
    dashboard_id: FromPath[str], boards: NamedDependency[BoardService], dialect: NamedDependency[Dialect]
) -> Response[bytes]:
    """Return a bookmark."""
    return json_response(_dashboard(await run_blocking(boards.get_dashboard, dashboard_id), dialect))


@put(
    "/dashboards/{dashboard_id:str}", operation_id="editDashboard", responses=answers(DashboardAnswer, "As it is now.")
)
async def edit_dashboard(
    dashboard_id: FromPath[str],
    data: JSONBody[DashboardEdit],
    boards: NamedDependency[BoardService],
    dialect: NamedDependency[Dialect],
) -> Response[bytes]:
    """Rename a bookmark."""
    shown = await run_blocking(boards.edit_dashboard, dashboard_id, name=data.name, description=data.description)
    return json_response(_dashboard(shown, dialect))


@delete(
    "/dashboards/{dashboard_id:str}", status_code=200, operation_id="deleteDashboard", responses=deletes("It is gone.")
)
async def delete_dashboard(
    dashboard_id: FromPath[str], boards: NamedDependency[BoardService], dialect: NamedDependency[Dialect]
) -> Response[bytes]:
    """Delete a bookmark."""
    await run_blocking(boards.delete_dashboard, dashboard_id)
    return _deleted(dialect)


# ---- reports


@get("/reports", operation_id="listReports", responses=answers(list[ReportAnswer], "All reports."))
async def list_reports(boards: NamedDependency[BoardService], dialect: NamedDependency[Dialect]) -> Response[bytes]:
    """Return all reports, the one changed last at the end."""
    return json_response([_report(report, dialect) for report in await run_blocking(boards.list_reports)])


@post("/reports", operation_id="createReport", responses=answers(ReportAnswer, "What was made.", status=201))
async def create_report(
    data: JSONBody[NewReport], boards: NamedDependency[BoardService], dialect: NamedDependency[Dialect]
) -> Response[bytes]:
    """Make a report."""
    report = await run_blocking(boards.create_report, data.name, code=data.code, description=data.description)
    return json_response(_report(report, dialect), status=201)


@get("/reports/{report_id:str}", operation_id="getReport", responses=answers(ReportAnswer, "What is there."))
async def get_report(
    report_id: FromPath[str], boards: NamedDependency[BoardService], dialect: NamedDependency[Dialect]
) -> Response[bytes]:
    """Return a report."""
    return json_response(_report(await run_blocking(boards.get_report, report_id), dialect))


@put("/reports/{report_id:str}", operation_id="editReport", responses=answers(ReportAnswer, "As it is now."))
async def edit_report(
    report_id: FromPath[str],
    data: JSONBody[ReportEdit],
    boards: NamedDependency[BoardService],
    dialect: NamedDependency[Dialect],
) -> Response[bytes]:
    """Change a report."""
    report = await run_blocking(
        boards.edit_report, report_id, name=data.name, code=data.code, description=data.description
    )
    return json_response(_report(report, dialect))


@delete("/reports/{report_id:str}", status_code=200, operation_id="deleteReport", responses=deletes("It is gone."))
async def delete_report(
    report_id: FromPath[str], boards: NamedDependency[BoardService], dialect: NamedDependency[Dialect]
) -> Response[bytes]:
    """Delete a report."""
    await run_blocking(boards.delete_report, report_id)
    return _deleted(dialect)


def _state_text(state: dict[str, Any]) -> bytes:
    """Return the state as JSON text, lone surrogates escaped as they came."""
    try:
        return json.dumps(state, allow_nan=False, separators=(",", ":")).encode()
    except ValueError as error:
        raise InvalidArgumentError("the state holds NaN or Infinity, which no browser can read back") from error


def _app(app: App, dialect: Dialect) -> AppAnswer:
    updated, created = moment(app.updated_at_seconds, dialect), moment(app.created_at_seconds, dialect)
    return AppAnswer(app.id, app.type, updated, created, msgspec.Raw(app.state))


def _dashboard(shown: Shown, dialect: Dialect) -> DashboardAnswer:
    board, app = shown
    return DashboardAnswer(
        board.id,
        board.name,
        board.description,
        board.app_id,
        None if app is None else app.type,
        moment(board.updated_at_seconds, dialect),
        moment(board.created_at_seconds, dialect),
    )


def _report(report: Report, dialect: Dialect) -> ReportAnswer:
    return ReportAnswer(
        report.id,
        report.name,
        report.code,
        report.description,
        moment(report.updated_at_seconds, dialect),
        moment(report.created_at_seconds, dialect),
    )


def _deleted(dialect: Dialect) -> Response[bytes]:
    """Return `null`, or nothing at all where the dialect says 204."""
    if dialect.delete_status == 204:  # noqa: PLR2004 - the one status without a body
        return Response(b"", status_code=204)
    return json_response(None, status=dialect.delete_status)


BOARD_ROUTES: Final = (
    list_apps,
    create_app,
    get_app,
    edit_app,
    delete_app,
    list_dashboards,
    create_dashboard,
    get_dashboard,
    edit_dashboard,
    delete_dashboard,
    list_reports,
    create_report,
    get_report,
    edit_report,
    delete_report,
)
