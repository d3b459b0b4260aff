"""Files of a run over HTTP: one, or all of them as a ZIP."""

from __future__ import annotations

import re
from typing import Any, Final

from litestar import Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery

from matyan.http.openapi import streams
from matyan.http.streaming import stream
from matyan.ids import RunId
from matyan.runs.artifacts import ZIP_TYPE, attachment, checked
from matyan.runs.service import RunService
from matyan.threads import download_pool, run_blocking

_MEDIA_TYPE: Final = re.compile(r"[\w.+-]+/[\w.+-]+(; ?[\w.+-]+=[\w.+-]+)*", re.ASCII)


@get(
    "/runs/{run_id:str}/artifacts/download",
    operation_id="downloadArtifact",
    responses=streams("The file, with the content type it was uploaded with.", "*/*"),
)
async def download(run_id: FromPath[str], path: FromQuery[str], runs: NamedDependency[RunService]) -> Response[Any]:
    """Send one file of a run, with the content type it was uploaded with."""
    found = await run_blocking(runs.open_artifact, RunId(run_id), path)
    kind = found.info.content_type
    return stream(
        lambda: checked(found.chunks),
        pool=download_pool(),
        content_type=kind if _MEDIA_TYPE.fullmatch(kind) else "application/octet-stream",
        # Always an attachment: a page of somebody else's making must not run as one of ours.
        headers={
            "content-disposition": attachment(path),
            "content-length": str(found.info.size_bytes),
            "x-content-type-options": "nosniff",
        },
    )


@get(
    "/runs/{run_id:str}/artifacts/download-all",
    operation_id="downloadArtifacts",
    responses=streams("The files.", ZIP_TYPE),
)
async def download_all(run_id: FromPath[str], runs: NamedDependency[RunService]) -> Response[Any]:
    """Send all files of a run as a ZIP with their paths; 404 when there is none."""
    return stream(
        lambda: runs.zip_artifacts(RunId(run_id)),
        pool=download_pool(),
        content_type=ZIP_TYPE,
        headers={"content-disposition": attachment(f"{run_id}-artifacts.zip"), "x-content-type-options": "nosniff"},
    )


ARTIFACT_ROUTES: Final = (download, download_all)
"""Downloads of the files of runs."""
