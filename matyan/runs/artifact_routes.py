"""Files of a run over HTTP."""

from __future__ import annotations

import re
from typing import Any, Final
from urllib.parse import quote

from litestar import Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery

from matyan.http.streaming import stream
from matyan.ids import RunId
from matyan.runs.service import RunService
from matyan.threads import blocking_pool, run_blocking

_MEDIA_TYPE: Final = re.compile(r"[\w.+-]+/[\w.+-]+(; ?[\w.+-]+=[\w.+-]+)*", re.ASCII)


@get("/runs/{run_id:str}/artifacts/download", operation_id="downloadArtifact")
async def download(run_id: FromPath[str], path: FromQuery[str], runs: NamedDependency[RunService]) -> Response[Any]:
    """Send one file of a run, with the content type it was uploaded with."""
    found = await run_blocking(runs.open_artifact, RunId(run_id), path)
    kind = found.info.content_type
    name = quote(path.rpartition("/")[2], safe="", errors="replace")
    return await stream(
        lambda: found.chunks,
        pool=blocking_pool(),
        content_type=kind if _MEDIA_TYPE.fullmatch(kind) else "application/octet-stream",
        # Always an attachment: a page of somebody else's making must not run as one of ours.
        headers={"content-disposition": f"attachment; filename*=UTF-8''{name}", "x-content-type-options": "nosniff"},
    )


ARTIFACT_ROUTES: Final = (download,)
